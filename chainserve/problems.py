"""Errors as HTTP responses: problem documents (RFC 9457), and who else may answer."""

import pydantic_core
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chainserve.errors import (
    PROBLEM_MEDIA_TYPE,
    ChainServeError,
    problem_document,
    status_phrase,
)


def problem_response(error: ChainServeError) -> Response:
    """Return the problem document of an error."""
    return Response(
        pydantic_core.to_json(error.problem()),  # orjson refuses ints over 64 bits
        status_code=error.status_code,
        headers=dict(error.headers),
        media_type=PROBLEM_MEDIA_TYPE,
    )


def http_problem_response(error: HTTPException, message: str | None = None) -> Response:
    """Return the problem document of an `HTTPException`, or the empty answer of one below 400.

    Args:
        error: The exception.
        message: What to say where its own detail says no more than its status.
    """
    status, detail = error.status_code, error.detail or status_phrase(error.status_code)
    if status < 400:
        return Response(status_code=status, headers=error.headers)
    message = message or (detail if isinstance(detail, str) else status_phrase(status))
    return Response(
        pydantic_core.to_json(
            problem_document(status, code="http_error", message=message, detail=detail)
        ),
        status_code=status,
        headers=error.headers,
        media_type=PROBLEM_MEDIA_TYPE,
    )


def handles(app: Starlette, error: BaseException) -> bool:
    """Tell whether an application answers an unexpected error itself, be it as any other."""
    handlers = app.exception_handlers
    return 500 in handlers or Exception in handlers or has_handler_for(app, error)


def has_handler_for(app: Starlette, error: BaseException) -> bool:
    """Tell whether an application has an exception handler for this very kind of error."""
    handlers = app.exception_handlers
    return any(cls in handlers for cls in type(error).__mro__ if cls is not Exception)
