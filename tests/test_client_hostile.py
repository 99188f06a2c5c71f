"""`RemoteRunnable` and servers that answer what no chain answers, after a cut above all."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeAlias

import httpx2
import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from chainserve import (
    RemoteRunnable,
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.calls import Call
from chainserve.client_errors import StreamGapError
from chainserve.errors import RunNotFoundError
from chainserve.problems import problem_response
from chainserve.remote import RemoteRun
from chainserve.retries import MAX_DELAY, MAX_RETRY_AFTER, Retries
from tests._runs import UNKNOWN_RUN
from tests._server import serve

pytestmark = pytest.mark.anyio

Answer: TypeAlias = Callable[[Request], Response] | Response
RESUMABLE = {"preference-applied": "resumable"}
HTML = Response("<!doctype html><h1>Welcome to the hotel</h1>", media_type="text/html")


class Server:
    """Answers a path's requests one after the other, the last answer again and again.

    Attributes:
        url: A chain's URL.
        client: A client for it.
        requests: The targets that were asked for.
    """

    client: RemoteRunnable[Any, Any]

    def __init__(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.app = FastAPI()
        self._answers = {path: [*given] for path, given in answers.items()}
        self.app.api_route("/chain/{path:path}", methods=["GET", "POST"])(self._answer)

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.requests.append(path)
        kind = path if path in self._answers else path.partition("/")[0]
        given = self._answers.get(kind, [problem_response(RunNotFoundError())])
        answer = given.pop(0) if len(given) > 1 else given[0]
        return answer if isinstance(answer, Response) else answer(request)


@asynccontextmanager
async def answering(**answers: Sequence[Answer]) -> AsyncIterator[Server]:
    """Serve answers, by the first segment of their path; others are chainserve's."""
    server = Server({path.replace("__", "/"): given for path, given in answers.items()})
    async with serve(server.app) as served:
        server.url = f"{served.base_url}/chain"
        server.client = RemoteRunnable(server.url, verify=False, timeout=20)
        async with server.client:
            yield server


def events(*pieces: str) -> Answer:
    """Answer a stream that can be resumed."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece.encode()

    return lambda _: StreamingResponse(body(), media_type="text/event-stream", headers=RESUMABLE)


def event(name: str, data: str, id_: str | None = None) -> str:
    told = "" if id_ is None else f"id: {id_}\n"
    return f"event: {name}\ndata: {data}\n{told}\n"


START = event("metadata", f'{{"run_id": "{UNKNOWN_RUN}"}}', "0")
A, B = event("data", '"a"', "1"), event("data", '"b"', "2")
END = event("end", "{}", "9")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainserve.retries.FIRST_RETRY_MS", 1)


async def read_sync(client: RemoteRunnable[Any, Any], chunks: list[Any]) -> None:
    def read() -> None:
        for chunk in client.stream(1):
            chunks.append(chunk)  # noqa: PERF402 - what came before an error counts

    await asyncio.to_thread(read)


async def read_async(client: RemoteRunnable[Any, Any], chunks: list[Any]) -> None:
    async for chunk in client.astream(1):
        chunks.append(chunk)  # noqa: PERF401 - what came before an error counts


WAYS = pytest.mark.parametrize("read", [read_sync, read_async], ids=["stream", "astream"])


# Streams.


@WAYS
@pytest.mark.parametrize(
    "id_",
    ["", "ü", " 1 ", "\x01", "x" * 1025, "0"],
    ids=["empty", "of other letters", "spaces", "control", "long", "of the last event"],
)
async def test_a_chunk_that_would_come_twice_is_not_asked_for(read: Any, id_: str) -> None:
    async with answering(stream=[events(START, event("data", '"a"', id_))]) as server:
        chunks: list[Any] = []
        with pytest.raises(StreamInterruptedError):
            await read(server.client, chunks)
    assert chunks == ["a"]
    assert server.requests == ["stream"]


ANEW = {
    "from the start": (START, A, B, END),
    "with the last chunk": (A, B, END),
    "without ids": (event("data", '"b"'), END),
    "with another run": (event("metadata", "{}", "5"), event("data", '"b"', "6"), END),
}


@WAYS
@pytest.mark.parametrize("pieces", ANEW.values(), ids=ANEW.keys())
async def test_a_stream_that_starts_anew_in_place_of_going_on_is_an_error(
    read: Any, pieces: Sequence[str]
) -> None:
    async with answering(stream=[events(START, A), events(*pieces)]) as server:
        chunks: list[Any] = []
        with pytest.raises(StreamGapError):
            await read(server.client, chunks)
        assert server.client.last_run is None or server.client.last_run.status == "lost"
    assert chunks == ["a"]
    assert server.requests == ["stream", "stream"]


@WAYS
@pytest.mark.parametrize(
    "piece",
    [START, event("other", "1", "0"), event("other", "1"), ": x\n\n"],
    ids=["metadata", "an event", "an event without id", "a comment"],
)
async def test_what_comes_again_and_again_is_no_progress(read: Any, piece: str) -> None:
    async with answering(stream=[events(piece)]) as server:
        with pytest.raises(StreamInterruptedError):
            await read(server.client, [])
    assert len(server.requests) <= 6


@WAYS
async def test_a_page_in_the_place_of_the_rest_of_a_stream_is_told_as_a_cut(read: Any) -> None:
    async with answering(stream=[events(START, A), HTML]) as server:
        chunks: list[Any] = []
        with pytest.raises(StreamInterruptedError, match="text/html") as raised:
            await read(server.client, chunks)
    assert isinstance(raised.value.__cause__, UnexpectedAnswerError)
    assert chunks == ["a"]
    assert server.requests == ["stream", "stream"]


@WAYS
async def test_what_a_server_makes_up_is_told_within_bounds(
    read: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = [event(f"{number}{'x' * 10_000}", "1", f"{number}") for number in range(50)]
    gap = event("gap", f'{{"lost": "{"x" * 10_000}"}}', "99")
    async with answering(stream=[events(*names, gap)]) as server:
        with pytest.raises(StreamGapError) as raised:
            await read(server.client, [])
    assert len(str(raised.value)) < 300
    told = [one.getMessage() for one in caplog.records if one.name == "chainserve.client"]
    assert 0 < len(told) <= 10
    assert max(map(len, told)) < 1000


# Other answers.

DEEP = b"[" * 900 + b"]" * 900
RUN = b'{"run_id": "%b", "status": "success", "output": %b}'
RUNS: dict[str, bytes] = {
    "a list": b"[]",
    "null": b"null",
    "no status": b'{"run_id": "x"}',
    "a list for a status": b'{"run_id": "x", "status": []}',
    "an object for a status": b'{"run_id": "x", "status": {}}',
    "no id": b'{"status": "success"}',
    "what is deep": RUN % (UNKNOWN_RUN.encode(), DEEP),
    "a number of many digits": RUN % (UNKNOWN_RUN.encode(), b"9" * 5000),
}


@pytest.mark.parametrize("content", RUNS.values(), ids=RUNS.keys())
async def test_what_is_no_run_is_told(content: bytes) -> None:
    answer = Response(content, media_type="application/json")
    async with answering(runs=[answer]) as server:
        for call in (
            server.client.aget_run,
            server.client.await_,
            server.client.acancel,
            server.client.astart,
        ):
            with pytest.raises(UnexpectedAnswerError):
                await call(UNKNOWN_RUN)


def endless(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        while not await request.is_disconnected():
            yield b"x" * 2**16

    return StreamingResponse(body(), media_type="text/plain")


def silent(_: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    return StreamingResponse(body(), media_type="text/plain")


@pytest.mark.parametrize("answer", [endless, silent, HTML], ids=["endless", "silent", "a page"])
async def test_a_server_that_is_asked_which_it_is_may_answer_anything(answer: Answer) -> None:
    async with answering(invoke=[Response("busy", 503)], runs=[answer]) as server:
        for call in (server.client.ainvoke(1), asyncio.to_thread(server.client.invoke, 1)):
            with pytest.raises(RemoteStatusError, match="busy"):
                await call
    assert server.requests.count("invoke") == 2


async def test_who_leaves_does_not_wait_for_what_the_server_has_to_say() -> None:
    def begun(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield f"{START}{A}".encode()
            await asyncio.Event().wait()

        return StreamingResponse(body(), media_type="text/event-stream", headers=RESUMABLE)

    def leave() -> None:
        stream: Any = server.client.stream(1)
        next(stream)
        stream.close()

    async with answering(stream=[begun], runs__cancel=[silent]) as server:
        await asyncio.to_thread(leave)
    assert server.requests == ["stream", "runs/cancel"]


async def test_a_wait_with_a_time_out_ends_where_the_server_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chainserve.client_runs._GRACE", 0.1)
    running = JSONResponse({"run_id": UNKNOWN_RUN, "status": "running"})
    async with (
        answering(runs=[running, silent]) as server,
        RemoteRunnable[Any, Any](server.url, verify=False) as patient,
    ):
        for wait in (
            patient.await_(UNKNOWN_RUN, timeout=0.1),
            asyncio.to_thread(patient.wait, UNKNOWN_RUN, timeout=0.1),
        ):
            with pytest.raises((TimeoutError, httpx2.ReadTimeout)):
                await wait


# When to ask again.


def refused(after: str) -> RemoteStatusError:
    response = httpx2.Response(503, headers={"retry-after": after})
    return RemoteStatusError("", code=None, detail=None, request=None, response=response)


def test_a_server_may_say_until_when_it_is_to_be_left_alone() -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    for after, least, most in (
        (format_datetime(later, usegmt=True), MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        ("9" * 400, MAX_RETRY_AFTER, MAX_RETRY_AFTER),
        (format_datetime(later - timedelta(days=2), usegmt=True), 0, 0.001),
        ("Mon, 01 Jan 0000 00:00:00 GMT", 0, 0.001),
        ("soon", 0, 0.001),
        ("-5", 0, 0.001),
    ):
        retries = Retries(1)
        retries.retry_ms = 1
        call = Call("POST", "invoke", b"", RemoteRun(), retries, repeatable=True)
        delay = call.delay_after(refused(after))
        assert delay is not None
        assert least <= delay <= most


def test_who_never_gives_up_may_ask_for_ever() -> None:
    retries = Retries(10**9)
    retries.retry_ms = 10**18
    for _ in range(2000):
        delay = retries.next_delay()
        assert delay is not None
        assert 0 <= delay <= MAX_DELAY
