"""From a log's events to the bytes of a response: one class for each wire.

Each says of itself:

- `media_type` and `headers`: what its response carries.
- `resumable`: whether its reader learns positions, from which it can go on later.
- `cuts_on_error`: whether a failure is told by leaving the body unfinished.
- `project(events)`: the bytes of consecutive events, each piece for a write of its own.
- `heartbeat(now)`: what an idle stream sends; empty if there is nothing it could send.
- `gap(earliest, lost)`: how its reader learns that events are gone; None if it cannot.

`metadata` and the terminal event are pieces of their own: some clients judge a read by its first
bytes. Consecutive chunks are one piece. How the events are spread over calls changes no byte.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from chainserve.types import RunId
from chainserve.wire.cursors import Cursor
from chainserve.wire.events import Event, EventRange
from chainserve.wire.sse import HEARTBEAT, encode_event, encode_ping
from chainserve.wire.text import text_of

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"
PLAIN_TEXT = "text/plain"

_DATA_PREFIX, _DATA_SUFFIX = b"event: data\r\ndata: ", b"\r\n\r\n"
_BETWEEN_DATA = _DATA_SUFFIX + _DATA_PREFIX

_LANGSERVE_HEADERS: Mapping[str, str] = {
    "cache-control": "no-cache",
    "connection": "keep-alive",
    "x-accel-buffering": "no",
}
_HEADERS: Mapping[str, str] = {
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
}


class LangServeWire:
    """The bytes of LangServe 0.3.3's streams, for one reader that starts at the first event.

    `metadata` is held back until the first chunk and absent if none comes; `end` has no data; there
    are no ids.

    Args:
        tells_run_id: Whether there is `metadata` without feedback tokens; LangServe has it in
            `/stream` alone, for the chunks of the others tell the run's id.
    """

    media_type = EVENT_STREAM
    headers = _LANGSERVE_HEADERS
    resumable = False
    cuts_on_error = False

    def __init__(self, *, tells_run_id: bool = True) -> None:
        self._tells_run_id = tells_run_id
        self._metadata: bytes | None = None

    def project(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Yield the bytes of consecutive events, each piece for a write of its own."""
        metadata, _, chunks, terminal = _parts(events)
        if metadata is not None and (self._tells_run_id or b"feedback_tokens" in metadata.data):
            self._metadata = encode_event("metadata", metadata.data)
        if chunks:
            if self._metadata is not None:
                yield self._metadata
                self._metadata = None
            yield _DATA_PREFIX + _BETWEEN_DATA.join(chunks) + _DATA_SUFFIX
        if terminal is not None:
            yield _langserve_terminal(terminal)

    def heartbeat(self, now: datetime) -> bytes:
        """Return LangServe's ping."""
        return encode_ping(now.astimezone(UTC).replace(tzinfo=None))

    def gap(self, earliest: int, lost: int) -> None:
        """Return None: LangServe's clients know no such event."""
        return


def _langserve_terminal(event: Event) -> bytes:
    """Return `end` or `error` as LangServe writes them."""
    if event.event == "end":
        return encode_event("end", None)
    error = json.loads(event.data)
    shown = {"status_code": error["status_code"], "message": error["message"]}
    return encode_event("error", json.dumps(shown).encode())


class IdWire:
    """Server-sent events that all have data and an id, for a reader that starts anywhere."""

    media_type = EVENT_STREAM
    headers = _HEADERS
    resumable = True
    cuts_on_error = False

    def __init__(self, run_id: RunId, epoch: str, retry_ms: int) -> None:
        self._ids = Cursor.prefix(run_id, epoch)
        self._retry_ms = retry_ms
        self._chunk = b"event: data\r\ndata: %%b\r\nid: %b%%d\r\n\r\n" % self._ids

    def project(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Yield the bytes of consecutive events, each piece for a write of its own."""
        return _pieces(events, self._chunks, self._other)

    def heartbeat(self, now: datetime) -> bytes:
        """Return a comment."""
        return HEARTBEAT

    def gap(self, earliest: int, lost: int) -> bytes:
        """Return an event whose id is the position before the first event that is left."""
        data = b'{"earliest": "%b%d", "lost": %d}' % (self._ids, earliest, lost)
        return encode_event("gap", data, event_id=self._id(earliest - 1))

    def _chunks(self, first: int, chunks: Sequence[bytes]) -> bytes:
        return _filled(self._chunk, first, chunks)

    def _other(self, event: Event) -> bytes:
        return encode_event(
            event.event,
            event.data,
            event_id=self._id(event.seq),
            retry_ms=self._retry_ms if event.event == "metadata" else None,
        )

    def _id(self, seq: int) -> bytes:
        return self._ids + b"%d" % seq


class TextEventWire(IdWire):
    """The events of `IdWire`, but a chunk is its text, for a plain `EventSource.onmessage`.

    A chunk that is not text is one line of JSON. A chunk whose text is empty is left out: the next
    event's id covers it. A line break inside a chunk reads as LF, whatever it was.
    """

    def _chunks(self, first: int, chunks: Sequence[bytes]) -> bytes:
        ids = self._ids
        return b"".join(
            [
                b"data: %b\r\nid: %b%d\r\n\r\n" % (lines, ids, seq)
                for seq, chunk in enumerate(chunks, first)
                if (lines := _data_lines(chunk))
            ]
        )


def _data_lines(data: bytes) -> bytes:
    """Return a chunk as the value of a `data:` line, with such a line for each further one."""
    text = text_of(data)
    if text is None:
        return data
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "\r\ndata: ").encode()


class TextWire:
    """The text of the chunks as it comes, and a line of JSON for a chunk that is not text.

    Text has no room for events: a run that failed shows in a body that does not end, and an idle
    stream sends nothing.
    """

    media_type = f"{PLAIN_TEXT}; charset=utf-8"
    headers = _HEADERS
    resumable = False
    cuts_on_error = True

    def project(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Yield the text of consecutive events, each piece for a write of its own."""
        return _pieces(events, self._chunks, lambda _: b"")

    def heartbeat(self, now: datetime) -> bytes:
        """Return nothing: every byte would be text."""
        return b""

    def gap(self, earliest: int, lost: int) -> None:
        """Return None: every byte would be text."""
        return

    def _chunks(self, first: int, chunks: Sequence[bytes]) -> bytes:
        return b"".join(
            [
                chunk + b"\n" if (text := text_of(chunk)) is None else text.encode()
                for chunk in chunks
            ]
        )


class NdjsonWire:
    """One line of JSON for each event: its name, its data, and its id.

    A heartbeat is an empty line, which a reader has to skip.
    """

    media_type = NDJSON
    headers = _HEADERS
    resumable = True
    cuts_on_error = False

    def __init__(self, run_id: RunId, epoch: str) -> None:
        self._ids = Cursor.prefix(run_id, epoch)
        self._chunk = b'{"event":"data","data":%%b,"id":"%b%%d"}\n' % self._ids

    def project(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Yield the lines of consecutive events, each piece for a write of its own."""
        return _pieces(events, self._chunks, self._other)

    def heartbeat(self, now: datetime) -> bytes:
        """Return an empty line."""
        return b"\n"

    def gap(self, earliest: int, lost: int) -> bytes:
        """Return a line whose id is the position before the first event that is left."""
        data = b'{"earliest":"%b%d","lost":%d}' % (self._ids, earliest, lost)
        return self._line("gap", data, earliest - 1)

    def _chunks(self, first: int, chunks: Sequence[bytes]) -> bytes:
        return _filled(self._chunk, first, chunks)

    def _other(self, event: Event) -> bytes:
        return self._line(event.event, event.data, event.seq)

    def _line(self, event: str, data: bytes, seq: int) -> bytes:
        return b'{"event":"%b","data":%b,"id":"%b%d"}\n' % (event.encode(), data, self._ids, seq)


def _filled(form: bytes, first: int, chunks: Sequence[bytes]) -> bytes:
    """Return a form that was filled out with each chunk and its number."""
    # One format of all is nearly twice as fast as one for each.
    count = len(chunks)
    filling: list[bytes | int] = [b""] * (2 * count)
    filling[::2], filling[1::2] = chunks, range(first, first + count)
    return form * count % tuple(filling)


def _pieces(
    events: Sequence[Event],
    chunks: Callable[[int, Sequence[bytes]], bytes],
    other: Callable[[Event], bytes],
) -> Iterator[bytes]:
    """Yield consecutive chunks as one piece and each other event as its own, but none empty.

    Args:
        events: The events.
        chunks: Returns the bytes of chunks, for the number of the first and the data of each.
        other: Returns those of another event.
    """
    metadata, first, data, terminal = _parts(events)
    if metadata is not None and (piece := other(metadata)):
        yield piece
    if data and (piece := chunks(first, data)):
        yield piece
    if terminal is not None and (piece := other(terminal)):
        yield piece


def _parts(
    events: Sequence[Event],
) -> tuple[Event | None, int, Sequence[bytes], Event | None]:
    """Return `metadata`, the first chunk's number and the data of all, and the terminal event.

    Only the first event of a log and its last are no chunks.
    """
    packed = EventRange.of(events)
    metadata, first, data, terminal = None, packed.first, packed.data, None
    if packed.others:
        if packed.others.get(first) == "metadata":
            metadata = packed[0]
            first, data = first + 1, data[1:]
        if data and first + len(data) - 1 in packed.others:
            terminal = packed[-1]
            data = data[:-1]
    return metadata, first, data, terminal
