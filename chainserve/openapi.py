"""What the OpenAPI document says of a chain's verbs, whose bodies are checked by hand.

FastAPI describes only bodies that it parses itself, and only it knows the names that models get in
the document when several have the same. So each verb has a second route, behind the one that
works: nothing ever reaches it, and FastAPI describes it as any other.
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from chainserve.errors import PROBLEM_MEDIA_TYPE, status_phrase
from chainserve.schema import ProblemDetails
from chainserve.types import EndpointName
from chainserve.validation import BodyModels
from chainserve.wire.projections import EVENT_STREAM

_SUMMARIES: Mapping[EndpointName, tuple[str, str]] = {
    "invoke": ("Invoke", "Run the chain once and answer its output."),
    "batch": (
        "Batch",
        "Run the chain once for each input and answer the outputs in the inputs' order.",
    ),
    "stream": ("Stream", "Run the chain once and stream its output."),
}
_STREAM_EXAMPLE = (
    'event: metadata\r\ndata: {"run_id": "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"}\r\n\r\n'
    'event: data\r\ndata: "Hello"\r\n\r\n'
    "event: end\r\n\r\n"
)
_STREAM_DESCRIPTION = """Server-Sent Events, in this order:

| event | data | when |
|---|---|---|
| `metadata` | `{"run_id": "…"}` | just before the first chunk |
| `data` | a chunk of the output, as JSON | any number |
| `end` | none | last, if the run succeeded |
| `error` | `{"status_code": 500, "message": "…"}` | last, if it did not |

A comment line is sent when nothing else is for a while."""
_PROBLEMS = (413, 415, 422, 500)


class _EventStream(Response):
    """Tells FastAPI the media type of a stream."""

    media_type = EVENT_STREAM


def documentation(verb: EndpointName, models: BodyModels) -> dict[str, Any]:
    """Return the arguments of `add_api_route` for the route that documents a verb."""
    summary, description = _SUMMARIES[verb]
    request = models.batch_request if verb == "batch" else models.invoke_request
    options: dict[str, Any] = {
        "endpoint": _endpoint(request),
        "summary": summary,
        "description": description,
        "responses": _problems(),
    }
    if verb == "stream":
        options["responses"][200] = _stream_answer()
        return {**options, "response_class": _EventStream}
    answer = models.batch_response if verb == "batch" else models.invoke_response
    return {**options, "response_model": answer, "response_description": "The output."}


def _endpoint(request: Any) -> Any:
    """Return a function with the body FastAPI shall describe."""

    async def documented(body: Any) -> None:
        raise NotImplementedError("the route before this one answers")

    documented.__annotations__["body"] = request
    return documented


def _stream_answer() -> dict[str, Any]:
    content = {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE}
    return {"description": _STREAM_DESCRIPTION, "content": {EVENT_STREAM: content}}


def _problems() -> dict[int | str, Any]:
    content = {PROBLEM_MEDIA_TYPE: {"schema": ProblemDetails.model_json_schema()}}
    return {
        status: {"description": status_phrase(status), "content": content} for status in _PROBLEMS
    }
