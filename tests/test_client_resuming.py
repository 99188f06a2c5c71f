"""`RemoteRunnable` on a network that breaks: nothing is lost, and nothing comes twice."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from chainserve import RemoteRunnable, StreamInterruptedError
from chainserve.settings import Settings
from tests._apps import make_app
from tests._chains import GatedChain, streaming
from tests._pairs import LANGSERVE, forget_oracle_state
from tests._proxied import ProxiedServer, proxied
from tests._proxy import Fault

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:astream_log is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]

TOKENS = [f"{index} \u2028\n" for index in range(28)]
"""With `metadata` and `end` they are thirty events."""

SETTINGS = Settings(retry_ms=1, resume_grace=60)
LONGEST_RESPONSE = 2900
"""Bytes of such a stream with its head, at most."""

BLOCKS = 8


class Stage:
    """A server behind a proxy.

    Attributes:
        server: Both.
        chain: What is streamed at `/chain`.
        calls: What the function at `/function` was called with.
    """

    def __init__(self, server: ProxiedServer, chain: GatedChain, calls: list[Any]) -> None:
        self.server = server
        self.chain = chain
        self.calls = calls

    def client(self, path: str = "/chain", **options: Any) -> RemoteRunnable[Any, Any]:
        url = self.server.base_url + path
        return RemoteRunnable(url, **{"verify": False, "timeout": 20, **options})


@contextmanager
def staged() -> Iterator[Stage]:
    chain, calls = GatedChain(TOKENS), list[Any]()
    chain.gate.set()
    app = make_app(chain, settings=SETTINGS)

    def note(value: Any) -> Any:
        calls.append(value)
        return value

    app.mount("/other", make_app(note, path="/function", settings=SETTINGS))
    with proxied(app) as server:
        yield Stage(server, chain, calls)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a client that no server has told a time yet ask again at once."""
    monkeypatch.setattr("chainserve.retries.FIRST_RETRY_MS", 1)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


async def all_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in stream]


async def read_async(client: RemoteRunnable[Any, Any]) -> list[Any]:
    return await all_of(client.astream(1))


async def read_sync(client: RemoteRunnable[Any, Any]) -> list[Any]:
    return await asyncio.to_thread(lambda: list(client.stream(1)))


WAYS = pytest.mark.parametrize("read", [read_sync, read_async], ids=["stream", "astream"])
Read = Callable[[RemoteRunnable[Any, Any]], Any]


# Cuts.


@WAYS
@pytest.mark.parametrize("block", range(BLOCKS))
async def test_a_stream_that_is_cut_after_any_byte_is_whole(
    stage: Stage, read: Read, block: int
) -> None:
    async with stage.client() as client:
        assert await read(client) == TOKENS
        for count, place in enumerate(range(block, LONGEST_RESPONSE, BLOCKS), 2):
            fault = stage.server.add(Fault("/chain/stream", after_bytes=place))
            assert await read(client) == TOKENS, place
            assert stage.chain.started == count
        assert not fault.reached.is_set()  # So every byte of a response was among the places.


@WAYS
@pytest.mark.parametrize("seed", range(5))
async def test_streams_that_are_cut_anywhere_again_and_again_are_whole(
    stage: Stage, read: Read, seed: int
) -> None:
    chance = random.Random(f"{seed} {read.__name__}")
    for count in range(50):
        cuts = [chance.randrange(LONGEST_RESPONSE) for _ in range(chance.randint(0, 5))]
        stage.server.cut_each("/chain/stream", cuts)
        async with stage.client() as client:
            assert await read(client) == TOKENS, cuts
            assert client.last_run is None or client.last_run.status == "success"
        stage.server.portal.call(stage.server.proxy.faults.clear)
        assert stage.chain.started == count + 1


@WAYS
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_stream_that_is_cut_after_every_event_is_whole(
    stage: Stage, read: Read, reset: bool
) -> None:
    for _ in range(len(TOKENS) + 1):
        stage.server.add(Fault("/chain/stream", after_events=1, reset=reset))
    async with stage.client() as client:
        assert await read(client) == TOKENS
    requests = stage.server.to("/chain/stream")
    ids = [request.headers.get("last-event-id") for request in requests]
    assert ids[0] is None
    assert len({request.headers["idempotency-key"] for request in requests}) == 1
    assert stage.chain.started == 1


async def test_logs_and_events_of_steps_that_are_cut_are_whole(stage: Stage) -> None:
    async with stage.client() as client:
        for verb, endpoint in (("astream_log", "stream_log"), ("astream_events", "stream_events")):
            whole = await all_of(getattr(client, verb)(1))
            for count in (1, 5, 12):
                stage.server.add(Fault(f"/chain/{endpoint}", after_events=count))
            again = await all_of(getattr(client, verb)(1))
            assert len(again) == len(whole)
            assert len(stage.server.to(f"/chain/{endpoint}")) == 5
    assert stage.chain.started == 4


@WAYS
async def test_what_follows_the_end_of_a_stream_is_not_waited_for(stage: Stage, read: Read) -> None:
    events = len(TOKENS) + 2
    for fault in (
        Fault("/chain/stream", after_events=events),
        Fault("/chain/stream", after_events=events, reset=True, stalls=True),
        Fault("/chain/stream", after_events=events, stays="client"),
    ):
        stage.server.add(fault)
        fault.go.set()
        async with stage.client() as client:
            assert await read(client) == TOKENS
    assert len(stage.server.to("/chain/stream")) == 3


@WAYS
@pytest.mark.parametrize("events", [0, 1, 7])
async def test_a_connection_that_falls_silent_is_given_up_for_another_one(
    stage: Stage, read: Read, events: int
) -> None:
    async with stage.client(timeout=httpx2.Timeout(20, read=0.3)) as client:
        assert await read(client) == TOKENS
        stage.server.add(Fault("/chain/stream", after_events=events, stays="client"))
        assert await read(client) == TOKENS
    assert len(stage.server.to("/chain/stream")) == 3
    assert stage.chain.started == 2


@WAYS
async def test_a_chain_that_is_silent_on_two_connections_is_what_is_silent(
    stage: Stage, read: Read
) -> None:
    stage.chain.before = 1
    stage.server.portal.call(stage.chain.gate.clear)
    async with stage.client(timeout=httpx2.Timeout(20, read=0.2)) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await read(client)
    assert len(stage.server.to("/chain/stream")) == 2
    await until_cancelled(stage)


async def until_cancelled(stage: Stage) -> None:
    await asyncio.to_thread(stage.server.portal.call, stage.chain.cancelled.wait)


# Starts.


async def call_sync(client: RemoteRunnable[Any, Any], verb: str) -> Any:
    value = [1, 2] if verb == "batch" else 1
    return await asyncio.to_thread(getattr(client, verb), value)


async def call_async(client: RemoteRunnable[Any, Any], verb: str) -> Any:
    return await getattr(client, f"a{verb}")([1, 2] if verb == "batch" else 1)


CALLS = pytest.mark.parametrize("call", [call_sync, call_async], ids=["sync", "async"])


@CALLS
@pytest.mark.parametrize(("verb", "output"), [("invoke", 1), ("batch", [1, 2])])
async def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_runs_twice(
    stage: Stage, call: Any, verb: str, output: Any
) -> None:
    for place in (0, 17, 150, 10_000):
        stage.calls.clear()
        fault = stage.server.add(Fault(f"/function/{verb}", after_bytes=place))
        async with stage.client("/other/function") as client:
            assert await call(client, verb) == output
        assert stage.calls == (output if verb == "batch" else [1])
        assert fault.reached.is_set() == (place < 10_000)
        stage.server.portal.call(stage.server.proxy.faults.clear)


@CALLS
async def test_a_server_that_is_not_known_is_asked_which_it_is_and_only_once(
    stage: Stage, call: Any
) -> None:
    async with stage.client("/other/function") as client:
        for _ in range(2):
            stage.server.add(Fault("/function/invoke", after_bytes=17))
            assert await call(client, "invoke") == 1
    [question] = stage.server.to("/other/function/runs/")
    assert question.method == "GET"


@CALLS
async def test_connections_that_are_refused_while_a_server_starts_again_are_waited_out(
    stage: Stage, call: Any
) -> None:
    async with stage.client("/other/function") as client:
        stage.server.add(Fault("/function/invoke", after_bytes=0))
        assert await call(client, "invoke") == 1  # Now it is known.
        await client.aclose()
        stage.server.refuse(3)
        assert await call(client, "invoke") == 1
    assert stage.calls == [1, 1]


@CALLS
async def test_the_first_call_of_a_client_outlasts_a_network_that_is_gone_for_a_while(
    stage: Stage, call: Any
) -> None:
    fault = stage.server.add(Fault("/function/invoke", after_bytes=0, stalls=True))
    stage.server.cut_each("/function/runs/", [0])
    async with stage.client("/other/function") as client:
        answer = asyncio.ensure_future(call(client, "invoke"))
        await asyncio.to_thread(stage.server.until_reached, fault)
        stage.server.refuse(3)
        stage.server.let_go(fault)
        assert await answer == 1
        assert len(stage.server.to("/function/runs/")) == 2
    assert stage.calls == [1]


@CALLS
async def test_a_server_that_was_never_met_and_refuses_is_told_at_once(
    stage: Stage, call: Any
) -> None:
    with stage.server.closed():
        async with stage.client("/other/function") as client:
            with pytest.raises(httpx2.ConnectError):
                await call(client, "invoke")
    assert stage.server.proxy.connections == 0


@WAYS
async def test_a_server_that_is_gone_for_good_is_told_of_after_so_many_attempts(
    stage: Stage, read: Read
) -> None:
    async with stage.client(max_retries=3) as client:
        for _ in range(10):
            stage.server.add(Fault("/chain/stream", after_events=2))
        stage.server.cut_each("/chain/stream", [0, 0, 0])
        with pytest.raises(StreamInterruptedError, match="resumed") as raised:
            await read(client)
    assert isinstance(raised.value.__cause__, httpx2.TransportError)
    assert len(stage.server.to("/chain/stream")) == 13


# LangServe, which would do everything twice.


@pytest.fixture
def langserves() -> Iterator[Stage]:
    forget_oracle_state()
    chain, calls = GatedChain(TOKENS), list[Any]()
    chain.gate.set()
    app = FastAPI()
    LANGSERVE.add_routes(app, streaming("a", "b", "c"), path="/chain")
    LANGSERVE.add_routes(app, RunnableLambda(calls.append), path="/other/function")
    with proxied(app) as server:
        yield Stage(server, chain, calls)


@CALLS
@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_nothing_is_sent_twice_to_langserve(langserves: Stage, call: Any, verb: str) -> None:
    langserves.server.add(Fault(f"/function/{verb}", after_bytes=17))
    async with langserves.client("/other/function") as client:
        with pytest.raises(httpx2.TransportError):
            await call(client, verb)
    assert len(langserves.server.to(f"/function/{verb}")) == 1


@WAYS
async def test_a_stream_of_langserves_that_is_cut_is_no_success(
    langserves: Stage, read: Read
) -> None:
    async with langserves.client() as client:
        assert await read(client) == ["a", "b", "c"]
        for events in (1, 3):
            langserves.server.add(Fault("/chain/stream", after_events=events))
            with pytest.raises(StreamInterruptedError):
                await read(client)
    assert len(langserves.server.to("/chain")) == 3


# Leaving.


@pytest.mark.parametrize("kind", ["closed", "cancelled", "thrown into"])
async def test_who_leaves_a_stream_leaves_no_run_and_no_task(stage: Stage, kind: str) -> None:
    stage.chain.before = 1
    stage.server.portal.call(stage.chain.gate.clear)
    async with stage.client() as client:
        before = asyncio.all_tasks()
        stream: Any = client.astream(1)
        assert await anext(stream) == TOKENS[0]
        if kind == "closed":
            await stream.aclose()
        elif kind == "thrown into":
            with pytest.raises(KeyError):
                await stream.athrow(KeyError("of the caller's"))
        else:
            task = asyncio.ensure_future(anext(stream))
            await checkpoint()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert client.last_run is not None
        assert client.last_run.status == "cancelled"
        await until_cancelled(stage)
        assert asyncio.all_tasks() == before
    assert stage.chain.cancellations == 1


async def test_who_leaves_a_sync_stream_leaves_no_run(stage: Stage) -> None:
    stage.chain.before = 1
    stage.server.portal.call(stage.chain.gate.clear)

    def interrupt() -> None:
        stream: Any = client.stream(1)
        assert next(stream) == TOKENS[0]
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt())
        assert client.last_run is not None
        assert client.last_run.status == "cancelled"

    async with stage.client() as client:
        await asyncio.to_thread(interrupt)
        await until_cancelled(stage)
    assert stage.chain.cancellations == 1


@pytest.mark.parametrize("verb", ["ainvoke", "abatch"])
async def test_who_does_not_wait_for_an_answer_leaves_no_run(stage: Stage, verb: str) -> None:
    stage.chain.before = 1
    stage.server.portal.call(stage.chain.gate.clear)
    async with stage.client() as client:
        task = asyncio.ensure_future(getattr(client, verb)([1]))
        await asyncio.to_thread(stage.server.portal.call, stage.chain.reached[1].wait)
        task.cancel()
        await asyncio.wait([task])
        await until_cancelled(stage)
    assert task.cancelled()
    assert stage.chain.cancellations == 1


@pytest.mark.parametrize("verb", ["ainvoke", "astream"])
def test_who_leaves_as_the_last_thing_in_a_loop_leaves_no_run(stage: Stage, verb: str) -> None:
    stage.chain.before = 1
    stage.server.portal.call(stage.chain.gate.clear)
    client = stage.client()

    async def call() -> Any:
        return await (client.ainvoke(1) if verb == "ainvoke" else all_of(client.astream(1)))

    async def leave() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await asyncio.to_thread(stage.server.portal.call, stage.chain.reached[1].wait)
            # Such a scope cancels at each wait, so that nothing of the caller's waits for the rest.
            group.cancel_scope.cancel()

    anyio.run(leave)
    stage.server.portal.call(stage.chain.cancelled.wait)
    assert len(stage.server.to("/runs/cancel")) == 1


async def test_leaving_a_server_that_does_not_answer_takes_bounded_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainserve.exchanges.LEAVE_TIMEOUT", 0.05)
    stage.chain.before = 1
    stage.server.portal.call(stage.chain.gate.clear)
    fault = stage.server.add(Fault("/runs/cancel", after_bytes=0, stalls=True))
    async with stage.client() as client:
        stream: Any = client.astream(1)
        assert await anext(stream) == TOKENS[0]
        await stream.aclose()
    assert fault.reached.is_set() or stage.server.to("/runs/cancel")
    await until_cancelled(stage)


def sockets() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # It was closed meanwhile.
            count += "socket:" in os.readlink(one)
    return count


def threads() -> set[str]:
    """Return the threads but for those of executors, which start another one as they like."""
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if not name.startswith(("asyncio_", "chainserve_"))}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it is Linux that tells")
@WAYS
async def test_who_leaves_again_and_again_leaks_nothing(stage: Stage, read: Read) -> None:
    def leave_sync(client: RemoteRunnable[Any, Any]) -> None:
        for _ in range(20):
            stream: Any = client.stream(1)
            assert next(stream) == TOKENS[0]
            stream.close()

    async with stage.client() as client:  # What is made once, such as threads, is there now.
        assert await read(client) == await read_sync(client) == TOKENS
    before = sockets(), threads(), asyncio.all_tasks()
    async with stage.client() as client:
        if read is read_sync:
            await asyncio.to_thread(leave_sync, client)
        for _ in range(20):
            stream: Any = client.astream(1)
            assert await anext(stream) == TOKENS[0]
            await stream.aclose()
    async with asyncio.timeout(20):
        while sockets() > before[0]:  # The proxy closes its own when it sees ours closed.
            await checkpoint()
    assert (threads(), asyncio.all_tasks()) == before[1:]


async def test_without_retries_it_is_langserves_client(stage: Stage) -> None:
    async with stage.client(max_retries=0) as client:
        assert await read_async(client) == TOKENS
        stage.server.add(Fault("/chain/stream", after_events=3))
        with pytest.raises(StreamInterruptedError):
            await read_async(client)
    for request in stage.server.to("/chain/stream"):
        assert not {"prefer", "idempotency-key", "last-event-id"} & request.headers.keys()
    assert stage.server.to("/runs") == []
    with pytest.raises(ValueError, match="max_retries"):
        RemoteRunnable("http://test/x", max_retries=-1)


async def test_it_is_a_runnable_like_any_other_when_the_network_breaks(stage: Stage) -> None:
    stage.server.cut_each("/chain/stream", [900] * 3)
    async with stage.client() as client:
        shout = client | RunnableLambda(str.upper)
        assert await shout.ainvoke(1) == "".join(TOKENS).upper()
        text = "".join([chunk async for chunk in (client | str_of).astream(1)])
        assert text == "".join(TOKENS)
        broken: RemoteRunnable[Any, Any] = stage.client("/nothing")
        assert await broken.with_fallbacks([client]).ainvoke(1) == "".join(TOKENS)
        await broken.aclose()


async def _strings(chunks: AsyncIterator[Any]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield str(chunk)


str_of: Any = RunnableGenerator(_strings)
