"""The proxy that breaks responses."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from tests._bridge import WAIT_SECONDS, IncompleteBodyError
from tests._proxy import HOST, Fault, FaultProxy, proxy
from tests._server import RawConnection, Served, serve

pytestmark = pytest.mark.anyio

# The blank lines are spread over chunks, and there are comments and short lines between them.
PIECES = (b"data: a\r\n\r\ndata: b\r\n", b"\r\n:\r\n", b"data: c\n", b"\n", b"id: 4\r\n\r\n")
EVENTS = (b"data: a\r\n\r\n", b"data: b\r\n\r\n", b":\r\ndata: c\n\n", b"id: 4\r\n\r\n")
WHOLE = b"".join(EVENTS)


@dataclass
class Stage:
    """A server behind a proxy.

    Attributes:
        left: Set when a client of `/endless` has left.
    """

    server: Served
    proxy: FaultProxy
    left: asyncio.Event


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    left = asyncio.Event()
    app = FastAPI()

    @app.get("/events")
    async def _events() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in PIECES:
                yield piece

        return StreamingResponse(pieces(), media_type="text/event-stream")

    @app.get("/whole")
    async def _whole() -> Response:
        return Response(WHOLE)

    @app.get("/endless")
    async def _endless(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        # With a length, a piece is no chunk whose end a cut takes away.
        length = request.query_params.get("length")
        return StreamingResponse(pieces(), headers={"content-length": length} if length else {})

    @app.api_route("/echo", methods=["GET", "POST", "HEAD"])
    async def _echo(request: Request) -> Response:
        return Response(await request.body() or b"nothing")

    async with serve(app) as server, proxy(server.port) as before:
        yield Stage(server, before, left)


@asynccontextmanager
async def asking(
    stage: Stage, method: str, target: str, body: bytes = b"", **headers: str
) -> AsyncIterator[RawConnection]:
    async with await RawConnection.open(stage.proxy.port) as connection:
        await connection.send_request(method, target, headers=headers, body=body)
        yield connection


async def read_until_closed(stage: Stage, target: str) -> bytes:
    """Return all bytes of a response whose connection is closed, without the chunks' framing."""
    reader, writer = await asyncio.open_connection(HOST, stage.proxy.port)
    async with asyncio.timeout(WAIT_SECONDS):
        writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % target.encode())
        response = await reader.read()
        writer.close()
        await writer.wait_closed()
    return re.sub(rb"(\A|\r\n)[0-9a-f]+\r\n", b"", response.partition(b"\r\n\r\n")[2])


async def test_bytes_pass_and_heads_are_noted(stage: Stage) -> None:
    async with asking(stage, "POST", "/echo?a=b", b"x" * 200_000, prefer="resumable") as connection:
        await connection.read_head()
        assert await connection.read_body() == b"x" * 200_000
        for _ in range(2):
            await connection.send_request("HEAD", "/echo")
            assert (await connection.read_head())[0] == 200
    async with asking(stage, "GET", "/events") as connection:
        await connection.read_head()
        assert await connection.read_body() == WHOLE

    assert stage.proxy.connections == 2
    assert [(one.connection, one.method, one.target) for one in stage.proxy.requests] == [
        (1, "POST", "/echo?a=b"),
        (1, "HEAD", "/echo"),
        (1, "HEAD", "/echo"),
        (2, "GET", "/events"),
    ]
    assert stage.proxy.requests[0].headers["prefer"] == "resumable"
    assert len(stage.proxy.to("/echo")) == 3


@pytest.mark.parametrize("count", range(len(EVENTS) + 1))
async def test_a_response_is_cut_after_an_event(stage: Stage, count: int) -> None:
    fault = stage.proxy.add(Fault("/events", after_events=count))

    assert await read_until_closed(stage, "/events") == b"".join(EVENTS[:count])
    assert fault.reached.is_set()


async def test_a_response_is_cut_after_a_byte(stage: Stage) -> None:
    stage.proxy.add(Fault("/events", after_bytes=0))
    async with asking(stage, "GET", "/events") as connection:
        with pytest.raises(IncompleteBodyError):
            await connection.read_head()
    stage.proxy.add(Fault("/echo", after_bytes=17))
    async with asking(stage, "GET", "/echo") as connection:
        with pytest.raises(IncompleteBodyError, match="OK"):
            await connection.read_head()


async def test_a_response_is_reset(stage: Stage) -> None:
    fault = stage.proxy.add(Fault("/events", after_events=2, reset=True, stalls=True))
    async with asking(stage, "GET", "/events") as connection:
        await connection.read_head()
        assert await connection.next_chunk() == PIECES[0]
        async with asyncio.timeout(WAIT_SECONDS):
            await fault.reached.wait()
        fault.go.set()
        assert await connection.closed_by_server()


async def test_a_response_stalls_until_it_is_cut(stage: Stage) -> None:
    fault = stage.proxy.add(Fault("/endless", after_events=1, stalls=True))
    async with asking(stage, "GET", "/endless") as connection:
        await connection.read_head()
        async with asyncio.timeout(WAIT_SECONDS):
            await fault.reached.wait()
        assert not stage.left.is_set()
        fault.go.set()
        with pytest.raises(IncompleteBodyError, match="data: 1"):
            await connection.next_chunk()

    async with asyncio.timeout(WAIT_SECONDS):
        await stage.left.wait()


@pytest.mark.parametrize("shift", [-3, -1, 1, 3])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_response_is_cut_beside_an_event(stage: Stage, count: int, shift: int) -> None:
    stage.proxy.add(Fault("/whole", after_events=count, shift=shift))

    read = await read_until_closed(stage, "/whole")
    assert read == WHOLE[: len(b"".join(EVENTS[:count])) + shift]


async def test_consecutive_responses_are_cut_as_planned(stage: Stage) -> None:
    stage.proxy.cut_each("/echo", [0, 5, 17])

    for count in (0, 5, 17):
        async with await RawConnection.open(stage.proxy.port) as connection:
            await connection.send_request("GET", "/echo")
            received = b"" if count == 0 else b"HTTP/1.1 200 OK\r\n"[:count]
            with pytest.raises(IncompleteBodyError, match=re.escape(repr(received))):
                await connection.read_head()
    assert stage.proxy.faults == []


async def test_a_response_is_delayed_and_then_passes_whole(stage: Stage) -> None:
    fault = stage.proxy.add(Fault("/events", after_events=2, delays=True))
    async with asking(stage, "GET", "/events") as connection:
        await connection.read_head()
        async with asyncio.timeout(WAIT_SECONDS):
            await fault.reached.wait()
        fault.go.set()
        assert await connection.read_body() == WHOLE
        # The connection goes on.
        await connection.send_request("GET", "/echo")
        await connection.read_head()
        assert await connection.read_body() == b"nothing"


async def test_a_client_stays_in_silence_when_its_server_is_gone(stage: Stage) -> None:
    stage.proxy.add(Fault("/endless", after_events=1, stays="client"))
    async with asking(stage, "GET", "/endless?length=99") as connection:
        await connection.read_head()
        assert await connection.next_chunk() == b"data: 1\n\n"
        async with asyncio.timeout(WAIT_SECONDS):
            await stage.left.wait()
        await connection.send(b"lost")
        assert await is_silent(stage, connection)


async def test_a_server_stays_in_silence_when_its_client_is_gone(stage: Stage) -> None:
    stage.proxy.add(Fault("/endless", after_events=1, stays="server"))
    async with asking(stage, "GET", "/endless?length=99") as connection:
        await connection.read_head()
        assert await read_on(connection) == b"data: 1\n\n"
    assert await answers(stage)
    assert not stage.left.is_set()


async def test_bytes_vanish_in_both_directions(stage: Stage) -> None:
    stage.proxy.add(Fault("/endless", after_events=1, stays="both"))
    async with asking(stage, "GET", "/endless?length=99") as connection:
        await connection.read_head()
        assert await connection.next_chunk() == b"data: 1\n\n"
        await connection.send_request("GET", "/echo")
        assert await is_silent(stage, connection)
    assert await answers(stage)
    assert stage.proxy.to("/echo") == []
    assert not stage.left.is_set()


async def answers(stage: Stage) -> bool:
    """Return whether a request is answered; what was to happen before it has happened then."""
    async with asking(stage, "GET", "/whole") as connection:
        await connection.read_head()
        return await connection.read_body() == WHOLE


async def is_silent(stage: Stage, connection: RawConnection) -> bool:
    """Return whether nothing comes on a connection, not its end either."""
    return await answers(stage) and connection.is_silent


@pytest.mark.parametrize("count", [1, 3])
async def test_so_many_connections_are_refused(stage: Stage, count: int) -> None:
    stage.proxy.refusals = count
    waiting = asyncio.create_task(stage.proxy.until_connections(count + 1))
    for _ in range(count):
        async with asking(stage, "GET", "/echo") as connection:
            assert await connection.closed_by_server()
    async with asking(stage, "GET", "/echo") as connection:
        assert (await connection.read_head())[0] == 200
    await waiting
    assert stage.proxy.connections == count + 1
    assert len(stage.proxy.requests) == 1


async def test_a_proxy_that_is_closed_keeps_its_port_and_its_connections(stage: Stage) -> None:
    async with asking(stage, "GET", "/endless") as connection:
        await connection.read_head()
        async with stage.proxy.closed():
            with pytest.raises(ConnectionRefusedError):
                await RawConnection.open(stage.proxy.port)
            assert await connection.next_chunk() == b"data: 1\n\n"
        async with asking(stage, "GET", "/echo") as another:
            assert (await another.read_head())[0] == 200


async def test_a_stalled_response_that_nobody_waits_for_is_left(stage: Stage) -> None:
    fault = stage.proxy.add(Fault("/endless", stalls=True))
    async with asking(stage, "GET", "/endless") as connection:
        await connection.read_head()
        async with asyncio.timeout(WAIT_SECONDS):
            await fault.reached.wait()

    async with asyncio.timeout(WAIT_SECONDS):
        await stage.left.wait()


async def test_faults_find_their_responses_in_order(stage: Stage) -> None:
    for count in (1, 3):
        stage.proxy.add(Fault("/events", after_events=count))
    async with asking(stage, "GET", "/echo") as connection:
        await connection.read_head()
        assert await connection.read_body() == b"nothing"
    assert await read_until_closed(stage, "/events") == EVENTS[0]
    assert await read_until_closed(stage, "/events") == b"".join(EVENTS[:3])
    async with asking(stage, "GET", "/events") as connection:
        await connection.read_head()
        assert await connection.read_body() == b"".join(EVENTS)

    assert stage.proxy.faults == []


async def test_a_test_can_wait_for_requests(stage: Stage) -> None:
    waiting = asyncio.create_task(stage.proxy.until_requests("/echo", 2))
    for _ in range(2):
        async with asking(stage, "GET", "/echo") as connection:
            await connection.read_head()
    await waiting


async def test_a_server_that_is_gone_shows_as_a_closed_connection(stage: Stage) -> None:
    async with serve(FastAPI()) as server:
        pass
    async with proxy(server.port) as before:
        stage = Stage(server, before, stage.left)
        async with asking(stage, "GET", "/") as connection:
            with pytest.raises((IncompleteBodyError, ConnectionResetError)):
                await connection.read_head()


async def test_a_client_that_the_server_drops_is_dropped(stage: Stage) -> None:
    async with asking(stage, "GET", "/endless") as connection:
        await connection.read_head()
        for held in list(stage.server.server.server_state.connections):
            held.transport.abort()
        assert await read_on(connection) == b"data: 1\n\n"


async def read_on(connection: RawConnection) -> bytes:
    piece = await connection.next_chunk()
    with pytest.raises(IncompleteBodyError):
        await connection.next_chunk()
    return piece or b""
