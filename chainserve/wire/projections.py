"""From a log's events to the bytes of a response: one class for each wire."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from chainserve.wire.events import Event
from chainserve.wire.sse import encode_event, encode_ping

EVENT_STREAM = "text/event-stream"
_DATA_PREFIX, _DATA_SUFFIX = b"event: data\r\ndata: ", b"\r\n\r\n"


class LangServeWire:
    """The bytes of LangServe 0.3.3's `/stream`, for one reader that starts at the first event.

    `metadata` is held back until the first chunk and absent if none comes; `end` has no data; there
    are no ids.
    """

    media_type = EVENT_STREAM

    def __init__(self) -> None:
        self._metadata: bytes | None = None

    def project(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Yield the bytes of consecutive events, each piece for a write of its own.

        `metadata` and the terminal event stand alone: some clients judge a read by its first bytes.
        """
        frames: list[bytes] = []
        for event in events:
            if event.event == "data":
                if self._metadata is not None:
                    yield self._metadata
                    self._metadata = None
                frames += (_DATA_PREFIX, event.data, _DATA_SUFFIX)
            elif event.event == "metadata":
                self._metadata = encode_event("metadata", event.data)
            else:
                if frames:
                    yield b"".join(frames)
                    frames = []
                yield _terminal(event)
        if frames:
            yield b"".join(frames)

    def heartbeat(self, now: datetime) -> bytes:
        """Return what an idle stream sends."""
        return encode_ping(now.astimezone(UTC).replace(tzinfo=None))


def _terminal(event: Event) -> bytes:
    """Return `end` or `error` as LangServe writes them."""
    if event.event == "end":
        return encode_event("end", None)
    error = json.loads(event.data)
    shown = {"status_code": error["status_code"], "message": error["message"]}
    return encode_event("error", json.dumps(shown).encode())
