"""What the descriptions of several routes have in common."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Header, Query

from chainserve.errors import PROBLEM_MEDIA_TYPE, status_phrase
from chainserve.schema import ProblemDetails

Documentation: TypeAlias = dict[str, Any]
"""The arguments of `add_api_route` for the route that documents a verb."""

Cursor: TypeAlias = Annotated[
    str | None, Query(description="The id of the last event received; `Last-Event-ID` goes first.")
]
Format: TypeAlias = Annotated[
    Literal["text"] | None, Query(description="`text`: unnamed events of text for `onmessage`.")
]
Key: TypeAlias = Annotated[
    str | None,
    Header(description="Starts at most one run; a repeated request gets that run.", max_length=255),
]
Preference: TypeAlias = Annotated[str | None, Header(description="`wait=10`: wait for the end.")]


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


LOCATION = {"Location": _header("Where the run is, relative to the request's URL.")}
APPLIED = {"Preference-Applied": _header("What of `Prefer` was done.")}
STARTED = {**LOCATION, **APPLIED}
_RETRY_AFTER = {"Retry-After": _header("Seconds to wait, if the model's provider says so.")}

BODY_PROBLEMS = (400, 409, 413, 415)
"""What may be wrong with a request that has a body, beside 422."""

CANCEL_PROBLEMS = (400, 404, 413, 415)
"""What may be wrong with a request to cancel the run of a key."""

RUN_PROBLEMS = (410, 429, 499, 502, 504)
"""How a run may end that is waited for, beside 500."""

READING_PROBLEMS = (400, 404, 406, 410)
"""What may be wrong with a request for a run's events."""


def description_of(
    endpoint: Callable[..., Awaitable[None]], summary: str, description: str, *problems: int
) -> Documentation:
    """Return what all descriptions have."""
    return {
        "endpoint": endpoint,
        "summary": summary,
        "description": description,
        "responses": _problems(*problems, 422, 500),
    }


def bodies(endpoint: Any, request: Any, answer: Any) -> Documentation:
    """Give the endpoint the body that FastAPI shall describe, and return its answer."""
    endpoint.__annotations__["body"] = request
    return {"response_model": answer}


def _problems(*statuses: int) -> dict[int | str, Any]:
    content = {PROBLEM_MEDIA_TYPE: {"schema": ProblemDetails.model_json_schema()}}
    problems: dict[int | str, Any] = {
        status: {"description": status_phrase(status), "content": content} for status in statuses
    }
    if 429 in problems:
        problems[429]["headers"] = _RETRY_AFTER
    return problems
