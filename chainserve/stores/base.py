"""What a store promises: run records and event logs, read by position.

A log's events are numbered by their writer from 0, so an append may be repeated without harm. A
reader holds a cursor, the number of the last event it has, and asks for what follows; `watch` only
tells it when to ask again. The terminal event and the final state of the record are written in one
step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from chainserve.types import RunId, RunMode, RunStatus
from chainserve.wire.events import Event

Wake: TypeAlias = Callable[[bool], None]
"""Called when a log may have grown; the argument says that its run has ended."""

Unwatch: TypeAlias = Callable[[], None]

BEFORE_FIRST = -1
"""The cursor of a reader that has nothing yet."""


class IdempotencyKey(NamedTuple):
    """A key under which a run is started at most once.

    Attributes:
        scope: The caller's key with whose it is and what it starts: the same in all that must
            attach to one run.
        fingerprint: Tells what was asked for; another one under the same scope is an error.
    """

    scope: str
    fingerprint: str


class RunRecord(NamedTuple):
    """What is known of a run; times are seconds since the epoch.

    Attributes:
        run_id: The run's id; it may be used again once the run has ended.
        path: The path of its chain.
        mode: What it does with its runnable.
        status: Its state.
        created_at: When it was started.
        epoch: Tells this run from others that had the same id.
        ended_at: When its state became final.
        owner: The principal that started it; None where there are no principals.
        retained: Whether it is kept once it has ended and nobody reads it.
        idempotency_key: The key that started it.
        batch: The ids of all runs of its batch, its own among them.
        output: JSON text of the output of a run that succeeded; None if it was not kept.
        error: Why it did not succeed: `status_code`, `message` and `code`.
        usage: The tokens that its models counted, as LangChain's `UsageMetadata`.
        last_seq: The number of its log's terminal event.
    """

    run_id: RunId
    path: str
    mode: RunMode
    status: RunStatus
    created_at: float
    epoch: str = ""
    ended_at: float | None = None
    owner: str | None = None
    retained: bool = True
    idempotency_key: IdempotencyKey | None = None
    batch: tuple[RunId, ...] = ()
    output: bytes | None = None
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    last_seq: int | None = None

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

    async def create(self, record: RunRecord, *, log: bool) -> RunRecord:
        """Keep a new run's record, and open its log if it will have one, in one step.

        Returns:
            The record; or, with nothing kept, that of the run which the scope of its idempotency
            key started before, whatever the fingerprint.

        Raises:
            RunIdInUseError: A run with this id has not ended, is being watched, or belongs to
                another owner or path. Any other is forgotten.
        """

    async def get(self, run_id: RunId) -> RunRecord | None:
        """Return the record, or None if there is none."""

    async def find(self, scope: str) -> RunRecord | None:
        """Return the record of the run that the scope of an idempotency key started, if any."""

    async def list_runs(
        self, path: str, *, owner: str | None, every_owner: bool = False, limit: int = 100
    ) -> Sequence[RunRecord]:
        """Return the records of a chain's runs that one owner started, the newest first."""

    async def finish(self, record: RunRecord, terminal: Event | None = None) -> bool:
        """Write the final record and the terminal event in one step.

        A run that is not retained is forgotten as soon as nobody watches it.

        Returns:
            Whether this ended the run; False if it had ended before.
        """

    async def delete(self, run_id: RunId) -> None:
        """Forget a run, its log and its idempotency key; forgetting an unknown run does nothing."""


class EventStore(Protocol):
    """The event logs of runs."""

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        """Append events in order; ignore those that are there and any to an ended log."""

    async def read_after(
        self, run_id: RunId, after: int, *, epoch: str | None = None, max_bytes: int = 65536
    ) -> tuple[Sequence[Event], bool]:
        """Return the events after a cursor, and whether there are more.

        They hold at most `max_bytes` of data, but there is at least one; none at the log's end or
        past it.

        Raises:
            LogNotFoundError: There is no such log, or not of this epoch.
            LogTruncatedError: The event after the cursor was dropped to stay within a bound.
        """

    def watch(self, run_id: RunId, wake: Wake) -> Unwatch:
        """Call `wake` after each append, and with True when the run ends or is forgotten.

        The run need not have a log. What is watched does not expire.

        Returns:
            A function that ends it; calling it again does nothing.
        """


class Store(RunStore, EventStore, Protocol):
    """Both, since a run's end is one write to both."""

    @property
    def suspends(self) -> bool:
        """Whether its methods may wait, so that a task may be cancelled in them."""
