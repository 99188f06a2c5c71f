"""A model of the store in memory: no index and no sum is kept, all is found by looking.

It says what each call must return, what each watcher must have been told, and what is left.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from chainserve.stores.base import RunRecord
from chainserve.stores.log import EVENT_OVERHEAD_BYTES
from chainserve.types import RunId
from chainserve.wire.events import Event


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The arguments of the store."""

    max_log_bytes: int
    max_run_log_bytes: int
    max_runs: int
    log_ttl: float
    run_ttl: float


@dataclass(eq=False)
class ModelRun:
    """A run with all events that were ever accepted; those before `first` are gone."""

    record: RunRecord
    events: list[Event] | None
    key: str | None
    first: int = 0
    ended_at: float | None = None
    watchers: list[list[bool]] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.ended_at is None

    @property
    def kept(self) -> list[Event]:
        return self.events[self.first :] if self.events is not None else []

    @property
    def log_size(self) -> int:
        return sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in self.kept)

    @property
    def size(self) -> int:
        return self.log_size + len(self.record.output or b"")

    def accept(self, events: Iterable[Event]) -> None:
        if self.events is not None and self.ended_at is None:
            for event in events:
                self.events += [event] if event.seq == len(self.events) else []

    def trim(self, bound: int) -> None:
        if self.log_size > bound:
            while self.log_size > bound - bound // 16 and len(self.kept) > 1:
                self.first += 1

    def wake(self, ended: bool) -> None:
        for told in self.watchers:
            told.append(ended)


class Model:
    """What a store with these bounds holds, and what its clock says.

    Attributes:
        runs: The runs in the order in which they were created.
        ended: Those that have ended, in the order in which they did.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.now = 0.0
        self.runs: list[ModelRun] = []
        self.ended: list[ModelRun] = []

    @property
    def size(self) -> int:
        return sum(run.size for run in self.runs)

    def find(self, run_id: RunId) -> ModelRun | None:
        return next((run for run in self.runs if run.record.run_id == run_id), None)

    def create(self, record: RunRecord, *, log: bool) -> RunRecord | None:
        """Return the record that `create` returns; None if the id is in use."""
        self.expire()
        key = record.idempotency_key.scope if record.idempotency_key is not None else None
        for run in self.runs:
            if key is not None and run.key == key:
                return run.record
        known = self.find(record.run_id)
        if known is not None:
            whose = (known.record.owner, known.record.path)
            if known.live or known.watchers or whose != (record.owner, record.path):
                return None
            self.forget(known)
        self.runs.append(ModelRun(record, [] if log else None, key))
        self.bound_runs()
        return record

    def append(self, run_id: RunId, events: list[Event]) -> None:
        self.expire()
        run = self.find(run_id)
        if run is None or run.events is None or run.ended_at is not None:
            return
        run.accept(events)
        self.bound_log(run)
        run.wake(False)

    def finish(self, record: RunRecord, terminal: Event | None) -> bool:
        self.expire()
        run = self.find(record.run_id)
        if run is None or run.ended_at is not None:
            return False
        if not record.retained and not run.watchers:
            self.forget(run)
            return True
        if terminal is not None and run.events is not None:
            run.accept([terminal])
            self.bound_log(run)
        run.record = record
        self.bound_bytes()
        if self.size > self.bounds.max_log_bytes:
            run.record = record._replace(output=None)
        run.ended_at = self.now
        self.ended.append(run)
        run.wake(True)
        self.bound_runs()
        return True

    def delete(self, run_id: RunId) -> None:
        run = self.find(run_id)
        if run is not None:
            self.forget(run)

    def watch(self, run_id: RunId) -> tuple[ModelRun | None, list[bool]]:
        """Return the run, and what its watcher is told from now on."""
        self.expire()
        run, told = self.find(run_id), list[bool]()
        if run is not None:
            run.watchers.append(told)
        return run, told

    def unwatch(self, run: ModelRun | None, told: list[bool]) -> None:
        if run is not None:
            run.watchers = [other for other in run.watchers if other is not told]
        self.expire()
        self.bound_runs()

    def expire(self) -> None:
        """Drop what is past its time, or not retained, and not watched."""
        for run in self.ended[:]:
            age = self.now - (run.ended_at or 0.0)
            if run.watchers:
                continue
            if age >= self.bounds.run_ttl or not run.record.retained:
                self.forget(run)
            elif age >= self.bounds.log_ttl:
                run.events = run.key = None

    def bound_log(self, run: ModelRun) -> None:
        run.trim(self.bounds.max_run_log_bytes)
        self.bound_bytes()
        if self.size > self.bounds.max_log_bytes:
            run.trim(max(0, run.log_size - (self.size - self.bounds.max_log_bytes)))

    def bound_bytes(self) -> None:
        while self.size > self.bounds.max_log_bytes:
            candidates = [run for run in self.ended if run.size]
            if not candidates:
                return
            self.drop_bytes(next((run for run in candidates if not run.watchers), candidates[0]))

    def bound_runs(self) -> None:
        for run in self.ended[:]:
            if len(self.runs) > self.bounds.max_runs and not run.watchers:
                self.forget(run)

    def forget(self, run: ModelRun) -> None:
        self.runs.remove(run)
        self.ended = [other for other in self.ended if other is not run]
        self.drop_bytes(run)

    def drop_bytes(self, run: ModelRun) -> None:
        run.events = run.key = None
        run.record = run.record._replace(output=None)
        run.wake(True)
