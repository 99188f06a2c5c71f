"""What a store promises: run records and event logs, read by position.

A log's events are numbered by their writer from 0, so an append may be repeated without harm. A
reader holds a cursor, the number of the last event it has, and asks for what follows; `watch` only
tells it when to ask again. The terminal event and the final state of the record are written in one
step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from chainserve.types import RunId, RunMode, RunStatus
from chainserve.wire.events import Event

Wake: TypeAlias = Callable[[bool], None]
"""Called when a log may have grown; the argument says that its terminal event is there."""

Unwatch: TypeAlias = Callable[[], None]

BEFORE_FIRST = -1
"""The cursor of a reader that has nothing yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What is known of a run; times are seconds since the epoch."""

    run_id: RunId
    path: str
    mode: RunMode
    status: RunStatus
    created_at: float
    ended_at: float | None = None
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.status not in ("pending", "running")


class LogNotFoundError(KeyError):
    """There is no log of this run: never written, expired, or forgotten."""


class LogTruncatedError(LookupError):
    """The events after the cursor are gone; `earliest` is the first one that is left."""

    def __init__(self, earliest: int) -> None:
        super().__init__(earliest)
        self.earliest = earliest


class RunStore(Protocol):
    """The records of runs."""

    async def create(self, record: RunRecord, *, log: bool) -> None:
        """Keep a new run's record, and open its log if it will have one.

        Raises:
            RunIdInUseError: A run with this id has not ended, or its log is being read. Any
                other is forgotten.
        """

    async def get(self, run_id: RunId) -> RunRecord | None:
        """Return the record, or None if there is none."""

    async def finish(self, record: RunRecord, terminal: Event | None = None) -> bool:
        """Write the final record and the terminal event in one step.

        Returns:
            Whether this ended the run; False if it had ended before.
        """

    async def delete(self, run_id: RunId) -> None:
        """Forget a run and its log; forgetting an unknown run does nothing."""


class EventStore(Protocol):
    """The event logs of runs."""

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        """Append events in order; ignore those that are there and any to an ended log."""

    async def read_after(
        self, run_id: RunId, after: int, *, max_bytes: int = 65536
    ) -> tuple[Sequence[Event], bool]:
        """Return the events after a cursor, and whether there are more.

        They hold at most `max_bytes` of data, but there is at least one; none at the log's end.

        Raises:
            LogNotFoundError: There is no such log.
            LogTruncatedError: The event after the cursor was dropped to stay within a bound.
        """

    def watch(self, run_id: RunId, wake: Wake) -> Unwatch:
        """Call `wake` after each append until the returned function is called."""


class Store(RunStore, EventStore, Protocol):
    """Both, since a run's end is one write to both."""
