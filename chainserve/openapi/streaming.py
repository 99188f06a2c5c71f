"""What is said of an answer that is a stream."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from chainserve.openapi.describing import Documentation
from chainserve.wire.projections import EVENT_STREAM, NDJSON, PLAIN_TEXT

_STREAM_EXAMPLE = (
    'event: metadata\r\ndata: {"run_id": "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"}\r\n\r\n'
    'event: data\r\ndata: "Hello"\r\n\r\n'
    "event: end\r\n\r\n"
)
_STREAM_DESCRIPTION = """Server-Sent Events, in this order:

| event | data | when |
|---|---|---|
| `metadata` | `{"run_id": "…"}` | first; by default just before the first chunk |
| `data` | a chunk of the output, as JSON | any number |
| `gap` | `{"earliest": "…", "lost": n}` | where events that were asked for are gone |
| `end` | `{"status": "success", "usage": {…}}`; by default none | last, if the run succeeded |
| `error` | `{"status_code": 500, "message": "…", "code": "…"}` | last, if it did not |

By default `error` has no `code`. `usage` is there if the run's models counted tokens:
`input_tokens`, `output_tokens`, `total_tokens` and their details.

A comment line is sent when nothing else is for a while. With ids (`Prefer: resumable`, or any GET)
a reader that was cut goes on with `Last-Event-ID`. `Accept: application/x-ndjson` gives a line of
JSON for each event, `Accept: text/plain` the text alone."""


class _EventStream(Response):
    """Tells FastAPI the media type of a stream."""

    media_type = EVENT_STREAM


def streaming(described: Documentation, headers: Mapping[str, Any] | None = None) -> Documentation:
    """Return a description whose answer is a stream."""
    content: Mapping[str, Any] = {
        EVENT_STREAM: {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE},
        NDJSON: {"schema": {"type": "string"}},
        PLAIN_TEXT: {"schema": {"type": "string"}},
    }
    answer = {"description": _STREAM_DESCRIPTION, "content": content, "headers": headers or {}}
    return {
        **described,
        "responses": {**described["responses"], 200: answer, 204: _AFTER_THE_LAST},
        "response_class": _EventStream,
    }


_AFTER_THE_LAST = {"description": "The cursor is that of the last event: there is no more."}
