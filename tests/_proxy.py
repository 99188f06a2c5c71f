"""A TCP proxy on loopback that breaks connections and responses where a test says.

Bytes pass as they are. It reads along in HTTP/1.1 to note the requests, and to find the place in a
response where a fault is to strike. Clients must not send a request before the response to the
last one has ended, so that all that the server then sends belongs to it.

It runs in the test's own event loop; `tests._proxied` runs it in a thread, for tests without one
and for clients that are processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Self

from tests._asgi import Headers
from tests._bridge import WAIT_SECONDS
from tests._faults import Fault

__all__ = ["HOST", "Fault", "FaultProxy", "PassedRequest", "proxy"]

HOST = "127.0.0.1"
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


class FaultProxy:
    """What passed, and what is to break.

    Attributes:
        port: Where it listens.
        connections: How many connections there were, those that were refused among them.
        refusals: How many of the next connections are reset at the first byte that comes.
        requests: The heads of all requests.
        faults: Those that have not found their response; the first that fits is taken.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.connections = 0
        self.refusals = 0
        self.requests: list[PassedRequest] = []
        self.faults: list[Fault] = []
        self._server_port = server_port
        self._grown = asyncio.Condition()
        self._listener: asyncio.Server
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """The URL without a trailing slash."""
        return f"http://{HOST}:{self.port}"

    def add(self, fault: Fault) -> Fault:
        """Plan a fault, after those that were planned before, and return it."""
        self.faults.append(fault)
        return fault

    def cut_each(self, path: str, after_bytes: Iterable[int]) -> list[Fault]:
        """Plan to cut consecutive responses to a path, each after so many of its bytes."""
        return [self.add(Fault(path, after_bytes=count)) for count in after_bytes]

    def to(self, path: str) -> list[PassedRequest]:
        """Return the requests with this in their target."""
        return [request for request in self.requests if path in request.target]

    async def until_requests(self, path: str, count: int) -> None:
        """Wait until there were so many requests with this in their target."""
        await self._until(lambda: len(self.to(path)) >= count)

    async def until_connections(self, count: int) -> None:
        """Wait until there were so many connections."""
        await self._until(lambda: self.connections >= count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS), self._grown:
            await self._grown.wait_for(condition)

    async def _tell(self) -> None:
        async with self._grown:
            self._grown.notify_all()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Pass on connections; leaving breaks what is still open."""
        with socket.socket() as holder:
            # It never listens: it keeps the port while the proxy is closed.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((HOST, 0))
            self.port = holder.getsockname()[1]
            await self._listen()
            try:
                yield self
            finally:
                self._listener.close()
                ends = await _cancel(self._passing)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Have the system refuse new connections, as where nothing listens; others live on."""
        self._listener.close()
        try:
            yield
        finally:
            await self._listen()

    async def _listen(self) -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # A coroutine function here would have its cancellation reported as an error.
            self._passing.add(asyncio.create_task(self._serve(reader, writer)))

        self._listener = await asyncio.start_server(accept, HOST, self.port)

    async def _serve(
        self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        """Pass on a connection until either side has closed it or a fault has struck."""
        self.connections += 1
        writers = [client]
        pumps: set[asyncio.Task[None]] = set()
        try:
            await self._tell()
            if self.refusals:
                self.refusals -= 1
                # httpx reads an end, not a reset, where the reset had come before it sent.
                await client_reader.readexactly(1)
                _reset(client)
                return
            server_reader, server = await asyncio.open_connection(HOST, self._server_port)
            writers.append(server)
            exchange = _Exchange()
            requests = self._pass_requests(self.connections, client_reader, server, exchange)
            responses = exchange.pass_responses(server_reader, client)
            pumps = {asyncio.create_task(pump) for pump in (requests, responses)}
            done, others = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
            await _cancel(others)
            await _fall_silent(
                exchange.stays, client=(client_reader, client), server=(server_reader, server)
            )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # One side is gone, so the other loses it too.
        finally:
            # All at once: a test that ends may cancel this at any wait.
            for writer in writers:
                writer.close()
            await _cancel(pumps)

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
            self.requests.append(request)
            await self._tell()
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
    """The response that now comes on a connection, and what is to strike it.

    Attributes:
        stays: The side that the fault which has struck leaves open.
    """

    def __init__(self) -> None:
        self.stays: str | None = None
        self.begin(None)

    def begin(self, fault: Fault | None) -> None:
        self._response = b""
        self._fault = fault

    async def pass_responses(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        """Pass on responses until the server closes or a fault has broken one."""
        while data := await server.read(_READ_BYTES):
            passed = len(self._response)
            self._response += data
            fault = self._fault
            end = None if fault is None else fault.place(self._response)
            client.write(self._response[passed:end])
            await client.drain()
            if fault is None or end is None:
                continue
            fault.reached.set()
            if fault.stalls or fault.delays:
                await fault.go.wait()
            if not fault.delays:
                return self._break(fault, client)
            self._fault = None
            client.write(self._response[max(passed, end) :])

    def _break(self, fault: Fault, client: asyncio.StreamWriter) -> None:
        self.stays = fault.stays
        if fault.reset:
            _reset(client)


def _parse_head(number: int, head: bytes) -> PassedRequest:
    request_line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = request_line.decode("latin-1").split(" ")
    fields = [line.partition(b":")[::2] for line in lines]
    headers = Headers((name.lower(), value.strip()) for name, value in fields)
    return PassedRequest(number, method, target, headers)


_Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _fall_silent(stays: str | None, **sides: _Side) -> None:
    """Close the sides that do not stay, and throw away what comes on the others."""
    staying = [side for name, side in sides.items() if stays in (name, "both")]
    for side in sides.values():
        if side not in staying:
            side[1].close()
    await asyncio.gather(*(_swallow(*side) for side in staying))


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(_READ_BYTES):
        pass
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    writer.transport.abort()


async def _cancel(tasks: set[asyncio.Task[None]]) -> list[BaseException | None]:
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


def proxy(server_port: int) -> contextlib.AbstractAsyncContextManager[FaultProxy]:
    """Listen on a free port in front of a server; leaving breaks what is still open."""
    return FaultProxy(server_port).listening()
