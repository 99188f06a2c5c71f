"""Answering the log of a run: on which wire, from which position."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from chainserve.errors import (
    InvalidCursorError,
    LogExpiredError,
    NotAcceptableError,
    RunNotFoundError,
)
from chainserve.responses import EventStreamResponse, Wire
from chainserve.routes.requests import LAST_EVENT_ID_HEADER, header, preferences
from chainserve.routes.starting import RunStarter
from chainserve.runtime import Runtime, runtime_of
from chainserve.stores.base import BEFORE_FIRST, LogNotFoundError, LogTruncatedError, RunRecord
from chainserve.types import RunId
from chainserve.validation import input_error
from chainserve.wire.cursors import Cursor
from chainserve.wire.negotiation import choose_media_type
from chainserve.wire.projections import (
    EVENT_STREAM,
    NDJSON,
    PLAIN_TEXT,
    IdWire,
    NdjsonWire,
    TextEventWire,
    TextWire,
)


def accepted(request: Request, *, strict: bool) -> str:
    """Return the media type in which the caller wants a stream.

    Raises:
        NotAcceptableError: It is none that there is, and `strict`; else it is `text/event-stream`.
    """
    media_type = choose_media_type(", ".join(request.headers.getlist("accept")) or None)
    if media_type is None and strict:
        raise NotAcceptableError
    return media_type or EVENT_STREAM


def wants_text_events(request: Request) -> bool:
    """Tell whether a page asks for unnamed events of text, with `?format=text`.

    Raises:
        InvalidInputError: It asks for another format.
    """
    format_ = request.query_params.get("format")
    if format_ not in (None, "text"):
        message = "The one format is text; leave it out for named events of JSON"
        raise input_error("literal_error", ("query", "format"), message, format_)
    return format_ == "text"


def wire_of(
    media_type: str, run_id: RunId, epoch: str, runtime: Runtime, *, text_events: bool = False
) -> Wire:
    """Return the wire of a media type; of event streams, the one with ids."""
    if media_type == NDJSON:
        return NdjsonWire(run_id, epoch)
    if media_type == PLAIN_TEXT:
        return TextWire()
    events = TextEventWire if text_events else IdWire
    return events(run_id, epoch, runtime.retry_ms())


def cursor_text(request: Request) -> str:
    """Return the cursor that the caller sent, in the header or else the parameter; "" if none."""
    sent = header(request, LAST_EVENT_ID_HEADER)
    return sent or request.query_params.get("last_event_id", "")


def cursor_of(text: str, record: RunRecord) -> int:
    """Return the position that a cursor of this run names.

    Raises:
        InvalidCursorError: It is malformed, of another run, or past this run's end.
    """
    if not text:
        return BEFORE_FIRST
    cursor = Cursor.parse(text)
    if (cursor.run_id, cursor.epoch) != (record.run_id, record.epoch):
        raise InvalidCursorError
    if record.last_seq is not None and cursor.seq > record.last_seq:
        raise InvalidCursorError
    return cursor.seq


async def read_log(
    request: Request,
    record: RunRecord,
    after: int,
    wire: Wire,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer what follows a position of a run's log; 204 if its reader has all of it.

    Raises:
        LogExpiredError: The run has no log, or no longer.
    """
    runtime = runtime_of(request)
    if record.ended and after == record.last_seq:
        return Response(status_code=204)
    try:
        await runtime.store.read_after(record.run_id, after, max_bytes=1)
    except LogTruncatedError:
        pass  # The response says how much is gone.
    except LogNotFoundError:
        raise LogExpiredError from None
    return EventStreamResponse(
        runtime.executor,
        record.run_id,
        record.epoch,
        wire,
        runtime.pace,
        after=after,
        resumable=True,
        headers=headers,
    )


async def resume(
    starter: RunStarter,
    request: Request,
    media_type: str,
    *,
    segments: int,
    text_events: bool = False,
) -> Response:
    """Answer the rest of the run that the request's cursor names.

    Raises:
        InvalidCursorError: The cursor is malformed, or past the run's end.
        RunNotFoundError: The run is unknown, forgotten, or another caller's.
        LogExpiredError: Its events are gone.
    """
    text = cursor_text(request)
    cursor = Cursor.parse(text)
    record = await starter.find(request, cursor.run_id, segments)
    if cursor.epoch != record.epoch:
        raise RunNotFoundError
    after = cursor_of(text, record)
    runtime = runtime_of(request)
    wire = wire_of(media_type, record.run_id, record.epoch, runtime, text_events=text_events)
    return await read_log(request, record, after, wire, applied(request))


def applied(request: Request) -> dict[str, str]:
    """Return the header that says that a stream can be resumed, if its caller prefers that."""
    return {"preference-applied": "resumable"} if preferences(request).resumable else {}


def location(request: Request, run_id: RunId, *, segments: int = 1, below: str = "") -> str:
    """Return where a run is, as a reference relative to the request's URL.

    Args:
        request: The request.
        run_id: The run.
        segments: How many segments of the request's path are the route's own.
        below: What follows, such as `/stream`.
    """
    levels = segments - 1 + request.scope["path"].endswith("/")
    return f"{'../' * levels}runs/{run_id}{below}"
