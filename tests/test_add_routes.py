"""`add_routes` on whatever a user has: applications, routers, layers, handlers, event loops."""

import asyncio
import re
import sys
import typing
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import fastapi.routing
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chainserve import Chain, ChainServeError, ConfigurationError, add_routes, add_stream_route
from tests._apps import assert_problem, executor_of, make_app
from tests._bridge import Response as BridgeResponse, lifespan, open_stream, request
from tests._chains import CountingChain, GatedChain, answering, echo, failing, streaming

pytestmark = pytest.mark.anyio

VERBS = ["invoke", "batch", "stream"]
SCHEMAS = ["input_schema", "output_schema", "config_schema"]
ENDPOINTS = [*VERBS, *SCHEMAS]
Add = Callable[[FastAPI | APIRouter], None]

INCLUDES_LATER_ROUTES = hasattr(fastapi.routing, "_IncludedRouter")


def body_of(verb: str, value: Any = 1) -> dict[str, Any]:
    return {"inputs": [value]} if verb == "batch" else {"input": value}


def output_of(verb: str, response: BridgeResponse) -> Any:
    """Return the output of an echo that was asked for one value."""
    assert response.status == 200, response.text
    if verb == "stream":
        [chunk] = [event.json() for event in response.events() if event.event == "data"]
        return chunk
    output = response.json()["output"]
    return output[0] if verb == "batch" else output


def on_the_application(add: Add) -> tuple[ASGIApp, str]:
    app = FastAPI()
    add(app)
    return app, "/chain"


def on_a_router_with_a_prefix(add: Add) -> tuple[ASGIApp, str]:
    app, router = FastAPI(), APIRouter(prefix="/own")
    add(router)
    app.include_router(router)
    return app, "/own/chain"


def on_a_router_included_with_a_prefix(add: Add) -> tuple[ASGIApp, str]:
    app, router = FastAPI(), APIRouter()
    add(router)
    app.include_router(router, prefix="/given")
    return app, "/given/chain"


def on_a_router_with_both_prefixes(add: Add) -> tuple[ASGIApp, str]:
    app, router = FastAPI(), APIRouter(prefix="/own")
    add(router)
    app.include_router(router, prefix="/given")
    return app, "/given/own/chain"


def on_a_router_that_was_included_before(add: Add) -> tuple[ASGIApp, str]:
    app, router = FastAPI(), APIRouter(prefix="/own")
    app.include_router(router, prefix="/given")
    add(router)
    return app, "/given/own/chain"


def on_a_nested_router(add: Add) -> tuple[ASGIApp, str]:
    app, outer, inner = FastAPI(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
    add(inner)
    outer.include_router(inner, prefix="/given")
    app.include_router(outer)
    return app, "/outer/given/inner/chain"


def on_a_mounted_application(add: Add) -> tuple[ASGIApp, str]:
    app, sub = FastAPI(), FastAPI()
    add(sub)
    app.mount("/sub", sub)
    return app, "/sub/chain"


def on_an_application_mounted_twice_deep(add: Add) -> tuple[ASGIApp, str]:
    app, middle, sub = FastAPI(), FastAPI(), FastAPI()
    add(sub)
    middle.mount("/sub", sub)
    app.mount("/middle", middle)
    return app, "/middle/sub/chain"


def on_an_application_mounted_in_starlette(add: Add) -> tuple[ASGIApp, str]:
    sub = FastAPI()
    add(sub)
    return Starlette(routes=[Mount("/sub", sub)]), "/sub/chain"


INCLUDED_BEFORE = pytest.param(
    on_a_router_that_was_included_before,
    marks=pytest.mark.skipif(
        not INCLUDES_LATER_ROUTES, reason="this FastAPI copies routes when a router is included"
    ),
)
ROUTERS = [
    on_a_router_with_a_prefix,
    on_a_router_included_with_a_prefix,
    on_a_router_with_both_prefixes,
    INCLUDED_BEFORE,
    on_a_nested_router,
]
SUB_APPLICATIONS = [
    on_a_mounted_application,
    on_an_application_mounted_twice_deep,
    on_an_application_mounted_in_starlette,
]
PLACES = [on_the_application, *ROUTERS, *SUB_APPLICATIONS]
Place = Callable[[Add], tuple[ASGIApp, str]]


def place_echo(place: Place) -> tuple[ASGIApp, str]:
    return place(lambda app: add_routes(app, echo(), path="/chain"))


# Where it may be mounted.


@pytest.mark.parametrize("place", PLACES)
async def test_every_endpoint_answers_directly_wherever_it_is_mounted(place: Place) -> None:
    app, path = place_echo(place)
    for slash in ("", "/"):
        for verb in VERBS:
            target = f"{path}/{verb}{slash}"
            response = await request(app, "POST", target, json=body_of(verb, "hi"))
            assert output_of(verb, response) == "hi"
        for name in SCHEMAS:
            response = await request(app, "GET", f"{path}/{name}{slash}")
            assert response.status == 200
            assert isinstance(response.json(), dict)


@pytest.mark.parametrize("place", PLACES)
async def test_a_proxys_root_path_changes_nothing(place: Place) -> None:
    app, path = place_echo(place)
    for verb in VERBS:
        response = await request(
            app, "POST", f"{path}/{verb}", json=body_of(verb), root_path="/proxy/a"
        )
        assert output_of(verb, response) == 1


@pytest.mark.parametrize("path", ["", "/"])
async def test_the_empty_path_is_valid(path: str) -> None:
    app = make_app(echo(), path=path)
    for slash in ("", "/"):
        for verb in VERBS:
            response = await request(app, "POST", f"/{verb}{slash}", json=body_of(verb))
            assert output_of(verb, response) == 1
        assert (await request(app, "GET", f"/input_schema{slash}")).status == 200


async def test_the_empty_path_is_valid_on_a_router_with_a_prefix() -> None:
    app, router = FastAPI(), APIRouter(prefix="/v1")
    add_routes(router, echo())
    app.include_router(router)

    response = await request(app, "POST", "/v1/invoke", json={"input": 1})

    assert output_of("invoke", response) == 1


@pytest.mark.parametrize("path", ["/chain/", "/chain//"])
async def test_slashes_at_the_end_of_the_path_do_not_count(path: str) -> None:
    app = make_app(echo(), path=path)
    for target in ("/chain/invoke", "/chain/invoke/"):
        response = await request(app, "POST", target, json={"input": 1})
        assert output_of("invoke", response) == 1


async def test_a_path_may_have_several_segments_and_a_parameter() -> None:
    seen: list[str] = []

    def note(tenant: str) -> None:
        seen.append(tenant)

    app = FastAPI()
    add_routes(app, echo(), path="/t/{tenant}/chain", dependencies=[Depends(note)])

    response = await request(app, "POST", "/t/acme/chain/invoke", json={"input": 1})

    assert output_of("invoke", response) == 1
    assert seen == ["acme"]


async def test_a_disabled_redirect_of_slashes_does_not_matter() -> None:
    app = FastAPI(redirect_slashes=False)
    add_routes(app, echo(), path="/chain")

    response = await request(app, "POST", "/chain/invoke/", json={"input": 1})

    assert output_of("invoke", response) == 1


async def test_many_chains_live_side_by_side() -> None:
    app = FastAPI()
    for number in range(13):
        add_routes(app, answering(number), path=f"/chain{number}")
    for number in (0, 1, 12):
        response = await request(app, "POST", f"/chain{number}/invoke", json={"input": "x"})
        assert output_of("invoke", response) == number


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_another_method_is_405_and_runs_nothing(method: str) -> None:
    chain = CountingChain()
    response = await request(make_app(chain), method, "/chain/invoke")

    assert response.status == 405
    assert response.headers["allow"] == "POST"
    assert chain.total == 0


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/chain/stream", {"GET", "POST"}),
        ("/chain/runs", {"GET", "POST"}),
        ("/chain/runs/5", {"GET", "DELETE"}),
        ("/chain/c/N4XyA/runs/5/", {"GET", "DELETE"}),
        ("/chain/runs/5/stream", {"GET"}),
        ("/chain/runs/5/cancel", {"POST"}),
        ("/plain", {"GET", "POST"}),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT"])
async def test_all_methods_of_a_path_are_named_to_one_who_sends_another(
    method: str, path: str, allowed: set[str]
) -> None:
    app = make_app(echo())
    add_stream_route(app, echo(), "/plain")
    response = await request(app, method, path)

    assert response.status == 405
    assert set(response.headers["allow"].split(", ")) == allowed


async def test_nothing_else_of_the_application_changes() -> None:
    app = FastAPI()

    @app.get("/chain/mine")
    async def mine() -> dict[str, str]:
        return {"mine": "yes"}

    handlers, middleware = dict(app.exception_handlers), list(app.user_middleware)
    add_routes(app, echo(), path="/chain")

    assert app.exception_handlers == handlers
    assert app.user_middleware == middleware
    assert (await request(app, "GET", "/chain/mine")).json() == {"mine": "yes"}
    unknown = await request(app, "GET", "/nowhere")
    assert (unknown.status, unknown.json()) == (404, {"detail": "Not Found"})


# Which endpoints there are.


def target_of(endpoint: str) -> tuple[str, str, Any]:
    method = "POST" if endpoint in VERBS else "GET"
    return method, f"/chain/{endpoint}", body_of(endpoint)


async def statuses(app: ASGIApp) -> dict[str, int]:
    found = {}
    for endpoint in ENDPOINTS:
        method, path, body = target_of(endpoint)
        plain = await request(app, method, path, json=body)
        slashed = await request(app, method, f"{path}/", json=body)
        assert plain.status == slashed.status
        found[endpoint] = plain.status
    return found


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_disabled_endpoint_is_404_and_the_others_are_there(endpoint: str) -> None:
    found = await statuses(make_app(echo(), disabled_endpoints=[endpoint]))

    assert found.pop(endpoint) == 404
    assert set(found.values()) == {200}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_an_enabled_endpoint_is_the_only_one(endpoint: str) -> None:
    found = await statuses(make_app(echo(), enabled_endpoints=[endpoint]))

    assert found.pop(endpoint) == 200
    assert set(found.values()) == {404}


async def test_an_empty_list_of_enabled_endpoints_mounts_none() -> None:
    assert set((await statuses(make_app(echo(), enabled_endpoints=[]))).values()) == {404}


# What is refused when it is mounted.


@pytest.mark.parametrize(
    ("option", "value", "must_be"),
    [
        *[
            (name, "my_module.function", "it must be a function")
            for name in ("principal", "on_end", "translate_error", "per_req_config_modifier")
        ],
        ("config_keys", "configurable", "it must be a list of names"),
        ("configurable", [1], "it must be a list of names"),
        ("tags", 5, "it must be a list of names"),
        ("on_disconnect", "stop", "it must be one of 'cancel', 'continue'"),
        ("playground_type", "fancy", "it must be one of 'default', 'chat'"),
        ("astream_events_version", "v3", "it must be one of 'v1', 'v2'"),
        ("retention", "no", "it must be one of True, False"),
        ("run_timeout", 0, "it must be a number of seconds"),
        ("run_timeout", "60", "it must be a number of seconds"),
        ("idle_timeout", True, "it must be a number of seconds"),
        ("first_event_timeout", float("nan"), "it must be a number of seconds"),
        ("resume_grace", -1, "it must be a number of seconds"),
        ("max_body_bytes", 0, "it must be a whole number above 0"),
        ("max_batch_size", 1.5, "it must be a whole number above 0"),
        ("max_concurrency", -1, "it must be a whole number above 0"),
        ("serializer", dict, "it must be an instance of Serializer"),
        ("dependencies", [dict], "it must be a list, each of it Depends(...)"),
    ],
)
def test_an_option_that_would_fail_at_the_first_request_is_refused_when_it_is_mounted(
    option: str, value: Any, must_be: str
) -> None:
    chain = Chain(path="/chain", runnable=echo(), **{option: value})
    app = FastAPI()
    routes = len(app.routes)
    for mount in (add_routes, add_stream_route):
        with pytest.raises(ConfigurationError) as refused:
            mount(app, chain)
        assert str(refused.value) == f"{option} of /chain is {value!r}: {must_be}."
    assert len(app.routes) == routes


def test_the_least_values_that_can_work_are_taken() -> None:
    least: dict[str, Any] = {
        "resume_grace": 0,
        "run_timeout": 0.1,
        "max_concurrency": 1,
        "retention": False,
    }
    add_routes(FastAPI(), Chain(path="/chain", runnable=echo(), **least))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"enabled_endpoints": ["invoke", "explode"]}, "There is no endpoint 'explode'"),
        ({"enabled_endpoints": ["invoke"], "disabled_endpoints": ["batch"]}, "not both"),
        ({"path": "chain"}, "must start with a slash: '/chain'"),
        ({"config_keys": ["configurable", "run_name"]}, "must not name run_name"),
        ({"token_feedback_config": {"key_configs": []}}, "token_feedback_config"),
        ({"dependencies": 3}, "dependencies of /chain is 3: it must be a list"),
        ({"input_type": {"a": int}}, "input schema of /chain cannot be made: KeyError('type')"),
    ],
)
def test_an_option_that_cannot_work_is_refused_with_a_sentence(
    options: dict[str, Any], says: str
) -> None:
    app = FastAPI()
    routes = len(app.routes)
    with pytest.raises(ConfigurationError) as refused:
        add_routes(app, echo(), **{"path": "/chain", **options})

    assert says in str(refused.value)
    assert str(refused.value).endswith(".")
    assert len(app.routes) == routes


@pytest.mark.parametrize("runnable", [lambda value: value, {"a": echo()}, None, "chain", Chain])
def test_what_is_no_runnable_is_refused_with_a_sentence(runnable: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        add_routes(FastAPI(), runnable, path="/chain")

    assert "'/chain' is served by a" in str(refused.value)
    assert "not a Runnable" in str(refused.value)


async def coroutine() -> None:
    """What forgot to be awaited."""


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        (coroutine, "a coroutine, which is not a Runnable. Await it"),
        (lambda: FakeListChatModel, "the class FakeListChatModel. Pass an instance"),
        (lambda: print, "wrap a function in RunnableLambda"),
    ],
)
def test_what_was_meant_is_said_of_what_is_no_runnable(given: Any, mend: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(mend)):
        add_routes(FastAPI(), given(), path="/chain")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes both from Python 3.12 on")
def test_a_schema_that_pydantic_does_not_make_is_refused_with_its_reason() -> None:
    class State(typing.TypedDict):
        n: int

    with pytest.raises(ConfigurationError, match=r"Please use .typing_extensions.TypedDict."):
        add_routes(FastAPI(), echo(), path="/chain", input_type=State)


@pytest.mark.parametrize(
    "options",
    [
        {"path": "/other"},
        {"input_type": str},
        {"config_keys": []},
        {"disabled_endpoints": ["batch"]},
        {"dependencies": [Depends(lambda: None)]},
        {"playground_type": "chat", "astream_events_version": "v1"},
    ],
)
def test_options_beside_a_chain_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        add_routes(FastAPI(), Chain(path="/chain", runnable=echo()), **options)

    assert ", ".join(options) in str(refused.value)


def test_a_second_chain_at_the_same_path_is_refused() -> None:
    app = make_app(echo())
    with pytest.raises(ConfigurationError, match="There are routes at /chain already"):
        add_routes(app, echo(), path="/chain")
    with pytest.raises(ConfigurationError, match="There are routes at /chain already"):
        add_routes(app, Chain(path="/chain/", runnable=echo()))


def test_a_second_chain_at_the_same_path_of_a_router_is_refused() -> None:
    router = APIRouter(prefix="/v1")
    add_routes(router, echo(), path="/chain")
    with pytest.raises(ConfigurationError, match="/chain already"):
        add_routes(router, echo(), path="/chain")


def test_a_second_chain_at_the_empty_path_is_refused() -> None:
    app = make_app(echo(), path="")
    with pytest.raises(ConfigurationError, match="There are routes at / already"):
        add_routes(app, echo())


def test_a_chain_below_another_chains_path_is_no_conflict() -> None:
    app = make_app(echo())
    add_routes(app, echo(), path="/chain/more")
    add_routes(app, echo(), path="/chains")
    add_routes(app, echo(), path="")


# Dependencies.


def noting(seen: list[str], name: str) -> Any:
    async def note(request: Request) -> None:
        seen.append(f"{name} {request.url.path}")

    return Depends(note)


async def test_dependencies_of_application_router_and_chain_run_in_this_order() -> None:
    seen: list[str] = []
    app = FastAPI(dependencies=[noting(seen, "app")])
    router = APIRouter(dependencies=[noting(seen, "router")])
    add_routes(router, echo(), path="/chain", dependencies=[noting(seen, "chain")])
    app.include_router(router, dependencies=[noting(seen, "include")])

    for endpoint in ENDPOINTS:
        for slash in ("", "/"):
            method, path, body = target_of(endpoint)
            response = await request(app, method, f"{path}{slash}", json=body)
            assert response.status == 200
            assert [entry.split()[0] for entry in seen] == ["app", "include", "router", "chain"]
            assert {entry.split()[1] for entry in seen} == {f"{path}{slash}"}
            seen.clear()


@pytest.mark.parametrize("level", ["app", "router", "chain"])
async def test_a_dependency_that_refuses_keeps_its_answer_and_nothing_runs(level: str) -> None:
    async def refuse() -> None:
        raise HTTPException(401, "Who are you?", headers={"www-authenticate": "Bearer"})

    given = {name: [Depends(refuse)] if name == level else [] for name in ("app", "router")}
    chain = CountingChain()
    app, router = FastAPI(dependencies=given["app"]), APIRouter(dependencies=given["router"])
    add_routes(
        router, chain, path="/chain", dependencies=[Depends(refuse)] if level == "chain" else None
    )
    app.include_router(router)
    for endpoint in ENDPOINTS:
        method, path, body = target_of(endpoint)
        response = await request(app, method, path, json=body)
        assert (response.status, response.json()) == (401, {"detail": "Who are you?"})
        assert response.headers["www-authenticate"] == "Bearer"
    assert chain.total == 0


@pytest.mark.parametrize("verb", VERBS)
async def test_a_dependency_may_read_the_body_first(verb: str) -> None:
    read: list[Any] = []

    async def look(request: Request) -> None:
        read.append(await request.json())

    app = make_app(echo(), dependencies=[Depends(look)])
    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb, "hi"))

    assert read == [body_of(verb, "hi")]
    assert output_of(verb, response) == "hi"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_client_that_leaves_is_noticed_after_a_dependency_read_the_body(verb: str) -> None:
    async def look(request: Request) -> None:
        await request.body()

    chain = CountingChain()
    app = make_app(chain, dependencies=[Depends(look)])
    async with open_stream(app, "POST", f"/chain/{verb}", json=body_of(verb), wait_for_start=False):
        await chain.until_in_flight(1)
    await chain.until_in_flight(0)

    assert chain.cancellations == 1


async def test_a_yield_dependency_ends_after_the_last_event_of_a_stream() -> None:
    steps: list[str] = []

    async def resource() -> AsyncIterator[None]:
        steps.append("entered")
        try:
            yield
        finally:
            steps.append("left")

    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain, dependencies=[Depends(resource)])
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        await stream.next_event()
        assert steps == ["entered"]
        chain.gate.set()
        assert (await stream.read()).endswith(b"event: end\r\n\r\n")
        await stream.ended()

    assert steps == ["entered", "left"]


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_a_yield_dependency_ends_after_the_output_was_made(verb: str) -> None:
    steps: list[str] = []

    async def resource() -> AsyncIterator[None]:
        steps.append("entered")
        yield
        steps.append("left")

    app = make_app(lambda _: steps.append("ran"), dependencies=[Depends(resource)])
    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb))

    assert response.status == 200
    assert steps == ["entered", "ran", "left"]


async def test_a_yield_dependency_ends_when_the_client_leaves() -> None:
    left = asyncio.Event()

    async def resource() -> AsyncIterator[None]:
        try:
            yield
        finally:
            left.set()

    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain, dependencies=[Depends(resource)])
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
    async with asyncio.timeout(20):
        await left.wait()
        await chain.cancelled.wait()


async def test_dependency_overrides_hold() -> None:
    async def refuse() -> None:
        raise HTTPException(401)

    app = make_app(echo(), dependencies=[Depends(refuse)])
    app.dependency_overrides[refuse] = lambda: None

    response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert output_of("invoke", response) == 1


# The application's own exception handlers.


class TeapotError(Exception):
    """An exception of the application's own."""


class DressedTeapotError(Exception):
    """One that looks like an HTTP error, as those of many libraries do."""

    status_code = 409
    detail = "occupied"


def answers(name: str, status: int = 418) -> Callable[[Request, Any], Any]:
    async def answer(_: Request, error: Any) -> Response:
        return JSONResponse({name: type(error).__name__}, status_code=status)

    return answer


@pytest.mark.parametrize("place", PLACES)
async def test_a_handler_for_an_exception_of_the_chain_applies(place: Place) -> None:
    def add(app: FastAPI | APIRouter) -> None:
        add_routes(app, failing(error=TeapotError("short and stout")), path="/chain")
        if isinstance(app, FastAPI):
            app.add_exception_handler(TeapotError, answers("mine"))

    app, path = place(add)
    if isinstance(app, FastAPI):
        app.add_exception_handler(TeapotError, answers("mine"))
    for verb in ("invoke", "batch"):
        response = await request(app, "POST", f"{path}/{verb}", json=body_of(verb))
        assert (response.status, response.json()) == (418, {"mine": "TeapotError"})


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_a_handler_for_a_base_class_of_the_chains_exception_applies(verb: str) -> None:
    class SmallTeapotError(TeapotError):
        """A kind of it."""

    app = make_app(failing(error=SmallTeapotError()))
    app.add_exception_handler(TeapotError, answers("mine"))

    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb))

    assert response.json() == {"mine": "SmallTeapotError"}


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_a_handler_for_an_exception_that_has_a_status_and_a_detail_applies(
    verb: str,
) -> None:
    app = make_app(failing(error=DressedTeapotError()))
    app.add_exception_handler(DressedTeapotError, answers("mine"))

    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb))

    assert (response.status, response.json()) == (418, {"mine": "DressedTeapotError"})


async def test_without_a_handler_an_exception_with_a_status_and_a_detail_keeps_them() -> None:
    app = make_app(failing(error=DressedTeapotError()))

    response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert assert_problem(response, 409, "http_error")["message"] == "occupied"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_handler_for_our_own_errors_applies(verb: str) -> None:
    app = make_app(echo(int))
    app.add_exception_handler(ChainServeError, answers("mine"))

    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb, "no int"))

    assert response.json() == {"mine": "InvalidInputError"}


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_fastapis_answer_to_an_http_exception_of_the_chain_stays(verb: str) -> None:
    error = HTTPException(429, {"wait": 5}, headers={"retry-after": "5"})
    response = await request(
        make_app(failing(error=error)), "POST", f"/chain/{verb}", json=body_of(verb)
    )

    assert (response.status, response.json()) == (429, {"detail": {"wait": 5}})
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize("verb", ["invoke", "batch"])
@pytest.mark.parametrize("key", [HTTPException, 429])
async def test_a_handler_for_http_exceptions_applies(verb: str, key: Any) -> None:
    app = make_app(failing(error=HTTPException(429, "slow down")))
    app.add_exception_handler(key, answers("mine"))

    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb))

    assert (response.status, response.json()) == (418, {"mine": "HTTPException"})


@pytest.mark.parametrize("key", [Exception, 500])
@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_a_handler_for_everything_answers_what_the_chain_raised(verb: str, key: Any) -> None:
    app = make_app(failing(error=TeapotError("the text")))
    app.add_exception_handler(key, answers("mine", 503))

    response = await request(
        app, "POST", f"/chain/{verb}", json=body_of(verb), raise_app_errors=False
    )

    assert (response.status, response.json()) == (503, {"mine": "TeapotError"})
    assert isinstance(response.app_error, TeapotError)  # Starlette raises it for the server's log.


@pytest.mark.parametrize("key", [Exception, 500, TeapotError])
async def test_a_stream_has_its_error_event_whatever_is_handled(key: Any) -> None:
    app = make_app(failing(1, TeapotError("the text")))
    app.add_exception_handler(key, answers("mine"))

    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert [event.event for event in response.events()] == ["metadata", "data", "error"]
    assert b"the text" not in response.body


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_without_handlers_an_exception_is_a_problem_without_its_text(verb: str) -> None:
    app = make_app(failing(error=TeapotError("the text")))

    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb))

    assert_problem(response, 500, "internal_error")
    assert "the text" not in response.text
    assert response.app_error is None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("body", [b"{", b"{}", b'{"input": "x", "inputs": ["x"]}'])
async def test_a_handler_for_invalid_bodies_reads_loc_and_msg_of_each_error(
    verb: str, body: bytes
) -> None:
    app = make_app(echo(int))

    @app.exception_handler(RequestValidationError)
    async def answer(_: Request, error: RequestValidationError) -> JSONResponse:
        mine = [{"where": list(item["loc"]), "what": item["msg"]} for item in error.errors()]
        return JSONResponse({"mine": mine}, status_code=400)

    response = await request(
        app, "POST", f"/chain/{verb}", body=body, headers={"content-type": "application/json"}
    )

    assert response.status == 400
    assert response.json()["mine"]


# The application's own middleware.


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


async def read_and_pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await request.body()
    return await call_next(request)


class Transparent:
    """Pure ASGI: adds a header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-layer", b"yes")]
            await send(message)

        await self.app(scope, receive, send_on)


LAYERS: dict[str, Callable[[FastAPI], None]] = {
    "BaseHTTPMiddleware": lambda app: app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on),
    "one that reads the body": lambda app: app.add_middleware(
        BaseHTTPMiddleware, dispatch=read_and_pass_on
    ),
    "pure ASGI": lambda app: app.add_middleware(Transparent),
    "gzip": lambda app: app.add_middleware(GZipMiddleware, minimum_size=1),
}
GZIP = {"accept-encoding": "gzip"}


@pytest.mark.parametrize("add_layer", LAYERS.values(), ids=LAYERS.keys())
async def test_a_stream_passes_through_middleware_as_it_comes(
    add_layer: Callable[[FastAPI], None],
) -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain)
    add_layer(app)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}, headers=GZIP) as stream:
        assert "content-encoding" not in stream.headers
        await stream.next_event()
        first = await stream.next_event()
        assert not chain.finished.is_set()
        chain.gate.set()
        rest = [event.event async for event in stream.events()]

    assert first is not None
    assert first.data == '"a"'
    assert rest == ["data", "end"]


@pytest.mark.parametrize("add_layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("verb", VERBS)
async def test_a_client_that_leaves_is_noticed_through_middleware(
    verb: str, add_layer: Callable[[FastAPI], None]
) -> None:
    chain = CountingChain()
    app = make_app(chain)
    add_layer(app)
    async with open_stream(app, "POST", f"/chain/{verb}", json=body_of(verb), wait_for_start=False):
        await chain.until_in_flight(1)
    await chain.until_in_flight(0)

    assert chain.cancellations == 1


async def test_gzip_still_compresses_what_is_no_stream() -> None:
    app = make_app(lambda _: "x" * 2000)
    app.add_middleware(GZipMiddleware)

    response = await request(app, "POST", "/chain/invoke", json={"input": 1}, headers=GZIP)

    assert response.headers["content-encoding"] == "gzip"
    assert len(response.body) < 1000


class ReplaysTheBody:
    """A common idiom to look at a body: every `receive` gives all of it again, without waiting."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.replays = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        message = await receive()

        async def replay() -> Message:
            self.replays += 1
            if self.replays > 1000:  # Else the loop would hang for good.
                raise RuntimeError("the body was asked for again and again")
            return message

        await self.app(scope, replay, send)


@pytest.mark.parametrize("verb", VERBS)
async def test_middleware_that_repeats_the_body_for_ever_does_not_spin_the_loop(verb: str) -> None:
    layer = ReplaysTheBody(make_app(echo()))
    response = await request(layer, "POST", f"/chain/{verb}", json=body_of(verb, "hi"))

    assert output_of(verb, response) == "hi"
    assert layer.replays < 1000


async def test_middleware_that_answers_itself_starts_nothing() -> None:
    async def refuse(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return PlainTextResponse("closed", status_code=503)

    chain = CountingChain()
    app = make_app(chain)
    app.add_middleware(BaseHTTPMiddleware, dispatch=refuse)

    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert (response.status, response.text) == (503, "closed")
    assert chain.total == 0


async def test_middleware_that_drops_a_stream_takes_its_run_with_it() -> None:
    async def replace(request: Request, call_next: RequestResponseEndpoint) -> Response:
        await call_next(request)
        return PlainTextResponse("something else")

    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain)
    app.add_middleware(BaseHTTPMiddleware, dispatch=replace)

    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert response.text == "something else"
    async with asyncio.timeout(20):
        for run in executor_of(app).live:
            await run.ended.wait()
    assert not executor_of(app).live


USER: ContextVar[str] = ContextVar("test_add_routes_user", default="nobody")


@pytest.mark.parametrize("verb", VERBS)
async def test_two_requests_at_once_keep_their_context_apart(verb: str) -> None:
    arrived: list[str] = []
    both = asyncio.Event()

    async def who(_: Any) -> str:
        arrived.append(USER.get())
        if len(arrived) == 2:
            both.set()
        await both.wait()
        return USER.get()

    async def identify(request: Request) -> None:
        USER.set(request.headers["x-user"])

    app = make_app(RunnableLambda(who), dependencies=[Depends(identify)])

    async def ask(name: str) -> Any:
        response = await request(
            app, "POST", f"/chain/{verb}", json=body_of(verb), headers={"x-user": name}
        )
        return output_of(verb, response)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(name)) for name in ("ann", "bob")]

    assert [task.result() for task in asked] == ["ann", "bob"]


# Event loops and lifespans.


@asynccontextmanager
async def opened_and_shut_down(
    app: ASGIApp, path: str, chain: GatedChain
) -> AsyncIterator[list[str]]:
    """Open a stream within the lifespan, end that, and give the names of the events after it."""
    async with AsyncExitStack() as streams:
        async with lifespan(app) as state:
            stream = await streams.enter_async_context(
                open_stream(app, "POST", f"{path}/stream", json={"input": 1}, state=state)
            )
            for _ in range(2):
                await stream.next_event()
            assert not chain.cancelled.is_set()
        assert chain.cancelled.is_set(), "the run goes on after the lifespan's end"
        yield [event.event async for event in stream.events()]


# A router that was included before has no say in the lifespan any more.
@pytest.mark.parametrize("place", [on_the_application, *ROUTERS[:3], on_a_nested_router])
async def test_the_end_of_the_lifespan_cancels_runs_with_one_terminal_event(place: Place) -> None:
    chain = GatedChain(["a", "b"], before=1)
    app, path = place(lambda app: add_routes(app, chain, path="/chain"))
    async with opened_and_shut_down(app, path, chain) as events:
        assert events == ["error"]


@pytest.mark.parametrize("place", [on_a_mounted_application, on_an_application_mounted_twice_deep])
async def test_a_root_with_a_chain_of_its_own_ends_the_runs_of_its_sub_applications(
    place: Place,
) -> None:
    chain = GatedChain(["a", "b"], before=1)
    app, path = place(lambda app: add_routes(app, chain, path="/chain"))
    assert isinstance(app, FastAPI)
    add_routes(app, echo(), path="/chain")
    async with opened_and_shut_down(app, path, chain) as events:
        assert events == ["error"]


async def test_a_root_that_runs_its_sub_applications_lifespan_ends_their_runs() -> None:
    chain, sub = GatedChain(["a", "b"], before=1), FastAPI()
    add_routes(sub, chain, path="/chain")

    @asynccontextmanager
    async def run_the_subs(_: FastAPI) -> AsyncIterator[None]:
        async with sub.router.lifespan_context(sub):
            yield

    app = FastAPI(lifespan=run_the_subs)
    app.mount("/sub", sub)
    async with opened_and_shut_down(app, "/sub/chain", chain) as events:
        assert events == ["error"]


async def test_the_end_of_a_lifespan_that_was_replaced_later_cancels_runs() -> None:
    @asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[None]:
        yield

    chain = GatedChain(["a", "b"], before=1)
    app = FastAPI(lifespan=own)
    add_routes(app, echo(), path="/first")
    add_routes(app, chain, path="/chain")
    async with opened_and_shut_down(app, "/chain", chain) as events:
        assert events == ["error"]


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_the_end_of_the_lifespan_answers_who_still_waits(verb: str) -> None:
    chain = CountingChain()
    app = make_app(chain)
    async with AsyncExitStack() as streams:
        async with lifespan(app):
            stream = await streams.enter_async_context(
                open_stream(app, "POST", f"/chain/{verb}", json=body_of(verb), wait_for_start=False)
            )
            await chain.until_in_flight(1)
        await stream.started()
        assert stream.status == 499
        assert b'"code":"cancelled"' in await stream.read()


async def test_the_applications_own_lifespan_runs_around_the_runs_and_its_state_arrives() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        steps.append("up")
        yield {"database": "open"}
        steps.append("down")

    seen: list[str] = []

    async def look(request: Request) -> None:
        seen.append(request.state.database)

    app = FastAPI(lifespan=own)
    add_routes(app, RunnableLambda(lambda _: steps.append("ran")), path="/a")
    add_routes(app, echo(), path="/b", dependencies=[Depends(look)])
    async with lifespan(app) as state:
        for path in ("/a", "/b"):
            await request(app, "POST", f"{path}/invoke", json={"input": 1}, state=state)

    assert steps == ["up", "ran", "down"]
    assert seen == ["open"]


async def test_a_chain_may_use_what_the_lifespan_opened_until_its_run_is_cancelled() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[None]:
        yield
        steps.append("closed")

    chain = GatedChain(["a", "b"], before=1)
    app = FastAPI(lifespan=own)
    add_routes(app, chain, path="/chain")

    async def watch() -> None:
        await chain.cancelled.wait()
        steps.append("cancelled")

    watching = asyncio.create_task(watch())
    async with opened_and_shut_down(app, "/chain", chain):
        await watching
    assert steps == ["cancelled", "closed"]


async def test_a_lifespan_that_fails_at_startup_says_so() -> None:
    @asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[None]:
        raise TeapotError("no database")
        yield

    app = FastAPI(lifespan=own)
    add_routes(app, echo(), path="/chain")
    with pytest.raises(TeapotError, match="no database"):
        async with lifespan(app):
            pass


async def test_the_lifespan_of_a_router_runs_once_however_many_chains_it_has() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[None]:
        steps.append("up")
        yield
        steps.append("down")

    router = APIRouter(lifespan=own)
    for number in range(3):
        add_routes(router, echo(), path=f"/chain{number}")
    app = FastAPI()
    app.include_router(router)
    async with lifespan(app):
        pass

    assert steps == ["up", "down"]


@pytest.mark.parametrize("place", SUB_APPLICATIONS)
async def test_sub_applications_share_the_executor_of_their_root(place: Place) -> None:
    chains = [GatedChain(["a", "b"], before=1) for _ in range(2)]
    app, path = place(lambda app: add_routes(app, chains[0], path="/chain"))
    other = FastAPI()
    add_routes(other, chains[1], path="/chain")
    assert isinstance(app, FastAPI | Starlette)
    app.mount("/other", other)
    async with AsyncExitStack() as streams:
        for target in (path, "/other/chain"):
            await streams.enter_async_context(
                open_stream(app, "POST", f"{target}/stream", json={"input": 1})
            )
        assert len(executor_of(app).live) == 2  # type: ignore[arg-type]
        for chain in chains:
            chain.gate.set()


async def test_two_applications_share_nothing() -> None:
    one, two = make_app(echo()), make_app(echo())

    assert executor_of(one) is executor_of(one)
    assert executor_of(one) is not executor_of(two)


async def test_requests_before_after_and_without_a_lifespan_are_answered() -> None:
    app = make_app(echo())
    for _ in range(2):
        response = await request(app, "POST", "/chain/invoke", json={"input": 1})
        assert output_of("invoke", response) == 1
        async with lifespan(app) as state:
            response = await request(app, "POST", "/chain/stream", json={"input": 1}, state=state)
            assert output_of("stream", response) == 1


def ask_all(client: TestClient) -> None:
    """Ask every verb, streaming twice at once."""
    assert client.post("/chain/invoke", json={"input": 1}).json()["output"] == "abc"
    assert client.post("/chain/batch", json={"inputs": [1, 2]}).json()["output"] == ["abc", "abc"]
    with client.stream("POST", "/chain/stream", json={"input": 1}) as one:
        lines = [line for line in one.iter_lines() if line.startswith("data")]
    assert lines[1:] == ['data: "a"', 'data: "b"', 'data: "c"']


def test_the_test_client_works_again_and_again_in_one_process() -> None:
    app = make_app(streaming(*"abc"))
    for _ in range(3):
        with TestClient(app) as client:
            ask_all(client)
            ask_all(client)


def test_the_test_client_works_without_a_lifespan_with_a_loop_for_each_request() -> None:
    app = make_app(streaming(*"abc"))
    client = TestClient(app)
    ask_all(client)
    ask_all(client)
    ask_all(TestClient(app))


def test_a_module_level_application_works_in_several_event_loops() -> None:
    app = make_app(streaming(*"abc"))

    async def ask() -> bytes:
        return (await request(app, "POST", "/chain/stream", json={"input": 1})).body

    for _ in range(3):
        assert asyncio.run(ask()).endswith(b'data: "c"\r\n\r\nevent: end\r\n\r\n')


async def test_settings_are_read_when_they_are_first_needed_and_not_at_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = FastAPI()
    add_routes(app, echo(), path="/chain")
    monkeypatch.setenv("CHAINSERVE_MAX_BODY_BYTES", "20")

    response = await request(app, "POST", "/chain/invoke", json={"input": "x" * 50})

    assert_problem(response, 413, "body_too_large")
