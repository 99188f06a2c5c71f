"""One request to the scripted OpenAI-compatible server, and its answer's bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from json import dumps, loads
from typing import Any, Protocol


@dataclass(eq=False)
class UpstreamRequest:
    """A request as the server saw it, and what became of it.

    Attributes:
        headers: By lower-case name.
        body: The parsed JSON body; None when there was none.
        tokens_sent: How many tokens, or pieces of tool arguments, were written.
        finished: Set when the script has run to its end.
        closed_by_client: Set when the client closed or reset the connection before that.
        closed_at: When, on the clock of `time.monotonic`.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    tokens_sent: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    closed_by_client: asyncio.Event = field(default_factory=asyncio.Event)
    closed_at: float | None = None

    @property
    def streams(self) -> bool:
        """Whether the client asked for a stream."""
        return bool(self.body and self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for the usage at the end of the stream."""
        return bool((self.body.get("stream_options") or {}).get("include_usage"))


class Connection(Protocol):
    """What an exchange needs of a connection."""

    async def write(self, data: bytes) -> None:
        """Write, and wait while the buffers are full."""

    def close(self) -> None:
        """Close when everything is written."""

    def reset(self) -> None:
        """Close with a TCP reset."""


class Exchange:
    """What a script can do with one connection."""

    def __init__(self, request: UpstreamRequest, connection: Connection, number: int) -> None:
        self.request = request
        self._connection = connection
        self._id = f"chatcmpl-{number}"

    async def respond(
        self, status: int, headers: Mapping[str, str], body: bytes, *, missing_bytes: int = 0
    ) -> None:
        """Send a complete response; with missing bytes it announces more than it sends."""
        length = {"content-length": str(len(body) + missing_bytes)}
        await self._write(_head(status, {**headers, **length}) + body)
        self._connection.close()

    async def complete(
        self, message: Mapping[str, Any], finish_reason: str, usage: Mapping[str, int] | None
    ) -> None:
        """Answer a request that does not stream."""
        choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None}
        choice["finish_reason"] = finish_reason
        completion = {**self._envelope("chat.completion"), "choices": [choice], "usage": usage}
        await self.respond(200, {"content-type": "application/json"}, encode(completion))

    async def start_stream(self, **delta: Any) -> None:
        """Send the response head and the first chunk, which names the role."""
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        await self._write(_head(200, headers))
        await self.send_delta({"role": "assistant", **delta})

    async def send_token(self, text: str) -> None:
        """Send a chunk with a piece of text."""
        await self.send_delta({"content": text})
        self.request.tokens_sent += 1

    async def send_delta(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> None:
        """Send any chunk with a choice."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._envelope("chat.completion.chunk")
        await self.send_data(encode({**chunk, "choices": [choice]}))

    async def send_data(self, data: bytes) -> None:
        """Send a `data:` line of any content."""
        line = b"data: " + data + b"\n\n"
        await self._write(b"%x\r\n%b\r\n" % (len(line), line))

    async def end_stream(self, finish_reason: str, usage: Mapping[str, int] | None) -> None:
        """Send what follows the last token: reason, usage, `[DONE]`, and the end of the body."""
        await self.send_delta({}, finish_reason)
        if usage is not None and self.request.wants_usage:
            chunk = self._envelope("chat.completion.chunk")
            await self.send_data(encode({**chunk, "choices": [], "usage": usage}))
        await self.send_data(b"[DONE]")
        await self._write(b"0\r\n\r\n")
        self._connection.close()

    def close(self) -> None:
        """Close the connection, with or without the end of the body."""
        self._connection.close()

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self._connection.reset()

    async def _write(self, data: bytes) -> None:
        await self._connection.write(data)

    def _envelope(self, kind: str) -> dict[str, Any]:
        model = (self.request.body or {}).get("model", "scripted")
        return {"id": self._id, "object": kind, "created": 1_700_000_000, "model": model}


def parse_request(received: bytes) -> UpstreamRequest | None:
    head, end_of_head, rest = received.partition(b"\r\n\r\n")
    if not end_of_head:
        return None
    request_line, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    length = int(headers.get("content-length", 0))
    if len(rest) < length:
        return None
    method, path, _ = request_line.split()
    return UpstreamRequest(method, path, headers, loads(rest[:length]) if length else None)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def encode(value: object) -> bytes:
    return dumps(value, separators=(",", ":")).encode()
