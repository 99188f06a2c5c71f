"""A TCP proxy on loopback that breaks responses where a test says.

Bytes pass as they are. It reads along in HTTP/1.1 to note the requests, and to find the place in a
response where a fault is to strike. Clients must not send a request before the response to the
last one has ended, so that all that the server then sends belongs to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from tests._asgi import Headers
from tests._bridge import WAIT_SECONDS

HOST = "127.0.0.1"
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINGER_ZERO = struct.pack("ii", 1, 0)
_READ_BYTES = 65_536


@dataclass(frozen=True)
class PassedRequest:
    """The head of a request.

    Attributes:
        connection: Which connection it came on, counted from 1.
    """

    connection: int
    method: str
    target: str
    headers: Headers


@dataclass(eq=False)
class Fault:
    """Breaks one response: the next whose request has `path` in its target.

    Attributes:
        path: What to look for in the target.
        after_bytes: Let so many bytes of the response pass, its head among them.
        after_events: Let the head and so many events pass, each with the blank line that ends it.
        reset: Break with a TCP reset, which may take bytes with it that are under way.
        stalls: Hold the rest back, and break when `go` is set; leave it unset for a stall.
        reached: Set when the response has come to the place.
    """

    path: str
    after_bytes: int | None = None
    after_events: int = 0
    reset: bool = False
    stalls: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def place(self, response: bytes) -> int | None:
        """Return how many bytes of a response pass; None if it has not come so far."""
        if self.after_bytes is not None:
            return self.after_bytes if self.after_bytes <= len(response) else None
        borders = _borders(response)
        return borders[self.after_events] if self.after_events < len(borders) else None

    async def strike(self, client: asyncio.StreamWriter) -> None:
        """Break the connection, in its time."""
        self.reached.set()
        if self.stalls:
            await self.go.wait()
        if self.reset:
            sock = client.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            client.transport.abort()


class FaultProxy:
    """What passed, and what is to break.

    Attributes:
        port: Where it listens.
        connections: How many connections there were.
        requests: The heads of all requests.
        faults: Those that have not found their response; the first that fits is taken.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.connections = 0
        self.requests: list[PassedRequest] = []
        self.faults: list[Fault] = []
        self._server_port = server_port
        self._grown = asyncio.Condition()

    @property
    def base_url(self) -> str:
        """The URL without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def add(self, fault: Fault) -> Fault:
        """Plan a fault, after those that were planned before, and return it."""
        self.faults.append(fault)
        return fault

    def to(self, path: str) -> list[PassedRequest]:
        """Return the requests with this in their target."""
        return [request for request in self.requests if path in request.target]

    async def until_requests(self, path: str, count: int) -> None:
        """Wait until there were so many requests with this in their target."""
        async with asyncio.timeout(WAIT_SECONDS), self._grown:
            await self._grown.wait_for(lambda: len(self.to(path)) >= count)

    async def serve(
        self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        """Pass on a connection until either side has closed it or a fault has struck."""
        self.connections += 1
        exchange = _Exchange()
        writers = [client]
        pumps: set[asyncio.Task[None]] = set()
        try:
            server_reader, server = await asyncio.open_connection(HOST, self._server_port)
            writers.append(server)
            requests = self._pass_requests(self.connections, client_reader, server, exchange)
            responses = exchange.pass_responses(server_reader, client)
            pumps = {asyncio.create_task(pump) for pump in (requests, responses)}
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # One side is gone, so the other loses it too.
        finally:
            # All at once: a test that ends may cancel this at any wait.
            for writer in writers:
                writer.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pass_requests(
        self,
        connection: int,
        client: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        exchange: _Exchange,
    ) -> None:
        while True:
            head = await client.readuntil(b"\r\n\r\n")
            request = _parse_head(connection, head)
            exchange.begin(self._fault_for(request))
            async with self._grown:
                self.requests.append(request)
                self._grown.notify_all()
            body = await client.readexactly(int(request.headers.get("content-length", 0)))
            server.write(head + body)
            await server.drain()

    def _fault_for(self, request: PassedRequest) -> Fault | None:
        for fault in self.faults:
            if fault.path in request.target:
                self.faults.remove(fault)
                return fault
        return None


class _Exchange:
    """The response that now comes on a connection, and what is to break it."""

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, fault: Fault | None) -> None:
        self._response = b""
        self._fault = fault

    async def pass_responses(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        while (fault := self._fault) is None or fault.place(self._response) is None:
            data = await server.read(_READ_BYTES)
            if not data:
                return
            fault, passed = self._fault, len(self._response)
            self._response += data
            end = None if fault is None else fault.place(self._response)
            client.write(self._response[passed:end])
            await client.drain()
        await fault.strike(client)


def _parse_head(number: int, head: bytes) -> PassedRequest:
    request_line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = request_line.decode("latin-1").split(" ")
    fields = [line.partition(b":")[::2] for line in lines]
    headers = Headers((name.lower(), value.strip()) for name, value in fields)
    return PassedRequest(number, method, target, headers)


def _borders(response: bytes) -> list[int]:
    """Return where the head of a response ends, and then where each of its events does."""
    head, blank_line, _ = response.partition(b"\r\n\r\n")
    if not blank_line:
        return []
    start = len(head) + len(blank_line)
    chunked = b"\r\ntransfer-encoding: chunked" in head.lower()
    places = list(_chunked(response, start) if chunked else range(start, len(response)))
    body = bytes(response[place] for place in places)
    return [start, *(places[found.end() - 1] + 1 for found in _BLANK_LINE.finditer(body))]


def _chunked(response: bytes, start: int) -> Iterator[int]:
    """Yield the place of each byte of a chunked body, as far as it has come."""
    while (line_end := response.find(b"\r\n", start)) >= 0:
        size = int(response[start:line_end], 16)
        start = line_end + 2
        yield from range(start, min(start + size, len(response)))
        start += size + 2


@contextlib.asynccontextmanager
async def proxy(server_port: int) -> AsyncIterator[FaultProxy]:
    """Listen on a free port in front of a server; leaving breaks what is still open."""
    passing: set[asyncio.Task[None]] = set()
    found = FaultProxy(server_port)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A coroutine function here would have its cancellation reported as an error.
        passing.add(asyncio.create_task(found.serve(reader, writer)))

    listener = await asyncio.start_server(accept, HOST, 0)
    found.port = listener.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        listener.close()
        for task in passing:
            task.cancel()
        ends = await asyncio.gather(*passing, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
