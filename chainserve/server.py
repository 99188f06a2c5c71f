"""`add_routes`: mounts a chain on a FastAPI application or router, with LangServe's signature."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, FastAPI
from langchain_core.runnables import Runnable
from starlette.responses import Response

from chainserve.chain import Chain, PerRequestConfigModifier
from chainserve.config import ConfigPipeline
from chainserve.errors import ConfigurationError
from chainserve.execution import Execution
from chainserve.openapi import documentation
from chainserve.routes.langserve import LangServeRoutes
from chainserve.routes.playground import PlaygroundRoutes
from chainserve.routes.schemas import SchemaRoutes
from chainserve.runtime import close_with
from chainserve.serialization import Serializer
from chainserve.types import EndpointName, PlaygroundType
from chainserve.validation import BodyModels, body_models, documented

_Handler: TypeAlias = Callable[..., Awaitable[Response]]


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

    Below `path`: `POST invoke`, `POST batch`, `POST stream`, `GET playground/`, `GET input_schema`,
    `GET output_schema` and `GET config_schema`, as far as the endpoint lists allow. Nothing else
    about the application changes, but that runs are ended with its lifespan.

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
        ConfigurationError: An option cannot work, the path is taken, or a schema cannot be made.
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
        _mount(app, runnable)
    else:
        _mount(app, Chain(runnable=runnable, **options))


def _refuse_options(options: Mapping[str, Any]) -> None:
    """Refuse options beside a `Chain`, which has them all: there is one place to look."""
    defaults = {field.name: field.default for field in fields(Chain)} | {"path": ""}
    given = [name for name, value in options.items() if value != defaults[name]]
    if given:
        raise ConfigurationError(
            f"add_routes was given a Chain and {', '.join(given)}. Put them into the Chain."
        )


def _mount(app: FastAPI | APIRouter, chain: Chain) -> None:
    """Add the chain's routes to the router, and end its runs with the router's lifespan."""
    router = app.router if isinstance(app, FastAPI) else app
    _refuse_unserved(chain)
    _refuse_taken(router, chain)
    path = router.prefix + chain.path
    namespace = re.sub(r"[^a-zA-Z0-9]", "_", path.strip("/"))
    execution = Execution(chain)
    configs = ConfigPipeline(chain, execution.runnable, path)
    verbs = LangServeRoutes(chain, execution, configs, path)
    schemas = SchemaRoutes(execution, configs)
    models = body_models(
        namespace,
        documented(execution.input_schema({}), f"{namespace}Input"),
        documented(execution.output_schema, f"{namespace}Output"),
        documented(configs.schema, f"{namespace}Config"),
    )
    add = _Adder(router, chain)
    add.verb("invoke", verbs.invoke, models)
    add.verb("batch", verbs.batch, models)
    add.verb("stream", verbs.stream, models)
    add.schema("input_schema", schemas.input_schema)
    add.schema("output_schema", schemas.output_schema)
    add.schema("config_schema", schemas.config_schema)
    if "playground" in chain.endpoints:
        add.playground(PlaygroundRoutes(chain))
    close_with(router)


class _Adder:
    """Adds the routes of one chain that its endpoint lists leave, each also with a slash."""

    def __init__(self, router: APIRouter, chain: Chain) -> None:
        self._router = router
        self._chain = chain
        self._tags: list[Any] = list(chain.tags) or ([chain.path.strip("/")] if chain.path else [])

    def verb(self, endpoint: EndpointName, handler: _Handler, models: BodyModels) -> None:
        """Add a verb: the route that works, and behind it the one that documents it."""
        if endpoint not in self._chain.endpoints:
            return
        path = self._path(endpoint)
        hidden = {**self._options(endpoint, "POST"), "include_in_schema": False}
        self._router.add_api_route(path, handler, **hidden)
        self._router.add_api_route(f"{path}/", handler, **hidden)
        shown = {**self._documented(endpoint, "POST"), **documentation(endpoint, models)}
        self._router.add_api_route(path, **shown)

    def schema(self, endpoint: EndpointName, handler: _Handler) -> None:
        """Add a schema route."""
        if endpoint not in self._chain.endpoints:
            return
        path = self._path(endpoint)
        hidden = {**self._options(endpoint, "GET"), "include_in_schema": False}
        summary = endpoint.replace("_", " ").capitalize()
        shown = {**self._documented(endpoint, "GET"), "summary": summary}
        self._router.add_api_route(path, handler, **shown)
        self._router.add_api_route(f"{path}/", handler, **hidden)

    def playground(self, routes: PlaygroundRoutes) -> None:
        """Add the playground's page and the files beside it; they are no part of the API."""
        path = self._path("playground")
        options = {**self._options("playground", "GET"), "include_in_schema": False}
        self._router.add_api_route(path, routes.with_slash, **options)
        self._router.add_api_route(f"{path}/{{file:path}}", routes.page, **options)

    def _path(self, endpoint: EndpointName) -> str:
        return f"{self._chain.path}/{endpoint}"

    def _options(self, endpoint: EndpointName, method: str) -> dict[str, Any]:
        """Return what all routes of an endpoint have in common."""
        return {
            "methods": [method],
            "name": f"{self._chain.path.strip('/')} {endpoint}".strip(),
            "dependencies": list(self._chain.dependencies),
        }

    def _documented(self, endpoint: EndpointName, method: str) -> dict[str, Any]:
        """Return the options of a route that is in the OpenAPI document.

        FastAPI makes operation ids of name and path with all but letters and digits levelled, so
        the name tells paths apart that differ in the rest.
        """
        name = re.sub(r"[^a-zA-Z0-9_]", _spelled, self._path(endpoint).lstrip("/"))
        return {**self._options(endpoint, method), "name": name, "tags": self._tags}


def _spelled(character: re.Match[str]) -> str:
    return "__" if character[0] == "/" else f"_{ord(character[0]):x}_"


_UNSERVED = (
    "include_callback_events",
    "enable_feedback_endpoint",
    "token_feedback_config",
    "enable_public_trace_link_endpoint",
)


def _refuse_unserved(chain: Chain) -> None:
    """Refuse what this version does not do, rather than leave it out in silence."""
    asked = [name for name in _UNSERVED if getattr(chain, name)]
    if asked:
        raise ConfigurationError(
            f"This version of chainserve does not serve {', '.join(asked)}. Leave it out."
        )


def _refuse_taken(router: APIRouter, chain: Chain) -> None:
    """Refuse a second chain at the same path of the same router."""
    mounted = {getattr(route, "path", None) for route in router.routes}
    taken = [name for name in chain.endpoints if f"{router.prefix}{chain.path}/{name}" in mounted]
    if taken:
        raise ConfigurationError(
            f"There are routes at {chain.path or '/'} already. Give each chain a path of its own."
        )
