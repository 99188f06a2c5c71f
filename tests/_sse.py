"""A reader of server-sent events, written from the WHATWG HTML standard, section 9.2.6.

It shares no code with the encoder under test, so that the two can contradict each other. Unlike
a browser it also hands over what a browser drops: comments and blocks without a data line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from json import loads
from typing import Any

_LINE_END = re.compile(b"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ReceivedEvent:
    """One block of an event stream: everything up to and including a blank line.

    Attributes:
        event: The event type; "message" when the block names none.
        data: The data, or None when there was no data line: a browser drops such a block.
        id: The id in this block, or None; an id with a NUL does not count.
        retry: The reconnection time in milliseconds, or None.
        comments: The comment lines without their colon.
        raw: The block's bytes as they came. The raw bytes of all blocks make up the stream. (When
            CR and LF come in two pieces, the block ends at the CR, and LF goes to the next one.)
    """

    event: str = "message"
    data: str | None = None
    id: str | None = None
    retry: int | None = None
    comments: tuple[str, ...] = ()
    raw: bytes = b""

    def json(self) -> Any:
        """Return the data, decoded from JSON."""
        if self.data is None:
            raise ValueError(f"no data line in {self.raw!r}")
        return loads(self.data)


class EventDecoder:
    """Turns pieces of a byte stream into events.

    Attributes:
        last_event_id: What a browser would send as `Last-Event-ID` now.
    """

    def __init__(self) -> None:
        self.last_event_id = ""
        self._line = bytearray()
        self._lines: list[bytes] = []
        self._raw = bytearray()
        self._after_cr = False
        self._at_start = True

    @property
    def unfinished(self) -> bytes:
        """The bytes after the last complete block; at the end of the stream they are lost."""
        return bytes(self._raw)

    def feed(self, data: bytes) -> list[ReceivedEvent]:
        """Take the next bytes; return the blocks they complete."""
        if self._after_cr and data.startswith(b"\n"):
            self._raw += b"\n"
            self._after_cr = False
            data = data[1:]
        if data:
            self._after_cr = data.endswith(b"\r")
        events: list[ReceivedEvent] = []
        position = 0
        for line_end in _LINE_END.finditer(data):
            self._line += data[position : line_end.start()]
            self._raw += data[position : line_end.end()]
            position = line_end.end()
            events += self._end_line()
        self._line += data[position:]
        self._raw += data[position:]
        return events

    def _end_line(self) -> list[ReceivedEvent]:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        if line:
            self._lines.append(line)
            return []
        if not self._lines:
            return []
        event = _parse_block(self._lines, bytes(self._raw))
        self._lines.clear()
        self._raw.clear()
        if event.id is not None:
            self.last_event_id = event.id
        return [event]


def decode_events(stream: bytes) -> list[ReceivedEvent]:
    """Return the complete events of a whole stream."""
    return EventDecoder().feed(stream)


def _parse_block(lines: list[bytes], raw: bytes) -> ReceivedEvent:
    event = "message"
    event_id: str | None = None
    retry: int | None = None
    data: list[str] = []
    comments: list[str] = []
    for line in lines:
        field, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        match field:
            case "":
                comments.append(value)
            case "data":
                data.append(value)
            case "event":
                event = value or "message"
            case "id" if "\0" not in value:
                event_id = value
            case "retry" if value.isascii() and value.isdecimal():
                retry = int(value)
            case _:
                pass  # The standard: unknown fields, and bad values, are ignored.
    joined = "\n".join(data) if data else None
    return ReceivedEvent(event, joined, event_id, retry, tuple(comments), raw)
