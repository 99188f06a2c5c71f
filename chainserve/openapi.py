"""What the OpenAPI document says of a chain's verbs, whose requests are checked by hand.

FastAPI describes only what it parses itself, and only it knows the names that models get in the
document when several have the same. So each verb has a second route, behind the one that works:
nothing ever reaches it, and FastAPI describes it as any other.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from fastapi import Header, Query
from pydantic import BaseModel
from starlette.responses import Response

from chainserve.bodies import BodyModels
from chainserve.errors import PROBLEM_MEDIA_TYPE, status_phrase
from chainserve.schema import (
    Feedback,
    FeedbackCreateRequest,
    FeedbackCreateRequestTokenBased,
    ProblemDetails,
    PublicTraceLink,
    PublicTraceLinkCreateRequest,
    RunDetails,
    RunList,
)
from chainserve.types import DisconnectMode
from chainserve.wire.projections import EVENT_STREAM, NDJSON, PLAIN_TEXT

Documentation: TypeAlias = dict[str, Any]
"""The arguments of `add_api_route` for the route that documents a verb."""

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

_Cursor: TypeAlias = Annotated[
    str | None, Query(description="The id of the last event received; `Last-Event-ID` goes first.")
]
_Format: TypeAlias = Annotated[
    Literal["text"] | None, Query(description="`text`: unnamed events of text for `onmessage`.")
]
_Key: TypeAlias = Annotated[
    str | None,
    Header(description="Starts at most one run; a repeated request gets that run.", max_length=255),
]
_Preference: TypeAlias = Annotated[str | None, Header(description="`wait=10`: wait for the end.")]


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


_LOCATION = {"Location": _header("Where the run is, relative to the request's URL.")}
_APPLIED = {"Preference-Applied": _header("What of `Prefer` was done.")}
_STARTED = {**_LOCATION, **_APPLIED}
_RETRY_AFTER = {"Retry-After": _header("Seconds to wait, if the model's provider says so.")}

_BODY = (400, 409, 413, 415)
"""What may be wrong with a request that has a body, beside 422."""

_RUN = (410, 429, 499, 502, 504)
"""How a run may end that is waited for, beside 500."""

_READING = (400, 404, 406, 410)
"""What may be wrong with a request for a run's events."""


class _EventStream(Response):
    """Tells FastAPI the media type of a stream."""

    media_type = EVENT_STREAM


def invoke(models: BodyModels) -> Documentation:
    """Describe `POST invoke`."""

    async def documented(body: Any, idempotency_key: _Key = None) -> None:
        raise NotImplementedError

    return {
        **_described(
            documented, "Invoke", "Run the chain once and answer its output.", *_BODY, *_RUN
        ),
        **_bodies(documented, models.invoke_request, models.invoke_response),
        "response_description": "The output.",
    }


def batch(models: BodyModels) -> Documentation:
    """Describe `POST batch`."""

    async def documented(body: Any, idempotency_key: _Key = None) -> None:
        raise NotImplementedError

    description = "Run the chain once for each input and answer the outputs in the inputs' order."
    return {
        **_described(documented, "Batch", description, *_BODY, *_RUN),
        **_bodies(documented, models.batch_request, models.batch_response),
        "response_description": "The outputs.",
    }


def stream(models: BodyModels) -> Documentation:
    """Describe `POST stream`."""

    async def documented(
        body: Any,
        idempotency_key: _Key = None,
        last_event_id: Annotated[str | None, Header()] = None,
        prefer: Annotated[str | None, Header(description="`resumable`: events with ids.")] = None,
    ) -> None:
        raise NotImplementedError

    documented.__annotations__["body"] = models.stream_request
    description = "Run the chain once and stream its output; or go on with the run of a cursor."
    return _streaming(_described(documented, "Stream", description, *_BODY, 404, 410), _STARTED)


def stream_log(models: BodyModels) -> Documentation:
    """Describe `POST stream_log`."""
    description = (
        "Run the chain once and stream what happens inside it, as patches of a run log: "
        '`{"ops": [...]}`, JSON Patch operations (RFC 6902).'
    )
    return _stream_of_steps(models, models.stream_log_request, "Stream log", description)


def stream_events(models: BodyModels) -> Documentation:
    """Describe `POST stream_events`."""
    description = (
        "Run the chain once and stream what happens inside it, as LangChain's stream events: "
        '`{"event", "data", "name", "tags", "run_id", "metadata", "parent_ids"}`.'
    )
    return _stream_of_steps(models, models.stream_events_request, "Stream events", description)


def _stream_of_steps(
    models: BodyModels, request: type[BaseModel], summary: str, description: str
) -> Documentation:
    """Describe a stream of what happens inside a run."""
    described = stream(models)
    described["endpoint"].__annotations__["body"] = request
    return {**described, "summary": summary, "description": description}


def stream_by_get(_: BodyModels) -> Documentation:
    """Describe `GET stream`."""

    async def documented(
        input: Annotated[
            str | None, Query(description="The input as JSON; or a parameter for each field.")
        ] = None,
        config: Annotated[str | None, Query(description="The config as JSON.")] = None,
        idempotency_key: Annotated[
            str | None, Query(description="As the header `Idempotency-Key`.")
        ] = None,
        on_disconnect: DisconnectMode | None = None,
        last_event_id: _Cursor = None,
        format: _Format = None,
    ) -> None:
        raise NotImplementedError

    description = "Run the chain once for a page's EventSource, which resumes that run by itself."
    described = _described(documented, "Stream by GET", description, *_READING, 403, 409)
    return _streaming(described, _LOCATION)


def plain_stream(model: Any) -> Documentation:
    """Describe the POST of a route that takes a chain's bare input."""

    async def documented(body: Any, idempotency_key: _Key = None) -> None:
        raise NotImplementedError

    documented.__annotations__["body"] = model
    description = "Run the chain once and stream its output as text."
    return _streaming(_described(documented, "Stream text", description, *_BODY, 404, 410))


def plain_stream_by_get(_: Any) -> Documentation:
    """Describe the GET of a route that takes a chain's bare input."""
    description = "Run the chain once for a page's EventSource, which resumes that run by itself."
    described = stream_by_get(_)
    return {
        **_streaming(described),
        "summary": "Stream text by GET",
        "description": f"{description} The input's fields are parameters.",
    }


def create_run(models: BodyModels) -> Documentation:
    """Describe `POST runs`."""

    async def documented(
        body: Any, idempotency_key: _Key = None, prefer: _Preference = None
    ) -> None:
        raise NotImplementedError

    description = "Start a run that goes on by itself, and answer where it is."
    ended = {"description": "It has ended in the time it was waited for.", "model": RunDetails}
    headers = {"headers": _STARTED}
    described = _described(documented, "Start a run", description, *_BODY)
    return {
        **described,
        **_bodies(documented, models.run_request, RunDetails),
        "status_code": 202,
        "response_description": "It goes on.",
        "responses": {**described["responses"], 202: headers, 200: {**ended, **headers}},
    }


def list_runs(_: BodyModels) -> Documentation:
    """Describe `GET runs`."""

    async def documented() -> None:
        raise NotImplementedError

    description = "List the caller's runs, the newest first."
    described = _described(documented, "List runs", description, 400, 403)
    return {**described, "response_model": RunList, "response_description": "The runs."}


def show_run(_: BodyModels) -> Documentation:
    """Describe `GET runs/{run_id}`."""

    async def documented(run_id: UUID, prefer: _Preference = None) -> None:
        raise NotImplementedError

    description = "Answer what is known of a run, its output or its error too."
    described = _described(documented, "Show a run", description, 400, 404)
    answer = {"headers": _APPLIED}
    return {
        **described,
        "response_model": RunDetails,
        "response_description": "What is known of the run.",
        "responses": {**described["responses"], 200: answer},
    }


def stream_run(_: BodyModels) -> Documentation:
    """Describe `GET runs/{run_id}/stream`."""

    async def documented(
        run_id: UUID,
        last_event_id: _Cursor = None,
        format: _Format = None,
    ) -> None:
        raise NotImplementedError

    description = "Stream a run's events from a cursor, or from the start; 204 after the last."
    described = _described(documented, "Stream a run", description, *_READING)
    return _streaming(described)


def cancel_run(_: BodyModels) -> Documentation:
    """Describe `POST runs/{run_id}/cancel`."""

    async def documented(run_id: UUID) -> None:
        raise NotImplementedError

    description = "Cancel a run and answer what is known of it; a run that has ended stays so."
    described = _described(documented, "Cancel a run", description, 400, 403, 404)
    answer = "What is known of the run, which has ended if it could be ended."
    return {**described, "response_model": RunDetails, "response_description": answer}


def delete_run(_: BodyModels) -> Documentation:
    """Describe `DELETE runs/{run_id}`."""

    async def documented(run_id: UUID) -> None:
        raise NotImplementedError

    description = "Forget a run that has ended: its record, its output and its events."
    described = _described(documented, "Forget a run", description, 400, 404, 409)
    return {**described, "status_code": 204, "response_description": "It is forgotten."}


def create_feedback(_: BodyModels) -> Documentation:
    """Describe `POST feedback`."""

    async def documented(body: Any) -> None:
        raise NotImplementedError

    described = _described(
        documented, "Feedback", "Send feedback on a run to LangSmith.", *_BODY, 404, 502, 504
    )
    return {**described, **_bodies(documented, FeedbackCreateRequest, Feedback)}


def check_feedback(_: BodyModels) -> Documentation:
    """Describe `HEAD feedback`."""
    return _check("Check feedback", "Tell whether feedback may be sent: 200, or 400.")


def create_feedback_from_token(_: BodyModels) -> Documentation:
    """Describe `POST token_feedback`."""

    async def documented(body: Any) -> None:
        raise NotImplementedError

    description = "Send the feedback to LangSmith that a token allows."
    described = _described(documented, "Token feedback", description, *_BODY, 404, 502, 504)
    return {**described, **_bodies(documented, FeedbackCreateRequestTokenBased, None)}


def create_public_trace_link(_: BodyModels) -> Documentation:
    """Describe `PUT public_trace_link`."""

    async def documented(body: Any) -> None:
        raise NotImplementedError

    description = "Make the LangSmith trace of a run public, and answer where it is."
    described = _described(documented, "Public trace link", description, *_BODY, 404, 502, 504)
    return {**described, **_bodies(documented, PublicTraceLinkCreateRequest, PublicTraceLink)}


def check_public_trace_link(_: BodyModels) -> Documentation:
    """Describe `HEAD public_trace_link`."""
    return _check("Check public trace link", "Tell whether traces may be made public: 200, or 400.")


def _check(summary: str, description: str) -> Documentation:
    """Describe a route that tells whether another can be used."""

    async def documented() -> None:
        raise NotImplementedError

    return _described(documented, summary, description, 400)


def input_schema(_: BodyModels) -> Documentation:
    """Describe `GET input_schema`."""
    return _schema("Input schema", "Answer the JSON schema of the chain's input.")


def output_schema(_: BodyModels) -> Documentation:
    """Describe `GET output_schema`."""
    return _schema("Output schema", "Answer the JSON schema of the chain's output.")


def config_schema(_: BodyModels) -> Documentation:
    """Describe `GET config_schema`."""
    description = "Answer the JSON schema of what a caller may put into the config."
    return _schema("Config schema", description)


def _schema(summary: str, description: str) -> Documentation:
    """Describe a route that answers a JSON schema."""

    async def documented() -> None:
        raise NotImplementedError

    return {
        **_described(documented, summary, description, 400),
        "response_model": dict[str, Any],
        "response_description": "The JSON schema.",
    }


def _described(
    endpoint: Callable[..., Awaitable[None]], summary: str, description: str, *problems: int
) -> Documentation:
    """Return what all descriptions have."""
    return {
        "endpoint": endpoint,
        "summary": summary,
        "description": description,
        "responses": _problems(*problems, 422, 500),
    }


def _bodies(endpoint: Any, request: Any, answer: Any) -> Documentation:
    """Give the endpoint the body that FastAPI shall describe, and return its answer."""
    endpoint.__annotations__["body"] = request
    return {"response_model": answer}


def _streaming(described: Documentation, headers: Mapping[str, Any] | None = None) -> Documentation:
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


def _problems(*statuses: int) -> dict[int | str, Any]:
    content = {PROBLEM_MEDIA_TYPE: {"schema": ProblemDetails.model_json_schema()}}
    problems: dict[int | str, Any] = {
        status: {"description": status_phrase(status), "content": content} for status in statuses
    }
    if 429 in problems:
        problems[429]["headers"] = _RETRY_AFTER
    return problems
