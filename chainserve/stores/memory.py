"""The default store: everything in this process's memory, within bounds."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chainserve.errors import RunIdInUseError
from chainserve.stores.base import (
    LogNotFoundError,
    LogTruncatedError,
    RunRecord,
    Unwatch,
    Wake,
)
from chainserve.types import RunId
from chainserve.wire.events import Event

EVENT_OVERHEAD_BYTES = 160
"""What an event costs beside its data: a tuple, an int, the header of a bytes object."""


@dataclass(slots=True, eq=False)
class _Log:
    """The events of one run; `first` is the number of the oldest that is left."""

    events: list[Event] = field(default_factory=list)
    first: int = 0
    size: int = 0
    ended: bool = False
    watchers: list[Wake] = field(default_factory=list)

    @property
    def next_seq(self) -> int:
        return self.first + len(self.events)

    def trim(self, max_bytes: int) -> int:
        """Drop the oldest events, all but one if need be, and return the bytes that frees.

        A little more goes than must, so that a log at its bound is not trimmed for each event.
        """
        target = max_bytes - max_bytes // 16
        freed = dropped = 0
        while self.size - freed > target and dropped < len(self.events) - 1:
            freed += _size(self.events[dropped])
            dropped += 1
        del self.events[:dropped]
        self.first += dropped
        self.size -= freed
        return freed


class MemoryStore:
    """Keeps runs and logs until they expire or a bound is reached.

    The oldest finished log goes first; where only live runs are left, the one that writes loses its
    oldest events. Readers that still need those get `LogTruncatedError`, never a silent gap.

    Args:
        max_log_bytes: Bound of all logs together.
        max_run_log_bytes: Bound of one run's log.
        max_runs: Bound of the number of records; live runs are never dropped.
        log_ttl: Seconds a finished run's events are kept.
        run_ttl: Seconds a finished run's record is kept.
        clock: A monotonic clock in seconds.
    """

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
        self._runs: dict[RunId, RunRecord] = {}
        self._logs: dict[RunId, _Log] = {}
        self._ended_runs: OrderedDict[RunId, float] = OrderedDict()
        self._ended_logs: OrderedDict[RunId, float] = OrderedDict()
        self._size = 0

    @property
    def log_bytes(self) -> int:
        """The size of all logs, as the bounds count it."""
        return self._size

    async def create(self, record: RunRecord, *, log: bool) -> None:
        """Keep a new run's record, and open its log if it will have one."""
        self.expire()
        known, log_before = self._runs.get(record.run_id), self._logs.get(record.run_id)
        if known is not None and (not known.ended or (log_before and log_before.watchers)):
            raise RunIdInUseError(record.run_id)
        self._drop_run(record.run_id)
        self._runs[record.run_id] = record
        if log:
            self._logs[record.run_id] = _Log()

    async def get(self, run_id: RunId) -> RunRecord | None:
        """Return the record, or None if there is none."""
        return self._runs.get(run_id)

    async def finish(self, record: RunRecord, terminal: Event | None = None) -> bool:
        """Write the final record and the log's terminal event in one step."""
        run_id = record.run_id
        known = self._runs.get(run_id)
        if known is None or known.ended:
            return False
        now = self._clock()
        self._runs[run_id] = record
        self._ended_runs[run_id] = now
        log = self._logs.get(run_id)
        if log is not None:
            if terminal is not None:
                self._append(log, [terminal])
            log.ended = True
            self._ended_logs[run_id] = now
            _wake(log, ended=True)
        self.expire()
        return True

    async def delete(self, run_id: RunId) -> None:
        """Forget a run and its log."""
        self._runs.pop(run_id, None)
        self._ended_runs.pop(run_id, None)
        self._drop_log(run_id)

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        """Append events in order; ignore those that are there and any to an ended log."""
        log = self._logs.get(run_id)
        if log is None or log.ended:
            return
        self._append(log, events)
        _wake(log, ended=False)

    async def read_after(
        self, run_id: RunId, after: int, *, max_bytes: int = 65536
    ) -> tuple[Sequence[Event], bool]:
        """Return the events after a cursor, and whether there are more."""
        log = self._logs.get(run_id)
        if log is None:
            raise LogNotFoundError(run_id)
        if after + 1 < log.first:
            raise LogTruncatedError(log.first)
        return _within(log.events, after + 1 - log.first, max_bytes)

    def watch(self, run_id: RunId, wake: Wake) -> Unwatch:
        """Call `wake` after each append until the returned function is called."""
        log = self._logs.get(run_id)
        if log is None:
            return lambda: None
        log.watchers.append(wake)

        def unwatch() -> None:
            if wake in log.watchers:
                log.watchers.remove(wake)

        return unwatch

    def expire(self) -> None:
        """Drop what is over its time or over a bound, the oldest first."""
        now = self._clock()
        for run_id in _due(self._ended_logs, now - self._log_ttl):
            if not self._is_read(run_id):
                self._drop_log(run_id)
        for run_id in _due(self._ended_runs, now - self._run_ttl):
            if not self._is_read(run_id):
                self._drop_run(run_id)
        while len(self._runs) > self._max_runs:
            unread = next(
                (run_id for run_id in self._ended_runs if not self._is_read(run_id)), None
            )
            if unread is None:
                break
            self._drop_run(unread)

    def _is_read(self, run_id: RunId) -> bool:
        log = self._logs.get(run_id)
        return log is not None and bool(log.watchers)

    def _append(self, log: _Log, events: Sequence[Event]) -> None:
        for event in events:
            if event.seq != log.next_seq:
                continue
            log.events.append(event)
            size = _size(event)
            log.size += size
            self._size += size
        if log.size > self._max_run_log_bytes:
            self._size -= log.trim(self._max_run_log_bytes)
        while self._size > self._max_log_bytes and self._ended_logs:
            unread = (run_id for run_id in self._ended_logs if not self._is_read(run_id))
            self._drop_log(next(unread, next(iter(self._ended_logs))))
        if self._size > self._max_log_bytes:
            self._size -= log.trim(max(0, log.size - (self._size - self._max_log_bytes)))

    def _drop_run(self, run_id: RunId) -> None:
        self._runs.pop(run_id, None)
        self._ended_runs.pop(run_id, None)
        self._drop_log(run_id)

    def _drop_log(self, run_id: RunId) -> None:
        self._ended_logs.pop(run_id, None)
        log = self._logs.pop(run_id, None)
        if log is None:
            return
        self._size -= log.size
        _wake(log, ended=True)


def _size(event: Event) -> int:
    return len(event.data) + EVENT_OVERHEAD_BYTES


def _wake(log: _Log, *, ended: bool) -> None:
    for wake in log.watchers:
        wake(ended)


def _within(events: list[Event], start: int, max_bytes: int) -> tuple[list[Event], bool]:
    """Return the events from a position on, up to a size of data but at least one."""
    size = 0
    for stop in range(start, len(events)):
        size += len(events[stop].data)
        if size > max_bytes and stop > start:
            return events[start:stop], True
    return events[start:], False


def _due(ended: OrderedDict[RunId, float], before: float) -> list[RunId]:
    """Return the runs that ended at or before a time; the dict is in order of time."""
    due: list[RunId] = []
    for run_id, at in ended.items():
        if at > before:
            break
        due.append(run_id)
    return due
