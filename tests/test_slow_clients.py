"""Clients that read slowly, late or not at all: who is cut off, and who loses nothing."""

import asyncio
import importlib
from typing import Any, Literal

import anyio
import pytest
from langchain_core.runnables import RunnableLambda
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from chainserve import add_routes
from chainserve.settings import Settings
from chainserve.wire.events import Event
from tests._apps import executor_of, make_app, only_run
from tests._bridge import open_stream
from tests._chains import GatedChain, failing, streaming
from tests._server import RawConnection, serve
from tests._sse import decode_events

pytestmark = pytest.mark.anyio

Http = Literal["h11", "httptools"]
https = pytest.mark.parametrize("http", ["h11", "httptools"])
loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def run_on(loop: str, test: Any) -> None:
    """Run a test in an event loop of its own kind."""
    with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
        runner.run(test)


layers = pytest.mark.parametrize("layered", [False, True], ids=["bare", "behind middleware"])


async def cut_off_unread(runnable: Any, verb: str, *, layered: bool, http: Http = "h11") -> bool:
    """Ask for a large answer, read nothing of it, and tell whether the server closed."""

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app = make_app(runnable, settings=Settings(send_timeout=0.2))
    if layered:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    async with (
        serve(app, http=http) as server,
        await RawConnection.open(server.port, receive_buffer=4096) as client,
    ):
        await client.send_request("POST", f"/chain/{verb}", json={"input": 1})
        await server.until_write_paused()
        with anyio.fail_after(20):
            while server.server.server_state.connections:
                await anyio.lowlevel.checkpoint()
        return await client.closed_by_server()


@https
@layers
async def test_a_client_that_never_reads_is_cut_off(http: Http, layered: bool) -> None:
    chain = streaming(*["x" * 100_000] * 100)

    assert await cut_off_unread(chain, "stream", layered=layered, http=http)


@loops
def test_a_client_that_never_reads_is_cut_off_on_every_event_loop(loop: str) -> None:
    """Runs the bare case above in a loop of its own kind."""
    run_on(loop, test_a_client_that_never_reads_is_cut_off("httptools", layered=False))


@layers
async def test_a_client_that_never_reads_an_output_is_cut_off(layered: bool) -> None:
    assert await cut_off_unread(lambda _: "x" * 20_000_000, "invoke", layered=layered)


async def test_a_client_that_reads_nothing_of_an_ended_stream_is_cut_off() -> None:
    chain = GatedChain(["last"], before=0)
    app = make_app(chain, settings=Settings(send_timeout=0.2, flush_interval_ms=0))
    async with (
        serve(app) as server,
        await RawConnection.open(server.port, receive_buffer=4096) as client,
    ):
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        await client.read_head()
        run, [connection] = only_run(app), server.server.server_state.connections
        with anyio.fail_after(20):
            while not connection.transport.get_write_buffer_size():
                chunk = Event(run.next_seq, "data", b'"%s"' % (b"x" * 10_000))
                run.next_seq += 1
                await executor_of(app).store.append(run.id, [chunk])
                await anyio.lowlevel.checkpoint()
            chain.gate.set()
            await run.ended.wait()
            while server.server.server_state.connections:
                await anyio.lowlevel.checkpoint()
        assert (run.status, run.cancel_reason) == ("success", None)
        assert await client.closed_by_server()


async def test_a_client_that_reads_slowly_but_reads_is_not_cut_off() -> None:
    app = make_app(streaming(*"abcdef"), settings=Settings(send_timeout=0.2, flush_interval_ms=0))
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}, read=False) as stream:
        await stream.send_blocked.wait()
        stream.resume_reading()
        events = [event async for event in stream.events()]

    assert [event.event for event in events] == ["metadata", *["data"] * 6, "end"]


async def read_steadily(client: RawConnection, seconds: float) -> None:
    """Read a little again and again for so long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        await client.read_ahead()
        await asyncio.sleep(0.01)


@https
async def test_a_client_that_reads_a_large_chunk_steadily_is_not_cut_off(http: Http) -> None:
    timeout = 0.3
    app = make_app(streaming("x" * 20_000_000, "y"), settings=Settings(send_timeout=timeout))
    async with (
        serve(app, http=http) as server,
        await RawConnection.open(server.port) as client,
    ):
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        await server.until_write_paused()
        await read_steadily(client, 3 * timeout)
        await client.read_head()
        body = await client.read_body()

    assert [event.event for event in decode_events(body)] == ["metadata", "data", "data", "end"]


@https
async def test_an_answer_is_not_judged_by_how_much_of_the_one_before_was_read(http: Http) -> None:
    timeout = 0.3
    app = make_app(streaming("x" * 20_000_000), settings=Settings(send_timeout=timeout))
    add_routes(app, RunnableLambda(lambda _: "x" * 5_000_000), path="/output")
    async with (
        serve(app, http=http) as server,
        await RawConnection.open(server.port) as client,
    ):
        await client.send_request("POST", "/output/invoke", json={"input": 1})
        await server.until_write_paused()
        await client.read_head()
        await client.read_body()
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        await server.until_write_paused()
        await read_steadily(client, 3 * timeout)
        await client.read_head()
        body = await client.read_body()

    assert [event.event for event in decode_events(body)] == ["metadata", "data", "end"]


async def test_a_second_request_does_not_save_a_client_that_never_reads_from_the_cut() -> None:
    app = make_app(lambda _: "x" * 20_000_000, settings=Settings(send_timeout=0.2))
    async with (
        serve(app) as server,
        await RawConnection.open(server.port, receive_buffer=4096) as client,
    ):
        for _ in range(2):
            await client.send_request("POST", "/chain/invoke", json={"input": 1})
        await server.until_write_paused()
        with anyio.fail_after(20):
            while server.server.server_state.connections:
                await anyio.lowlevel.checkpoint()
        assert await client.closed_by_server()


@pytest.mark.parametrize("size", [100_000, 1_500_000, 1_990_000, 5_000_000])
async def test_a_reader_at_full_speed_loses_nothing_however_large_the_chunks(size: int) -> None:
    count = 20_000_000 // size
    app = make_app(streaming(*["x" * size] * count), settings=Settings(max_run_log_bytes=2_000_000))
    async with serve(app) as server, await RawConnection.open(server.port) as client:
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        await client.read_head()
        body = await client.read_body()

    events = decode_events(body)
    assert [event.event for event in events] == ["metadata", *["data"] * count, "end"]


async def test_waiting_for_a_reader_is_no_pause_of_the_chain() -> None:
    settings = Settings(max_run_log_bytes=2_000_000, idle_timeout=0.2)
    app = make_app(streaming(*["x" * 100_000] * 200), settings=settings)
    async with serve(app) as server, await RawConnection.open(server.port) as client:
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        await server.until_write_paused()
        await read_steadily(client, 0.6)
        await client.read_head()
        body = await client.read_body()

    assert decode_events(body)[-1].event == "end"


async def test_a_run_waits_for_its_reader_before_it_drops_what_was_not_read() -> None:
    chunks = ["x" * 10_000] * 2_000
    settings = Settings(max_run_log_bytes=2_000_000, send_timeout=5)
    app = make_app(streaming(*chunks), settings=settings)
    async with serve(app) as server, await RawConnection.open(server.port) as client:
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        await server.until_write_paused()
        run = only_run(app)
        await read_steadily(client, 0.2)
        await client.read_head()
        body = await client.read_body()

    assert run.status == "success"
    events = decode_events(body)
    assert [event.event for event in events] == ["metadata", *["data"] * len(chunks), "end"]


async def test_a_run_does_not_wait_forever_for_a_reader_that_reads_nothing() -> None:
    settings = Settings(max_run_log_bytes=2_000_000, send_timeout=0.2)
    app = make_app(streaming(*["x" * 10_000] * 2_000), settings=settings)
    async with (
        serve(app) as server,
        await RawConnection.open(server.port, receive_buffer=4096) as client,
    ):
        body = {"input": 1, "on_disconnect": "continue"}
        await client.send_request("POST", "/chain/stream", json=body)
        await server.until_write_paused()
        run = only_run(app)
        with anyio.fail_after(20):
            await run.ended.wait()
        assert run.status == "success"


@loops
def test_a_failure_resets_a_connection_of_http_1_0(loop: str) -> None:
    """The end of such a body is the end of the connection, which would look like success."""

    async def test() -> None:
        app = make_app(failing(2, ValueError("no")))
        async with (
            serve(app, http="httptools") as server,
            await RawConnection.open(server.port) as client,
        ):
            body = b'{"input": 1}'
            await client.send(
                b"POST /chain/stream HTTP/1.0\r\nContent-Type: application/json\r\n"
                b"Accept: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            assert await client.closed_by_server()

    run_on(loop, test())
