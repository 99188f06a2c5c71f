"""The streaming ASGI client: what a test built on it may rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests._bridge import (
    WAIT_SECONDS,
    ClientGoneError,
    IncompleteBodyError,
    lifespan,
    open_stream,
    request,
)

pytestmark = pytest.mark.anyio

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def answering(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


class Gated:
    """Sends one piece, waits for the gate, sends another; knows that the client has gone."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.disconnected = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(body(b"data: 1\n\n"))
        watcher = asyncio.create_task(self._watch(receive))
        gate = asyncio.create_task(self.gate.wait())
        await asyncio.wait({watcher, gate}, return_when=asyncio.FIRST_COMPLETED)
        gate.cancel()
        watcher.cancel()
        await send(body(b"data: 2\n\n", more=False))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected.set()


async def test_chunks_arrive_as_they_are_sent() -> None:
    app = Gated()
    async with open_stream(app, "GET", "/") as response:
        assert await response.next_chunk() == b"data: 1\n\n"
        assert response.sends == [b"data: 1\n\n"]
        assert not response.complete
        app.gate.set()
        assert await response.next_chunk() == b"data: 2\n\n"
        assert await response.next_chunk() is None
    assert not app.disconnected.is_set()


async def test_events_go_on_where_an_earlier_loop_was_left() -> None:
    app = Gated()
    async with open_stream(app, "GET", "/") as response:
        async for event in response.events():
            assert event.data == "1"
            break
        app.gate.set()
        assert [event.data async for event in response.events()] == ["2"]


async def test_events_sent_in_one_piece_are_yielded_one_by_one() -> None:
    app = answering(START, body(b"id: 5\ndata: a\n\ndata: b\n\ndata: c", more=False))
    async with open_stream(app, "GET", "/") as response:
        assert [event.data async for event in response.events()] == ["a", "b"]
        assert response.last_event_id == "5"
        assert response.unfinished_event == b"data: c"


async def test_leaving_delivers_a_disconnect_and_waits_for_the_application() -> None:
    app = Gated()
    async with open_stream(app, "GET", "/") as response:
        await response.next_chunk()
    assert app.disconnected.is_set()
    assert response.app_ended
    assert response.sends == [b"data: 1\n\n"]


async def test_hanging_up_is_possible_without_leaving() -> None:
    app = Gated()
    async with open_stream(app, "GET", "/") as response:
        response.disconnect()
        await response.ended()
        assert app.disconnected.is_set()


async def test_cancelling_a_client_that_waits_for_the_start_delivers_a_disconnect() -> None:
    received: list[str] = []
    reached = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        reached.set()
        received.append((await receive())["type"])

    client = asyncio.create_task(request(app, "POST", "/", json={}))
    async with asyncio.timeout(WAIT_SECONDS):
        await reached.wait()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    assert received == ["http.disconnect"]


async def test_a_client_may_hang_up_before_the_response_starts() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with open_stream(app, "POST", "/", json={}, wait_for_start=False) as response:
        with pytest.raises(RuntimeError, match="not started"):
            _ = response.status
        response.disconnect()
        await response.ended()


async def test_a_failure_before_the_response_start_reaches_the_caller() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("before the start")

    with pytest.raises(LookupError, match="before the start"):
        async with open_stream(app, "GET", "/"):
            pytest.fail("entered without a response")
    with pytest.raises(LookupError, match="before the start"):
        await request(app, "GET", "/")


async def test_an_application_that_ends_without_a_response_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="without a response"):
        await request(answering(), "GET", "/")


async def test_a_failure_in_the_body_is_told_from_a_clean_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(body(b"half"))
        raise LookupError("in the middle")

    async with open_stream(app, "GET", "/") as response:
        assert await response.next_chunk() == b"half"
        with pytest.raises(IncompleteBodyError) as caught:
            await response.next_chunk()
    assert isinstance(caught.value.__cause__, LookupError)


async def test_a_failure_that_the_test_did_not_see_is_raised_on_leaving() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(body(b"all", more=False))
        raise LookupError("afterwards")

    with pytest.raises(LookupError, match="afterwards"):
        await request(app, "GET", "/")
    response = await request(app, "GET", "/", raise_app_errors=False)
    assert response.text == "all"
    assert isinstance(response.app_error, LookupError)


async def test_teardown_cannot_hang_on_an_application_that_ignores_the_disconnect() -> None:
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match="ended when cancelled"):
        async with open_stream(app, "GET", "/", wait_seconds=0.05):
            pass
    assert cancelled.is_set()


async def test_teardown_cannot_hang_on_an_application_that_swallows_cancellation() -> None:
    release = asyncio.Event()
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    with pytest.raises(TimeoutError, match="is still running"):
        async with open_stream(app, "GET", "/", wait_seconds=0.05):
            pass
    release.set()
    async with asyncio.timeout(WAIT_SECONDS):
        await ended.wait()


async def test_waiting_for_a_chunk_that_never_comes_is_bounded() -> None:
    async with open_stream(Gated(), "GET", "/", wait_seconds=0.05) as response:
        await response.next_chunk()
        with pytest.raises(TimeoutError):
            await response.next_chunk()


async def test_a_body_iterator_is_asked_only_when_the_application_receives() -> None:
    asked: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield b"12345"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            await receive()
        await send({**START, "status": 413})
        await send(body(b"", more=False))

    async with open_stream(app, "POST", "/", body=pieces()) as response:
        await response.read()
    assert response.status == 413
    assert asked == [0, 1]
    assert (response.upload.pieces_read, response.upload.bytes_read) == (2, 10)
    assert not response.upload.exhausted


async def test_a_client_that_hangs_up_in_its_upload_disconnects() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append((await receive())["body"])
        await send(START)
        received.append((await receive())["type"])

    async with open_stream(app, "POST", "/", body=pieces()):
        pass
    assert received == [b"first", "http.disconnect"]


async def test_a_receive_that_was_cancelled_loses_no_piece_of_the_body() -> None:
    gate = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        await gate.wait()
        yield b"late"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await receive()
        gate.set()
        first, last = await receive(), await receive()
        assert not last["more_body"]
        await send(START)
        await send(body(first["body"] + last["body"], more=False))

    assert (await request(app, "POST", "/", body=pieces())).text == "late"


async def test_a_client_that_does_not_read_blocks_send_until_it_does() -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for number in range(3):
            await send(body(b"x", more=number < 2))
            sent.append(number)

    async with open_stream(app, "GET", "/", read=False) as response:
        async with asyncio.timeout(WAIT_SECONDS):
            await response.send_blocked.wait()
        assert (sent, response.sends) == ([], [])
        response.resume_reading()
        assert await response.read() == b"xxx"


async def test_a_client_may_stop_reading_in_the_middle() -> None:
    app = Gated()
    async with open_stream(app, "GET", "/") as response:
        await response.next_chunk()
        response.pause_reading()
        app.gate.set()
        async with asyncio.timeout(WAIT_SECONDS):
            await response.send_blocked.wait()
        assert not response.app_ended
        response.resume_reading()
        assert await response.read() == b"data: 2\n\n"


async def test_an_application_that_cancels_itself_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="its own cancellation"):
        await request(app, "GET", "/")


async def test_a_client_that_does_not_read_may_leave() -> None:
    async with open_stream(Gated(), "GET", "/", read=False) as response:
        pass
    assert response.sends == []
    assert response.app_error is None


@pytest.mark.parametrize(
    ("spec_version", "error"),
    [("2.3", type(None)), ("2.4", ClientGoneError), ("2.10", ClientGoneError)],
)
async def test_send_after_a_disconnect_does_what_the_spec_version_says(
    spec_version: str, error: type[object]
) -> None:
    async with open_stream(Gated(), "GET", "/", spec_version=spec_version) as response:
        await response.next_chunk()
    assert isinstance(response.app_error, error)


async def test_an_application_that_sends_for_ever_after_the_disconnect_is_stopped() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await receive()
        await receive()
        while True:
            await send(body(b"x"))

    with pytest.raises(RuntimeError, match="goes on sending"):
        async with open_stream(app, "GET", "/"):
            pass


@pytest.mark.parametrize(
    "messages",
    [
        [body(b"before the start")],
        [START, START],
        [START, body(b"", more=False), body(b"after the end")],
        [START, {"type": "http.response.body", "body": "text"}],
        [{**START, "status": 204}, body(b"not empty")],
        [{**START, "headers": [(b"Upper", b"case")]}],
        [{**START, "headers": [("text", "text")]}],
    ],
)
async def test_messages_against_the_specification_are_errors(messages: list[Message]) -> None:
    with pytest.raises((RuntimeError, IncompleteBodyError)):
        await request(answering(*messages), "GET", "/")


async def test_the_scope_holds_what_the_caller_gave() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(START)
        await send(body((await receive())["body"], more=False))

    response = await request(
        app,
        "POST",
        "/a%20b?x=1",
        json={"ä": None},
        query=[("y", "2"), ("y", "3")],
        headers=[("X-Twice", "1"), ("x-twice", "2"), ("Host", "example.org")],
        root_path="/root",
        client=None,
    )
    (scope,) = seen
    assert response.json() == {"ä": None}
    assert (scope["path"], scope["raw_path"]) == ("/root/a b", b"/root/a%20b")
    assert (scope["root_path"], scope["query_string"]) == ("/root", b"x=1&y=2&y=3")
    assert scope["client"] is None
    assert scope["headers"] == [
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"host", b"example.org"),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(response.body)),
    ]


async def test_response_headers_are_found_in_any_case_and_keep_repetitions() -> None:
    headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"vary", b"accept")]
    app = answering({**START, "headers": headers}, body(b"", more=False))
    response = await request(app, "GET", "/")
    assert list(response.headers) == ["set-cookie", "vary"]
    assert len(response.headers) == 2
    assert response.headers["Vary"] == "accept"
    assert response.headers.get_list("Set-Cookie") == ["a=1", "b=2"]
    assert "content-length" not in response.headers
    assert response.headers.raw == tuple(headers)


async def test_a_fastapi_application_streams_through_it() -> None:
    gate = asyncio.Event()
    app = FastAPI()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await gate.wait()
        yield b"two"

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(pieces())

    async with open_stream(app, "POST", "/stream", json={}) as response:
        assert await response.next_chunk() == b"one"
        gate.set()
        assert await response.read() == b"two"
    assert (await request(app, "GET", "/none")).status == 404


async def test_lifespan_runs_startup_and_shutdown_and_hands_over_the_state() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        log.append("startup")
        yield {"pool": "open"}
        log.append("shutdown")

    app = FastAPI(lifespan=resources)

    @app.get("/")
    async def read_state(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.pool)

    async with lifespan(app) as state:
        log.append((await request(app, "GET", "/", state=state)).text)
    assert log == ["startup", "open", "shutdown"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_failing_lifespan_reaches_the_caller(phase: str) -> None:
    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        if phase == "startup":
            raise LookupError(phase)
        yield
        raise LookupError(phase)

    with pytest.raises(LookupError, match=phase):
        async with lifespan(FastAPI(lifespan=resources)):
            pass


async def test_a_lifespan_that_only_reports_its_failure_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(RuntimeError, match="no database"):
        async with lifespan(app):
            pass


async def test_an_error_in_the_test_still_runs_the_shutdown() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        yield
        log.append("shutdown")

    with pytest.raises(LookupError, match="of the test"):
        async with lifespan(FastAPI(lifespan=resources)):
            raise LookupError("of the test")
    assert log == ["shutdown"]
