"""A real uvicorn on loopback, and a client that is nothing but a socket.

For what the in-process bridge cannot show: bytes on the wire, kernel buffers, TCP resets. The
server runs in the test's own event loop; a synchronous client belongs into `asyncio.to_thread`.
Whatever is waited for is bounded by WAIT_SECONDS.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import dataclass
from json import dumps
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import anyio.lowlevel
import uvicorn
from starlette.types import ASGIApp

from tests._asgi import Headers
from tests._bridge import WAIT_SECONDS, IncompleteBodyError
from tests._sse import EventDecoder, ReceivedEvent

HOST = "127.0.0.1"
_LINGER_ZERO = struct.pack("ii", 1, 0)
_READ_BYTES = 65_536


class _Server(uvicorn.Server):
    """Leaves the signal handlers of the test process alone, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.listening.set()

    def abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        server: uvicorn's own object: `should_exit = True` starts its graceful shutdown.
    """

    host: str
    port: int
    server: uvicorn.Server

    @property
    def base_url(self) -> str:
        """The URL without a trailing slash."""
        return f"http://{self.host}:{self.port}"

    async def until_stopping(self) -> None:
        """Wait until it takes no new connections."""
        with anyio.fail_after(WAIT_SECONDS):
            while any(server.is_serving() for server in self.server.servers):
                await anyio.lowlevel.checkpoint()

    async def until_write_paused(self) -> None:
        """Wait until a client that does not read has filled all buffers, so that `send` waits."""
        with anyio.fail_after(WAIT_SECONDS):
            while not any(map(_write_paused, self.server.server_state.connections)):
                await anyio.lowlevel.checkpoint()  # uvicorn has no event to wait for.


def _write_paused(protocol: object) -> bool:
    flow = getattr(protocol, "flow", None)
    return flow is not None and flow.write_paused


@contextlib.asynccontextmanager
async def serve(
    app: ASGIApp, *, http: Literal["h11", "httptools"] = "h11", **config: Any
) -> AsyncIterator[Served]:
    """Serve the application on a free port; other keywords go to `uvicorn.Config`.

    Leaving resets the connections that are still open, so that their requests see a disconnect,
    and runs the lifespan's shutdown. A request that has not ended a second later is cancelled.

    Raises:
        RuntimeError: The application's startup failed; uvicorn logs why.
        TimeoutError: The server did not start or stop in time.
    """
    defaults: dict[str, Any] = {
        "lifespan": "on",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": 1,
    }
    server = _Server(uvicorn.Config(app, http=http, **{**defaults, **config}))
    with _listener() as listener:
        port: int = listener.getsockname()[1]
        task = asyncio.create_task(_run(server, listener))
        try:
            await _until_listening(server, task)
            yield Served(HOST, port, server)
        finally:
            server.should_exit = True
            server.abort_connections()
            await _join(server, task)


def _listener() -> socket.socket:
    """Return a bound socket; asyncio sets TCP_NODELAY only where the protocol is named."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((HOST, 0))
    return listener


async def _run(server: _Server, listener: socket.socket) -> None:
    # Older versions of uvicorn return when the startup fails, newer ones would end the test run.
    with contextlib.suppress(SystemExit):
        await server.serve(sockets=[listener])


async def _until_listening(server: _Server, task: asyncio.Task[None]) -> None:
    listening = asyncio.create_task(server.listening.wait())
    with anyio.fail_after(WAIT_SECONDS):
        await asyncio.wait({listening, task}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    if task.done():
        await task
        raise RuntimeError("the application's startup failed")


async def _join(server: _Server, task: asyncio.Task[None]) -> None:
    with anyio.move_on_after(WAIT_SECONDS, shield=True):
        await asyncio.wait({task})
        # uvicorn does not wait for the requests it cancels, nor close their connections.
        server.abort_connections()
        if server.server_state.tasks:
            await asyncio.wait(set(server.server_state.tasks))
    if not task.done() or server.server_state.tasks:
        task.cancel()
        raise TimeoutError("the server, or a request in it, did not end")
    _ = task.cancelled() or task.exception()


class RawConnection:
    """A TCP connection that reads only when told to.

    It speaks just enough HTTP/1.1 to send a request and to read its response piece by piece.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._received = b""
        self._method = "GET"
        self._framing: Literal["chunked", "length", "until closed"] = "until closed"
        self._left = 0
        self._body_ended = False
        self._decoder = EventDecoder()
        self._events: list[ReceivedEvent] = []

    @classmethod
    async def open(
        cls, port: int, *, host: str = HOST, receive_buffer: int | None = None
    ) -> RawConnection:
        """Connect; a small receive buffer (bytes) makes a slow reader felt early."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def send_request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        json: Any = None,
    ) -> None:
        """Send a request with host and content-length; a JSON body that is not None replaces body.

        Give a `content-length` of your own to send less than it announces.
        """
        self._method = method
        fields = {"host": HOST}
        if json is not None:
            body = dumps(json).encode()
            fields["content-type"] = "application/json"
        fields["content-length"] = str(len(body))
        fields |= {name.lower(): value for name, value in (headers or {}).items()}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def read_head(self) -> tuple[int, Headers]:
        """Read the status line and the header fields.

        Raises:
            IncompleteBodyError: The server closed the connection first.
            ConnectionResetError: The server reset it.
        """
        status_line, *lines = (await self._read_until(b"\r\n\r\n")).split(b"\r\n")
        fields = [line.partition(b":")[::2] for line in lines if line]
        headers = Headers((name.lower(), value.strip()) for name, value in fields)
        status = int(status_line.split()[1])
        self._left = int(headers.get("content-length", 0))
        if headers.get("transfer-encoding") == "chunked":
            self._framing = "chunked"
        elif "content-length" in headers:
            self._framing = "length"
        else:
            self._framing = "until closed"
        without_body = self._method == "HEAD" or status in (204, 304)
        self._body_ended = without_body or (self._framing == "length" and self._left == 0)
        return status, headers

    async def next_chunk(self) -> bytes | None:
        """Read some body bytes: at most one HTTP chunk; None at the end of a complete body.

        Raises:
            IncompleteBodyError: The server closed the connection before the end of the body.
            ConnectionResetError: The server reset it.
        """
        if self._body_ended:
            return None
        match self._framing:
            case "chunked":
                return await self._next_http_chunk()
            case "length":
                piece = self._take(self._left) or await self._receive_some()
                self._received = piece[self._left :] + self._received
                piece = piece[: self._left]
                self._left -= len(piece)
                self._body_ended = self._left == 0
                return piece
            case "until closed":
                piece = self._take(len(self._received)) or await self._receive()
                self._body_ended = not piece
                return piece or None

    async def read_body(self) -> bytes:
        """Read the rest of the body."""
        pieces = []
        while (piece := await self.next_chunk()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    async def next_event(self) -> ReceivedEvent | None:
        """Read the next server-sent event; None at the end of a complete body."""
        while not self._events:
            chunk = await self.next_chunk()
            if chunk is None:
                return None
            self._events += self._decoder.feed(chunk)
        return self._events.pop(0)

    async def read_ahead(self) -> None:
        """Take some bytes from the network now that other methods will read."""
        self._received += await self._receive_some()

    @property
    def is_silent(self) -> bool:
        """Whether nothing is there to be read, not the end of the connection either."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._received
        return False

    async def closed_by_server(self) -> bool:
        """Read on, and throw away, until the server has closed; True when it reset instead."""
        try:
            while await self._receive():
                pass
        except ConnectionResetError:
            return True
        return False

    def reset(self) -> None:
        """Close with a TCP reset, whatever is still unread or unsent."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._sock.close()

    def close(self) -> None:
        """Close; the kernel sends a reset all the same when bytes were left unread."""
        self._sock.close()

    async def _next_http_chunk(self) -> bytes | None:
        size = int((await self._read_until(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            self._body_ended = True
            while await self._read_until(b"\r\n"):
                pass  # Trailer fields.
            return None
        while len(self._received) < size + 2:
            self._received += await self._receive_some()
        chunk = self._take(size)
        self._take(2)
        return chunk

    async def _read_until(self, separator: bytes) -> bytes:
        while separator not in self._received:
            self._received += await self._receive_some()
        head, _, self._received = self._received.partition(separator)
        return head

    def _take(self, size: int) -> bytes:
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    async def _receive_some(self) -> bytes:
        data = await self._receive()
        if not data:
            raise IncompleteBodyError(f"connection closed after {self._received!r}")
        return data

    async def _receive(self) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await asyncio.get_running_loop().sock_recv(self._sock, _READ_BYTES)
