"""The store in memory against a model, over random interleavings of all that is done to it."""

from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chainserve.errors import RunIdInUseError
from chainserve.stores.base import (
    BEFORE_FIRST,
    IdempotencyKey,
    LogNotFoundError,
    LogTruncatedError,
    Unwatch,
)
from chainserve.stores.memory import MemoryStore
from chainserve.types import RunId, RunStatus
from chainserve.wire.events import Event, end_event, error_event
from tests.contract._model import Bounds, Model, ModelRun
from tests.contract._stores import record

Result = TypeVar("Result")

IDS = [RunId(name) for name in "abcdef"]
WIDE = Bounds(max_log_bytes=10**6, max_run_log_bytes=10**6, max_runs=100, log_ttl=10, run_ttl=30)
NARROW = Bounds(max_log_bytes=2500, max_run_log_bytes=1200, max_runs=4, log_ttl=10, run_ttl=30)
SHORT = Bounds(max_log_bytes=2500, max_run_log_bytes=2500, max_runs=100, log_ttl=30, run_ttl=10)

ids = st.sampled_from(IDS)
owners = st.sampled_from([None, "ann"])
paths = st.sampled_from(["/one", "/two"])
keys = st.none() | st.builds(IdempotencyKey, st.sampled_from("xy"), st.sampled_from("12"))


@dataclass(eq=False)
class Watch:
    """A watcher of the store with that of the model."""

    run: ModelRun | None
    leave: Unwatch
    woken: list[bool]
    expected: list[bool]


class StoreMachine(RuleBasedStateMachine):
    """Does the same to the store and to the model, and compares what can be seen of them."""

    def __init__(self) -> None:
        super().__init__()
        self.watches: list[Watch] = []
        self.written = 0
        self.created = 0

    @initialize(bounds=st.sampled_from([WIDE, NARROW, NARROW, SHORT]))
    def start(self, bounds: Bounds) -> None:
        self.model = Model(bounds)
        self.store = MemoryStore(
            max_log_bytes=bounds.max_log_bytes,
            max_run_log_bytes=bounds.max_run_log_bytes,
            max_runs=bounds.max_runs,
            log_ttl=bounds.log_ttl,
            run_ttl=bounds.run_ttl,
            clock=lambda: self.model.now,
        )

    @rule(
        run_id=ids,
        key=keys,
        log=st.sampled_from([True, True, False]),
        owner=owners,
        path=paths,
        size=st.none() | st.integers(0, 300),
    )
    def create(
        self,
        run_id: RunId,
        key: IdempotencyKey | None,
        log: bool,
        owner: str | None,
        path: str,
        size: int | None,
    ) -> None:
        """Create a run, and perhaps write to it at once."""
        self.created += 1
        new = record(run_id, path=path, owner=owner, idempotency_key=key, epoch=str(self.created))
        expected = self.model.create(new, log=log)
        if expected is None:
            with pytest.raises(RunIdInUseError):
                done(self.store.create(new, log=log))
        else:
            assert done(self.store.create(new, log=log)) == expected
        self.check_number()
        self.compare()
        if size is not None:
            self.append(run_id, 0, [size])

    @rule(
        run_id=ids,
        offset=st.sampled_from([0, 0, 0, 0, -1, -2, 1]),
        sizes=st.lists(st.integers(0, 300), max_size=4),
    )
    def append(self, run_id: RunId, offset: int, sizes: list[int]) -> None:
        """Append what comes next, or again what is there, or what leaves a gap."""
        start = max(0, self.next_seq(run_id) + offset)
        events = [self.event(start + index, size) for index, size in enumerate(sizes)]
        self.model.append(run_id, events)
        done(self.store.append(run_id, events))
        self.compare()
        run = self.model.find(run_id)
        if self.model.size > self.model.bounds.max_log_bytes and run is not None and run.live:
            assert len(run.kept) <= 1
            assert not any(other.size for other in self.model.ended)

    @rule(
        run_id=ids,
        status=st.sampled_from(["success", "error", "cancelled"]),
        retained=st.sampled_from([True, True, True, False]),
        output=st.none() | st.integers(1, 900),
        with_terminal=st.sampled_from([True, True, True, False]),
    )
    def finish(
        self,
        run_id: RunId,
        status: RunStatus,
        retained: bool,
        output: int | None,
        with_terminal: bool,
    ) -> None:
        run = self.model.find(run_id)
        final = replace(
            run.record if run is not None else record(run_id),
            status=status,
            retained=retained,
            output=b"x" * output if output is not None else None,
        )
        seq = self.next_seq(run_id)
        end = end_event(seq) if status == "success" else error_event(seq, {"code": status})
        terminal = end if with_terminal else None
        assert done(self.store.finish(final, terminal)) == self.model.finish(final, terminal)
        self.check_number()
        self.compare()

    @rule(run_id=ids, really=st.sampled_from([True, False, False]))
    def delete(self, run_id: RunId, really: bool) -> None:
        """Forget a run, but seldom, since that ends much that could happen."""
        if really:
            self.model.delete(run_id)
            done(self.store.delete(run_id))
            self.compare()

    @rule(run_id=ids)
    def watch(self, run_id: RunId) -> None:
        run, expected = self.model.watch(run_id)
        woken: list[bool] = []
        self.watches.append(Watch(run, self.store.watch(run_id, woken.append), woken, expected))
        self.compare()

    @rule(choice=st.integers(0, 7))
    def unwatch(self, choice: int) -> None:
        """End one of the last watches, perhaps again."""
        for watch in self.watches[-1 - choice :][:1]:
            self.leave(watch)

    @rule(seconds=st.sampled_from([0.25, 1, 5, 10, 30]))
    def advance(self, seconds: float) -> None:
        """Let time pass; what that makes due is due in the next step, whichever it is."""
        self.model.now += seconds

    @rule(run_id=ids, after=st.integers(BEFORE_FIRST, 20), max_bytes=st.integers(0, 1500))
    def read(self, run_id: RunId, after: int, max_bytes: int) -> None:
        self.model.expire()
        run = self.model.find(run_id)
        if run is None or run.events is None:
            with pytest.raises(LogNotFoundError):
                done(self.store.read_after(run_id, after, max_bytes=max_bytes))
        elif after + 1 < run.first:
            with pytest.raises(LogTruncatedError) as caught:
                done(self.store.read_after(run_id, after, max_bytes=max_bytes))
            assert caught.value.earliest == run.first
        else:
            events, more = done(self.store.read_after(run_id, after, max_bytes=max_bytes))
            rest = run.events[after + 1 :]
            assert list(events) == rest[: len(events)]
            assert more == (len(events) < len(rest))
            size = sum(len(event.data) for event in events)
            assert size <= max_bytes or len(events) == 1
            assert not more or size + len(rest[len(events)].data) > max_bytes

    @rule(path=paths, owner=owners, every_owner=st.booleans(), limit=st.integers(0, 4))
    def list_runs(self, path: str, owner: str | None, every_owner: bool, limit: int) -> None:
        self.model.expire()
        expected = [
            run.record
            for run in reversed(self.model.runs)
            if run.record.path == path and (every_owner or run.record.owner == owner)
        ]
        listed = self.store.list_runs(path, owner=owner, every_owner=every_owner, limit=limit)
        assert list(done(listed)) == expected[:limit]

    @invariant()
    def watchers_are_woken(self) -> None:
        for watch in self.watches:
            assert watch.woken == watch.expected

    def teardown(self) -> None:
        """See that nothing is left when all runs have ended and their time is over."""
        for watch in self.watches:
            self.leave(watch)
        for run_id in IDS:
            self.finish(run_id, "success", True, 10, True)
        self.model.now += 30
        self.store.expire()
        self.watchers_are_woken()
        assert self.store.log_bytes == 0
        assert [done(self.store.get(run_id)) for run_id in IDS] == [None] * len(IDS)
        for scope in "xy":
            new = record("new " + scope, idempotency_key=IdempotencyKey(scope, "3"))
            assert done(self.store.create(new, log=False)) == new

    def leave(self, watch: Watch) -> None:
        self.model.unwatch(watch.run, watch.expected)
        watch.leave()
        self.compare()

    def check_number(self) -> None:
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

    def next_seq(self, run_id: RunId) -> int:
        run = self.model.find(run_id)
        return len(run.events) if run is not None and run.events is not None else 0

    def event(self, seq: int, size: int) -> Event:
        """Return an event unlike any other, so that no two can be taken for one."""
        self.written += 1
        return Event(seq, "data", b"%d" % self.written + b"." * size)


def done(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a method of the store to its end; it must not suspend, so that it is one step."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    coroutine.close()
    raise AssertionError("the store suspended")


StoreMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreAgainstItsModel = StoreMachine.TestCase
