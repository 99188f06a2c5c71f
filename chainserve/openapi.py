"""What the OpenAPI document says of a chain's routes, whose bodies are checked by hand.

FastAPI documents only what it parses itself, and collects component schemas only from models it
knows. So each route names one model that holds all bodies of its chain as its response, which puts
them among the components, and then describes itself with references to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, create_model

from chainserve.errors import PROBLEM_MEDIA_TYPE, status_phrase
from chainserve.schema import ProblemDetails
from chainserve.types import EndpointName
from chainserve.validation import BodyModels
from chainserve.wire.projections import EVENT_STREAM

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

A comment line is sent when nothing else is for 15 seconds."""

_EVENT_SCHEMA = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["metadata", "data", "error", "end"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event"],
}

_PROBLEMS = (413, 415, 422, 500)


@dataclass(frozen=True, slots=True)
class _Documentation:
    """What one verb does, in words, and the names of its bodies' models."""

    summary: str
    description: str
    request: str
    response: str | None


_VERBS: Mapping[EndpointName, _Documentation] = {
    "invoke": _Documentation(
        "Invoke", "Run the chain once and answer its output.", "invoke_request", "invoke_response"
    ),
    "batch": _Documentation(
        "Batch",
        "Run the chain once for each input and answer the outputs in the inputs' order.",
        "batch_request",
        "batch_response",
    ),
    "stream": _Documentation(
        "Stream", "Run the chain once and stream its output.", "invoke_request", None
    ),
}


def holder(namespace: str, models: BodyModels) -> type[BaseModel]:
    """Return a model that holds all bodies of a chain."""
    fields: dict[str, Any] = {
        name: (getattr(models, name), ...) for name in BodyModels.__dataclass_fields__
    }
    return create_model(f"{namespace}Bodies", problem=(ProblemDetails, ...), **fields)


def documentation(
    verb: EndpointName, models: BodyModels, bodies: type[BaseModel]
) -> dict[str, Any]:
    """Return the arguments of `add_api_route` that document a verb."""
    verb_documentation = _VERBS[verb]
    request: type[BaseModel] = getattr(models, verb_documentation.request)
    if verb_documentation.response is None:
        answer = _stream_answer()
    else:
        answer = _json_answer(getattr(models, verb_documentation.response))
    return {
        "summary": verb_documentation.summary,
        "description": verb_documentation.description,
        "responses": {200: {"model": bodies}},
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"application/json": _schema(request)}},
            # FastAPI merges dicts into what it has; only what is no dict takes its place.
            "responses": {"200": MappingProxyType(answer), **_problem_answers()},
        },
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}


def _json_answer(model: type[BaseModel]) -> dict[str, Any]:
    return {"description": "The output.", "content": {"application/json": _schema(model)}}


def _stream_answer() -> dict[str, Any]:
    content = {
        "schema": {"type": "string"},
        "itemSchema": _EVENT_SCHEMA,
        "example": _STREAM_EXAMPLE,
    }
    return {"description": _STREAM_DESCRIPTION, "content": {EVENT_STREAM: content}}


def _problem_answers() -> dict[str, Any]:
    content = {PROBLEM_MEDIA_TYPE: _schema(ProblemDetails)}
    return {
        str(status): {"description": status_phrase(status), "content": content}
        for status in _PROBLEMS
    }
