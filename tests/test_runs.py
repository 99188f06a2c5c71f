"""The run routes: runs that are started in the background, looked at, cancelled and forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from operator import add
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import pytest
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, FastAPI
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda, RunnableParallel
from langchain_core.runnables.config import get_async_callback_manager_for_config
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from pydantic import SecretStr
from typing_extensions import TypedDict

from chainserve import Chain, add_routes
from chainserve.lzstring import compress
from chainserve.runs import Run
from chainserve.settings import Settings
from chainserve.types import RunId
from tests._apps import assert_problem, executor_of, make_app, only_run
from tests._asgi import HeaderTypes
from tests._bridge import Response, open_stream, request
from tests._chains import (
    CountingChain,
    GatedChain,
    SwallowingChain,
    answering,
    echo,
    failing,
    streaming,
)
from tests._openai import OpenAIServer, Tokens
from tests._runs import UNKNOWN_RUN
from tests._verbs import VERBS, ask, body_of

pytestmark = pytest.mark.anyio

HASH = compress("{}")
USAGE = UsageMetadata(input_tokens=7, output_tokens=2, total_tokens=9)
Details = dict[str, Any]


async def post_run(
    app: FastAPI,
    value: Any = 1,
    *,
    path: str = "/chain",
    headers: HeaderTypes = (),
    **members: Any,
) -> Response:
    return await request(
        app, "POST", f"{path}/runs", json={"input": value, **members}, headers=headers
    )


async def start(app: FastAPI, value: Any = 1, **members: Any) -> str:
    """Start a run and return its id."""
    response = await post_run(app, value, **members)
    assert response.status == 202, response.text
    return str(response.json()["run_id"])


async def show(app: FastAPI, run_id: str, *, path: str = "/chain", wait: float = 0) -> Details:
    """Return what is known of a run."""
    headers = {"prefer": f"wait={wait}"} if wait else {}
    response = await request(app, "GET", f"{path}/runs/{run_id}", headers=headers)
    assert response.status == 200, response.text
    details: Details = response.json()
    return details


async def ended(app: FastAPI, value: Any = 1, **members: Any) -> Details:
    """Start a run and return what is known of it once it has ended."""
    details = await show(app, await start(app, value, **members), wait=5)
    assert details["status"] not in ("pending", "running")
    return details


async def come_to(event: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await event.wait()


async def until_read_by(readers: int, run: Run) -> None:
    async with asyncio.timeout(20):
        while run.readers < readers:
            await checkpoint()


def app_of(**options: Any) -> FastAPI:
    """Return an application with a chain that is declared."""
    app = FastAPI()
    add_routes(app, Chain(path="/chain", **options))
    return app


# Starting.


async def test_a_started_run_is_answered_with_202_and_where_it_is() -> None:
    chain = GatedChain()
    response = await post_run(make_app(chain))

    assert response.status == 202
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert "preference-applied" not in response.headers
    details = response.json()
    run_id = details["run_id"]
    assert details.keys() == {"run_id", "status", "mode", "stream_url", "created_at"}
    assert details["status"] == "running"
    assert details["mode"] == "stream"
    assert datetime.fromisoformat(details["created_at"]).utcoffset() is not None
    assert response.headers["location"] == f"runs/{run_id}"
    assert details["stream_url"] == f"runs/{run_id}/stream"
    chain.gate.set()


def at(path: str) -> Callable[[], FastAPI]:
    return lambda: make_app(streaming("a", "b"), path=path)


def below_a_prefix() -> FastAPI:
    app, router = FastAPI(), APIRouter(prefix="/v1")
    add_routes(router, streaming("a", "b"), path="/chain")
    app.include_router(router, prefix="/tenants/{tenant}")
    return app


def mounted() -> FastAPI:
    app = FastAPI()
    app.mount("/sub", make_app(streaming("a", "b")))
    return app


PLACES: dict[str, tuple[Callable[[], FastAPI], str, str]] = {
    "a path": (at("/chain"), "/chain", ""),
    "a path of several segments": (at("/a/b/c"), "/a/b/c", ""),
    "a path with letters to be escaped": (at("/größe 1"), "/gr%C3%B6%C3%9Fe%201", ""),
    "the empty path": (at(""), "", ""),
    "a config hash": (at("/chain"), f"/chain/c/{HASH}", ""),
    "a config hash below the empty path": (at(""), f"/c/{HASH}", ""),
    "a router's prefix": (below_a_prefix, "/tenants/acme/v1/chain", ""),
    "a mounted application": (mounted, "/sub/chain", ""),
    "a mounted application and a config hash": (mounted, f"/sub/chain/c/{HASH}", ""),
    "a proxy's path": (at("/chain"), "/chain", "/proxied"),
}


@pytest.mark.parametrize("slash", ["", "/"], ids=["", "with a slash"])
@pytest.mark.parametrize("place", PLACES)
async def test_the_references_lead_to_the_run_wherever_the_chain_is(place: str, slash: str) -> None:
    make, path, root_path = PLACES[place]
    app = make()

    async def at_once(method: str, url: str, **options: Any) -> Response:
        assert url.startswith(f"http://testserver{root_path}{path}/")
        target = urlsplit(url).path.removeprefix(root_path)
        return await request(app, method, target, root_path=root_path, **options)

    def resolved(url: str, reference: str) -> str:
        """Resolve a reference as browsers and clients do."""
        return urljoin(url, reference)

    runs = f"http://testserver{root_path}{path}/runs{slash}"
    started = await at_once("POST", runs, json={"input": 1})
    assert started.status == 202, started.text
    run_id = started.json()["run_id"]
    run = resolved(runs, started.headers["location"]) + slash
    details = await at_once("GET", run, headers={"prefer": "wait=5"})
    cancelled = await at_once("POST", resolved(f"{runs.rstrip('/')}/", f"{run_id}/cancel{slash}"))
    stream_urls = {
        resolved(runs, started.json()["stream_url"]),
        resolved(run, details.json()["stream_url"]),
        resolved(f"{runs.rstrip('/')}/{run_id}/cancel{slash}", cancelled.json()["stream_url"]),
    }

    assert details.json()["run_id"] == run_id
    [stream_url] = stream_urls
    streamed = await at_once("GET", stream_url + slash)
    assert streamed.events()[0].json() == {"run_id": run_id}
    stream = f"{runs.rstrip('/').removesuffix('runs')}stream{slash}"
    resumable = await at_once("POST", stream, json={"input": 1}, headers={"prefer": "resumable"})
    found = await at_once("GET", resolved(stream, resumable.headers["location"]))
    assert found.json()["run_id"] == resumable.events()[0].json()["run_id"]


async def test_a_run_in_each_mode_has_a_log_of_metadata_data_and_an_end() -> None:
    app = make_app(streaming("a", "b"))
    logs = {}
    for mode in ("stream", "invoke"):
        details = await ended(app, mode=mode)
        assert (details["mode"], details["status"], details["output"]) == (mode, "success", "ab")
        log = await request(app, "GET", f"/chain/runs/{details['run_id']}/stream")
        logs[mode] = [(event.event, event.data) for event in log.events()[1:]]

    end = ("end", '{"status": "success"}')
    assert logs["stream"] == [("data", '"a"'), ("data", '"b"'), end]
    assert logs["invoke"] == [("data", '"ab"'), end]


async def test_an_output_with_line_breaks_is_one_event_of_an_invokes_log() -> None:
    value = {"text": "a\r\nb\u2028c", "list": [1, None]}
    app = make_app(answering(value))
    details = await ended(app, mode="invoke")
    log = await request(app, "GET", f"/chain/runs/{details['run_id']}/stream")

    assert details["output"] == value
    assert [event.json() for event in log.events() if event.event == "data"] == [value]


async def test_a_run_goes_on_when_nobody_ever_reads_it() -> None:
    chain = GatedChain()
    app = make_app(chain, settings=Settings(on_disconnect="cancel", resume_grace=0))
    run_id = await start(app)
    run = only_run(app)
    assert run.continues
    chain.gate.set()

    assert (await show(app, run_id, wait=5))["output"] == "abc"


POLICIES: list[tuple[Any, Any, str]] = [
    (None, None, "success"),
    ("cancel", None, "cancelled"),
    (None, "cancel", "cancelled"),
    ("cancel", "continue", "success"),
    ("continue", "cancel", "cancelled"),
]


@pytest.mark.parametrize(("of_chain", "of_body", "status"), POLICIES)
async def test_the_bodys_policy_goes_before_the_chains_when_the_last_reader_leaves(
    of_chain: Any, of_body: Any, status: str
) -> None:
    chain = GatedChain()
    app = app_of(runnable=chain, on_disconnect=of_chain, resume_grace=0)
    run_id = await start(app, on_disconnect=of_body)
    run = only_run(app)
    async with open_stream(app, "GET", f"/chain/runs/{run_id}/stream") as stream:
        await stream.next_event()
    if status == "success":
        chain.gate.set()
    await come_to(run.ended)

    assert (await show(app, run_id))["status"] == status


@pytest.mark.parametrize("sent", ["stop", "", 1, True, {}])
async def test_an_unknown_policy_is_refused(sent: Any) -> None:
    app = make_app(echo())

    assert_problem(await post_run(app, on_disconnect=sent), 422, "invalid_input")


async def test_the_id_of_a_live_run_is_refused_and_free_again_at_its_end() -> None:
    chain = GatedChain()
    app = make_app(chain, config_keys=["run_id"])
    config = {"run_id": str(uuid4())}
    run_id = await start(app, config=config)
    assert run_id == config["run_id"]

    for mode in ("stream", "invoke"):
        assert_problem(await post_run(app, config=config, mode=mode), 409, "run_id_in_use")
    for verb in VERBS:
        refused = await ask(app, verb, members={"config": config})
        assert_problem(refused, 409, "run_id_in_use")
    chain.gate.set()
    await show(app, run_id, wait=5)

    assert await start(app, config=config) == run_id


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ["input"]),
        ({"input": "x"}, []),
        ({"input": 1, "config": []}, ["config"]),
        ({"input": 1, "mode": 1}, ["mode"]),
        ([], []),
    ],
)
async def test_a_bad_body_is_refused_with_its_place(body: Any, place: list[str]) -> None:
    app = make_app(echo(int))
    response = await request(app, "POST", "/chain/runs", json=body)

    assert assert_problem(response, 422, "invalid_input")["detail"][0]["loc"] == place
    assert not executor_of(app).live


# Modes.

ALL_MODES = ["stream", "invoke", "stream_log", "stream_events"]


@pytest.mark.parametrize(
    ("lists", "modes"),
    [
        ({}, ALL_MODES),
        ({"enabled_endpoints": ["invoke"]}, []),
        ({"enabled_endpoints": ["invoke", "runs"]}, ["invoke"]),
        ({"enabled_endpoints": ["runs"]}, []),
        ({"enabled_endpoints": ["stream", "INVOKE", "runs"]}, ["stream", "invoke"]),
        ({"enabled_endpoints": ["batch", "input_schema"]}, []),
        ({"enabled_endpoints": []}, []),
        ({"enabled_endpoints": ["stream_events", "runs"]}, ["stream_events"]),
        ({"disabled_endpoints": ["stream"]}, ["invoke", "stream_log", "stream_events"]),
        ({"disabled_endpoints": ["invoke"]}, ["stream", "stream_log", "stream_events"]),
        ({"disabled_endpoints": ["invoke", "stream"]}, ["stream_log", "stream_events"]),
        ({"disabled_endpoints": ALL_MODES}, []),
        ({"disabled_endpoints": ["runs"]}, []),
        ({"disabled_endpoints": ["Runs"]}, []),
        ({"disabled_endpoints": []}, ALL_MODES),
    ],
)
async def test_modes_and_routes_follow_the_endpoint_lists(
    lists: dict[str, Any], modes: list[str]
) -> None:
    app = make_app(streaming("a"), **lists)
    for mode in ALL_MODES:
        response = await post_run(app, mode=mode)
        if not modes:
            assert response.status == 404
        elif mode in modes:
            assert response.status == 202
        else:
            assert_problem(response, 422, "invalid_input")
    for method, target in RUN_ROUTES:
        found = await request(app, method, target)
        assert (found.status == 404 and b"run_not_found" not in found.body) == (not modes)
    if modes:
        assert (await post_run(app)).json()["mode"] == modes[0]


RUN_ROUTES = [
    ("GET", f"/chain/runs/{UNKNOWN_RUN}"),
    ("GET", f"/chain/runs/{UNKNOWN_RUN}/stream"),
    ("POST", f"/chain/runs/{UNKNOWN_RUN}/cancel"),
    ("DELETE", f"/chain/runs/{UNKNOWN_RUN}"),
]


async def test_without_run_routes_a_resumable_stream_tells_no_location() -> None:
    app = make_app(streaming("a"), disabled_endpoints=["runs"])
    response = await ask(app, "stream", headers={"prefer": "resumable"})

    assert response.headers["preference-applied"] == "resumable"
    assert "location" not in response.headers


@pytest.mark.parametrize("mode", ["batch", "STREAM", "", "playground", "nonsense"])
async def test_an_unknown_mode_is_refused_and_the_modes_are_named(mode: str) -> None:
    app = make_app(echo(), enabled_endpoints=["invoke", "stream", "runs"])
    response = await post_run(app, mode=mode)

    [error] = assert_problem(response, 422, "invalid_input")["detail"]
    assert error["loc"] == ["mode"]
    assert error["input"] == mode
    assert "stream, invoke" in error["msg"]
    assert not executor_of(app).live


# Waiting.


@pytest.mark.parametrize("mode", ["stream", "invoke"])
async def test_a_run_that_ends_while_its_start_waits_is_answered_with_200_and_output(
    mode: str,
) -> None:
    app = make_app(streaming("a", "b"))
    response = await post_run(app, mode=mode, headers={"prefer": "wait=5"})

    assert response.status == 200
    assert response.headers["preference-applied"] == "wait=5"
    details = response.json()
    assert response.headers["location"] == f"runs/{details['run_id']}"
    assert (details["status"], details["output"]) == ("success", "ab")
    assert details == await show(app, details["run_id"]) | {"stream_url": details["stream_url"]}


async def test_a_run_that_fails_while_its_start_waits_is_answered_with_200_and_error() -> None:
    response = await post_run(make_app(failing(1)), headers={"prefer": "wait=5"})

    assert response.status == 200
    details = response.json()
    assert details["status"] == "error"
    assert details["error"] == {
        "status_code": 500,
        "message": "Internal Server Error",
        "code": "internal_error",
    }
    assert "output" not in details


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("wait=0", "wait=0"), ("wait=0.01", "wait=0.01"), ("wait=100, resumable", "wait=0.02")],
)
async def test_a_run_that_does_not_end_in_time_is_answered_with_202(
    prefer: str, applied: str
) -> None:
    chain = GatedChain()
    app = make_app(chain, settings=Settings(max_wait=0.02))
    started = await post_run(app, headers={"prefer": prefer})
    target = f"/chain/{started.headers['location']}"
    looked_at = await request(app, "GET", target, headers={"prefer": prefer})

    assert (started.status, looked_at.status) == (202, 200)
    for response in (started, looked_at):
        assert response.headers["preference-applied"] == applied
        assert response.json()["status"] == "running"
        assert "output" not in response.json()
    assert not only_run(app).is_over
    chain.gate.set()


@pytest.mark.parametrize(
    "prefer", ["wait", "wait=", "wait=soon", "wait=-1", "wait=1e9", "wait=5s", "wait=inf", "wai=5"]
)
async def test_a_malformed_wait_is_none(prefer: str) -> None:
    chain = GatedChain()
    app = make_app(chain)
    started = await post_run(app, headers={"prefer": prefer})
    target = f"/chain/{started.headers['location']}"
    looked_at = await request(app, "GET", target, headers={"prefer": prefer})

    assert started.status == 202
    for response in (started, looked_at):
        assert "preference-applied" not in response.headers
    chain.gate.set()


@pytest.mark.parametrize("of_body", ["continue", "cancel"])
async def test_a_wait_ends_when_its_client_leaves(of_body: str) -> None:
    chain = GatedChain()
    app = app_of(runnable=chain, resume_grace=0)
    body = {"input": 1, "on_disconnect": of_body}
    options: Any = {"json": body, "headers": {"prefer": "wait=60"}, "wait_for_start": False}
    async with open_stream(app, "POST", "/chain/runs", **options):
        await come_to(chain.reached[1])
        run = only_run(app)
    if of_body == "continue":
        assert not run.is_over
        assert run.cancel_reason is None
        chain.gate.set()
    await come_to(run.ended)

    assert run.status == ("cancelled" if of_body == "cancel" else "success")


async def test_one_who_waits_and_leaves_takes_nothing_from_one_who_waits_on() -> None:
    chain = GatedChain()
    app = app_of(runnable=chain, resume_grace=0)
    run_id = await start(app, on_disconnect="cancel")
    options: Any = {"headers": {"prefer": "wait=60"}, "wait_for_start": False}
    run = only_run(app)
    async with open_stream(app, "GET", f"/chain/runs/{run_id}", **options) as waiting:
        async with open_stream(app, "GET", f"/chain/runs/{run_id}", **options):
            await until_read_by(2, run)
        assert not run.is_over
        chain.gate.set()
        await waiting.started()
        assert b'"success"' in await waiting.read()


# Outputs and usage.


class Scripted(BaseChatModel):
    """A chat model that streams two words and counts its tokens."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        message = AIMessage("Hello world", usage_metadata=USAGE)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for word in ("Hello", " world"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=USAGE))


def prompted(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_template("{question}") | model


def parallel() -> Runnable[Any, Any]:
    model = Scripted()
    both = RunnableParallel(text=prompted(model) | StrOutputParser(), length=len)
    return both.with_types(input_type=dict)


class State(TypedDict):
    """The state of the graph."""

    question: str
    messages: Annotated[list[BaseMessage], add]


def graph() -> Runnable[Any, Any]:
    async def answer(state: State) -> dict[str, Any]:
        return {"messages": [await Scripted().ainvoke(state["question"])]}

    builder = StateGraph(State)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    compiled: Runnable[Any, Any] = builder.compile()
    return compiled


@tool
def shout(question: str) -> str:
    """Shout."""
    return question.upper()


class Shelf(BaseRetriever):
    """Finds one document always."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("found", metadata={"for": query})]


QUESTION = {"question": "hi"}
HELLO = "Hello world"
OUTPUTS: dict[str, tuple[Callable[[], Runnable[Any, Any]], Any, Callable[[Any], Any], Any]] = {
    "a sequence": (lambda: prompted(Scripted()) | StrOutputParser(), QUESTION, str, HELLO),
    "a sequence of messages": (
        lambda: prompted(Scripted()),
        QUESTION,
        lambda output: output["content"],
        HELLO,
    ),
    "a bare chat model": (Scripted, "hi", lambda output: output["content"], HELLO),
    "a model without usage": (
        lambda: GenericFakeChatModel(messages=iter([AIMessage(HELLO)])),
        "hi",
        lambda output: output["content"],
        HELLO,
    ),
    "text": (lambda: streaming("a", "b"), 1, str, "ab"),
    "numbers": (lambda: streaming(1, 2), 1, int, 3),
    "dicts": (
        lambda: streaming({"a": 1}, {"b": [2]}) | RunnableLambda(dict),
        1,
        dict,
        {"b": [2]},
    ),
    "a function": (lambda: RunnableLambda(lambda value: value + 1), 1, int, 2),
    "branches": (parallel, QUESTION, dict, {"text": HELLO, "length": 1}),
    "a graph": (
        graph,
        {**QUESTION, "messages": []},
        lambda output: (output["question"], output["messages"][0]["content"]),
        ("hi", HELLO),
    ),
    "a tool": (lambda: shout, QUESTION, str, "HI"),
    "a retriever": (Shelf, "hi", lambda output: output[0]["metadata"], {"for": "hi"}),
    "nothing": (lambda: RunnableLambda(lambda _: None), 1, lambda output: output, None),
    "a prompt": (
        lambda: ChatPromptTemplate.from_template("{question}"),
        QUESTION,
        lambda output: output["messages"][0]["content"],
        "hi",
    ),
}


@pytest.mark.parametrize("kind", OUTPUTS)
async def test_the_output_of_a_streamed_run_is_that_of_its_root(kind: str) -> None:
    make, value, part, expected = OUTPUTS[kind]
    details = await ended(make_app(make()), value)

    assert details["status"] == "success"
    assert part(details["output"]) == expected


async def test_the_output_of_each_verb_is_kept_for_whom_knows_its_id() -> None:
    app = make_app(streaming("a", "b"))
    for verb in VERBS:
        config = {"run_id": str(uuid4())}
        add_routes(app, streaming("a", "b"), path=f"/{verb}", config_keys=["run_id"])
        answer = await ask(app, verb, path=f"/{verb}", members={"config": config})
        assert answer.status == 200
        details = await show(app, config["run_id"], path=f"/{verb}")
        assert (details["mode"], details["output"]) == (verb, "ab")


@pytest.mark.parametrize("mode", ["stream", "invoke"])
async def test_an_output_over_its_bound_is_not_kept_and_one_at_it_is(mode: str) -> None:
    app = make_app(echo(), settings=Settings(max_output_bytes=10))
    kept = await ended(app, "x" * 8, mode=mode)
    dropped = await ended(app, "x" * 9, mode=mode)

    assert kept["output"] == "x" * 8
    assert dropped["status"] == "success"
    assert "output" not in dropped
    log = await request(app, "GET", f"/chain/runs/{dropped['run_id']}/stream")
    assert log.events()[1].json() == "x" * 9


async def test_an_output_that_is_over_its_bound_is_not_answered_after_a_wait_either() -> None:
    app = make_app(echo(), settings=Settings(max_output_bytes=0))
    response = await post_run(app, headers={"prefer": "wait=5"})

    assert response.status == 200
    assert "output" not in response.json()


async def test_a_stream_whose_output_has_no_json_form_succeeds_without_it() -> None:
    class Opaque:
        pass

    async def summed(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            yield "a"
        yield "b"

    class Joined(RunnableGenerator[Any, Any]):
        """Tells its callbacks of an output that it never streamed."""

        async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            manager = get_async_callback_manager_for_config(config)
            run = await manager.on_chain_start(None, input, run_id=config["run_id"])
            yield "a"
            await run.on_chain_end(Opaque())

    streamed = await ended(make_app(Joined(summed)))
    invoked = await ended(make_app(answering(Opaque())), mode="invoke")

    assert streamed["status"] == "success"
    assert "output" not in streamed
    assert invoked["error"]["code"] == "output_not_serializable"


@pytest.mark.parametrize("mode", ["stream", "invoke"])
@pytest.mark.parametrize("make", [parallel, graph, Scripted], ids=lambda make: make.__name__)
async def test_the_tokens_of_a_run_are_in_its_details_and_in_its_end(
    make: Callable[[], Runnable[Any, Any]], mode: str
) -> None:
    app = make_app(make())
    value = "hi" if make is Scripted else {**QUESTION, "messages": []}
    details = await ended(app, value, mode=mode)
    log = await request(app, "GET", f"/chain/runs/{details['run_id']}/stream")

    assert details["usage"] == USAGE
    assert log.events()[-1].json() == {"status": "success", "usage": USAGE}


async def test_the_tokens_of_all_models_are_added_up() -> None:
    both = RunnableParallel(one=prompted(Scripted()), two=prompted(Scripted()))
    details = await ended(make_app(both), QUESTION)

    assert details["usage"] == {name: 2 * int(str(count)) for name, count in USAGE.items()}


async def test_each_run_of_a_batch_has_its_own_tokens() -> None:
    app = make_app(prompted(Scripted()))
    response = await request(app, "POST", "/chain/batch", json={"inputs": [QUESTION] * 3})

    for run_id in response.json()["metadata"]["run_ids"]:
        assert (await show(app, run_id))["usage"] == USAGE


async def test_tokens_that_an_openai_server_counts_are_known_by_get_and_post() -> None:
    async with OpenAIServer(Tokens(["Hello", " world"])) as server:
        model = ChatOpenAI(
            base_url=server.base_url, api_key=SecretStr("test"), model="scripted", stream_usage=True
        )
        app = make_app(prompted(model) | StrOutputParser())
        details = await ended(app, QUESTION)
        stream = await request(app, "GET", "/chain/stream?question=hi")

    assert details["output"] == HELLO
    assert details["usage"].items() >= USAGE.items()
    assert stream.events()[-1].json()["usage"] == details["usage"]


async def test_a_run_without_a_model_tells_no_tokens() -> None:
    assert "usage" not in await ended(make_app(echo()))


async def test_langserves_end_tells_no_tokens() -> None:
    response = await ask(make_app(Scripted()), "stream", "hi")

    assert response.events()[-1].raw == b"event: end\r\n\r\n"


# Looking at runs.


async def test_a_run_is_running_until_it_has_ended() -> None:
    chain = GatedChain()
    app = make_app(chain, settings=Settings(list_all_runs=True))
    run_id = await start(app)
    await come_to(chain.reached[1])
    during = await show(app, run_id)
    [listed] = (await request(app, "GET", "/chain/runs")).json()["runs"]
    chain.gate.set()
    after = await show(app, run_id, wait=5)

    assert during["status"] == listed["status"] == "running"
    assert during.keys() == {"run_id", "status", "mode", "stream_url", "created_at"}
    assert after["status"] == "success"
    assert after["created_at"] == during["created_at"]
    assert datetime.fromisoformat(after["ended_at"]) >= datetime.fromisoformat(after["created_at"])


@pytest.mark.parametrize(
    ("settings", "status", "error"),
    [
        ({"run_timeout": 0.01}, "timeout", (504, "timeout")),
        ({"first_event_timeout": 0.01}, "timeout", (504, "timeout")),
    ],
)
async def test_a_run_that_passes_a_deadline_says_which(
    settings: dict[str, float], status: str, error: tuple[int, str]
) -> None:
    app = make_app(GatedChain(before=0), settings=Settings.model_validate(settings))
    details = await ended(app)

    assert details["status"] == status
    assert (details["error"]["status_code"], details["error"]["code"]) == error
    assert next(iter(settings)) in details["error"]["message"]


async def test_what_a_chain_raises_is_not_in_the_details() -> None:
    app = make_app(failing(1, ValueError("secret-reason")))
    details = await ended(app)

    assert details["status"] == "error"
    assert "secret-reason" not in str(details)


@pytest.mark.parametrize(
    "run_id", [UNKNOWN_RUN, "x", "0", "%20", "a%0A", "..%2f", "x" * 5000, "%F0%9F%98%80", "{}"]
)
@pytest.mark.parametrize(
    ("method", "below"), [("GET", ""), ("GET", "/stream"), ("POST", "/cancel"), ("DELETE", "")]
)
async def test_an_unknown_run_is_not_found(method: str, below: str, run_id: str) -> None:
    response = await request(make_app(echo()), method, f"/chain/runs/{run_id}{below}")

    if run_id == "..%2f":  # A slash, to every server, by the time it is a path.
        assert response.status in (404, 405)
        return
    assert_problem(response, 404, "run_not_found")


async def test_a_run_id_is_known_in_capitals_but_in_no_other_form() -> None:
    app = make_app(echo())
    details = await ended(app)
    run_id = details["run_id"]

    assert await show(app, run_id.upper()) == details
    for other in (run_id.replace("-", ""), f"{{{run_id}}}", f"urn:uuid:{run_id}"):
        response = await request(app, "GET", f"/chain/runs/{other}")
        assert_problem(response, 404, "run_not_found")


async def test_a_run_that_is_not_to_be_kept_is_known_until_its_end_alone() -> None:
    chain = GatedChain()
    app = app_of(runnable=chain, retention=False)
    run_id = await start(app)
    assert (await show(app, run_id))["run_id"] == run_id
    options: Any = {"headers": {"prefer": "wait=5"}, "wait_for_start": False}
    run = only_run(app)
    async with open_stream(app, "GET", f"/chain/runs/{run_id}", **options) as waiting:
        await until_read_by(1, run)
        chain.gate.set()
        assert b'"output":"abc"' in await waiting.read()

    assert_problem(await request(app, "GET", f"/chain/runs/{run_id}"), 404, "run_not_found")
    waited = await post_run(app, headers={"prefer": "wait=5"})
    assert waited.json()["output"] == "abc"


# Listing.


async def listed(app: FastAPI, **headers: str) -> list[Details]:
    response = await request(app, "GET", "/chain/runs", headers=headers)
    assert response.status == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    answer: dict[str, list[Details]] = response.json()
    assert answer.keys() == {"runs"}
    return answer["runs"]


def user(request: Any) -> str | None:
    name: str | None = request.headers.get("x-user")
    return name


async def test_a_callers_own_runs_are_listed_the_newest_first() -> None:
    app = app_of(runnable=echo(), principal=user)
    own: list[Details] = []
    others: list[Details] = []
    for name in ("ann", "ben", "ann", "ben", "ann"):
        details = (await post_run(app, headers={"x-user": name, "prefer": "wait=5"})).json()
        (own if name == "ann" else others).append(details)

    seen = await listed(app, **{"x-user": "ann"})
    assert seen == [
        {name: value for name, value in details.items() if name != "output"}
        for details in reversed(own)
    ]
    assert [run["run_id"] for run in await listed(app, **{"x-user": "ben"})] == [
        details["run_id"] for details in reversed(others)
    ]
    assert await listed(app, **{"x-user": "new"}) == []


async def test_runs_of_every_verb_are_listed_and_live_ones_too() -> None:
    chain = GatedChain()
    app = app_of(runnable=chain, principal=user)
    chain.gate.set()
    for verb in VERBS:
        await ask(app, verb, headers={"x-user": "ann"})
    chain.gate.clear()
    await post_run(app, headers={"x-user": "ann"})

    seen = await listed(app, **{"x-user": "ann"})
    assert [run["mode"] for run in seen] == ["stream", "stream", "batch", "invoke"]
    assert [run["status"] for run in seen] == ["running", *["success"] * 3]
    chain.gate.set()


async def test_runs_are_not_listed_where_nobody_is_told_apart() -> None:
    app = make_app(echo())
    await start(app)

    assert_problem(await request(app, "GET", "/chain/runs"), 403, "principal_required")


async def test_a_setting_lists_everybodys_runs_where_nobody_is_told_apart() -> None:
    app = make_app(echo(), settings=Settings(list_all_runs=True))
    run_ids = [(await ended(app))["run_id"] for _ in range(3)]

    assert [run["run_id"] for run in await listed(app)] == run_ids[::-1]


async def test_that_setting_shows_nobody_the_runs_of_others() -> None:
    app = make_app(echo(), settings=Settings(list_all_runs=True))
    add_routes(app, Chain(path="/own", runnable=echo(), principal=user))
    await post_run(app, path="/own", headers={"x-user": "ann"})
    response = await request(app, "GET", "/own/runs", headers={"x-user": "ben"})

    assert response.json() == {"runs": []}


async def test_a_list_has_a_hundred_runs_at_most() -> None:
    app = make_app(echo(), settings=Settings(list_all_runs=True))
    await request(app, "POST", "/chain/batch", json={"inputs": [1] * 100})
    newest = (await ended(app))["run_id"]

    seen = await listed(app)
    assert len(seen) == 100
    assert seen[0]["run_id"] == newest


# Cancelling.


async def cancel(app: FastAPI, run_id: str, **headers: str) -> Details:
    response = await request(app, "POST", f"/chain/runs/{run_id}/cancel", headers=headers)
    assert response.status == 200, response.text
    details: Details = response.json()
    return details


CANCELLED = {
    "status_code": 499,
    "message": "The run was cancelled on request.",
    "code": "cancelled",
}


@pytest.mark.parametrize("mode", ["stream", "invoke"])
async def test_a_run_is_cancelled_and_its_end_is_answered(mode: str) -> None:
    chain = GatedChain()
    app = make_app(chain)
    run_id = await start(app, mode=mode)
    await come_to(chain.reached[1])
    run = only_run(app)
    details = await cancel(app, run_id)

    assert chain.cancellations == 1
    assert run.cancel_reason == "requested"
    assert (details["status"], details["error"]) == ("cancelled", CANCELLED)
    assert await show(app, run_id) == details | {"stream_url": f"../runs/{run_id}/stream"}


async def test_cancelling_twice_is_cancelling_once() -> None:
    chain = GatedChain()
    app = make_app(chain)
    run_id = await start(app)
    await come_to(chain.reached[1])
    both = await asyncio.gather(cancel(app, run_id), cancel(app, run_id))
    later = await cancel(app, run_id)

    assert both[0] == both[1] == later
    assert chain.cancellations == 1
    log = await request(app, "GET", f"/chain/runs/{run_id}/stream")
    assert [event.event for event in log.events()] == ["metadata", "data", "error"]


@pytest.mark.parametrize(("runnable", "status"), [(echo(), "success"), (failing(), "error")])
async def test_cancelling_a_run_that_has_ended_changes_nothing(
    runnable: Runnable[Any, Any], status: str
) -> None:
    app = make_app(runnable)
    before = await ended(app)
    details = await cancel(app, before["run_id"])

    assert details["status"] == status
    assert details == before | {"stream_url": details["stream_url"]}


async def test_those_who_read_a_run_that_is_cancelled_are_told_499() -> None:
    chain = GatedChain()
    app = make_app(chain)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as langserves:
        metadata = await langserves.next_event()
        assert metadata is not None
        run_id = metadata.json()["run_id"]
        async with open_stream(app, "GET", f"/chain/runs/{run_id}/stream") as reader:
            await reader.next_event()
            await cancel(app, run_id)
            [*_, last] = [event async for event in reader.events()]
        [*_, langserves_last] = [event async for event in langserves.events()]

    assert (last.event, last.json()) == ("error", CANCELLED)
    shown = {"status_code": 499, "message": CANCELLED["message"]}
    assert (langserves_last.event, langserves_last.json()) == ("error", shown)


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_a_caller_who_waits_for_an_output_is_answered_499(verb: str) -> None:
    chain = CountingChain()
    app = make_app(chain)
    options: Any = {"json": body_of(verb), "wait_for_start": False}
    async with open_stream(app, "POST", f"/chain/{verb}", **options) as stream:
        await chain.until_in_flight(1)
        details = await cancel(app, only_run(app).id)
        await stream.started()
        assert stream.status == 499
        assert b'"cancelled"' in await stream.read()

    assert details["status"] == "cancelled"
    assert chain.cancellations == 1


async def test_cancelling_one_run_of_a_batch_cancels_all_of_it() -> None:
    chain = CountingChain()
    app = make_app(chain)
    options: Any = {"json": {"inputs": [1, 2, 3]}, "wait_for_start": False}
    async with open_stream(app, "POST", "/chain/batch", **options) as stream:
        await chain.until_in_flight(3)
        run_ids = only_run(app).ids
        details = await cancel(app, run_ids[1])
        await stream.started()
        assert stream.status == 499
        await stream.read()

    assert details["run_id"] == run_ids[1]
    assert chain.cancellations == 3
    for run_id in run_ids:
        assert (await show(app, run_id))["error"] == CANCELLED


async def test_a_run_that_swallows_its_cancellation_is_left_behind_and_answered() -> None:
    chain = SwallowingChain()
    app = make_app(chain, settings=Settings(cancel_timeout=0.05))
    run_id = await start(app)
    await come_to(chain.started)
    details = await cancel(app, run_id)
    chain.release.set()
    await come_to(chain.finished)

    assert details["status"] == "cancelled"
    assert (await show(app, run_id))["status"] == "cancelled"


@pytest.mark.parametrize("verb", ["invoke", "batch", "stream", "stream_events", "runs"])
async def test_a_run_is_cancelled_by_its_key_where_its_id_is_not_known(verb: str) -> None:
    chain = CountingChain()
    app = make_app(chain)
    options: Any = {"json": body_of(verb), "headers": {"idempotency-key": "k 1"}}
    async with open_stream(app, "POST", f"/chain/{verb}", **options, wait_for_start=False):
        await chain.until_in_flight(1)
        run_id = only_run(app).id
        body = {"endpoint": verb, "idempotency_key": "k 1"}
        response = await request(app, "POST", "/chain/runs/cancel", json=body)

    assert response.status == 200, response.text
    assert (response.json()["run_id"], response.json()["error"]) == (run_id, CANCELLED)
    assert response.json()["stream_url"] == f"../runs/{run_id}/stream"
    assert chain.cancellations == 1
    again = await request(app, "POST", "/chain/runs/cancel", json=body)
    assert again.json() == response.json()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"endpoint": "invoke", "idempotency_key": "k"}, 404, "run_not_found"),
        ({"endpoint": "stream", "idempotency_key": "other"}, 404, "run_not_found"),
        ({"endpoint": "stream", "idempotency_key": "\u00e9"}, 400, "invalid_idempotency_key"),
        ({"endpoint": "playground", "idempotency_key": "k"}, 422, "invalid_input"),
        ({"endpoint": "stream"}, 422, "invalid_input"),
        ([], 422, "invalid_input"),
    ],
)
async def test_a_key_that_started_no_such_run_cancels_none(
    body: Any, status: int, code: str
) -> None:
    chain = GatedChain()
    app = make_app(chain)
    headers = {"idempotency-key": "k"}
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}, headers=headers):
        await come_to(chain.reached[1])
        response = await request(app, "POST", "/chain/runs/cancel", json=body)

        assert_problem(response, status, code)
        assert chain.cancellations == 0


async def test_who_does_not_wait_for_the_end_of_a_cancelled_run_is_answered_at_once() -> None:
    chain = SwallowingChain()
    app = make_app(chain, settings=Settings(cancel_timeout=60))
    run_id = await start(app)
    await come_to(chain.started)
    path = f"/chain/runs/{run_id}/cancel"
    response = await request(app, "POST", path, headers={"prefer": "wait=0"})

    assert response.headers["preference-applied"] == "wait=0"
    assert response.json()["status"] == "running"
    assert only_run(app).cancel_reason == "requested"
    chain.release.set()
    await come_to(chain.finished)


async def test_one_who_asks_to_cancel_and_leaves_has_cancelled() -> None:
    chain = SwallowingChain()
    app = make_app(chain, settings=Settings(cancel_timeout=60))
    run_id = await start(app)
    run = only_run(app)
    await come_to(chain.started)
    target = f"/chain/runs/{run_id}/cancel"
    async with open_stream(app, "POST", target, wait_for_start=False):
        await come_to(chain.cancelled)
    chain.release.set()
    await come_to(run.ended)

    assert run.status == "cancelled"


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://elsewhere.example"}, {"sec-fetch-site": "cross-site"}],
    ids=lambda headers: next(iter(headers)),
)
async def test_a_page_of_another_origin_cancels_nothing(headers: dict[str, str]) -> None:
    chain = GatedChain()
    app = make_app(chain)
    run_id = await start(app)
    target = f"/chain/runs/{run_id}/cancel"
    response = await request(app, "POST", target, headers=headers)

    assert_problem(response, 403, "cross_site_request")
    assert only_run(app).cancel_reason is None
    chain.gate.set()


# Forgetting.


async def test_a_run_that_has_ended_is_forgotten_once() -> None:
    app = make_app(streaming("a"), settings=Settings(list_all_runs=True))
    kept, forgotten = (await ended(app))["run_id"], (await ended(app))["run_id"]
    target = f"/chain/runs/{forgotten}"
    response = await request(app, "DELETE", target)

    assert (response.status, response.body) == (204, b"")
    for method, below in [("DELETE", ""), ("GET", ""), ("GET", "/stream"), ("POST", "/cancel")]:
        again = await request(app, method, f"{target}{below}")
        assert_problem(again, 404, "run_not_found")
    assert [run["run_id"] for run in await listed(app)] == [kept]


@pytest.mark.parametrize("mode", ["stream", "invoke"])
async def test_a_run_that_goes_on_is_not_forgotten(mode: str) -> None:
    chain = GatedChain()
    app = make_app(chain)
    run_id = await start(app, mode=mode)
    await come_to(chain.reached[1])

    problem = assert_problem(
        await request(app, "DELETE", f"/chain/runs/{run_id}"), 409, "run_not_ended"
    )
    assert run_id in problem["message"]
    assert not only_run(app).is_over
    chain.gate.set()
    await show(app, run_id, wait=5)
    assert (await request(app, "DELETE", f"/chain/runs/{run_id}")).status == 204


async def test_one_run_of_a_batch_is_forgotten_alone() -> None:
    app = make_app(echo())
    response = await request(app, "POST", "/chain/batch", json={"inputs": [1, 2]})
    first, second = response.json()["metadata"]["run_ids"]

    assert (await request(app, "DELETE", f"/chain/runs/{first}")).status == 204
    assert_problem(await request(app, "GET", f"/chain/runs/{first}"), 404, "run_not_found")
    assert (await show(app, second))["output"] == 2


@pytest.mark.parametrize("forgotten", [0, 1])
async def test_a_batch_that_lost_a_run_is_never_answered_with_fewer_outputs(forgotten: int) -> None:
    app = make_app(echo())
    options: Any = {"json": {"inputs": [1, 2]}, "headers": {"idempotency-key": "k"}}
    first = await request(app, "POST", "/chain/batch", **options)
    run_ids = first.json()["metadata"]["run_ids"]
    await request(app, "DELETE", f"/chain/runs/{run_ids[forgotten]}")
    again = await request(app, "POST", "/chain/batch", **options)

    if forgotten == 0:  # The key is the first run's, and gone with it.
        assert again.json()["output"] == [1, 2]
        assert set(again.json()["metadata"]["run_ids"]).isdisjoint(run_ids)
    else:
        assert_problem(again, 410, "output_not_kept")


async def test_a_reader_of_a_run_that_is_forgotten_is_told() -> None:
    app = make_app(streaming(*(f"{index:04}" for index in range(2000))))
    run_id = (await ended(app))["run_id"]
    target = f"/chain/runs/{run_id}/stream"
    async with open_stream(app, "GET", target, read=False) as stream:
        await come_to(stream.send_blocked)
        await request(app, "DELETE", f"/chain/runs/{run_id}")
        stream.resume_reading()
        [*_, last] = [event async for event in stream.events()]

    assert last.event in ("error", "end")
    assert await executor_of(app).store.get(RunId(run_id)) is None
