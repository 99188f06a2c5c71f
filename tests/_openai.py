"""An OpenAI-compatible server that follows a script: it can stall, lie, and hang up.

Written straight onto asyncio's transports, because a web framework would tidy up just what is to
be tested. It serves one request for each connection (`connection: close`), so that an open
connection is always a request in progress, and no pooled one outlives a test's event loop.
Whatever a script waits for is bounded by WAIT_SECONDS, except where it waits for the client to
go; leaving the server's context ends that.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, Self

import anyio

from tests._openai_exchange import Exchange, UpstreamRequest, encode, parse_request

WAIT_SECONDS = 20.0
HOST = "127.0.0.1"
_LINGER_ZERO = struct.pack("ii", 1, 0)
_PROMPT_TOKENS = 7


class Script(Protocol):
    """How to answer one request; the client's going away cancels it."""

    async def play(self, exchange: Exchange) -> None:
        """Answer."""


@dataclass(frozen=True)
class Tokens:
    """A text, token by token.

    Attributes:
        gates: Events to wait for before the token of that index; len(tokens) is the end.
        usage: False leaves the usage out even when it was asked for.
    """

    tokens: Sequence[str]
    gates: Mapping[int, asyncio.Event] = field(default_factory=dict)
    usage: bool = True
    finish_reason: str = "stop"

    async def play(self, exchange: Exchange) -> None:
        """Answer."""
        usage = _usage(len(self.tokens)) if self.usage else None
        if not exchange.request.streams:
            for gate in self.gates.values():
                await _wait(gate)
            message = {"content": "".join(self.tokens)}
            await exchange.complete(message, self.finish_reason, usage)
            return
        await exchange.start_stream(content="")
        for index, token in enumerate(self.tokens):
            await _wait(self.gates.get(index))
            await exchange.send_token(token)
        await _wait(self.gates.get(len(self.tokens)))
        await exchange.end_stream(self.finish_reason, usage)


@dataclass(frozen=True)
class ToolCall:
    """A call of one tool, its JSON arguments in pieces; gates as in `Tokens`."""

    name: str
    arguments: Sequence[str]
    call_id: str = "call_1"
    gates: Mapping[int, asyncio.Event] = field(default_factory=dict)
    usage: bool = True

    async def play(self, exchange: Exchange) -> None:
        """Answer."""
        usage = _usage(len(self.arguments)) if self.usage else None
        if not exchange.request.streams:
            for gate in self.gates.values():
                await _wait(gate)
            call = self._call("".join(self.arguments))
            await exchange.complete({"content": None, "tool_calls": [call]}, "tool_calls", usage)
            return
        await exchange.start_stream(content=None, tool_calls=[{"index": 0, **self._call("")}])
        for index, piece in enumerate(self.arguments):
            await _wait(self.gates.get(index))
            call = {"index": 0, "function": {"arguments": piece}}
            await exchange.send_delta({"tool_calls": [call]})
            exchange.request.tokens_sent += 1
        await _wait(self.gates.get(len(self.arguments)))
        await exchange.end_stream("tool_calls", usage)

    def _call(self, arguments: str) -> dict[str, Any]:
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.call_id, "type": "function", "function": function}


@dataclass(frozen=True)
class Status:
    """An answer with that status; without a body, an error object like OpenAI's."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    async def play(self, exchange: Exchange) -> None:
        """Answer."""
        body = self.body
        if body is None:
            message = f"scripted: {HTTPStatus(self.status).phrase}"
            error = {"message": message, "type": "scripted_error", "param": None, "code": None}
            body = encode({"error": error})
        headers = {"content-type": "application/json", **self.headers}
        await exchange.respond(self.status, headers, body)


@dataclass(frozen=True)
class Hang:
    """Reads the request and never answers."""

    async def play(self, exchange: Exchange) -> None:
        """Wait for the client to go."""
        await _for_ever()


@dataclass(frozen=True)
class Interrupted:
    """Base of the scripts in which something goes wrong after some tokens.

    Attributes:
        after: How many tokens are sent before.
        gate: An event to wait for between them and what goes wrong.
    """

    after: int = 1
    gate: asyncio.Event | None = None

    @property
    def tokens(self) -> list[str]:
        """The tokens sent before: "t0 ", "t1 " and so on."""
        return [f"t{index} " for index in range(self.after)]

    async def play(self, exchange: Exchange) -> None:
        """Answer up to the interruption; a request that does not stream gets nothing before."""
        if exchange.request.streams:
            await exchange.start_stream(content="")
            for token in self.tokens:
                await exchange.send_token(token)
        await _wait(self.gate)
        await self.interrupt(exchange)

    async def interrupt(self, exchange: Exchange) -> None:
        """Do what goes wrong."""
        raise NotImplementedError


class Stall(Interrupted):
    """Sends some tokens, then nothing more."""

    async def interrupt(self, exchange: Exchange) -> None:
        """Wait for the client to go."""
        await _for_ever()


class Reset(Interrupted):
    """Sends some tokens, then resets the connection."""

    async def interrupt(self, exchange: Exchange) -> None:
        """Reset."""
        exchange.reset()


class Truncate(Interrupted):
    """Sends some tokens, then closes the connection without the end of the body."""

    async def interrupt(self, exchange: Exchange) -> None:
        """Close."""
        if exchange.request.streams:
            exchange.close()
        else:
            headers = {"content-type": "application/json"}
            await exchange.respond(200, headers, b'{"id": ', missing_bytes=100)


class Garbage(Interrupted):
    """Sends some tokens, then something that is not JSON, then a regular end."""

    async def interrupt(self, exchange: Exchange) -> None:
        """Send what is not JSON."""
        if exchange.request.streams:
            await exchange.send_data(b"{not json")
            await exchange.end_stream("stop", None)
        else:
            await exchange.respond(200, {"content-type": "application/json"}, b"{not json")


class OpenAIServer:
    """The server; one script answers one request.

    A request takes the first script in the queue, or else the default: a script, or a function
    that chooses one by the request.

    Attributes:
        requests: All requests, in the order they came.
    """

    def __init__(self, default: Script | Callable[[UpstreamRequest], Script] | None = None) -> None:
        self.default = default or Tokens(["Hello", " world"])
        self.requests: list[UpstreamRequest] = []
        self._queue: deque[Script] = deque()
        self._connections: set[_Connection] = set()
        self._script_errors: list[BaseException] = []
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), HOST, 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.abandon()
        await self.all_closed(within=WAIT_SECONDS)
        await self._server.wait_closed()
        if exc is None and self._script_errors:
            raise self._script_errors[0]

    @property
    def base_url(self) -> str:
        """What `ChatOpenAI(base_url=...)` takes."""
        return f"http://{HOST}:{self._port}/v1"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._connections)

    def enqueue(self, *scripts: Script) -> None:
        """Add scripts for the next requests."""
        self._queue.extend(scripts)

    async def received(self, count: int = 1) -> UpstreamRequest:
        """Wait until so many requests have come; return the last of these."""
        with anyio.fail_after(WAIT_SECONDS):
            await self._until(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def all_closed(self, within: float = WAIT_SECONDS) -> None:
        """Wait until no connection is open.

        Raises:
            TimeoutError: Some are, after so many seconds.
        """
        with anyio.fail_after(within):
            await self._until(lambda: not self._connections)

    def choose_script(self, request: UpstreamRequest) -> Script:
        """Return the script that answers the request."""
        if not request.path.endswith("/chat/completions"):
            return Status(404)
        if self._queue:
            return self._queue.popleft()
        return self.default(request) if callable(self.default) else self.default

    def opened(self, connection: _Connection) -> None:
        """Note a new connection."""
        self._connections.add(connection)

    def arrived(self, request: UpstreamRequest) -> int:
        """Note a request; return its number."""
        self.requests.append(request)
        self._changed.set()
        return len(self.requests)

    def closed(self, connection: _Connection) -> None:
        """Note the end of a connection."""
        self._connections.discard(connection)
        self._changed.set()

    def failed(self, error: BaseException) -> None:
        """Keep a script's own error, to raise it on leaving."""
        self._script_errors.append(error)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class _Connection(asyncio.Protocol):
    """One connection: parses its request, plays the script, notices the client's going away."""

    def __init__(self, server: OpenAIServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._request: UpstreamRequest | None = None
        self._script: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._request is None and (request := parse_request(self._received)) is not None:
            self._request = request
            exchange = Exchange(request, self, self._server.arrived(request))
            self._script = asyncio.create_task(self._play(exchange))
            self._script.add_done_callback(self._script_done)

    def eof_received(self) -> None:
        self._client_left()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_left()
        self._writable.set()
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What the exchange and the server call.

    async def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)
        await self._writable.wait()

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def reset(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._transport.abort()

    def abandon(self) -> None:
        if self._script is not None:
            self._script.cancel()
        assert self._transport is not None
        self._transport.abort()

    async def _play(self, exchange: Exchange) -> None:
        await self._server.choose_script(exchange.request).play(exchange)
        exchange.request.finished.set()

    def _script_done(self, script: asyncio.Task[None]) -> None:
        if script.cancelled() or (error := script.exception()) is None:
            return
        self._server.failed(error)
        self.reset()

    def _client_left(self) -> None:
        if self._request is None or self._script is None or self._script.done():
            return
        if self._script.cancelling() or self._request.finished.is_set():
            return
        self._request.closed_at = time.monotonic()
        self._request.closed_by_client.set()
        self._script.cancel()


def refused_base_url() -> str:
    """Return a base URL at which nothing listens, so that connecting is refused."""
    with socket.create_server((HOST, 0)) as listener:
        return f"http://{HOST}:{listener.getsockname()[1]}/v1"


def _usage(completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": _PROMPT_TOKENS,
        "completion_tokens": completion_tokens,
        "total_tokens": _PROMPT_TOKENS + completion_tokens,
    }


async def _wait(gate: asyncio.Event | None) -> None:
    if gate is not None:
        async with asyncio.timeout(WAIT_SECONDS):
            await gate.wait()


async def _for_ever() -> None:
    await asyncio.Event().wait()
