"""What starts a run and answers it."""

from typing import Annotated, Any

from fastapi import Header, Query
from pydantic import BaseModel

from chainserve.bodies import BodyModels
from chainserve.openapi.describing import (
    BODY_PROBLEMS,
    LOCATION,
    READING_PROBLEMS,
    RUN_PROBLEMS,
    STARTED,
    Cursor,
    Documentation,
    Format,
    Key,
    bodies,
    description_of,
)
from chainserve.openapi.streaming import streaming
from chainserve.types import DisconnectMode


def invoke(models: BodyModels) -> Documentation:
    """Describe `POST invoke`."""

    async def documented(body: Any, idempotency_key: Key = None) -> None:
        raise NotImplementedError

    return {
        **description_of(
            documented,
            "Invoke",
            "Run the chain once and answer its output.",
            *BODY_PROBLEMS,
            *RUN_PROBLEMS,
        ),
        **bodies(documented, models.invoke_request, models.invoke_response),
        "response_description": "The output.",
    }


def batch(models: BodyModels) -> Documentation:
    """Describe `POST batch`."""

    async def documented(body: Any, idempotency_key: Key = None) -> None:
        raise NotImplementedError

    description = "Run the chain once for each input and answer the outputs in the inputs' order."
    return {
        **description_of(documented, "Batch", description, *BODY_PROBLEMS, *RUN_PROBLEMS),
        **bodies(documented, models.batch_request, models.batch_response),
        "response_description": "The outputs.",
    }


def stream(models: BodyModels) -> Documentation:
    """Describe `POST stream`."""

    async def documented(
        body: Any,
        idempotency_key: Key = None,
        last_event_id: Annotated[str | None, Header()] = None,
        prefer: Annotated[str | None, Header(description="`resumable`: events with ids.")] = None,
    ) -> None:
        raise NotImplementedError

    documented.__annotations__["body"] = models.stream_request
    description = "Run the chain once and stream its output; or go on with the run of a cursor."
    return streaming(
        description_of(documented, "Stream", description, *BODY_PROBLEMS, 404, 410), STARTED
    )


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
        last_event_id: Cursor = None,
        format: Format = None,
    ) -> None:
        raise NotImplementedError

    description = "Run the chain once for a page's EventSource, which resumes that run by itself."
    described = description_of(
        documented, "Stream by GET", description, *READING_PROBLEMS, 403, 409
    )
    return streaming(described, LOCATION)


def plain_stream(model: Any) -> Documentation:
    """Describe the POST of a route that takes a chain's bare input."""

    async def documented(body: Any, idempotency_key: Key = None) -> None:
        raise NotImplementedError

    documented.__annotations__["body"] = model
    description = "Run the chain once and stream its output as text."
    return streaming(
        description_of(documented, "Stream text", description, *BODY_PROBLEMS, 404, 410)
    )


def plain_stream_by_get(_: Any) -> Documentation:
    """Describe the GET of a route that takes a chain's bare input."""
    description = "Run the chain once for a page's EventSource, which resumes that run by itself."
    described = stream_by_get(_)
    return {
        **streaming(described),
        "summary": "Stream text by GET",
        "description": f"{description} The input's fields are parameters.",
    }
