"""Starting a run and streaming it: `POST stream`, `GET stream`, and the tutorial's plain route."""

from collections.abc import Mapping
from typing import Any, cast, get_args

from langchain_core.runnables import RunnableConfig
from starlette.requests import Request
from starlette.responses import Response

from chainserve.cross_site import refuse_cross_site
from chainserve.execution import Work
from chainserve.queries import canonical_query, input_of_query, json_parameter
from chainserve.responses import EventStreamResponse, Wire
from chainserve.routes.reading import (
    accepted,
    cursor_text,
    location,
    resume,
    wants_text_events,
    wire_of,
)
from chainserve.routes.requests import answers_errors
from chainserve.routes.starting import Asked, RunStarter, idempotency_key_of, preferences
from chainserve.runtime import runtime_of
from chainserve.types import DisconnectMode
from chainserve.validation import InvokeEnvelope, input_error, validate_envelope
from chainserve.wire.projections import EVENT_STREAM, LangServeWire


class StreamRoutes:
    """The handlers of one chain's streams.

    Args:
        starter: Starts the chain's runs.
        plain: Whether this is a route of its own: bare inputs, events of text, no run routes.
    """

    def __init__(self, starter: RunStarter, *, plain: bool = False) -> None:
        self._starter = starter
        self._plain = plain
        self._segments = 0 if plain else 1
        self._tells_location = not plain and "runs" in starter.chain.endpoints

    @answers_errors
    async def post(self, request: Request) -> Response:
        """Run the chain once and stream its chunks; or go on with the run that a cursor names."""
        body = await self._starter.read(request)
        media_type = accepted(request, strict=False)
        if cursor_text(request):
            await self._starter.guard(body.request, "stream")
            return await self._resume(request, media_type, text_events=self._plain)
        if self._plain:
            value, sent, on_disconnect = body.data, None, None
        else:
            envelope = validate_envelope(InvokeEnvelope, body.data)
            value, sent = envelope.input, envelope.config
            on_disconnect = envelope.on_disconnect
        config = await self._starter.config(sent, body.request, "stream")
        resumable = self._plain or preferences(request).resumable
        asked = Asked(
            endpoint="stream",
            content=body.text,
            idempotency_key=idempotency_key_of(request),
            on_disconnect=on_disconnect,
            resumable=resumable,
            segments=self._segments,
        )
        work = self._work(value, config)
        return await self._stream(request, work, asked, media_type, text_events=self._plain)

    @answers_errors
    async def get(self, request: Request) -> Response:
        """Run the chain once for a page's `EventSource`, which resumes that run by itself."""
        runtime = runtime_of(request)
        refuse_cross_site(request.headers, origins=runtime.settings.cors_origins)
        media_type = accepted(request, strict=True)
        text_events = wants_text_events(request) or self._plain
        if cursor_text(request):
            await self._starter.guard(request, "stream")
            return await self._resume(request, media_type, text_events=text_events)
        query = request.query_params
        sent = _config_of(query)
        config = await self._starter.config(sent, request, "stream")
        schema = self._starter.execution.input_schema(config)
        value = input_of_query(query.multi_items(), schema)
        asked = Asked(
            endpoint="stream",
            content=canonical_query(query.multi_items()).encode(),
            idempotency_key=idempotency_key_of(request, query.get("idempotency_key")),
            on_disconnect=_on_disconnect_of(query),
            resumable=True,
            segments=self._segments,
        )
        work = self._work(value, config)
        return await self._stream(request, work, asked, media_type, text_events=text_events)

    def _work(self, value: Any, config: RunnableConfig) -> Work:
        execution, chain = self._starter.execution, self._starter.chain
        checked = execution.parse_input(value, config)
        return execution.stream(checked, config, keep_chunks=chain.on_end is not None)

    async def _resume(self, request: Request, media_type: str, *, text_events: bool) -> Response:
        return await resume(
            self._starter,
            request,
            media_type,
            segments=self._segments,
            text_events=text_events,
        )

    async def _stream(
        self, request: Request, work: Work, asked: Asked, media_type: str, *, text_events: bool
    ) -> Response:
        """Start the run, or find the one of its key, and answer its log from the start."""
        runtime = runtime_of(request)
        run = await self._starter.start(request, work, asked)
        langserves = media_type == EVENT_STREAM and not asked.resumable
        wire: Wire = LangServeWire()
        headers: dict[str, str] = {}
        if not langserves:
            wire = wire_of(media_type, run.id, run.epoch, runtime, text_events=text_events)
            if self._tells_location:
                headers["location"] = location(request, run.id)
        if preferences(request).resumable:
            headers["preference-applied"] = "resumable"
        return EventStreamResponse(
            runtime.executor,
            run.id,
            wire,
            runtime.pace,
            resumable=asked.resumable or asked.idempotency_key is not None,
            headers=headers,
        )


def _config_of(query: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the config in a query string, which is a JSON object."""
    if "config" not in query:
        return None
    config = json_parameter("config", query["config"])
    if not isinstance(config, dict):
        raise input_error("dict_type", ("query", "config"), "Send a JSON object", config)
    return config


def _on_disconnect_of(query: Mapping[str, str]) -> DisconnectMode | None:
    mode = query.get("on_disconnect")
    if mode is not None and mode not in get_args(DisconnectMode):
        message = "Input should be 'cancel' or 'continue'"
        raise input_error("literal_error", ("query", "on_disconnect"), message, mode)
    return cast("DisconnectMode | None", mode)
