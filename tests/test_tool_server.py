"""The uvicorn of the tests, and the client that is only a socket."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests._bridge import WAIT_SECONDS, IncompleteBodyError
from tests._server import RawConnection, serve

pytestmark = pytest.mark.anyio

Http = Literal["h11", "httptools"]
EVERY_HTTP = pytest.mark.parametrize("http", ["h11", "httptools"])


class Stage:
    """A FastAPI application with a gated stream, an endless one, and a log of its lifespan."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.pieces_sent = 0
        self.log: list[str] = []
        self.app = FastAPI(lifespan=self._lifespan)
        self.app.get("/gated")(self._get_gated)
        self.app.get("/endless")(self._get_endless)
        self.app.get("/broken")(self._get_broken)
        self.app.get("/plain")(self._get_plain)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self.log.append("startup")
        yield
        self.log.append("shutdown")

    async def _get_gated(self) -> StreamingResponse:
        return StreamingResponse(self._gated(), media_type="text/event-stream")

    async def _get_endless(self) -> StreamingResponse:
        return StreamingResponse(self._endless())

    async def _get_broken(self) -> StreamingResponse:
        return StreamingResponse(self._broken())

    async def _get_plain(self) -> PlainTextResponse:
        return PlainTextResponse("plain")

    async def _gated(self) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            self.cancelled.set()
            raise
        yield b"data: 2\n\n"

    async def _endless(self) -> AsyncIterator[bytes]:
        while True:
            yield bytes(65_536)
            self.pieces_sent += 1
            # Without this the loop would never turn again once the client has gone: `send` then
            # returns at once, so that the cancellation is not delivered.
            await asyncio.sleep(0)

    async def _broken(self) -> AsyncIterator[bytes]:
        yield b"half"
        raise LookupError("in the middle")


@EVERY_HTTP
async def test_pieces_come_over_the_wire_as_they_are_made(http: Http) -> None:
    stage = Stage()
    async with serve(stage.app, http=http) as served, await RawConnection.open(served.port) as raw:
        await raw.send_request("GET", "/gated")
        status, headers = await raw.read_head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert await raw.next_chunk() == b"data: 1\n\n"
        stage.gate.set()
        assert await raw.next_chunk() == b"data: 2\n\n"
        assert await raw.next_chunk() is None
    assert stage.log == ["startup", "shutdown"]


async def test_events_are_read_from_the_wire() -> None:
    stage = Stage()
    stage.gate.set()
    async with serve(stage.app) as served, await RawConnection.open(served.port) as raw:
        await raw.send_request("GET", "/gated")
        await raw.read_head()
        events = [await raw.next_event() for _ in range(3)]
    assert [event and event.data for event in events] == ["1", "2", None]


@EVERY_HTTP
@pytest.mark.parametrize("way", ["reset", "close"])
async def test_a_client_that_goes_away_cancels_the_stream(http: Http, way: str) -> None:
    stage = Stage()
    async with serve(stage.app, http=http) as served:
        raw = await RawConnection.open(served.port)
        await raw.send_request("GET", "/gated")
        await raw.read_head()
        await raw.next_chunk()
        raw.reset() if way == "reset" else raw.close()
        async with asyncio.timeout(WAIT_SECONDS):
            await stage.cancelled.wait()


async def test_leaving_with_an_open_stream_ends_it_before_the_lifespan() -> None:
    stage = Stage()
    async with serve(stage.app) as served:
        raw = await RawConnection.open(served.port)
        await raw.send_request("GET", "/gated")
        await raw.read_head()
        await raw.next_chunk()
    assert stage.log == ["startup", "cancelled", "shutdown"]
    with pytest.raises(IncompleteBodyError):
        await raw.next_chunk()
    raw.close()


@EVERY_HTTP
async def test_a_client_that_does_not_read_stops_the_application(http: Http) -> None:
    stage = Stage()
    async with serve(stage.app, http=http) as served:
        raw = await RawConnection.open(served.port, receive_buffer=4096)
        await raw.send_request("GET", "/endless")
        await served.until_write_paused()
        parked_at = stage.pieces_sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert stage.pieces_sent == parked_at
        raw.reset()


@asynccontextmanager
async def canned(response: bytes, *, reset: bool = False) -> AsyncIterator[RawConnection]:
    """Connect to a server that sends these bytes, whatever it is asked, and closes."""

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, await RawConnection.open(server.sockets[0].getsockname()[1]) as raw:
        yield raw


@pytest.mark.parametrize(
    ("fields", "body", "pieces"),
    [
        (b"content-length: 4\r\n", b"body", [b"body"]),
        (b"content-length: 0\r\n", b"", []),
        (b"connection: close\r\n", b"body", [b"body"]),
        (b"connection: close\r\n", b"", []),
        (
            b"transfer-encoding: chunked\r\n",
            b"2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nt: 1\r\n\r\n",
            [b"bo", b"dy"],
        ),
    ],
)
async def test_every_framing_of_a_body_is_read(
    fields: bytes, body: bytes, pieces: list[bytes]
) -> None:
    async with canned(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body) as raw:
        assert (await raw.read_head())[0] == 200
        assert [await raw.next_chunk() for _ in pieces] == pieces
        assert await raw.next_chunk() is None
        assert await raw.closed_by_server() is False


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbod",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbod",
    ],
)
async def test_an_incomplete_response_is_an_error(response: bytes) -> None:
    async with canned(response) as raw:
        with pytest.raises(IncompleteBodyError):
            await read_all(raw)


async def read_all(raw: RawConnection) -> bytes:
    await raw.read_head()
    return await raw.read_body()


async def test_a_reset_by_the_server_is_told_from_a_close() -> None:
    async with canned(b"HTTP/1.1 200 OK\r\n", reset=True) as raw:
        assert await raw.closed_by_server() is True


async def test_a_body_that_breaks_off_is_told_from_a_complete_one() -> None:
    async with serve(Stage().app) as served, await RawConnection.open(served.port) as raw:
        await raw.send_request("GET", "/broken")
        await raw.read_head()
        assert await raw.next_chunk() == b"half"
        with pytest.raises(IncompleteBodyError):
            await raw.next_chunk()


async def test_one_connection_serves_several_requests() -> None:
    stage = Stage()
    async with serve(stage.app) as served, await RawConnection.open(served.port) as raw:
        for method, body in (("GET", b"plain"), ("HEAD", b""), ("GET", b"plain")):
            await raw.send_request(method, "/plain")
            status, headers = await raw.read_head()
            assert status == (200 if method == "GET" else 405)
            assert await raw.read_body() == body
            assert "content-length" in headers


async def test_a_request_may_be_sent_byte_by_byte_and_malformed() -> None:
    async with serve(Stage().app) as served, await RawConnection.open(served.port) as raw:
        for byte in b"GET /plain\r\n\r\n":
            await raw.send(bytes([byte]))
        status, _ = await raw.read_head()
        assert status == 400
        assert await raw.closed_by_server() is False


async def test_a_synchronous_client_works_from_a_thread() -> None:
    stage = Stage()
    async with serve(stage.app) as served:
        response = await asyncio.to_thread(httpx.get, f"{served.base_url}/plain", trust_env=False)
    assert response.text == "plain"


async def test_the_signal_handlers_of_the_process_stay() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve(Stage().app):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_failing_startup_reaches_the_caller() -> None:
    @asynccontextmanager
    async def failing(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    with pytest.raises(RuntimeError, match="startup failed"):
        async with serve(FastAPI(lifespan=failing)):
            pytest.fail("entered without a server")


async def test_shutdown_is_bounded_when_a_request_ignores_the_disconnect() -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serve(app, lifespan="off", timeout_graceful_shutdown=0) as served:
        raw = await RawConnection.open(served.port)
        await raw.send_request("GET", "/")
        async with asyncio.timeout(WAIT_SECONDS):
            await started.wait()
    assert cancelled.is_set()
    raw.close()
