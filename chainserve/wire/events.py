"""The entries of an event log."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

from chainserve.types import TERMINAL_EVENTS, EventName, RunId


class Event(NamedTuple):
    """One entry: its number from 0, its name, and its data as JSON text in UTF-8."""

    seq: int
    event: EventName
    data: bytes

    @property
    def terminal(self) -> bool:
        """Whether this is the log's last event."""
        return self.event in TERMINAL_EVENTS


class EventRange(Sequence[Event]):
    """Consecutive events of one log, each made when it is asked for.

    Who writes, keeps or sends many of them in one step needs no object for each.

    Attributes:
        first: The number of the first event.
        data: The data of each event.
        others: The names of the events that are no chunks, by their numbers.
    """

    __slots__ = ("data", "first", "others")

    def __init__(self, first: int, data: Sequence[bytes], others: Mapping[int, EventName]) -> None:
        self.first = first
        self.data = data
        self.others = others

    @classmethod
    def of(cls, events: Sequence[Event]) -> "EventRange":
        """Return any consecutive events as a range."""
        if isinstance(events, cls):
            return events
        others = {event.seq: event.event for event in events if event.event != "data"}
        return cls(events[0].seq if events else 0, [event.data for event in events], others)

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        numbers = range(self.first, self.first + len(self.data))[index]
        if isinstance(numbers, range):
            return [*map(self._event, numbers)]
        return self._event(numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def _event(self, seq: int) -> Event:
        return Event(seq, self.others.get(seq, "data"), self.data[seq - self.first])


def metadata_event(
    run_id: RunId, feedback_tokens: Sequence[Mapping[str, Any]] | None = None
) -> Event:
    """Return the first event of every log.

    Args:
        run_id: The run.
        feedback_tokens: `key`, `token_url` and `expires_at` of those that its callers get.
    """
    if not feedback_tokens:
        return Event(0, "metadata", b'{"run_id": "%b"}' % run_id.encode())
    data = {"run_id": run_id, "feedback_tokens": feedback_tokens}
    return Event(0, "metadata", json.dumps(data).encode())


def end_event(seq: int, usage: Mapping[str, Any] | None = None) -> Event:
    """Return the terminal event of a run that succeeded.

    Args:
        seq: Its number in the log.
        usage: The tokens that the run's models counted, as LangChain's `UsageMetadata`.
    """
    if usage is None:
        return Event(seq, "end", b'{"status": "success"}')
    data = {"status": "success", "usage": usage}
    return Event(seq, "end", json.dumps(data).encode())


def error_event(seq: int, error: dict[str, Any]) -> Event:
    """Return the terminal event of a run that did not succeed.

    Args:
        seq: Its number in the log.
        error: `status_code`, `message` and `code`, as `ChainServeError.event()` gives them.
    """
    return Event(seq, "error", json.dumps(error).encode())
