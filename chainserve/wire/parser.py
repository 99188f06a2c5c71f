"""Reading Server-Sent Events: bytes in, events out (WHATWG HTML Standard, section 9.2.6)."""

from typing import NamedTuple

MAX_EVENT_BYTES = 64 * 2**20
"""How large an event may be."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ReceivedEvent(NamedTuple):
    """A block of an event stream.

    Attributes:
        event: Its type; `message` where the block names none.
        data: Its data. None where the block has no `data` line: the standard's readers do not tell
            of such an event, but LangServe's `end` is one.
        last_event_id: The id of this event, or of the last one before it that has one.
    """

    event: str
    data: str | None
    last_event_id: str


class EventTooLargeError(ValueError):
    """An event is larger than the parser's bound."""


class EventParser:
    """Turns a stream of bytes, in pieces of any size, into events.

    Lines end at CR, LF or CRLF and nowhere else. Comments, unknown fields, bad values, and what is
    left unfinished at the end of the stream count for nothing, as the standard has it. Time grows
    with the bytes, memory with the event that is being read.

    Args:
        max_event_bytes: The most that an event, or a line, may have.

    Attributes:
        last_event_id: The id of the last event that had one.
        retry_ms: The reconnection time that the stream has asked for, in milliseconds.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._max_event_bytes = max_event_bytes
        self._pieces: list[bytes] = []
        self._after_cr = False
        self._at_start = True
        self._held = 0  # How much is in the pieces of a line.
        self._size = 0  # How much was in the lines of the event.
        self._event = ""
        self._id: str | None = None
        self._data: list[bytes] = []
        self._is_blank = True

    def feed(self, data: bytes) -> list[ReceivedEvent]:
        """Return the events that the next bytes of the stream complete.

        Raises:
            EventTooLargeError: An event is over the bound; the stream is of no more use.
        """
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        events: list[ReceivedEvent] = []
        lines = data.splitlines()  # Of bytes, at CR, LF and CRLF alone.
        rest = b"" if data.endswith((b"\r", b"\n")) else lines.pop()
        if lines and self._pieces:
            lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces, self._held = [], 0
        for line in lines:
            self._size += len(line)
            self._check_size()
            self._end_line(line, events)
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
            self._check_size()
        return events

    def _check_size(self) -> None:
        if self._size + self._held > self._max_event_bytes:
            raise EventTooLargeError(f"An event is larger than {self._max_event_bytes} bytes.")

    def _end_line(self, line: bytes, events: list[ReceivedEvent]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line:
            self._take(line)
        else:
            self._dispatch(events)

    def _take(self, line: bytes) -> None:
        """Note what a line says."""
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._data.append(value)
                self._is_blank = False
            case b"event":
                self._event = value.decode(errors="replace")
                self._is_blank = False
            case b"id" if b"\0" not in value:
                self._id = value.decode(errors="replace")
            case b"retry" if value.isdigit():
                self.retry_ms = int(value[:18])

    def _dispatch(self, events: list[ReceivedEvent]) -> None:
        """End a block: tell of its event, if it has a name or data."""
        if self._id is not None:
            self.last_event_id = self._id
        if not self._is_blank:
            data = b"\n".join(self._data).decode(errors="replace") if self._data else None
            events.append(ReceivedEvent(self._event or "message", data, self.last_event_id))
        self._size, self._event, self._id, self._data, self._is_blank = 0, "", None, [], True
