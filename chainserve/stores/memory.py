"""The default store: everything in this process's memory, within bounds."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import TypeAlias

from chainserve.errors import RunIdInUseError
from chainserve.stores.base import LogNotFoundError, RunRecord, Unwatch, Wake
from chainserve.stores.log import EventLog
from chainserve.types import RunId
from chainserve.wire.events import Event


@dataclass(slots=True, eq=False)
class _Run:
    """What is kept of one run.

    Attributes:
        record: Its record, final once it has ended.
        log: Its events, if it has any and they are left.
        key: The scope of its idempotency key while that holds.
        ended_at: When it ended, by the store's clock; None while it lives.
        watchers: Replaced and never changed, since a watcher may leave when it is woken.
    """

    record: RunRecord
    log: EventLog | None
    key: str | None
    ended_at: float | None = None
    watchers: tuple[Wake, ...] = ()

    @property
    def size(self) -> int:
        return (self.log.size if self.log is not None else 0) + len(self.record.output or b"")

    def wake(self, ended: bool) -> None:
        for wake in self.watchers:
            wake(ended)

    def leave(self, wake: Wake) -> None:
        position = self.watchers.index(wake)
        self.watchers = self.watchers[:position] + self.watchers[position + 1 :]


@dataclass(slots=True, eq=False)
class _Watch:
    """That somebody watches a run, until it is ended.

    Attributes:
        run: The run; None afterwards.
        wake: What is called.
        unwatched: Called with a run that nobody watches any more.
    """

    run: _Run | None
    wake: Wake
    unwatched: Callable[[_Run], None]

    def end(self) -> None:
        if (run := self.run) is None:
            return
        self.run = None
        run.leave(self.wake)
        if not run.watchers:
            self.unwatched(run)


_EndedRuns: TypeAlias = OrderedDict[_Run, float]
"""When runs ended, the oldest first. By identity: a run's id may be used again."""


class MemoryStore:
    """Keeps runs and logs until they expire or a bound is reached.

    Over the bound of all bytes, the oldest finished run loses its log and its output; a watched one
    only where all are. Where only live runs are left, the one that writes loses its oldest events,
    and one that ends its output. Readers that still need what is gone get `LogTruncatedError` or
    `LogNotFoundError`, never a silent gap.

    No method suspends, so each is one step for all others.

    Args:
        max_log_bytes: Bound of all logs and outputs together.
        max_run_log_bytes: Bound of one run's log.
        max_runs: Bound of the number of records; live and watched runs are never dropped.
        log_ttl: Seconds a finished run's events and its idempotency key are kept.
        run_ttl: Seconds a finished run's record and output are kept.
        clock: A monotonic clock in seconds.
    """

    suspends = False

    def __init__(
        self,
        *,
        max_log_bytes: int,
        max_run_log_bytes: int,
        max_runs: int,
        log_ttl: float,
        run_ttl: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_log_bytes = max_log_bytes
        self._max_run_log_bytes = max_run_log_bytes
        self._max_runs = max_runs
        self._log_ttl = log_ttl
        self._run_ttl = run_ttl
        self._clock = clock
        # The runs are in the order in which they were created.
        self._runs: dict[RunId, _Run] = {}
        self._keys: dict[str, _Run] = {}
        # The ended ones: whose record, whose log and key, and whose bytes are still to go. What is
        # watched when its time comes is taken out of the first two and goes with its last watcher.
        self._ended: _EndedRuns = OrderedDict()
        self._replayable: _EndedRuns = OrderedDict()
        self._with_bytes: _EndedRuns = OrderedDict()
        self._next_due = inf
        self._size = 0

    @property
    def log_bytes(self) -> int:
        """The size of all logs and outputs, as the bounds count it."""
        return self._size

    async def create(self, record: RunRecord, *, log: bool) -> RunRecord:
        """Keep a new run's record and open its log, unless its idempotency key started one."""
        self.expire()
        key = record.idempotency_key
        if key is not None and key.scope in self._keys:
            return self._keys[key.scope].record
        known = self._runs.get(record.run_id)
        if known is not None:
            if known.ended_at is None or known.watchers or not _same_owner(known.record, record):
                raise RunIdInUseError(record.run_id)
            self._forget(known)
        run = _Run(record, EventLog() if log else None, key.scope if key is not None else None)
        self._runs[record.run_id] = run
        if run.key is not None:
            self._keys[run.key] = run
        self._bound_runs()
        return record

    async def get(self, run_id: RunId) -> RunRecord | None:
        """Return the record, or None if there is none."""
        self.expire()
        run = self._runs.get(run_id)
        return run.record if run is not None else None

    async def find(self, scope: str) -> RunRecord | None:
        """Return the record of the run that the scope of an idempotency key started, if any."""
        self.expire()
        run = self._keys.get(scope)
        return run.record if run is not None else None

    async def list_runs(
        self, path: str, *, owner: str | None, every_owner: bool = False, limit: int = 100
    ) -> Sequence[RunRecord]:
        """Return the records of a chain's runs that one owner started, the newest first."""
        self.expire()
        newest_first = (run.record for run in reversed(self._runs.values()))
        found = (
            record
            for record in newest_first
            if record.path == path and (every_owner or record.owner == owner)
        )
        return list(islice(found, limit))

    async def finish(self, record: RunRecord, terminal: Event | None = None) -> bool:
        """Write the final record and the log's terminal event in one step."""
        self.expire()
        run = self._runs.get(record.run_id)
        if run is None or run.ended_at is not None:
            return False
        if not record.retained and not run.watchers:
            self._forget(run)
            return True
        if run.log is not None and terminal is not None:
            self._size += run.log.append((terminal,))
            self._bound_log(run.log)
        self._end(run, record)
        run.wake(True)
        self._bound_runs()
        return True

    async def delete(self, run_id: RunId) -> None:
        """Forget a run, its log and its idempotency key."""
        run = self._runs.get(run_id)
        if run is not None:
            self._forget(run)

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        """Append events in order; ignore those that are there and any to an ended log."""
        run = self._runs.get(run_id)
        if run is None or run.ended_at is not None or (log := run.log) is None:
            return
        self._size += log.append(events)
        if log.size > self._max_run_log_bytes or self._size > self._max_log_bytes:
            self._bound_log(log)
        for wake in run.watchers:
            wake(False)

    async def read_after(
        self, run_id: RunId, after: int, *, epoch: str | None = None, max_bytes: int = 65536
    ) -> tuple[Sequence[Event], bool]:
        """Return the events after a cursor, and whether there are more."""
        self.expire()
        run = self._runs.get(run_id)
        if run is None or run.log is None or epoch not in (None, run.record.epoch):
            raise LogNotFoundError(run_id)
        return run.log.read_after(after, max_bytes)

    def watch(self, run_id: RunId, wake: Wake) -> Unwatch:
        """Call `wake` after each append, and with True when the run ends or is forgotten."""
        self.expire()
        run = self._runs.get(run_id)
        if run is None:
            return lambda: None
        run.watchers = (*run.watchers, wake)
        return _Watch(run, wake, self._drop_unwatched).end

    def expire(self) -> None:
        """Drop what is over its time and not watched; this costs next to nothing if none is."""
        now = self._clock()
        if now < self._next_due:
            return
        for run in _take_due(self._replayable, now, self._log_ttl):
            if not run.watchers:
                self._drop_log(run)
        for run in _take_due(self._ended, now, self._run_ttl):
            if not run.watchers:
                self._forget(run)
        self._next_due = min(
            _due_at(self._replayable, self._log_ttl), _due_at(self._ended, self._run_ttl)
        )

    def _drop_unwatched(self, run: _Run) -> None:
        """Drop what only its last watcher has kept, past its time or over the bound of records."""
        if run.ended_at is None or self._runs.get(run.record.run_id) is not run:
            return
        now = self._clock()
        if run.ended_at + self._run_ttl <= now or not run.record.retained:
            self._forget(run)
        elif run.ended_at + self._log_ttl <= now:
            self._drop_log(run)
        self._bound_runs()

    def _end(self, run: _Run, record: RunRecord) -> None:
        """Note the end of a run, with its output if there is room for it."""
        run.record = record
        self._size += len(record.output or b"")
        self._bound_bytes()
        if self._size > self._max_log_bytes:
            self._drop_output(run)
        run.ended_at = now = self._clock()
        self._ended[run] = self._replayable[run] = now
        if run.size:
            self._with_bytes[run] = now
        self._next_due = min(self._next_due, now + self._log_ttl, now + self._run_ttl)

    def _bound_log(self, log: EventLog) -> None:
        """Bring the log of a live run within its bound, and all within theirs."""
        if log.size > self._max_run_log_bytes:
            self._size -= log.trim(self._max_run_log_bytes)
        self._bound_bytes()
        excess = self._size - self._max_log_bytes
        if excess > 0:
            self._size -= log.trim(max(0, log.size - excess))

    def _bound_bytes(self) -> None:
        """Take the logs and outputs of ended runs, as many as must go."""
        if self._size <= self._max_log_bytes:
            return
        self.expire()
        while self._size > self._max_log_bytes and self._with_bytes:
            unwatched = (run for run in self._with_bytes if not run.watchers)
            self._drop_bytes(next(unwatched, next(iter(self._with_bytes))))

    def _bound_runs(self) -> None:
        """Forget ended runs that nobody watches, as many as must go."""
        while len(self._runs) > self._max_runs:
            unwatched = next((run for run in self._ended if not run.watchers), None)
            if unwatched is None:
                return
            self._forget(unwatched)

    def _forget(self, run: _Run) -> None:
        del self._runs[run.record.run_id]
        self._ended.pop(run, None)
        self._drop_bytes(run)

    def _drop_bytes(self, run: _Run) -> None:
        self._drop_log(run)
        self._drop_output(run)
        run.wake(True)

    def _drop_log(self, run: _Run) -> None:
        """Drop a run's log, and with it its idempotency key."""
        self._replayable.pop(run, None)
        if run.key is not None:
            del self._keys[run.key]
            run.key = None
        if run.log is not None:
            self._size -= run.log.size
            run.log = None
        if not run.record.output:
            self._with_bytes.pop(run, None)

    def _drop_output(self, run: _Run) -> None:
        self._with_bytes.pop(run, None)
        if run.record.output is not None:
            self._size -= len(run.record.output)
            run.record = run.record._replace(output=None)


def _take_due(runs: _EndedRuns, now: float, ttl: float) -> Iterator[_Run]:
    """Take out the runs that ended so long ago."""
    while _due_at(runs, ttl) <= now:
        yield runs.popitem(last=False)[0]


def _due_at(runs: _EndedRuns, ttl: float) -> float:
    """Return when the first of them is over its time."""
    return next(iter(runs.values()), inf) + ttl


def _same_owner(one: RunRecord, other: RunRecord) -> bool:
    return (one.owner, one.path) == (other.owner, other.path)
