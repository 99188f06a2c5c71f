"""The store in memory against a model, over random interleavings of all that is done to it."""

from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import pytest

from chainserve.errors import RunIdInUseError
from chainserve.stores.base import (
    BEFORE_FIRST,
    IdempotencyKey,
    LogNotFoundError,
    LogTruncatedError,
    Unwatch,
)
from chainserve.stores.memory import MemoryStore
from chainserve.types import RunId
from chainserve.wire.events import Event, end_event, error_event
from tests.contract._model import Bounds, Model, ModelRun
from tests.contract._stores import record

Result = TypeVar("Result")

IDS = [RunId(name) for name in "abcdef"]
BOUNDS = {
    "wide": Bounds(
        max_log_bytes=10**6, max_run_log_bytes=10**6, max_runs=100, log_ttl=10, run_ttl=30
    ),
    "few bytes": Bounds(
        max_log_bytes=1500, max_run_log_bytes=900, max_runs=100, log_ttl=10, run_ttl=30
    ),
    "few runs": Bounds(
        max_log_bytes=10**6, max_run_log_bytes=900, max_runs=3, log_ttl=10, run_ttl=30
    ),
    "records first": Bounds(
        max_log_bytes=1500, max_run_log_bytes=1500, max_runs=4, log_ttl=30, run_ttl=10
    ),
}
SEEDS = 100
STEPS_A_SEED = 150
STEPS = {
    "create": 6,
    "append": 8,
    "finish": 4,
    "watch": 4,
    "unwatch": 4,
    "advance": 4,
    "read": 4,
    "list_runs": 1,
    "delete": 1,
}
"""What may be done, and how often beside the rest."""


@dataclass(eq=False)
class Watch:
    """A watcher of the store with that of the model."""

    run: ModelRun | None
    leave: Unwatch
    woken: list[bool]
    expected: list[bool]


class Interleaving:
    """Does the same to the store and to the model, at random, and compares what can be seen."""

    def __init__(self, bounds: Bounds, seed: int) -> None:
        self.random = Random(seed)
        self.model = Model(bounds)
        self.store = MemoryStore(
            max_log_bytes=bounds.max_log_bytes,
            max_run_log_bytes=bounds.max_run_log_bytes,
            max_runs=bounds.max_runs,
            log_ttl=bounds.log_ttl,
            run_ttl=bounds.run_ttl,
            clock=lambda: self.model.now,
        )
        # Fewer runs are each written and read more.
        self.ids = IDS[: self.random.randint(2, len(IDS))]
        self.watches: list[Watch] = []
        self.numbers = 0
        self.seen: Counter[str] = Counter()

    def step(self) -> None:
        name = self.random.choices([*STEPS], [*STEPS.values()])[0]
        getattr(self, name)(self.random.choice(self.ids))
        for watch in self.watches:
            assert watch.woken == watch.expected

    def create(self, run_id: RunId) -> None:
        choice = self.random.choice
        key = choice([None, IdempotencyKey(choice("xyz"), choice("12"))])
        new = record(
            run_id,
            path=choice(["/one", "/two"]),
            owner=choice([None, "ann"]),
            idempotency_key=key,
            epoch=str(self.number()),
        )
        log = choice([True, True, False])
        expected = self.model.create(new, log=log)
        if expected is None:
            with pytest.raises(RunIdInUseError):
                done(self.store.create(new, log=log))
        else:
            assert done(self.store.create(new, log=log)) == expected
        self.seen["attached"] += expected not in (None, new)
        self.check_number_of_runs()
        self.compare()

    def append(self, run_id: RunId) -> None:
        """Append what comes next, or again what is there, or what leaves a gap."""
        start = max(0, self.next_seq(run_id) + self.random.choice([0, 0, 0, 0, -1, -2, 1]))
        sizes = [self.random.randint(0, 300) for _ in range(self.random.randint(0, 4))]
        events = [self.event(start + index, size) for index, size in enumerate(sizes)]
        logs = self.ended_logs()
        self.model.append(run_id, events)
        self.seen["evicted"] += logs - self.ended_logs()
        done(self.store.append(run_id, events))
        self.compare()
        run = self.model.find(run_id)
        live_log = run is not None and run.live and run.events is not None
        if run is not None and live_log and self.model.size > self.model.bounds.max_log_bytes:
            assert len(run.kept) <= 1
            assert not any(other.size for other in self.model.ended)

    def finish(self, run_id: RunId) -> None:
        """End a run, well or as one that was cancelled, or try to end it again."""
        run, seq, choice = self.model.find(run_id), self.next_seq(run_id), self.random.choice
        known = run.record if run is not None else record(run_id)
        final = known._replace(
            status=choice(["success", "cancelled"]),
            retained=choice([True, True, True, False]),
            output=choice([None, b"x" * self.random.randint(1, 900)]),
        )
        ok = final.status == "success"
        terminal = end_event(seq) if ok else error_event(seq, {"code": "cancelled"})
        assert done(self.store.finish(final, terminal)) == self.model.finish(final, terminal)
        self.check_number_of_runs()
        self.compare()

    def delete(self, run_id: RunId) -> None:
        self.model.delete(run_id)
        done(self.store.delete(run_id))
        self.compare()

    def watch(self, run_id: RunId) -> None:
        run, expected = self.model.watch(run_id)
        woken: list[bool] = []
        self.watches.append(Watch(run, self.store.watch(run_id, woken.append), woken, expected))
        self.compare()

    def unwatch(self, _: RunId) -> None:
        """End one of the last watches, perhaps again."""
        if self.watches:
            self.leave(self.random.choice(self.watches[-8:]))

    def advance(self, _: RunId) -> None:
        """Let time pass; what that makes due is due in the next step, whichever it is."""
        self.model.now += self.random.choice([0.25, 0.25, 1, 1, 5, 10, 30])

    def read(self, run_id: RunId) -> None:
        """Read from a random cursor, at or past the end too."""
        after = self.random.randint(BEFORE_FIRST, self.next_seq(run_id) + 1)
        max_bytes = self.random.randint(0, 900)
        self.model.expire()
        run = self.model.find(run_id)
        reading = self.store.read_after(run_id, after, max_bytes=max_bytes)
        if run is None or run.events is None:
            with pytest.raises(LogNotFoundError):
                done(reading)
        elif after + 1 < run.first:
            self.seen["truncated"] += 1
            with pytest.raises(LogTruncatedError) as caught:
                done(reading)
            assert caught.value.earliest == run.first
        else:
            events, more = done(reading)
            rest = run.events[after + 1 :]
            assert list(events) == rest[: len(events)]
            assert events or not rest
            assert more == (len(events) < len(rest))
            size = sum(len(event.data) for event in events)
            assert size <= max_bytes or len(events) == 1
            assert not more or size + len(rest[len(events)].data) > max_bytes

    def list_runs(self, _: RunId) -> None:
        path, owner = self.random.choice(["/one", "/two"]), self.random.choice([None, "ann"])
        every_owner, limit = self.random.choice([True, False]), self.random.randint(0, 4)
        self.model.expire()
        expected = [
            run.record
            for run in reversed(self.model.runs)
            if run.record.path == path and (every_owner or run.record.owner == owner)
        ]
        listed = self.store.list_runs(path, owner=owner, every_owner=every_owner, limit=limit)
        assert list(done(listed)) == expected[:limit]

    def end(self) -> None:
        """See that nothing is left when all runs have ended and their time is over."""
        for watch in self.watches:
            self.leave(watch)
        for run_id in IDS:
            self.finish(run_id)
        self.model.now += 30
        self.store.expire()
        assert self.store.log_bytes == 0
        assert [done(self.store.get(run_id)) for run_id in IDS] == [None] * len(IDS)
        for scope in "xyz":
            new = record("new " + scope, idempotency_key=IdempotencyKey(scope, "3"))
            assert done(self.store.create(new, log=False)) == new

    def leave(self, watch: Watch) -> None:
        self.model.unwatch(watch.run, watch.expected)
        watch.leave()
        self.compare()

    def check_number_of_runs(self) -> None:
        """See that after a write no more runs are kept than may be, or than must be."""
        needed = [run for run in self.model.runs if run.live or run.watchers]
        assert len(self.model.runs) <= max(self.model.bounds.max_runs, len(needed))

    def compare(self) -> None:
        """See that the store holds what the model holds, and no more than it may."""
        bounds, model = self.model.bounds, self.model
        model.expire()
        for run_id in IDS:
            run = model.find(run_id)
            assert done(self.store.get(run_id)) == (run.record if run is not None else None)
            if run is not None and run.events is not None:
                self.compare_log(run_id, run)
        assert self.store.log_bytes == model.size
        for run in model.runs:
            assert run.log_size <= bounds.max_run_log_bytes or len(run.kept) == 1

    def compare_log(self, run_id: RunId, run: ModelRun) -> None:
        """See that all that is kept can be read, and that a terminal event is the last one."""
        events, more = done(self.store.read_after(run_id, run.first - 1, max_bytes=10**9))
        assert (list(events), more) == (run.kept, False)
        terminal = [event for event in events if event.terminal]
        assert terminal == [event for event in events[-1:] if not run.live and event.terminal]

    def ended_logs(self) -> int:
        self.model.expire()
        return sum(run.events is not None for run in self.model.ended)

    def next_seq(self, run_id: RunId) -> int:
        run = self.model.find(run_id)
        return len(run.events) if run is not None and run.events is not None else 0

    def event(self, seq: int, size: int) -> Event:
        """Return an event unlike any other, so that no two can be taken for one."""
        return Event(seq, "data", b"%d" % self.number() + b"." * size)

    def number(self) -> int:
        self.numbers += 1
        return self.numbers


def done(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a method of the store to its end; it must not suspend, so that it is one step."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    coroutine.close()
    raise AssertionError("the store suspended")


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS.keys())
def test_whatever_is_done_the_store_holds_what_its_model_holds(bounds: Bounds) -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        interleaving = Interleaving(bounds, seed)
        for _ in range(STEPS_A_SEED):
            interleaving.step()
        interleaving.end()
        seen += interleaving.seen

    assert seen["attached"] > SEEDS
    assert seen["truncated"] > 20 or bounds.max_run_log_bytes > 900
    assert seen["evicted"] > 20 or bounds.max_log_bytes > 1500
