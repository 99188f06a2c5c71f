"""`add_routes`: mounts a chain on a FastAPI application or router, with LangServe's signature."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, FastAPI
from langchain_core.runnables import Runnable
from starlette.responses import Response

from chainserve import openapi
from chainserve.chain import Chain, PerRequestConfigModifier
from chainserve.errors import ConfigurationError
from chainserve.flow import why_stream_fails
from chainserve.mounting import by_method, mount, operation_name
from chainserve.observability import make_logger
from chainserve.registry import refuse_options
from chainserve.routes.starting import RunStarter
from chainserve.routes.streams import PlainStreamRoutes
from chainserve.runtime import close_with, closes_runs, settings_on
from chainserve.serialization import Serializer
from chainserve.settings import unknown_variables
from chainserve.types import ENDPOINT_NAMES, EndpointName, PlaygroundType

__all__ = ["KNOWN_ENDPOINTS", "EndpointName", "add_routes", "add_stream_route"]

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
    `c/{config_hash}`. Nothing else about the application changes, but its lifespan: it ends the
    runs, and gives sync steps `max_threads` threads, as the event loop's default executor.

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
    router = app.router if isinstance(app, FastAPI) else app
    _check_environment(router, chain)
    mount(router, chain.without_runs() if settings_on(router).stateless else chain)


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
    options: dict[str, Any] = {
        "name": operation_name(path),
        "dependencies": [*declared.dependencies],
    }
    handlers = {"POST": routes.post, "GET": routes.get}
    hidden = {**options, "methods": [*handlers], "include_in_schema": False}
    router.add_api_route(path, by_method(handlers), **hidden)
    for method, document in (("POST", openapi.plain_stream), ("GET", openapi.plain_stream_by_get)):
        described = document(starter.execution.input_schema({}))
        options |= {"methods": [method], "tags": [*declared.tags]}
        router.add_api_route(path, **{**options, **described})
    close_with(router)


def _refuse_options(options: Mapping[str, Any]) -> None:
    """Refuse options beside a `Chain`, which has them all: there is one place to look."""
    defaults = {field.name: field.default for field in fields(Chain)} | {"path": ""}
    given = [name for name, value in options.items() if value != defaults[name]]
    if given:
        raise ConfigurationError(
            f"add_routes was given a Chain and {', '.join(given)}. Put them into the Chain."
        )


def _check_environment(router: APIRouter, chain: Chain) -> None:
    """Refuse settings that could only fail at the first request, and warn of what surprises."""
    log = make_logger(settings_on(router))
    if not closes_runs(router):
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
