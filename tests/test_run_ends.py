"""How runs end: once, with one terminal event, and with the same words wherever one looks."""

import asyncio
import itertools
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import anyio
import anyio.lowlevel
import httpx
import pytest
from fastapi import FastAPI, HTTPException
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import (
    AddableDict,
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
)
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chainserve import Chain, add_stream_route, create_app
from chainserve.hooks import EndedRun
from chainserve.settings import Settings
from chainserve.stores.base import LogNotFoundError, RunRecord
from chainserve.types import RunId, RunStatus
from chainserve.wire.events import Event
from tests._apps import executor_of, only_run
from tests._bridge import IncompleteBodyError, StreamedResponse, lifespan, open_stream, request
from tests._chains import (
    BlockingChain,
    CountingChain,
    GatedChain,
    SwallowingChain,
    answering,
    failing,
    streaming,
)
from tests._server import RawConnection, serve
from tests._sse import decode_events
from tests._system import require_program

pytestmark = pytest.mark.anyio

Http = Literal["h11", "httptools"]
OUTPUT = "application/json"


@dataclass(frozen=True)
class Way:
    """A request that runs the chain.

    Attributes:
        streams: Whether the run is a stream.
        logs: Whether the run has a log.
    """

    target: str
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    streams: bool = True
    logs: bool = True

    @asynccontextmanager
    async def open(self, app: FastAPI) -> AsyncIterator[StreamedResponse]:
        method = "GET" if self.json is None else "POST"
        body = b"" if self.json is None else json.dumps(self.json).encode()
        headers = {**self.headers, **({} if self.json is None else {"content-type": OUTPUT})}
        async with open_stream(
            app,
            method,
            self.target,
            body=body,
            headers=headers,
            wait_for_start=False,
            raise_app_errors=False,
        ) as stream:
            yield stream


ONE = {"input": 1}
WAYS = {
    "langserve": Way("/chain/stream", ONE),
    "ids": Way("/chain/stream", ONE, {"prefer": "resumable"}),
    "ndjson": Way("/chain/stream", ONE, {"accept": "application/x-ndjson"}),
    "text": Way("/chain/stream", ONE, {"accept": "text/plain"}),
    "get": Way("/chain/stream?input=1"),
    "get with events of text": Way("/chain/stream?input=1&format=text"),
    "background": Way("/chain/runs", ONE),
    "background, one output": Way("/chain/runs", {**ONE, "mode": "invoke"}, streams=False),
    "invoke": Way("/chain/invoke", ONE, streams=False, logs=False),
    "batch": Way("/chain/batch", {"inputs": [1, 2]}, streams=False, logs=False),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
streams = pytest.mark.parametrize(
    "way",
    [way for way in WAYS.values() if way.streams],
    ids=[name for name, way in WAYS.items() if way.streams],
)


@dataclass(frozen=True)
class End:
    """How a run ended."""

    status: RunStatus
    status_code: int | None = None
    code: str | None = None


SUCCESS = End("success")
FAILED = End("error", 500, "internal_error")
NOT_SERIALIZABLE = End("error", 500, "output_not_serializable")
CANCELLED = End("cancelled", 499, "cancelled")
TIMED_OUT = End("timeout", 504, "timeout")


@dataclass(frozen=True)
class Server:
    """An application with one chain, and what its `on_end` was given."""

    app: FastAPI
    ended: list[EndedRun]

    async def records(self) -> list[RunRecord]:
        return list(await executor_of(self.app).store.list_runs("/chain", owner=None))


def server_of(chain: Runnable[Any, Any], **settings: Any) -> Server:
    """Return a server with the chain at /chain."""
    told: list[EndedRun] = []

    async def on_end(ended: EndedRun) -> None:
        told.append(ended)

    served = Chain(path="/chain", runnable=chain, on_end=on_end)
    return Server(create_app([served], Settings.model_validate(settings)), told)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that nothing tells of."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """Wait on leaving until all tasks are gone that there were not on entering."""
    before = asyncio.all_tasks()
    yield
    await until(lambda: asyncio.all_tasks() <= before)


async def whole(stream: StreamedResponse) -> tuple[bytes, bool]:
    """Return all that comes of an answer, and whether it came to its end."""
    await stream.started()
    pieces = []
    try:
        while (piece := await stream.next_chunk()) is not None:
            pieces.append(piece)
    except IncompleteBodyError:
        return b"".join(pieces), False
    return b"".join(pieces), True


async def assert_ended(
    server: Server, way: Way, stream: StreamedResponse, end: End, runs: int = 1
) -> None:
    """Assert that answer, record, log, hook and the run's own routes tell of the same end."""
    body, complete = await whole(stream)
    executor = executor_of(server.app)
    await until(lambda: not executor.live and len(server.ended) >= runs)
    records = await server.records()
    assert len(records) == runs
    assert_answer(way, stream, body, complete, end)
    for record in records:
        assert_record(record, end)
        await assert_run_routes(server, way, record, end)
    await assert_log(server, way, records[0], end)
    assert [ended.status for ended in server.ended] == [end.status] * runs
    assert sorted(ended.run_id for ended in server.ended) == sorted(
        record.run_id for record in records
    )


def assert_answer(
    way: Way, stream: StreamedResponse, body: bytes, complete: bool, end: End
) -> None:
    if way.target == "/chain/runs":
        assert (stream.status, complete) == (202, True)
    elif way.streams:
        assert stream.status == 200
        assert_stream(stream.headers["content-type"], body, complete, end)
    elif end is SUCCESS:
        assert (stream.status, complete) == (200, True)
        assert "output" in json.loads(body)
    else:
        problem = json.loads(body)
        assert (stream.status, complete) == (end.status_code, True)
        assert (problem["status"], problem["code"]) == (end.status_code, end.code)


def assert_stream(media_type: str, body: bytes, complete: bool, end: End) -> None:
    """Assert that a stream has one terminal event, its last; or, of text, that it was cut."""
    if media_type.startswith("text/plain"):
        assert complete is (end is SUCCESS)
        return
    assert complete
    if media_type == "application/x-ndjson":
        lines = [json.loads(line) for line in body.splitlines()]
        events = [(line["event"], line["data"]) for line in lines]
    else:
        events = [
            (event.event, event.json() if event.event == "error" else None)
            for event in decode_events(body)
        ]
    names = [name for name, _ in events]
    assert names.count("end") + names.count("error") == 1
    name, data = events[-1]
    if end is SUCCESS:
        assert name == "end"
        return
    assert (name, data["status_code"]) == ("error", end.status_code)
    assert data.get("code", end.code) == end.code


def assert_record(record: RunRecord, end: End) -> None:
    assert record.status == end.status
    assert record.ended_at is not None
    if end is SUCCESS:
        assert record.error is None
        return
    assert record.error is not None
    assert (record.error["status_code"], record.error["code"]) == (end.status_code, end.code)


async def assert_run_routes(server: Server, way: Way, record: RunRecord, end: End) -> None:
    """Assert what the run's own routes tell afterwards."""
    shown = (await request(server.app, "GET", f"/chain/runs/{record.run_id}")).json()
    assert shown["status"] == end.status
    assert shown.get("error", {}).get("code") == end.code
    response = await request(server.app, "GET", f"/chain/runs/{record.run_id}/stream")
    if way.logs:
        media_type = response.headers["content-type"]
        assert_stream(media_type, response.body, True, end)
    else:
        assert response.status == 410
        assert response.json()["code"] == "log_expired"


async def assert_log(server: Server, way: Way, record: RunRecord, end: End) -> None:
    """Assert that the log has no gap, and one terminal event, its last."""
    if not way.logs:
        with pytest.raises(LogNotFoundError):
            await executor_of(server.app).store.read_after(record.run_id, -1)
        assert record.last_seq is None
        return
    events = await log_of(server, record)
    assert [event.seq for event in events] == list(range(len(events)))
    assert [event.terminal for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1].event == ("end" if end is SUCCESS else "error")
    assert record.last_seq == events[-1].seq
    if end is not SUCCESS:
        assert json.loads(events[-1].data)["code"] == end.code


async def log_of(server: Server, record: RunRecord) -> list[Event]:
    events, more = await executor_of(server.app).store.read_after(
        record.run_id, -1, max_bytes=2**30
    )
    assert not more
    return list(events)


def runs_of(way: Way) -> int:
    return 2 if way is WAYS["batch"] else 1


# Chains that end by themselves.


def failing_in_the_middle() -> Runnable[Any, str]:
    async def stream(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            pass
        yield "a"
        raise ValueError("in the middle")
        yield "b"

    return RunnableGenerator(stream)


def failing_while_it_closes() -> Runnable[Any, str]:
    async def stream(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        try:
            async for _ in inputs:
                yield "a"
        finally:
            raise ValueError("while it closes")

    return RunnableGenerator(stream)


def with_an_exception_of_its_own(error: BaseException) -> Runnable[Any, Any]:
    def fail(_: Any) -> Any:
        raise error

    return RunnableLambda(fail)


def exiting() -> Runnable[Any, Any]:
    async def exit_(_: Any) -> Any:
        sys.exit("enough")

    return RunnableLambda(exit_)


class UnspeakableError(Exception):
    """An exception whose text and attributes cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    @property
    def status_code(self) -> int:
        raise RuntimeError("no status")


class UnspeakableQuotaError(httpx.HTTPError):
    """A provider's exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def counting_odd_tokens() -> Runnable[Any, Any]:
    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "cost": Decimal("0.1")}
    message = AIMessage("a").model_copy(update={"usage_metadata": usage})
    model = GenericFakeChatModel(messages=itertools.repeat(message))
    return RunnableLambda(str) | model | StrOutputParser()


ENDINGS: dict[str, tuple[Callable[[], Runnable[Any, Any]], End]] = {
    "succeeds": (lambda: streaming("a", "b"), SUCCESS),
    "never suspends": (lambda: streaming(*map(str, range(500))), SUCCESS),
    "says nothing": (lambda: answering(None), SUCCESS),
    "fails before its first event": (failing, FAILED),
    "fails between its events": (failing_in_the_middle, FAILED),
    "fails after its last event": (lambda: failing(after=2), FAILED),
    "fails while it closes": (failing_while_it_closes, FAILED),
    "raises what has no text": (
        lambda: with_an_exception_of_its_own(UnspeakableError()),
        FAILED,
    ),
    "raises what a provider gave no text": (
        lambda: with_an_exception_of_its_own(UnspeakableQuotaError("x")),
        End("error", 502, "upstream_error"),
    ),
    "counts tokens in parts that JSON does not have": (counting_odd_tokens, SUCCESS),
    "raises a status": (
        lambda: with_an_exception_of_its_own(HTTPException(418, "no coffee")),
        End("error", 418, "http_error"),
    ),
    "raises a text that is not Unicode": (
        lambda: with_an_exception_of_its_own(HTTPException(418, "no \ud800 coffee")),
        End("error", 418, "http_error"),
    ),
    "exits": (exiting, FAILED),
    "exits in a thread": (lambda: with_an_exception_of_its_own(SystemExit(1)), FAILED),
    "exits in a branch": (
        lambda: RunnableParallel(a=exiting(), b=answering(1)).with_types(input_type=int),
        FAILED,
    ),
    "raises a group": (
        lambda: with_an_exception_of_its_own(ExceptionGroup("two", [ValueError(), KeyError()])),
        FAILED,
    ),
    "cancels itself": (
        lambda: with_an_exception_of_its_own(asyncio.CancelledError()),
        CANCELLED,
    ),
    "answers an object": (lambda: answering({"thing": object()}), NOT_SERIALIZABLE),
    "answers an object after an event": (
        lambda: streaming(AddableDict(a=1), AddableDict(b=object())),
        NOT_SERIALIZABLE,
    ),
}


@ways
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_run_that_ends_by_itself_ends_once(way: Way, ending: str) -> None:
    make, end = ENDINGS[ending]
    async with no_task_left():
        server = server_of(make())
        async with way.open(server.app) as stream:
            await assert_ended(server, way, stream, end, runs_of(way))


async def test_a_run_ends_although_its_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: BaseException) -> dict[str, str]:
        raise RuntimeError("while it ends")

    monkeypatch.setattr("chainserve.executor.upstream_cause", broken)
    server = server_of(with_an_exception_of_its_own(httpx.ConnectError("x")))
    response = await request(server.app, "POST", "/chain/invoke", json={"input": 1})

    assert response.status == 502
    assert executor_of(server.app).live == frozenset()


# Chains that are ended.


class Waiting:
    """A chain that waits, in one of the ways there are."""

    def __init__(self, kind: str) -> None:
        self.started = asyncio.Event()
        self.let_go: Callable[[], None] = self.started.set
        self.chain = self._make(kind)

    def _make(self, kind: str) -> Runnable[Any, Any]:
        if kind == "swallows cancellation":
            swallowing = SwallowingChain()
            self.started, self.let_go = swallowing.started, swallowing.release.set
            return swallowing
        if kind == "blocks its thread":
            blocking = BlockingChain()
            self.started, self.let_go = blocking.started, blocking.release.set
            return blocking
        gated = GatedChain(["a", "b"], before=1)
        self.started = gated.reached[1]
        if kind == "waits in two branches":
            branches = RunnableParallel(one=gated, two=CountingChain())
            return branches.with_types(input_type=int)
        return gated


KINDS = ["waits", "waits in two branches", "swallows cancellation", "blocks its thread"]


@ways
@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_that_is_cancelled_by_its_route_ends_once(way: Way, kind: str) -> None:
    async with no_task_left():
        waiting = Waiting(kind)
        server = server_of(waiting.chain, cancel_timeout=0.1)
        async with way.open(server.app) as stream, asyncio.timeout(20):
            await waiting.started.wait()
            run = only_run(server.app)
            for _ in range(2):
                answer = await request(server.app, "POST", f"/chain/runs/{run.id}/cancel")
                assert (answer.status, answer.json()["status"]) == (200, "cancelled")
            await assert_ended(server, way, stream, CANCELLED, runs_of(way))
        waiting.let_go()
    assert [ended.cancel_reason for ended in server.ended] == ["requested"] * runs_of(way)


@ways
@pytest.mark.parametrize("kind", ["waits", "swallows cancellation", "blocks its thread"])
async def test_a_run_that_passes_its_time_ends_once(way: Way, kind: str) -> None:
    async with no_task_left():
        waiting = Waiting(kind)
        server = server_of(waiting.chain, cancel_timeout=0.1, run_timeout=0.05)
        async with way.open(server.app) as stream:
            await assert_ended(server, way, stream, TIMED_OUT, runs_of(way))
        waiting.let_go()
    assert [ended.cancel_reason for ended in server.ended] == ["timeout"] * runs_of(way)


@streams
@pytest.mark.parametrize(("deadline", "before"), [("first_event_timeout", 0), ("idle_timeout", 1)])
async def test_a_stream_that_is_silent_for_too_long_ends_once(
    way: Way, deadline: str, before: int
) -> None:
    async with no_task_left():
        chain = GatedChain(["a", "b"], before=before)
        server = server_of(chain, **{deadline: 0.05})
        async with way.open(server.app) as stream:
            await assert_ended(server, way, stream, TIMED_OUT)
        [record] = await server.records()
    assert record.error is not None
    assert deadline in record.error["message"]
    assert chain.cancelled.is_set()


@ways
@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_that_the_server_ends_when_it_stops_ends_once(way: Way, kind: str) -> None:
    async with no_task_left():
        waiting = Waiting(kind)
        server = server_of(waiting.chain, cancel_timeout=0.1)
        async with way.open(server.app) as stream, asyncio.timeout(20):
            await waiting.started.wait()
            await executor_of(server.app).shutdown()
            await assert_ended(server, way, stream, CANCELLED, runs_of(way))
        waiting.let_go()
    assert [ended.cancel_reason for ended in server.ended] == ["shutdown"] * runs_of(way)


@streams
async def test_a_chain_that_never_suspends_can_be_cancelled(way: Way) -> None:
    async def stream(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            pass
        for index in itertools.count():
            yield str(index)

    async with no_task_left():
        server = server_of(RunnableGenerator(stream), run_timeout=60)
        async with way.open(server.app) as opened:
            await opened.started()
            run = only_run(server.app)
            await request(server.app, "POST", f"/chain/runs/{run.id}/cancel")
            await assert_ended(server, way, opened, CANCELLED)


async def test_a_branch_that_swallows_cancellation_does_not_hold_up_the_failure_of_another() -> (
    None
):
    swallowing = SwallowingChain()

    async def fail(_: Any) -> Any:
        await swallowing.started.wait()
        raise ValueError("one branch failed")

    async with no_task_left():
        branches = RunnableParallel(a=swallowing, b=RunnableLambda(fail))
        server = server_of(branches.with_types(input_type=int))
        way = WAYS["ids"]
        async with way.open(server.app) as stream:
            await assert_ended(server, way, stream, FAILED)
            assert not swallowing.finished.is_set()
        swallowing.release.set()


@pytest.mark.parametrize("first", ["requested", "shutdown", "timeout", "client_disconnect"])
async def test_of_several_reasons_the_first_is_told(first: Any) -> None:
    chain = GatedChain(["a"], before=0)
    server = server_of(chain)
    way = WAYS["ids"]
    async with way.open(server.app) as stream, asyncio.timeout(20):
        await chain.reached[0].wait()
        run = only_run(server.app)
        for reason in (first, "requested", "shutdown"):
            executor_of(server.app).cancel(run, reason)
        await assert_ended(server, way, stream, CANCELLED)
    assert [ended.cancel_reason for ended in server.ended] == [first]


@streams
async def test_a_run_that_ends_while_it_is_cancelled_ends_once(way: Way) -> None:
    chain = SwallowingChain()
    async with no_task_left():
        server = server_of(chain)
        async with way.open(server.app) as stream, asyncio.timeout(20):
            await chain.started.wait()
            executor_of(server.app).cancel(only_run(server.app), "requested")
            await chain.cancelled.wait()
            chain.release.set()
            await assert_ended(server, way, stream, CANCELLED)
    assert chain.finished.is_set()


# A server that stops.


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("policy", ["cancel", "continue"])
@pytest.mark.parametrize("name", ["langserve", "ids", "ndjson", "text", "invoke", "batch"])
async def test_a_server_that_stops_tells_open_answers_how_their_runs_ended(
    name: str, policy: str, http: Http
) -> None:
    way, chain = WAYS[name], GatedChain(["a", "b"], before=1)
    server = server_of(chain)
    async with (
        serve(server.app, http=http, timeout_graceful_shutdown=0) as served,
        await RawConnection.open(served.port) as client,
    ):
        body = {**way.json, "on_disconnect": policy}
        await client.send_request("POST", way.target, headers=way.headers, json=body)
        async with asyncio.timeout(20):
            await chain.reached[1].wait()
        run, store = only_run(server.app), executor_of(server.app).store
        served.server.should_exit = True
        status, headers = await client.read_head()
        answer, complete = await rest_of(client)
        async with asyncio.timeout(20):
            await run.ended.wait()

    record = await store.get(run.id)
    assert record is not None
    assert_record(record, CANCELLED)
    assert run.cancel_reason == "shutdown"
    if way.streams:
        assert_stream(headers["content-type"], answer, complete, CANCELLED)
    else:
        assert (status, json.loads(answer)["code"]) == (499, "cancelled")


async def test_a_server_that_stops_tells_who_waits_for_a_background_run() -> None:
    chain = GatedChain(["a", "b"], before=1)
    server = server_of(chain)
    async with (
        serve(server.app, timeout_graceful_shutdown=0) as served,
        await RawConnection.open(served.port) as client,
    ):
        headers = {"prefer": "wait=5"}
        await client.send_request("POST", "/chain/runs", headers=headers, json=ONE)
        async with asyncio.timeout(20):
            await chain.reached[1].wait()
        await until(lambda: only_run(server.app).readers == 1)
        served.server.should_exit = True
        status, _ = await client.read_head()
        shown = json.loads(await client.read_body())

    assert (status, shown["status"]) == (200, "cancelled")
    assert shown["error"]["message"] == "The run was cancelled: the server is shutting down."


async def test_a_cancelled_request_of_one_reader_does_not_end_the_run_of_another() -> None:
    chain = GatedChain(["a", "b"], before=1)
    server = server_of(chain)
    async with WAYS["langserve"].open(server.app) as stream, asyncio.timeout(20):
        await chain.reached[1].wait()
        run = only_run(server.app)
        target = f"/chain/runs/{run.id}/stream"
        async with open_stream(server.app, "GET", target, raise_app_errors=False) as onlooker:
            await until(lambda: run.readers == 2)
            onlooker.cancel()
            await onlooker.ended()
        assert run.readers == 1
        chain.gate.set()
        await assert_ended(server, WAYS["langserve"], stream, SUCCESS)


@pytest.mark.parametrize("policy", ["cancel", "continue"])
async def test_a_middleware_with_a_time_out_of_its_own_is_not_held_up(policy: str) -> None:
    server, loop = server_of(GatedChain(["a"], before=0)), asyncio.get_running_loop()
    spent: list[float] = []

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await server.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(0.1):
                began = loop.time()
                await server.app(scope, receive, send)
        except TimeoutError:
            spent.append(loop.time() - began)
            await Response(status_code=504)(scope, receive, send)

    answer = await request(timed, "POST", "/chain/invoke", json={**ONE, "on_disconnect": policy})
    assert answer.status == 504
    assert spent[0] < 0.9
    executor = executor_of(server.app)
    if policy == "cancel":
        await until(lambda: len(server.ended) == 1)
        assert server.ended[0].cancel_reason == "client_disconnect"
    else:
        assert len(executor.live) == 1
        await executor.shutdown()


async def test_no_run_is_started_by_a_server_that_has_stopped() -> None:
    server = server_of(answering(1))
    await executor_of(server.app).shutdown()

    refused = await request(server.app, "POST", "/chain/invoke", json=ONE)
    assert (refused.status, refused.json()["code"]) == (499, "cancelled")


async def rest_of(client: RawConnection) -> tuple[bytes, bool]:
    """Return what still comes, and whether the body came to its end."""
    pieces = []
    try:
        while (piece := await client.next_chunk()) is not None:
            pieces.append(piece)
    except (IncompleteBodyError, ConnectionResetError):
        return b"".join(pieces), False
    return b"".join(pieces), True


@ways
async def test_a_lifespan_that_ends_ends_all_runs(way: Way) -> None:
    chain = GatedChain(["a", "b"], before=1)
    server = server_of(chain)
    async with no_task_left():
        async with lifespan(server.app):
            executor = executor_of(server.app)
            opening = way.open(server.app)
            stream = await opening.__aenter__()
            async with asyncio.timeout(20):
                await chain.reached[1].wait()
            [run] = executor.live
        assert run.is_over
        body, complete = await whole(stream)
        assert_answer(way, stream, body, complete, CANCELLED)
        await opening.__aexit__(None, None, None)

    assert not executor.live
    assert [ended.cancel_reason for ended in server.ended] == ["shutdown"] * runs_of(way)
    record = await executor.store.get(run.id)
    assert record is not None
    assert_record(record, CANCELLED)


async def test_a_server_that_stops_ends_runs_that_nobody_reads() -> None:
    chain = GatedChain(["a", "b"], before=1)
    server = server_of(chain)
    async with no_task_left(), lifespan(server.app):
        await request(server.app, "POST", "/chain/runs", json=ONE)
        run = only_run(server.app)
    assert (run.status, run.cancel_reason) == ("cancelled", "shutdown")
    assert len(server.ended) == 1


# Logs past their bound.


BOUNDS = {"max_run_log_bytes": 4000, "max_log_bytes": 4000}
bounds = pytest.mark.parametrize("bound", BOUNDS)


@bounds
@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_log_past_its_bound_keeps_its_end(bound: str, accept: str) -> None:
    chain = streaming(*map(str, range(200)))
    server = server_of(chain, **{bound: BOUNDS[bound]})
    await request(server.app, "POST", "/chain/runs", json=ONE, headers={"prefer": "wait=5"})
    [record] = await server.records()
    assert_record(record, SUCCESS)
    target = f"/chain/runs/{record.run_id}/stream"
    response = await request(server.app, "GET", target, headers={"accept": accept})

    if accept == "application/x-ndjson":
        lines = [json.loads(line) for line in response.body.splitlines()]
        names = [line["event"] for line in lines]
        gap, chunks = lines[0]["data"], [line["data"] for line in lines if line["event"] == "data"]
    else:
        events = response.events()
        names = [event.event for event in events]
        gap = events[0].json()
        chunks = [event.json() for event in events if event.event == "data"]
    assert names == ["gap", *["data"] * len(chunks), "end"]
    assert chunks == list(map(str, range(200)))[-len(chunks) :]
    assert gap["lost"] == 1 + 200 - len(chunks)
    assert record.last_seq == 201
    events_left, _ = await executor_of(server.app).store.read_after(
        record.run_id, int(gap["earliest"].rpartition(".")[2]) - 1
    )
    assert [event.terminal for event in events_left].count(True) == 1
    assert events_left[-1].terminal


@pytest.mark.parametrize("name", ["langserve", "ids", "ndjson", "text"])
async def test_a_reader_that_logs_past_their_bound_leave_behind_is_told(name: str) -> None:
    way = WAYS[name]
    chain = GatedChain(["x" * 2000] * 200, before=1)
    server = server_of(chain, max_log_bytes=1_000_000)
    store, another = executor_of(server.app).store, RunId("0d0f0000-1111-4222-8333-444455556666")
    other = RunRecord(run_id=another, path="/other", mode="stream", status="running", created_at=0)
    await store.create(other, log=True)
    await store.append(another, [Event(0, "data", b"x" * 950_000)])
    async with (
        no_task_left(),
        open_stream(
            server.app, "POST", way.target, json=way.json, headers=way.headers, read=False
        ) as stream,
    ):
        await until(stream.send_blocked.is_set)
        run = only_run(server.app)
        chain.gate.set()
        async with asyncio.timeout(20):
            await run.ended.wait()
        stream.resume_reading()
        body, complete = await whole(stream)

    [record] = await server.records()
    assert_record(record, SUCCESS)
    behind = End("error", 500, "log_evicted")
    lost = name in ("langserve", "text")
    assert_stream(stream.headers["content-type"], body, complete, behind if lost else SUCCESS)
    assert (b"gap" in body) is not lost


# Text, which has no word for a failure.


TEXT = WAYS["text"]


def wrapped(app: FastAPI) -> None:
    """Add a middleware that puts a response of its own in the place of the chain's."""

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)


LAYERS = {"bare": 0, "behind a BaseHTTPMiddleware": 1, "behind three": 3}
behind = pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS.keys())
on_uvicorn = pytest.mark.parametrize("http", ["h11", "httptools"])


def lines_of(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what uvicorn and asyncio logged at a level or above."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.partition(".")[0] in ("uvicorn", "asyncio") and record.levelno >= level
    ]


@on_uvicorn
@behind
@pytest.mark.parametrize("after", [0, 2])
async def test_a_failed_text_is_a_body_that_does_not_end(
    http: Http, layers: int, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = server_of(failing(after=after))
    for _ in range(layers):
        wrapped(server.app)
    async with (
        serve(server.app, http=http) as served,
        await RawConnection.open(served.port) as client,
    ):
        await client.send_request("POST", TEXT.target, headers=TEXT.headers, json=TEXT.json)
        status, headers = await client.read_head()
        body, complete = await rest_of(client)
        await until(lambda: "broken_off" in caplog.text)

    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert body == b"".join(b"t%d " % index for index in range(after))
    assert not complete
    assert lines_of(caplog, logging.WARNING) == []


@on_uvicorn
@behind
async def test_a_text_that_succeeds_is_a_body_that_ends(
    http: Http, layers: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = server_of(streaming("a", "b"))
    for _ in range(layers):
        wrapped(server.app)
    async with (
        serve(server.app, http=http) as served,
        await RawConnection.open(served.port) as client,
    ):
        for _ in range(2):  # And its connection can be used again.
            await client.send_request("POST", TEXT.target, headers=TEXT.headers, json=TEXT.json)
            await client.read_head()
            assert await rest_of(client) == (b"ab", True)
    assert lines_of(caplog, logging.WARNING) == []


@on_uvicorn
async def test_httpx_is_told_of_a_text_that_was_cut(http: Http) -> None:
    server = server_of(failing(after=2))
    pieces: list[str] = []
    async with (
        serve(server.app, http=http) as served,
        httpx.AsyncClient() as client,
        client.stream(
            "POST", served.base_url + TEXT.target, json=TEXT.json, headers=TEXT.headers
        ) as answer,
    ):
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await read_into(pieces, answer)
    assert "".join(pieces) == "t0 t1 "


async def read_into(pieces: list[str], answer: httpx.Response) -> None:
    async for piece in answer.aiter_text():
        pieces.append(piece)  # noqa: PERF401 - what came before the cut counts


@on_uvicorn
@pytest.mark.parametrize(("chain", "code"), [("fails", 18), ("succeeds", 0)])
async def test_curl_is_told_of_a_text_that_was_cut(http: Http, chain: str, code: int) -> None:
    curl = require_program("curl", package="curl")
    server = server_of(failing(after=2) if chain == "fails" else streaming("t0 ", "t1 "))
    async with serve(server.app, http=http) as served:
        process = await asyncio.create_subprocess_exec(
            curl,
            "--silent",
            "--no-buffer",
            "--noproxy",
            "*",
            "--max-time",
            "5",
            "--header",
            "accept: text/plain",
            "--json",
            json.dumps(TEXT.json),
            served.base_url + TEXT.target,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
    assert printed == b"t0 t1 "
    assert process.returncode == code


@on_uvicorn
@pytest.mark.parametrize("end", ["requested", "run_timeout", "first_event_timeout"])
async def test_a_text_is_cut_however_its_run_ends(
    http: Http, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    chain = GatedChain(["a"], before=0)
    server = server_of(chain, **({} if end == "requested" else {end: 0.05}))
    async with (
        serve(server.app, http=http) as served,
        await RawConnection.open(served.port) as client,
    ):
        await client.send_request("POST", TEXT.target, headers=TEXT.headers, json=TEXT.json)
        await client.read_head()
        async with asyncio.timeout(20):
            await chain.reached[0].wait()
        if end == "requested":
            executor_of(server.app).cancel(only_run(server.app), "requested")
        assert await rest_of(client) == (b"", False)
    assert lines_of(caplog, logging.WARNING) == []


@on_uvicorn
async def test_a_text_that_was_cut_is_cut_again_when_it_is_read_again(http: Http) -> None:
    server = server_of(failing(after=2))
    async with serve(server.app, http=http) as served:
        for _ in range(2):
            async with await RawConnection.open(served.port) as client:
                headers = {**TEXT.headers, "idempotency-key": "order-1"}
                await client.send_request("POST", TEXT.target, headers=headers, json=TEXT.json)
                await client.read_head()
                assert await rest_of(client) == (b"t0 t1 ", False)
        [record] = await server.records()
        async with await RawConnection.open(served.port) as client:
            target = f"/chain/runs/{record.run_id}/stream"
            await client.send_request("GET", target, headers=TEXT.headers)
            await client.read_head()
            assert await rest_of(client) == (b"t0 t1 ", False)


@on_uvicorn
async def test_the_text_of_a_plain_route_is_cut_as_well(http: Http) -> None:
    app = FastAPI()
    add_stream_route(app, failing(after=2), "/plain")
    async with serve(app, http=http) as served, await RawConnection.open(served.port) as client:
        await client.send_request("POST", "/plain", headers=TEXT.headers, json=1)
        await client.read_head()
        assert await rest_of(client) == (b"t0 t1 ", False)


@on_uvicorn
@behind
async def test_a_long_text_that_fails_arrives_whole_up_to_its_cut(http: Http, layers: int) -> None:
    server = server_of(failing_after("x" * 2**20, 16))
    for _ in range(layers):
        wrapped(server.app)
    async with (
        serve(server.app, http=http) as served,
        await RawConnection.open(served.port, receive_buffer=4096) as client,
    ):
        await client.send_request("POST", TEXT.target, headers=TEXT.headers, json=TEXT.json)
        await client.read_head()
        await served.until_write_paused()
        await until(lambda: not executor_of(server.app).live)
        body, complete = await rest_of(client)
    assert len(body) == 16 * 2**20
    assert not complete


def failing_after(token: str, count: int) -> Runnable[Any, str]:
    async def stream(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            pass
        for _ in range(count):
            yield token
        raise ValueError("after so much text")

    return RunnableGenerator(stream)


async def test_a_server_that_has_no_transport_to_close_sees_an_answer_without_an_end() -> None:
    server = server_of(failing(after=1))
    async with TEXT.open(server.app) as stream:
        assert await whole(stream) == (b"t0 ", False)
        await stream.ended()
    assert stream.app_error is None
