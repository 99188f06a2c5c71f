"""`add_routes`: mounts a chain on a FastAPI application or router, with LangServe's signature."""

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, FastAPI
from langchain_core.runnables import Runnable
from starlette.requests import Request
from starlette.responses import Response

from chainserve import openapi
from chainserve.bodies import BodyModels
from chainserve.chain import Chain, PerRequestConfigModifier
from chainserve.errors import ConfigurationError
from chainserve.observability import make_logger
from chainserve.registry import refuse_options, why_stream_fails
from chainserve.routes.feedback import FeedbackRoutes
from chainserve.routes.langserve import LangServeRoutes
from chainserve.routes.langserve_playground import LangServePlaygroundRoutes, installed_files
from chainserve.routes.paths import any_form
from chainserve.routes.playground import PlaygroundRoutes
from chainserve.routes.runs import RunRoutes
from chainserve.routes.schemas import SchemaRoutes
from chainserve.routes.starting import RunStarter
from chainserve.routes.streams import PlainStreamRoutes, StreamRoutes
from chainserve.runtime import close_with, settings_on
from chainserve.serialization import Serializer
from chainserve.settings import unknown_variables
from chainserve.types import ENDPOINT_NAMES, EndpointName, PlaygroundType

_Handler: TypeAlias = Callable[..., Awaitable[Response]]


KNOWN_ENDPOINTS: frozenset[EndpointName] = frozenset(ENDPOINT_NAMES)
"""What the endpoint lists may name."""


def add_routes(
    app: FastAPI | APIRouter,
    runnable: Runnable[Any, Any] | Chain,
    *,
    path: str = "",
    input_type: Any = "auto",
    output_type: Any = "auto",
    config_keys: Sequence[str] = ("configurable",),
    include_callback_events: bool = False,
    per_req_config_modifier: PerRequestConfigModifier | None = None,
    enable_feedback_endpoint: bool = False,
    token_feedback_config: Mapping[str, Any] | None = None,
    enable_public_trace_link_endpoint: bool = False,
    disabled_endpoints: Sequence[EndpointName] | None = None,
    stream_log_name_allow_list: Sequence[str] | None = None,
    enabled_endpoints: Sequence[EndpointName] | None = None,
    dependencies: Sequence[Any] | None = None,
    playground_type: PlaygroundType = "default",
    astream_events_version: Literal["v1", "v2"] = "v2",
    serializer: Serializer | None = None,
) -> None:
    """Mount a chain's routes on an application.

    Below `path`: `POST invoke`, `POST batch`, `POST stream`, `GET stream`, `POST stream_log`,
    `POST stream_events`, the run routes (`runs`), `GET playground/`, `GET input_schema`,
    `GET output_schema` and `GET config_schema`, as far as the endpoint lists allow, each also below
    `c/{config_hash}`. Nothing else about the application changes, but that runs are ended with its
    lifespan.

    Args:
        app: A `FastAPI` application, mounted ones included, or an `APIRouter`.
        runnable: A runnable, or a `Chain` that declares everything itself.
        path: Where to mount, such as `/chat`. A `Chain` has its own.
        input_type: See `Chain`, as for all other arguments.
        output_type: See `Chain`.
        config_keys: See `Chain`.
        include_callback_events: See `Chain`.
        per_req_config_modifier: See `Chain`.
        enable_feedback_endpoint: See `Chain`.
        token_feedback_config: See `Chain`.
        enable_public_trace_link_endpoint: See `Chain`.
        disabled_endpoints: See `Chain`.
        stream_log_name_allow_list: See `Chain`.
        enabled_endpoints: See `Chain`.
        dependencies: See `Chain`.
        playground_type: See `Chain`.
        astream_events_version: See `Chain`.
        serializer: See `Chain`.

    Raises:
        ConfigurationError: An option or a setting cannot work, the path is taken, or a schema
            cannot be made.
    """
    options: dict[str, Any] = {
        "path": path,
        "input_type": input_type,
        "output_type": output_type,
        "config_keys": config_keys,
        "include_callback_events": include_callback_events,
        "per_req_config_modifier": per_req_config_modifier,
        "enable_feedback_endpoint": enable_feedback_endpoint,
        "token_feedback_config": token_feedback_config,
        "enable_public_trace_link_endpoint": enable_public_trace_link_endpoint,
        "disabled_endpoints": disabled_endpoints,
        "stream_log_name_allow_list": stream_log_name_allow_list,
        "enabled_endpoints": enabled_endpoints,
        "dependencies": dependencies or (),
        "playground_type": playground_type,
        "astream_events_version": astream_events_version,
        "serializer": serializer,
    }
    if isinstance(runnable, Chain):
        _refuse_options(options)
        chain = runnable
    else:
        chain = Chain(runnable=runnable, **options)
    _check_environment(app.router if isinstance(app, FastAPI) else app, chain)
    mount(app, chain)


def add_stream_route(
    app: FastAPI | APIRouter, chain: Runnable[Any, Any] | Chain, path: str = "/stream_chat"
) -> None:
    """Mount one plain route that streams a chain's answer as events of text.

    It takes the chain's bare input, by POST as JSON (`{"question": "…"}`) and by GET as parameters
    (`?question=…`). A chunk is an unnamed event, whose data is its text: what a page's `onmessage`
    gets. `end` and `error` are named. A page that was cut goes on by itself; one that was reloaded
    gets the same run with the same `idempotency_key`.

    Args:
        app: A `FastAPI` application, mounted ones included, or an `APIRouter`.
        chain: A runnable, or a `Chain`, whose options hold but for its path and endpoint lists.
        path: The route's path.

    Raises:
        ConfigurationError: An option or a setting cannot work, the path is taken, or a schema
            cannot be made.
    """
    router = app.router if isinstance(app, FastAPI) else app
    declared = chain if isinstance(chain, Chain) else Chain(path=path, runnable=chain)
    refuse_options(declared)
    _check_environment(router, declared)
    if f"{router.prefix}{path}" in {getattr(route, "path", None) for route in router.routes}:
        raise ConfigurationError(f"There is a route at {path} already. Give this another path.")
    starter = RunStarter(declared.at(path), router.prefix)
    routes = PlainStreamRoutes(starter)
    options: dict[str, Any] = {"name": _operation(path), "dependencies": [*declared.dependencies]}
    handlers = {"POST": routes.post, "GET": routes.get}
    hidden = {**options, "methods": [*handlers], "include_in_schema": False}
    router.add_api_route(path, _by_method(handlers), **hidden)
    for method, document in (("POST", openapi.plain_stream), ("GET", openapi.plain_stream_by_get)):
        described = document(starter.execution.input_schema({}))
        options |= {"methods": [method], "tags": [*declared.tags]}
        router.add_api_route(path, **{**options, **described})
    setattr(router, _WARNED, True)
    close_with(router)


def _refuse_options(options: Mapping[str, Any]) -> None:
    """Refuse options beside a `Chain`, which has them all: there is one place to look."""
    defaults = {field.name: field.default for field in fields(Chain)} | {"path": ""}
    given = [name for name, value in options.items() if value != defaults[name]]
    if given:
        raise ConfigurationError(
            f"add_routes was given a Chain and {', '.join(given)}. Put them into the Chain."
        )


def mount(app: FastAPI | APIRouter, chain: Chain) -> None:
    """Add the chain's routes to the router, and end its runs with the router's lifespan.

    Raises:
        ConfigurationError: As `add_routes`, the settings aside.
    """
    router = app.router if isinstance(app, FastAPI) else app
    refuse_options(chain)
    setattr(router, _WARNED, True)
    _refuse_taken(router, chain)
    starter = RunStarter(chain, router.prefix)
    add = _Adder(router, chain, starter.models())
    _add_verbs(add, starter)
    _add_runs(add, RunRoutes(starter))
    schemas = SchemaRoutes(starter)
    add.route("input_schema", GET=(schemas.input_schema, openapi.input_schema))
    add.route("output_schema", GET=(schemas.output_schema, openapi.output_schema))
    add.route("config_schema", GET=(schemas.config_schema, openapi.config_schema))
    _add_feedback(add, FeedbackRoutes(starter))
    if "playground" in chain.endpoints:
        add.playground(PlaygroundRoutes(chain))
        if installed_files(chain.playground_type):
            add.langserve_playground(LangServePlaygroundRoutes(starter))
    close_with(router)


def _add_verbs(add: "_Adder", starter: RunStarter) -> None:
    """Add what starts a run and answers it."""
    verbs, streams = LangServeRoutes(starter), StreamRoutes(starter)
    add.route("invoke", POST=(verbs.invoke, openapi.invoke))
    add.route("batch", POST=(verbs.batch, openapi.batch))
    add.route(
        "stream", POST=(streams.post, openapi.stream), GET=(streams.get, openapi.stream_by_get)
    )
    logs, events = StreamRoutes(starter, "stream_log"), StreamRoutes(starter, "stream_events")
    add.route("stream_log", POST=(logs.post, openapi.stream_log))
    add.route("stream_events", POST=(events.post, openapi.stream_events))


def _add_runs(add: "_Adder", runs: RunRoutes) -> None:
    """Add the run routes."""
    one = "/{run_id}"
    add.route("runs", POST=(runs.create, openapi.create_run), GET=(runs.list, openapi.list_runs))
    add.route(
        "runs",
        below=one,
        GET=(runs.show, openapi.show_run),
        DELETE=(runs.delete, openapi.delete_run),
    )
    add.route("runs", below=f"{one}/stream", GET=(runs.stream, openapi.stream_run))
    add.route("runs", below=f"{one}/cancel", POST=(runs.cancel, openapi.cancel_run))


def _add_feedback(add: "_Adder", feedback: FeedbackRoutes) -> None:
    """Add what callers send to LangSmith."""
    add.route(
        "feedback",
        POST=(feedback.create_feedback, openapi.create_feedback),
        HEAD=(feedback.check_feedback, openapi.check_feedback),
    )
    add.route(
        "token_feedback",
        POST=(feedback.create_feedback_from_token, openapi.create_feedback_from_token),
    )
    add.route(
        "public_trace_link",
        PUT=(feedback.create_public_trace_link, openapi.create_public_trace_link),
        HEAD=(feedback.check_public_trace_link, openapi.check_public_trace_link),
    )


class _Adder:
    """Adds the routes of one chain that its endpoint lists leave."""

    def __init__(self, router: APIRouter, chain: Chain, models: BodyModels) -> None:
        self._router = router
        self._chain = chain
        self._models = models
        self._tags: list[Any] = list(chain.tags) or ([chain.path.strip("/")] if chain.path else [])

    def route(self, endpoint: EndpointName, *, below: str = "", **operations: "_Operation") -> None:
        """Add the route that works, and behind it those that are in the OpenAPI document.

        One route answers all methods of a path, so that it can name them to who sends another.

        Args:
            endpoint: The endpoint that the lists know it by.
            below: What follows the endpoint in the path.
            operations: What answers each HTTP method, and what describes it.
        """
        if endpoint not in self._chain.endpoints:
            return
        hashes = "config_hashes" in self._chain.endpoints
        path = any_form(self._chain.path, endpoint + below, hashes=hashes)
        handlers = {method: handler for method, (handler, _) in operations.items()}
        options = self._options([*operations], endpoint)
        self._router.add_api_route(path, _by_method(handlers), **options, include_in_schema=False)
        shown = f"{self._chain.path}/{endpoint}{below}"
        for method, (_, document) in operations.items():
            options = {**self._options([method], endpoint), "name": _operation(shown)}
            described = {**options, "tags": self._tags, **document(self._models)}
            self._router.add_api_route(shown, **described)

    def playground(self, routes: PlaygroundRoutes) -> None:
        """Add the playground's page and the files beside it; they are no part of the API."""
        hashes = "config_hashes" in self._chain.endpoints
        options = {**self._options(["GET"], "playground"), "include_in_schema": False}
        page = any_form(self._chain.path, "playground", hashes=hashes, slash=False)
        self._router.add_api_route(page, routes.with_slash, **options)
        self._router.add_api_route(f"{page}/{{file:path}}", routes.page, **options)

    def langserve_playground(self, routes: LangServePlaygroundRoutes) -> None:
        """Add LangServe's own page, and what leads from it to the chain's endpoints."""
        options = self._options(["GET", "POST", "PUT", "HEAD"], "playground")
        path = f"{self._chain.path}/langserve-playground/{{file:path}}"
        self._router.add_api_route(path, routes.page, **options, include_in_schema=False)

    def _options(self, methods: Sequence[str], endpoint: EndpointName) -> dict[str, Any]:
        """Return what all routes of an endpoint have in common."""
        return {
            "methods": [*methods],
            "name": f"{self._chain.path.strip('/')} {endpoint}".strip(),
            "dependencies": list(self._chain.dependencies),
        }


_Operation: TypeAlias = tuple[_Handler, Callable[[BodyModels], openapi.Documentation]]


def _by_method(handlers: Mapping[str, _Handler]) -> _Handler:
    """Return what answers several methods, each with its own handler."""

    async def answer(request: Request) -> Response:
        return await handlers[request.method](request)

    return answer


def _operation(path: str) -> str:
    """Return the name of a route that is in the OpenAPI document.

    FastAPI makes operation ids of name and path with all but letters and digits levelled, so the
    name tells paths apart that differ in the rest.
    """
    return re.sub(r"[^a-zA-Z0-9_]", _spelled, path.lstrip("/"))


def _spelled(character: re.Match[str]) -> str:
    return "__" if character[0] == "/" else f"_{ord(character[0]):x}_"


_WARNED = "_chainserve_warned"
"""Marks a router whose server was told what is wrong with the environment."""


def _check_environment(router: APIRouter, chain: Chain) -> None:
    """Refuse settings that could only fail at the first request, and warn of what surprises."""
    log = make_logger(settings_on(router))
    if not getattr(router, _WARNED, False):
        warn_of_variables(log)
    warn_of_streams(chain, log)


def warn_of_variables(log: Any) -> None:
    """Log the variables that look like settings and are none."""
    for variable, mend in unknown_variables(os.environ):
        log.warning("unknown setting", variable=variable, mend=mend)


def warn_of_streams(chain: Chain, log: Any) -> None:
    """Log what makes every stream of a chain fail."""
    if (reason := why_stream_fails(chain.runnable)) is not None:
        mend = "Give RunnableGenerator an async generator function too, or alone."
        log.warning("streams of this chain fail", path=chain.path, reason=reason, mend=mend)


def _refuse_taken(router: APIRouter, chain: Chain) -> None:
    """Refuse a second chain at the same path of the same router."""
    mounted = {getattr(route, "path", None) for route in router.routes}
    taken = [name for name in chain.endpoints if f"{router.prefix}{chain.path}/{name}" in mounted]
    if taken:
        raise ConfigurationError(
            f"There are routes at {chain.path or '/'} already. Give each chain a path of its own."
        )
