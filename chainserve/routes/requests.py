"""What a request says, read within bounds, and how errors are answered."""

import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from chainserve.errors import (
    BodyTooLargeError,
    ChainServeError,
    InvalidIdempotencyKeyError,
    InvalidInputError,
    InvalidJSONError,
    RunCancelledError,
    RunFailedError,
    UnsupportedMediaTypeError,
)
from chainserve.problems import handles, has_handler_for, problem_response
from chainserve.runtime import runtime_of
from chainserve.validation import parse_json
from chainserve.wire.negotiation import Preferences

IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
LAST_EVENT_ID_HEADER = "Last-Event-ID"
BODY = "chainserve.body"
"""Where a scope has the data of the body, for the application's own handlers."""

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def header(request: Request, name: str) -> str | None:
    """Return a header's value without the white space around it (RFC 9110, section 5.5).

    Not every server takes it away.
    """
    value = request.headers.get(name)
    return None if value is None else value.strip(" \t")


def preferences(request: Request) -> Preferences:
    """Return what the request's `Prefer` headers say; where nothing is kept, nothing resumes."""
    preferred = Preferences.parse(request.headers.getlist("prefer"))
    return preferred._replace(resumable=False) if is_stateless(request) else preferred


def is_stateless(request: Request) -> bool:
    """Tell whether nothing may be known of a run but to the request that started it."""
    return runtime_of(request).settings.stateless


def idempotency_key_of(request: Request, parameter: str | None = None) -> str | None:
    """Return the request's idempotency key, from its header or else a parameter.

    Where nothing is kept there is none, whatever is sent, as on a LangServe.

    Raises:
        InvalidIdempotencyKeyError: It is empty, too long, or more than printable ASCII.
    """
    if is_stateless(request):
        return None
    sent = header(request, IDEMPOTENCY_KEY_HEADER)
    if sent is None:
        sent = parameter
    return None if sent is None else checked_idempotency_key(sent)


def checked_idempotency_key(sent: str) -> str:
    """Return an idempotency key as it was sent.

    Raises:
        InvalidIdempotencyKeyError: It is empty, too long, or more than printable ASCII.
    """
    if _IDEMPOTENCY_KEY.fullmatch(sent) is None:
        raise InvalidIdempotencyKeyError
    return sent


async def read_json(request: Request, max_body_bytes: int) -> "Body":
    """Read a JSON body.

    Raises:
        BodyTooLargeError: It is over the bound; what is over was not read.
        InvalidJSONError: It cannot be parsed.
        UnsupportedMediaTypeError: It is not declared as JSON, or is compressed.
    """
    encoding = request.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise UnsupportedMediaTypeError(
            f"The body is encoded as {encoding}. Send it without Content-Encoding."
        )
    text = await _read_body(request, max_body_bytes)
    body = request.scope[BODY] = parse_json(text)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"The Content-Type is {media_type or 'missing'}. Send Content-Type: application/json."
        )
    return Body(body, text, _with_body(request, text))


class Body(NamedTuple):
    """A request's body that was read.

    Attributes:
        data: What the JSON stands for.
        text: The JSON.
        request: The request for those who come after, who may read the body again.
    """

    data: Any
    text: bytes
    request: Request


def _with_body(request: Request, body: bytes) -> Request:
    """Return the request with a body that can be read as if nobody had."""
    unread = True

    async def receive() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await request.receive()

    return Request(request.scope, receive)


async def _read_body(request: Request, max_body_bytes: int) -> bytes:
    """Read the body until its end or the bound."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_body_bytes):
        raise BodyTooLargeError(max_body_bytes)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_body_bytes:
            raise BodyTooLargeError(max_body_bytes)
        pieces.append(piece)
    return b"".join(pieces)


_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Response]])


def answers_errors(handler: _Handler) -> _Handler:
    """Make a route's method answer errors as problem documents.

    The application's own exception handlers go first: for `HTTPException`, for invalid bodies if it
    replaced FastAPI's, and for whatever else it handles.
    """

    @wraps(handler)
    async def answering(owner: Any, request: Request) -> Response:
        try:
            return await handler(owner, request)
        except HTTPException:
            raise
        except ClientDisconnect:
            return problem_response(RunCancelledError())
        except ChainServeError as error:
            if has_handler_for(request.app, error):
                raise
            if isinstance(error, InvalidInputError | InvalidJSONError) and _validates_itself(
                request
            ):
                body = request.scope.get(BODY)
                raise RequestValidationError(error.errors, body=body) from error
            return problem_response(error)
        except Exception as error:
            if handles(request.app, error):
                raise
            log = runtime_of(request).log
            log.error("request failed", path=request.url.path, exc_info=error)
            return problem_response(RunFailedError())

    return answering  # type: ignore[return-value]


def _validates_itself(request: Request) -> bool:
    """Tell whether the application replaced FastAPI's answer to invalid bodies."""
    handler = request.app.exception_handlers.get(RequestValidationError)
    return handler not in (None, request_validation_exception_handler)
