"""One client's connection: what a response knows of it beside ASGI's `receive` and `send`."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.types import Message, Receive, Scope, Send

from chainserve.transports import (
    reset,
    transport_of,
    unread_bytes,
    until_written,
    watch_the_rest,
)
from chainserve.types import StreamExit

_FIRST_LOOK = 0.01
"""Seconds after which a client that waits is watched."""

_LAYERS = 8
"""How many layers of middleware between here and the server may each hold one message."""

_LOOKS = 4
"""How often in a `send_timeout` a look is had at whether a client reads."""

_REPEATED_BODIES = 10
"""How often a body may come again before its end is no longer waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The times of a stream, in seconds.

    Attributes:
        heartbeat_interval: After so long without a write, a heartbeat is sent.
        send_timeout: A client that reads nothing for so long is cut off.
        flush_interval: How long an event may wait to share a write with the next.
    """

    heartbeat_interval: float
    send_timeout: float
    flush_interval: float


class _Look(NamedTuple):
    """What a look at a write that lasts has shown.

    Attributes:
        began: When the write began, which tells it from others.
        at: When the client was seen to have read.
        left: How many bytes it had not read then.
    """

    began: float
    at: float
    left: int


class Departure:
    """Notices that a client has left. Most answers are there before it is worth a task to look.

    Args:
        receive: The request's own; the body must have been read.
        tell: Called when the client has left.
    """

    __slots__ = ("_receive", "_start", "_tell", "_waiting")

    def __init__(self, receive: Receive, tell: Callable[[], None]) -> None:
        self._receive = receive
        self._tell = tell
        self._waiting: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._start: asyncio.TimerHandle | None = loop.call_later(_FIRST_LOOK, self._watch)

    @property
    def is_known(self) -> bool:
        """Whether the client is known to have left."""
        return self._waiting is not None and self._waiting.done()

    async def comes(self, seconds: float) -> bool:
        """Wait for it; tell whether it has come."""
        await asyncio.wait((self._watch(),), timeout=seconds)
        return self.is_known

    def close(self) -> None:
        """Look no longer."""
        if self._start is not None:
            self._start.cancel()
        if self._waiting is not None:
            self._waiting.cancel()

    def _watch(self) -> asyncio.Task[None]:
        if self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_task(wait_for_disconnect(self._receive))
            self._waiting.add_done_callback(self._note)
            self._start = None  # An idle stream has no use for what takes memory.
        return self._waiting

    def _note(self, _: object) -> None:
        self._tell()


class Connection:
    """One client's connection: writes under a deadline, and a wait that all of interest ends."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, pace: Pace) -> None:
        self.exit: StreamExit | None = None
        self._http_version = scope.get("http_version")
        self._receive = receive
        self._send = send
        self._pace = pace
        self._loop = loop = asyncio.get_running_loop()
        self.task = current_task()
        self._grew = self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._sent_at = loop.time()
        self._sending_since: float | None = None
        self._look: _Look | None = None
        self._departure = Departure(receive, self._note_departure)
        self._check = loop.call_later(self._check_interval, self._check_time)

    @property
    def is_sending(self) -> bool:
        """Whether a write waits for the client to read."""
        return self._sending_since is not None

    @property
    def heartbeat_is_due(self) -> bool:
        """Whether nothing was written for the heartbeat's interval."""
        return self._loop.time() - self._sent_at >= self._pace.heartbeat_interval

    async def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the status and the headers."""
        await self._write({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes) -> None:
        """Send a piece of the body."""
        await self._write({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, body: bytes = b"") -> None:
        """Send the end of the body, and the last piece with it."""
        await self._write({"type": "http.response.body", "body": body, "more_body": False})
        self.leave("finished")
        watch_the_rest(self._receive, self._send, self._pace.send_timeout)

    async def break_off(self) -> None:
        """Close the connection without the end of the body, so that the client knows of the cut.

        A server other than uvicorn does so when the application returns early.
        """
        for _ in range(_LAYERS):
            await self.send(b"")  # Middleware may hold what it was given until the next message.
        self.leave("broken_off")
        if (transport := transport_of(self._receive, self._send)) is None:
            return
        if self._http_version == "1.0":
            # The end of such a body is the end of the connection: only a reset tells of the cut.
            await until_written(transport, self._pace.send_timeout)
            reset(transport)
            return
        transport.close()
        if not await self._departure.comes(self._pace.send_timeout):
            reset(transport)

    @property
    def log_has_ended(self) -> bool:
        """Whether nothing more will be written to the log."""
        return self._ended

    def wake(self, ended: bool) -> None:
        """Note that the log may have grown; its end is not held back."""
        self._grew = True
        self._ended = self._ended or ended
        if self._waiter is not None and (self._flush is None or ended):
            self._release_when_due()

    async def wait(self) -> None:
        """Wait until there may be something to read and it may be sent, or to do."""
        if self.exit is not None:
            return
        self._waiter = self._loop.create_future()
        if self._grew:
            self._release_when_due()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._grew = False
            self._cancel_flush()

    def leave(self, exit_: StreamExit) -> None:
        """Note the exit, the first that happens, and stop waiting."""
        if self.exit is None:
            self.exit = exit_
        self._release()

    def close(self) -> None:
        """Give back what the connection holds on the loop."""
        self._departure.close()
        self._check.cancel()
        self._cancel_flush()

    async def _write(self, message: Message) -> None:
        self._sending_since = self._loop.time()
        await self._send(message)
        self._sending_since = None
        self._sent_at = self._loop.time()

    def _release_when_due(self) -> None:
        """Stop waiting, at once or when events that follow closely have had time to join."""
        due = self._sent_at + self._pace.flush_interval
        if self._ended or self._loop.time() >= due:
            self._release()
        elif self._flush is None:
            self._flush = self._loop.call_at(due, self._release)

    def _release(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _cancel_flush(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def _note_departure(self) -> None:
        self.leave("client_gone")

    @property
    def _check_interval(self) -> float:
        return min(self._pace.heartbeat_interval, self._pace.send_timeout / _LOOKS)

    def _check_time(self) -> None:
        """Cut a client that does not read, or wake the reader for a heartbeat."""
        now = self._loop.time()
        if self._sending_since is not None:
            if now - self._stuck_since(now, self._sending_since) >= self._pace.send_timeout:
                self._cut()
                return
        elif self.heartbeat_is_due:
            self._release()
        due = self._sent_at + self._pace.heartbeat_interval
        latest = now + self._check_interval
        self._check = self._loop.call_at(due if now < due < latest else latest, self._check_time)

    def _stuck_since(self, now: float, began: float) -> float:
        """Return when the client was last seen to read, or to begin with, of a write.

        A large piece takes its time: as long as the client reads, it is not cut.
        """
        transport = transport_of(self._receive, self._send)
        if transport is None:
            return began
        left = unread_bytes(transport)
        if self._look is None or self._look.began != began or left < self._look.left:
            self._look = _Look(began, now, left)
        return self._look.at

    def _cut(self) -> None:
        """End a write that does not end: free the socket if the server lets us, or leave it."""
        self.leave("too_slow")
        if (transport := transport_of(self._receive, self._send)) is not None:
            reset(transport)
        self.task.cancel()


def current_task() -> asyncio.Task[Any]:
    """Return the running task; an ASGI application always runs in one."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has left; the body must have been read.

    Some middleware gives the body again and again instead of waiting: then nobody will know.
    """
    for _ in range(_REPEATED_BODIES):
        if (await receive())["type"] == "http.disconnect":
            return
    await asyncio.get_running_loop().create_future()
