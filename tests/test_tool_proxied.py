"""The server behind a proxy in a thread, for clients that block and for other processes."""

import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

from tests._bridge import WAIT_SECONDS
from tests._proxied import ProxiedServer, proxied
from tests._proxy import Fault

EVENTS = (b"data: a\n\n", b"data: b\n\n", b"data: c\n\n")


@pytest.fixture
def server() -> Iterator[ProxiedServer]:
    app = FastAPI()

    @app.get("/echo")
    async def _echo(text: str = "") -> Response:
        return Response(text)

    @app.get("/events")
    async def _events() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for event in EVENTS:
                yield event

        return StreamingResponse(pieces())

    with proxied(app) as server:
        yield server


@pytest.fixture
def client(server: ProxiedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, verify=False, timeout=WAIT_SECONDS) as client:
        yield client


def read(client: httpx.Client) -> bytes:
    """Return what comes of the events until they are cut."""
    received = b""
    with suppress(httpx.RemoteProtocolError), client.stream("GET", "/events") as response:
        for piece in response.iter_raw():
            received += piece
    return received


def test_a_client_that_blocks_is_cut(server: ProxiedServer, client: httpx.Client) -> None:
    for count in range(len(EVENTS)):
        server.add(Fault("/events", after_events=count))
        assert read(client) == b"".join(EVENTS[:count])
    [first, second] = server.cut_each("/echo", [0, 12])
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/echo")

    assert (first.reached.is_set(), second.reached.is_set()) == (True, True)
    assert client.get("/echo?text=x").text == "x"
    assert [request.target for request in server.to("text=x")] == ["/echo?text=x"]
    assert httpx.get(f"{server.direct_url}/echo?text=y", verify=False).text == "y"
    assert server.to("text=y") == []


def test_a_test_decides_when_a_stream_goes_on(server: ProxiedServer, client: httpx.Client) -> None:
    fault = server.add(Fault("/events", after_events=1, delays=True))
    received: list[bytes] = []
    reading = threading.Thread(target=lambda: received.append(client.get("/events").content))
    reading.start()
    server.until_requests("/events", 1)
    server.until_reached(fault)
    assert received == []
    server.let_go(fault)
    reading.join(WAIT_SECONDS)

    assert received == [b"".join(EVENTS)]


def test_connections_are_refused_by_the_proxy_or_by_the_system(
    server: ProxiedServer, client: httpx.Client
) -> None:
    server.refuse(2)
    for _ in range(2):
        with pytest.raises(httpx.NetworkError):
            client.get("/echo")
    server.until_connections(2)
    with server.closed(), pytest.raises(httpx.ConnectError, match="refused"):
        client.get("/echo")

    assert client.get("/echo?text=x").text == "x"
    assert server.proxy.connections == 3


def test_another_process_is_cut(server: ProxiedServer) -> None:
    fault = server.add(Fault("/events", after_events=2, reset=True, stalls=True))
    code = (
        "import sys, urllib.request\n"
        "with urllib.request.urlopen(sys.argv[1]) as response:\n"
        "    for count in (1, 2): print(response.read(9), flush=True)\n"
        "    try: response.read()\n"
        "    except ConnectionResetError: print('reset')\n"
    )
    command = [sys.executable, "-c", code, f"{server.base_url}/events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        server.until_reached(fault)
        server.let_go(fault)
        output, _ = process.communicate(timeout=WAIT_SECONDS)

    assert [*lines, output] == [*(f"{event!r}\n" for event in EVENTS[:2]), "reset\n"]


def test_nothing_is_left_of_a_server_when_its_block_ends(server: ProxiedServer) -> None:
    with proxied(FastAPI()) as other, socket.create_connection(("127.0.0.1", other.proxy.port)):
        other.until_connections(1)
    for url in (other.base_url, other.direct_url):
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, verify=False)
