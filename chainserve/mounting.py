"""Where a chain's routes are put: those that work, and those that describe them."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from chainserve import openapi
from chainserve.bodies import BodyModels
from chainserve.chain import Chain
from chainserve.errors import ConfigurationError
from chainserve.handover import handing_over
from chainserve.registry import refuse_options
from chainserve.routes.feedback import FeedbackRoutes
from chainserve.routes.langserve import LangServeRoutes
from chainserve.routes.langserve_playground import LangServePlaygroundRoutes, installed_files
from chainserve.routes.paths import any_form, route_class_for
from chainserve.routes.playground import PlaygroundRoutes
from chainserve.routes.runs import RunRoutes
from chainserve.routes.schemas import SchemaRoutes
from chainserve.routes.starting import RunStarter
from chainserve.routes.streams import StreamRoutes
from chainserve.runtime import close_with
from chainserve.types import EndpointName

Handler: TypeAlias = Callable[..., Awaitable[Response]]


def mount(app: FastAPI | APIRouter, chain: Chain, *, hands_over: bool = False) -> None:
    """Add the chain's routes to the router, and end its runs with the router's lifespan.

    Args:
        app: The application or router.
        chain: The declaration.
        hands_over: Whether a `HandoverLayer` may send the streams.

    Raises:
        ConfigurationError: As `add_routes`, the settings aside.
    """
    router = app.router if isinstance(app, FastAPI) else app
    refuse_options(chain)
    _refuse_taken(router, chain)
    starter = RunStarter(chain, router.prefix)
    add = _Adder(router, chain, starter.models(), hands_over=hands_over)
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
    add.route("runs", below="/cancel", POST=(runs.cancel_by_key, openapi.cancel_run_by_key))
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

    def __init__(
        self, router: APIRouter, chain: Chain, models: BodyModels, *, hands_over: bool
    ) -> None:
        self._router = router
        self._chain = chain
        self._models = models
        self._route_class = route_class_for(router)
        self._hands_over = hands_over and not (chain.dependencies or router.dependencies)
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
        answer = by_method(handlers)
        if self._hands_over:
            answer = handing_over(answer)
        self._router.add_api_route(path, answer, **options, include_in_schema=False)
        shown = f"{self._chain.path}/{endpoint}{below}"
        for method, (_, document) in operations.items():
            options = {**self._options([method], endpoint), "name": operation_name(shown)}
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
            "route_class_override": self._route_class,
        }


_Operation: TypeAlias = tuple[Handler, Callable[[BodyModels], openapi.Documentation]]


def by_method(handlers: Mapping[str, Handler]) -> Handler:
    """Return what answers several methods, each with its own handler."""

    async def answer(request: Request) -> Response:
        return await handlers[request.method](request)

    return answer


def operation_name(path: str) -> str:
    """Return the name of a route that is in the OpenAPI document.

    FastAPI makes operation ids of name and path with all but letters and digits levelled, so the
    name tells paths apart that differ in the rest.
    """
    return re.sub(r"[^a-zA-Z0-9_]", _spelled, path.lstrip("/"))


def _spelled(character: re.Match[str]) -> str:
    return "__" if character[0] == "/" else f"_{ord(character[0]):x}_"


def _refuse_taken(router: APIRouter, chain: Chain) -> None:
    """Refuse a second chain at the same path of the same router."""
    mounted = {getattr(route, "path", None) for route in router.routes}
    taken = [name for name in chain.endpoints if f"{router.prefix}{chain.path}/{name}" in mounted]
    if taken:
        raise ConfigurationError(
            f"There are routes at {chain.path or '/'} already. Give each chain a path of its own."
        )
