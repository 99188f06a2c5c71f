"""`APIHandler`: endpoints of one's own answer what they answer with LangServe's."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, cast

import langserve
import pytest
from fastapi import Depends, FastAPI, HTTPException
from langchain_core.runnables import Runnable, RunnableConfig
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import chainserve
from chainserve import Chain, add_routes
from chainserve.lzstring import compress
from tests import _pair_chains as chains, _pair_values as values
from tests._apps import assert_problem, make_app
from tests._bridge import open_stream, request
from tests._chains import GatedChain, echo
from tests._pairs import CHAINSERVE, LANGSERVE, Package, Pair, Pairs, ask, forget_oracle_state
from tests._runs import decode
from tests.test_langserve_events import comparable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


def own_routes(handler: chainserve.APIHandler) -> FastAPI:
    """Return an application with routes of its own for a handler of either package."""
    app = FastAPI()

    async def user(request: Request) -> str:
        name = request.headers.get("x-user")
        if name is None:
            raise HTTPException(401, "Who are you?")
        return name

    @app.post("/mine/invoke")
    async def invoke(request: Request) -> Response:
        return await handler.invoke(request)

    @app.post("/mine/{config_hash}/invoke")
    async def invoke_with_hash(config_hash: str, request: Request) -> Response:
        return await handler.invoke(request, config_hash=config_hash)

    @app.post("/mine/for-user")
    async def for_user(request: Request, name: Annotated[str, Depends(user)]) -> Response:
        config = RunnableConfig(configurable={"template": f"{name} asks about {{topic}}"})
        return await handler.invoke(request, server_config=config)

    @app.post("/mine/after-reading")
    async def after_reading(request: Request) -> Response:
        await request.json()
        return await handler.invoke(request)

    @app.post("/mine/batch")
    async def batch(request: Request) -> Response:
        return await handler.batch(request)

    @app.post("/mine/stream")
    async def stream(request: Request) -> Response:
        return await handler.stream(request)

    @app.post("/mine/stream_log")
    async def stream_log(request: Request) -> Response:
        return await handler.stream_log(request)

    @app.post("/mine/stream_events")
    async def stream_events(request: Request) -> Response:
        return await handler.astream_events(request)

    @app.get("/mine/input_schema")
    async def input_schema(request: Request) -> Any:
        return await handler.input_schema(request)

    @app.get("/mine/output_schema")
    async def output_schema(request: Request) -> Any:
        return await handler.output_schema(request)

    @app.get("/mine/config_schema")
    async def config_schema(request: Request) -> Any:
        return await handler.config_schema(request)

    return app


def with_api_handler(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    module = langserve if package is LANGSERVE else chainserve
    return own_routes(cast("Any", module).APIHandler(runnable, path="/mine", **options))


def pair(target: str, body: Any = b"", *, method: str = "POST", **rest: Any) -> Pair:
    options: dict[str, Any] = {"chain": chains.configurable_prompt, **rest}
    return Pair(
        target=target, body=body, method=method, mount=with_api_handler, base="/mine", **options
    )


HASH = compress(json.dumps({"configurable": {"template": "From the URL: {topic}"}}))
BODY = {"input": values.TOPIC}
TEMPLATE = {"configurable": {"template": "Say no to {topic}"}}
PAIRS: Pairs = {
    "invoke": pair("invoke", BODY),
    "invoke with a config": pair("invoke", {**BODY, "config": TEMPLATE}),
    "invoke with a hash": pair(f"{HASH}/invoke", BODY),
    "invoke with a hash and a config": pair(f"{HASH}/invoke", {**BODY, "config": TEMPLATE}),
    "the server's config": pair("for-user", BODY, headers={"x-user": "ann"}),
    "the server's config above the caller's": pair(
        "for-user", {**BODY, "config": TEMPLATE}, headers={"x-user": "ann"}
    ),
    "a dependency that refuses": pair("for-user", BODY),
    "a body that the endpoint has read": pair("after-reading", BODY),
    "batch": pair("batch", {"inputs": [values.TOPIC, values.TOPIC], "config": [TEMPLATE, {}]}),
    "stream": pair("stream", BODY),
    "stream of a chain": pair("stream", BODY, chain=chains.text_chain),
    "stream_log": pair("stream_log", BODY, chain=chains.text_chain),
    "stream_events": pair("stream_events", BODY, chain=chains.text_chain),
    "input_schema": pair("input_schema", method="GET"),
    "output_schema": pair("output_schema", method="GET"),
    "config_schema": pair("config_schema", method="GET"),
    "an input that does not fit": pair("invoke", {"input": "cats"}),
    "no JSON": pair("invoke", b"{"),
}


@pytest.mark.parametrize("asked", PAIRS.values(), ids=PAIRS.keys())
async def test_both_handlers_answer_the_same(asked: Pair) -> None:
    theirs = comparable(await ask(LANGSERVE, asked))
    ours = comparable(await ask(CHAINSERVE, asked))

    if asked.body == b"{":
        assert (theirs[0], ours[0]) == (422, 422)
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    "name",
    [
        "InvokeRequest",
        "BatchRequest",
        "StreamRequest",
        "StreamLogRequest",
        "StreamEventsRequest",
        "InvokeResponse",
        "BatchResponse",
    ],
)
def test_the_models_of_the_bodies_take_what_langserves_take(name: str) -> None:
    theirs = getattr(langserve.APIHandler(chains.prompt(), path="/mine"), name)
    ours = getattr(chainserve.APIHandler(chains.prompt(), path="/mine"), name)

    assert ours.model_fields.keys() >= theirs.model_fields.keys() - {"callback_events", "diff"}


async def test_the_server_goes_before_the_caller_whatever_the_keys_are() -> None:
    handler = chainserve.APIHandler(chains.configurable_prompt(), path="/mine", config_keys=[])
    response = await request(
        own_routes(handler), "POST", "/mine/for-user", json=BODY, headers={"x-user": "ann"}
    )

    assert "ann asks about cats" in response.text


async def test_a_config_hash_comes_from_the_call_alone() -> None:
    handler = chainserve.APIHandler(chains.configurable_prompt(), path="/mine")
    app = FastAPI()

    @app.post("/c/{config_hash}/invoke")
    async def invoke(request: Request) -> Response:
        return await handler.invoke(request)

    response = await request(app, "POST", f"/c/{HASH}/invoke", json=BODY)

    assert "From the URL" not in response.text


async def test_a_stream_is_resumed_where_it_was_started() -> None:
    chain = GatedChain(["a", "b", "c"], before=1)
    app = own_routes(chainserve.APIHandler(chain, path="/mine"))
    body = {"input": 1, "on_disconnect": "continue"}
    async with open_stream(
        app, "POST", "/mine/stream", json=body, headers={"prefer": "resumable"}
    ) as response:
        assert "location" not in response.headers
        await response.next_event()
        first = await response.next_event()
    assert first is not None
    assert first.id is not None

    chain.gate.set()
    rest = await request(
        app, "POST", "/mine/stream", json=body, headers={"last-event-id": first.id}
    )

    assert [event.data for event in decode("id", rest.body)][:2] == ["b", "c"]


async def test_a_declared_chain_is_handled_as_it_is_declared() -> None:
    chain = Chain(path="/chain", runnable=echo(), max_body_bytes=10)
    handler = chainserve.APIHandler(chain)
    response = await request(own_routes(handler), "POST", "/mine/invoke", json={"input": "x" * 20})

    assert_problem(response, 413, "body_too_large")


async def test_the_playground_is_answered_with_its_files() -> None:
    handler = chainserve.APIHandler(echo(), path="/mine")
    app = FastAPI()

    @app.get("/mine/playground/{file_path:path}")
    async def playground(file_path: str, request: Request) -> Response:
        return await handler.playground(file_path, request)

    mounted = make_app(echo(), path="/mine")
    for file in ("", "playground.js", "nothing"):
        ours = await request(app, "GET", f"/mine/playground/{file}")
        theirs = await request(mounted, "GET", f"/mine/playground/{file}")
        assert (ours.status, ours.body) == (theirs.status, theirs.body)


async def test_options_that_cannot_work_are_refused_at_once() -> None:
    with pytest.raises(chainserve.ConfigurationError, match="config_keys must not name run_name"):
        chainserve.APIHandler(echo(), path="/mine", config_keys=["run_name"])
    with pytest.raises(chainserve.ConfigurationError, match="must start with a slash"):
        chainserve.APIHandler(echo(), path="mine")


async def test_its_runs_are_those_of_the_application() -> None:
    handler = chainserve.APIHandler(echo(), path="/mine")
    app = own_routes(handler)
    add_routes(app, echo(), path="/other")

    first = (await request(app, "POST", "/mine/invoke", json={"input": 1})).json()
    found = await request(app, "GET", f"/other/runs/{first['metadata']['run_id']}")

    assert_problem(found, 404, "run_not_found")
