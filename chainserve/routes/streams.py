"""Starting a run and streaming it: the stream routes, and the tutorial's plain route."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast, get_args

from starlette.requests import Request
from starlette.responses import Response

from chainserve.cross_site import refuse_cross_site
from chainserve.queries import canonical_query, input_of_query, json_parameter
from chainserve.responses import EventStreamResponse, Wire
from chainserve.routes.reading import (
    accepted,
    applied,
    cursor_text,
    location,
    resume,
    wants_text_events,
    wire_of,
)
from chainserve.routes.requests import answers_errors, idempotency_key_of, preferences
from chainserve.routes.starting import Asked, RunStarter
from chainserve.runtime import runtime_of
from chainserve.types import DisconnectMode
from chainserve.validation import EventsEnvelope, InvokeEnvelope, input_error, validate_envelope
from chainserve.wire.projections import EVENT_STREAM, PLAIN_TEXT, LangServeWire
from chainserve.work import Work

_Mode: TypeAlias = Literal["stream", "stream_log", "stream_events"]


class StreamRoutes:
    """The handlers of one chain's `stream`, `stream_log` or `stream_events`.

    Args:
        starter: Starts the chain's runs.
        mode: Which of them; the endpoint has its name.
        tells_location: Whether its answers say where the run is, if the chain has the run routes.
    """

    segments = 1
    """How many segments of a request's path are the route's own."""

    def __init__(
        self, starter: RunStarter, mode: _Mode = "stream", *, tells_location: bool = True
    ) -> None:
        self._starter = starter
        self._mode: _Mode = mode
        self._tells_location = tells_location and "runs" in starter.chain.endpoints

    @answers_errors
    async def post(self, request: Request) -> Response:
        """Run the chain once and stream its chunks; or go on with the run that a cursor names."""
        body = await self._starter.read(request)
        media_type = accepted(request, strict=False)
        if cursor_text(request):
            await self._starter.config(None, body.request, self._mode)
            return await self._resume(request, media_type)
        envelope = self._envelope(body.data)
        config = await self._starter.config(envelope.config, body.request, self._mode)
        asked = Asked(
            endpoint=self._mode,
            content=body.text,
            idempotency_key=idempotency_key_of(request),
            on_disconnect=envelope.on_disconnect,
            resumable=self._may_be_resumed(request),
            segments=self.segments,
        )
        as_text = media_type == PLAIN_TEXT or self._text_events(request)
        work = self._starter.work(self._mode, envelope, config, request, as_text=as_text)
        return await self._stream(request, work, asked, media_type)

    @answers_errors
    async def get(self, request: Request) -> Response:
        """Run the chain once for a page's `EventSource`, which resumes that run by itself."""
        runtime = runtime_of(request)
        refuse_cross_site(request.headers, origins=runtime.settings.cors_origins)
        media_type = accepted(request, strict=True)
        if cursor_text(request):
            await self._starter.config(None, request, "stream")
            return await self._resume(request, media_type)
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
            segments=self.segments,
        )
        as_text = media_type == PLAIN_TEXT or self._text_events(request)
        body = InvokeEnvelope(input=value)
        work = self._starter.work("stream", body, config, request, as_text=as_text)
        return await self._stream(request, work, asked, media_type)

    def _envelope(self, body: Any) -> InvokeEnvelope:
        """Return what a body asks for."""
        if self._mode == "stream":
            return validate_envelope(InvokeEnvelope, body)
        return validate_envelope(EventsEnvelope, body)

    def _may_be_resumed(self, request: Request) -> bool:
        """Tell whether the answer to a POST has ids."""
        return preferences(request).resumable

    def _text_events(self, request: Request) -> bool:
        """Tell whether events are unnamed and have text."""
        return wants_text_events(request)

    async def _resume(self, request: Request, media_type: str) -> Response:
        return await resume(
            self._starter,
            request,
            media_type,
            segments=self.segments,
            text_events=self._text_events(request),
        )

    async def _stream(
        self, request: Request, work: Work, asked: Asked, media_type: str
    ) -> Response:
        """Start the run, or find the one of its key, and answer its log from the start."""
        runtime, text_events = runtime_of(request), self._text_events(request)
        run = await self._starter.start(request, work, asked)
        wire: Wire = LangServeWire(tells_run_id=self._mode == "stream")
        headers = applied(request)
        if media_type != EVENT_STREAM or asked.resumable:
            wire = wire_of(media_type, run.id, run.epoch, runtime, text_events=text_events)
            if self._tells_location:
                headers["location"] = location(request, run.id)
        return EventStreamResponse(
            runtime.executor,
            run.id,
            run.epoch,
            wire,
            runtime.pace,
            resumable=asked.resumable or asked.idempotency_key is not None,
            headers=headers,
        )


class PlainStreamRoutes(StreamRoutes):
    """The handlers of one plain route: bare inputs, events of text, and no run routes beside it.

    Args:
        starter: Starts the chain's runs.
    """

    segments = 0

    def __init__(self, starter: RunStarter) -> None:
        super().__init__(starter, tells_location=False)

    def _envelope(self, body: Any) -> InvokeEnvelope:
        return InvokeEnvelope(input=body)

    def _may_be_resumed(self, request: Request) -> bool:
        return True

    def _text_events(self, request: Request) -> bool:
        wants_text_events(request)  # Another format is refused here too.
        return True


def _config_of(query: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the config in a query string, which is a JSON object."""
    if "config" not in query:
        return None
    config = json_parameter("config", query["config"])
    if not isinstance(config, dict):
        message = 'This is JSON, but no object. Send one, such as {"tags": ["a"]}'
        raise input_error("dict_type", ("query", "config"), message, config)
    return config


def _on_disconnect_of(query: Mapping[str, str]) -> DisconnectMode | None:
    mode = query.get("on_disconnect")
    if mode is not None and mode not in get_args(DisconnectMode):
        message = "Input should be 'cancel' or 'continue'"
        raise input_error("literal_error", ("query", "on_disconnect"), message, mode)
    return cast("DisconnectMode | None", mode)
