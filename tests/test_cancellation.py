"""A client that leaves: everything its run started ends, and the model's connection closes."""

import asyncio
import operator
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

import anyio.lowlevel
import pytest
from fastapi import FastAPI
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from pydantic import SecretStr

from chainserve import Chain, add_routes
from chainserve.cancellation import TaskScope
from chainserve.settings import Settings
from chainserve.types import RunId
from tests._apps import executor_of, make_app, only_run
from tests._bridge import open_stream, request
from tests._chains import BlockingChain, CountingChain, GatedChain, SwallowingChain
from tests._openai import Hang, OpenAIServer, Script, Stall
from tests._server import RawConnection, serve

pytestmark = pytest.mark.anyio

VERBS = ["invoke", "batch", "stream"]


def body_of(verb: str, value: Any = "hi") -> dict[str, Any]:
    return {"inputs": [value, value]} if verb == "batch" else {"input": value}


def model_at(upstream: OpenAIServer) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=upstream.base_url, api_key=SecretStr("test"), model="test", max_retries=0
    )


def sequence(model: ChatOpenAI) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_template("{text}")
    return RunnableLambda(lambda text: {"text": text}) | prompt | model | StrOutputParser()


def parallel(model: ChatOpenAI) -> Runnable[Any, Any]:
    return RunnableParallel(left=model, right=model | StrOutputParser())


class State(TypedDict):
    """The state of the graph."""

    messages: Annotated[list[BaseMessage], operator.add]


def graph(model: ChatOpenAI) -> Runnable[Any, Any]:
    async def ask(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    compiled: Runnable[Any, Any] = builder.compile()
    to_state: Runnable[Any, Any] = RunnableLambda(lambda text: {"messages": [AIMessage(text)]})
    return to_state | compiled


@asynccontextmanager
async def client_of(app: FastAPI, verb: str) -> AsyncIterator[RawConnection]:
    """Serve the application and send one request to it over a socket."""
    async with serve(app) as server, await RawConnection.open(server.port) as client:
        await client.send_request("POST", f"/chain/{verb}", json=body_of(verb))
        yield client


@pytest.mark.parametrize("script", [Stall(after=2), Hang()], ids=["stalled", "silent"])
@pytest.mark.parametrize("make", [sequence, parallel, graph])
@pytest.mark.parametrize("verb", VERBS)
async def test_leaving_closes_the_models_sockets(
    verb: str, make: Callable[[ChatOpenAI], Runnable[Any, Any]], script: Script
) -> None:
    connections = (2 if verb == "batch" else 1) * (2 if make is parallel else 1)
    async with OpenAIServer(default=script) as upstream:
        app = make_app(make(model_at(upstream)))
        async with client_of(app, verb) as client:
            await upstream.received(connections)
            client.close()
            await upstream.all_closed()
            run_ended = executor_of(app).live
            async with asyncio.timeout(20):
                for run in run_ended:
                    await run.ended.wait()
        assert all(sent.closed_by_client.is_set() for sent in upstream.requests)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_client_that_leaves_cancels_its_run_and_the_record_says_so(verb: str) -> None:
    chain = CountingChain()
    app = make_app(chain)
    async with open_stream(app, "POST", f"/chain/{verb}", json=body_of(verb), wait_for_start=False):
        await chain.until_in_flight(2 if verb == "batch" else 1)
        run = only_run(app)
    async with asyncio.timeout(20):
        await run.ended.wait()

    assert chain.cancellations == (2 if verb == "batch" else 1)
    assert (run.status, run.cancel_reason) == ("cancelled", "client_disconnect")
    for run_id in run.ids:
        record = await executor_of(app).store.get(run_id)
        assert record is not None
        assert record.status == "cancelled"


async def test_a_chain_may_go_on_when_its_client_leaves() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=chain, on_disconnect="continue"))
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        run = only_run(app)
    assert not run.is_over
    chain.gate.set()
    async with asyncio.timeout(20):
        await run.ended.wait()

    events, _ = await executor_of(app).store.read_after(run.id, -1)
    assert [event.event for event in events] == ["metadata", "data", "data", "end"]
    assert not chain.cancelled.is_set()


async def test_a_cancelled_stream_has_one_terminal_event() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        run = only_run(app)
        executor_of(app).cancel(run, "shutdown")
        executor_of(app).cancel(run, "client_disconnect")
        last = [event async for event in stream.events()][-1]

    assert last.event == "error"
    assert last.json() == {
        "status_code": 499,
        "message": "The run was cancelled: the server is shutting down.",
    }
    events, _ = await executor_of(app).store.read_after(run.id, -1)
    assert [event.event for event in events] == ["metadata", "data", "error"]
    assert run.cancel_reason == "shutdown"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_chain_that_swallows_cancellation_is_left_behind(verb: str) -> None:
    chain = SwallowingChain()
    app = make_app(chain, settings=Settings(cancel_timeout=0.2))
    async with open_stream(app, "POST", f"/chain/{verb}", json=body_of(verb), wait_for_start=False):
        async with asyncio.timeout(20):
            await chain.started.wait()
        run = only_run(app)
    async with asyncio.timeout(20):
        await run.ended.wait()
    assert run.status == "cancelled"
    assert chain.cancellations > 1
    assert not chain.finished.is_set()
    chain.release.set()
    async with asyncio.timeout(20):
        await chain.finished.wait()

    record = await executor_of(app).store.get(run.id)
    assert record is not None
    assert record.status == "cancelled"


async def test_a_sync_step_ends_its_run_at_once_although_its_thread_goes_on() -> None:
    chain = BlockingChain()
    app = make_app(chain)
    async with open_stream(app, "POST", "/chain/invoke", json={"input": 1}, wait_for_start=False):
        async with asyncio.timeout(20):
            await chain.started.wait()
        run = only_run(app)
    async with asyncio.timeout(20):
        await run.ended.wait()
    assert not chain.finished.is_set()
    chain.release.set()
    async with asyncio.timeout(20):
        await chain.finished.wait()
    assert run.status == "cancelled"


@pytest.mark.parametrize(
    ("deadline", "before"),
    [("run_timeout", 1), ("first_event_timeout", 0), ("idle_timeout", 1)],
)
async def test_a_deadline_ends_a_stream_with_504(deadline: str, before: int) -> None:
    chain = GatedChain(["a", "b"], before=before)
    app = make_app(chain, settings=Settings.model_validate({deadline: 0.05}))
    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    error = response.events()[-1]
    assert error.json() == {
        "status_code": 504,
        "message": f"The run passed its {deadline} of 0.05 s.",
    }
    assert chain.cancelled.is_set()


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_a_deadline_ends_an_invoke_or_batch_with_504(verb: str) -> None:
    chain = CountingChain()
    app = make_app(chain, settings=Settings(run_timeout=0.05))
    response = await request(app, "POST", f"/chain/{verb}", json=body_of(verb))

    assert response.status == 504
    assert response.json()["code"] == "timeout"
    assert chain.in_flight == 0


async def test_first_event_timeout_is_met_by_the_first_event() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain, settings=Settings(first_event_timeout=0.05, idle_timeout=60))
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        run = only_run(app)
        assert run.deadline is not None
        assert run.deadline.when() - asyncio.get_running_loop().time() > 50
        chain.gate.set()
        assert (await stream.read()).endswith(b"event: end\r\n\r\n")


async def test_two_thousand_batch_inputs_do_not_run_at_once() -> None:
    chain = CountingChain()
    app = make_app(chain, settings=Settings(max_batch_size=2000, max_concurrency=10))
    async with open_stream(
        app, "POST", "/chain/batch", json={"inputs": [1] * 2000}, wait_for_start=False
    ) as stream:
        await chain.until_in_flight(10)
        chain.release.set()
        await stream.started()
        assert stream.status == 200
        await stream.read()

    assert chain.highest == 10
    assert chain.total == 2000


async def test_a_caller_may_lower_the_concurrency_of_a_batch_but_not_raise_it() -> None:
    for asked, allowed in ((3, 3), (50, 10)):
        chain = CountingChain()
        chain.release.set()
        app = make_app(
            chain, config_keys=["max_concurrency"], settings=Settings(max_concurrency=10)
        )
        body = {"inputs": [1] * 60, "config": {"max_concurrency": asked}}
        response = await request(app, "POST", "/chain/batch", json=body)
        assert response.status == 200
        assert chain.highest <= allowed


async def test_a_failing_branch_takes_its_siblings_with_it() -> None:
    waiting = CountingChain()

    async def fail(_: Any) -> Any:
        await waiting.until_in_flight(1)
        raise ValueError("one branch failed")

    branches = RunnableParallel(a=waiting, b=RunnableLambda(fail))
    app = make_app(branches.with_types(input_type=dict))
    response = await request(app, "POST", "/chain/stream", json={"input": {}})

    assert response.events()[-1].event == "error"
    async with asyncio.timeout(20):
        await waiting.until_in_flight(0)
    assert waiting.cancellations == 1


async def test_a_run_that_was_cancelled_from_inside_still_ends() -> None:
    def cancel_myself(_: Any) -> Any:
        raise asyncio.CancelledError

    app = make_app(RunnableLambda(cancel_myself))
    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert response.events()[-1].event == "error"
    assert not executor_of(app).live


async def test_what_a_run_that_cancels_itself_has_started_is_cancelled() -> None:
    chain = CountingChain()

    async def cancel_myself(_: Any) -> Any:
        task = asyncio.create_task(chain.ainvoke(1))
        await chain.until_in_flight(1)
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await task

    app = make_app(RunnableLambda(cancel_myself))
    await request(app, "POST", "/chain/stream", json={"input": 1})

    async with asyncio.timeout(20):
        await chain.until_in_flight(0)
    assert chain.cancellations == 1


async def test_a_run_that_is_ending_cannot_be_cancelled() -> None:
    chain = GatedChain(["a"], before=0)
    app = make_app(chain)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        run, executor = only_run(app), executor_of(app)
        chain.gate.set()
        async with asyncio.timeout(20):
            while not run.is_ending:
                await anyio.lowlevel.checkpoint()
        executor.cancel(run, "requested")
        last = [event async for event in stream.events()][-1]

    assert last.event == "end"
    assert (run.status, run.cancel_reason) == ("success", None)


async def test_the_run_id_of_a_live_run_is_refused() -> None:
    run_id = RunId("0d0f0000-1111-4222-8333-444455556666")
    chain = GatedChain(["a"], before=0)
    app = make_app(chain, config_keys=["run_id"])
    body = {"input": 1, "config": {"run_id": run_id}}

    async with open_stream(app, "POST", "/chain/stream", json=body) as stream:
        second = await request(app, "POST", "/chain/invoke", json=body)
        chain.gate.set()
        await stream.read()
    third = await request(app, "POST", "/chain/invoke", json=body)

    assert second.status == 409
    assert second.json()["code"] == "run_id_in_use"
    assert third.json()["metadata"]["run_id"] == run_id


async def test_a_scope_lets_go_of_tasks_that_end_started_or_not_and_keeps_the_others() -> None:
    scope = TaskScope()
    made: list[asyncio.Task[Any]] = []

    async def work() -> None:
        ended = asyncio.create_task(asyncio.sleep(0))
        never_started = asyncio.create_task(asyncio.sleep(0))
        never_started.cancel()
        await asyncio.wait((ended, never_started))
        made.append(asyncio.create_task(asyncio.Event().wait()))

    await scope.start(work())

    assert scope.live() == made
    assert await scope.cancel(20) == 0
    assert made[0].cancelled()
    assert not scope.tasks


async def test_tasks_are_made_by_the_factory_that_the_loop_had() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    names: list[str | None] = []

    def factory(loop: Any, coro: Any, *, name: str | None = None, **options: Any) -> Any:
        names.append(name)
        return asyncio.Task(coro, loop=loop, name=name, **options)

    async def work() -> None:
        await loop.create_task(asyncio.sleep(0))

    loop.set_task_factory(factory)
    try:
        await TaskScope().start(work())
        await loop.create_task(asyncio.sleep(0))
    finally:
        loop.set_task_factory(before)

    assert names == [None] * 3
