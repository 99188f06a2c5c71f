"""An in-process ASGI client that streams.

httpx's ASGITransport and Starlette's TestClient run the application to its end and hand over a
buffered body, so with them no test can see the first event before the last, or hang up in
between. Here the application runs as a task, each body message is there as soon as it is sent,
and leaving the context is a client that hangs up. Written from the ASGI specification (HTTP and
lifespan); where that leaves a choice, it does as uvicorn does:

* `send` does not suspend, except while the client does not read (`read=False`);
* after a disconnect `send` returns silently up to spec version 2.3, and raises OSError from 2.4;
* `path` is the root path and the path, `receive` answers `http.disconnect` after the response.

Whatever the test waits for is bounded by WAIT_SECONDS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from json import dumps, loads
from typing import Any, Unpack

import anyio
from starlette.types import ASGIApp, Message, Scope

from tests._asgi import Headers, RequestOptions, build_scope, checked_body, checked_start
from tests._sse import EventDecoder, ReceivedEvent, decode_events

WAIT_SECONDS = 20.0
_MAX_SENDS_AFTER_DISCONNECT = 10_000


class IncompleteBodyError(Exception):
    """The application ended without its last body message; its own error is the cause."""


class ClientGoneError(OSError):
    """What `send` raises after a disconnect, from ASGI spec version 2.4 on."""


class Upload:
    """The request body, pulled from its source only as the application receives it.

    Attributes:
        bytes_read: How many bytes the application was given.
        pieces_read: In how many messages with content.
        exhausted: Whether it was told that there is no more.
    """

    def __init__(self, source: bytes | AsyncIterator[bytes]) -> None:
        self.bytes_read = 0
        self.pieces_read = 0
        self.exhausted = False
        self._source = source
        self._pull: asyncio.Task[bytes | None] | None = None

    def pull(self) -> asyncio.Task[bytes | None]:
        """Ask the source for its next piece; the same task until `take` was called."""
        if self._pull is None:
            self._pull = asyncio.create_task(self._next_piece())
        return self._pull

    def take(self, pull: asyncio.Task[bytes | None]) -> Message:
        """Turn a finished pull into the message for the application."""
        self._pull = None
        piece = pull.result()
        self.exhausted = piece is None or isinstance(self._source, bytes)
        self.bytes_read += len(piece or b"")
        self.pieces_read += bool(piece)
        return {"type": "http.request", "body": piece or b"", "more_body": not self.exhausted}

    async def aclose(self) -> None:
        """Let go of the source."""
        if self._pull is not None:
            self._pull.cancel()
            await asyncio.gather(self._pull, return_exceptions=True)
        if not isinstance(self._source, bytes) and hasattr(self._source, "aclose"):
            await self._source.aclose()

    async def _next_piece(self) -> bytes | None:
        if isinstance(self._source, bytes):
            return self._source
        return await anext(self._source, None)


class StreamedResponse:
    """A response while it is being made; `open_stream` gives it to the test.

    Attributes:
        sends: The body of each `http.response.body` message, empty ones included.
        complete: Whether the last body message has come.
        disconnected: Whether the client has hung up.
        send_blocked: Set while the application waits in `send` for a client that does not read.
        upload: The request body, and how much of it was read.
    """

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        upload: Upload,
        *,
        read: bool = True,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.sends: list[bytes] = []
        self.complete = False
        self.disconnected = False
        self.send_blocked = asyncio.Event()
        self.upload = upload
        self._scope = scope
        self._start: tuple[int, Headers] | None = None
        self._reading = read
        self._wait_seconds = wait_seconds
        self._changed = asyncio.Event()
        self._chunks_taken = 0
        self._decoder = EventDecoder()
        self._events: list[ReceivedEvent] = []
        self._sends_after_disconnect = 0
        self._error_was_raised = False
        self._task = asyncio.create_task(self._run(app))
        self._task.add_done_callback(self._retrieve_error)

    @property
    def status(self) -> int:
        """The status code."""
        return self._started_or_raise()[0]

    @property
    def headers(self) -> Headers:
        """The header fields."""
        return self._started_or_raise()[1]

    @property
    def app_ended(self) -> bool:
        """Whether the application has returned or raised."""
        return self._task.done()

    @property
    def app_error(self) -> BaseException | None:
        """What the application raised, once it has ended."""
        if not self._task.done():
            return None
        if self._task.cancelled():
            return RuntimeError("the application ended with its own cancellation")
        return self._task.exception()

    @property
    def last_event_id(self) -> str:
        """The id to resume from, after the events read so far."""
        return self._decoder.last_event_id

    @property
    def unfinished_event(self) -> bytes:
        """The bytes read so far that are not yet, or never became, a complete event."""
        return self._decoder.unfinished

    async def started(self) -> None:
        """Wait for the response start; raise the application's error if it fails before it."""
        await self._until(lambda: self._start is not None or self.app_ended)
        if self._start is not None:
            return
        if self.app_error is not None:
            self._error_was_raised = True
            raise self.app_error
        raise RuntimeError("the application ended without a response")

    async def next_chunk(self) -> bytes | None:
        """Return the next body bytes as sent, or None at the end of a complete body.

        Raises:
            IncompleteBodyError: The application ended before its body did.
        """
        while True:
            await self._until(lambda: self._chunks_taken < len(self.sends) or self._body_over)
            if self._chunks_taken == len(self.sends):
                break
            chunk = self.sends[self._chunks_taken]
            self._chunks_taken += 1
            if chunk:
                return chunk
        if self.complete:
            return None
        self._error_was_raised = True
        raise IncompleteBodyError(f"body ends after {len(self.sends)} sends") from self.app_error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body bytes as they were sent, without empty ones."""
        while (chunk := await self.next_chunk()) is not None:
            yield chunk

    async def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def next_event(self) -> ReceivedEvent | None:
        """Return the next event, or None at the end of a complete body."""
        while not self._events:
            chunk = await self.next_chunk()
            if chunk is None:
                return None
            self._events += self._decoder.feed(chunk)
        return self._events.pop(0)

    async def events(self) -> AsyncIterator[ReceivedEvent]:
        """Yield the events; a second call goes on where the first was left."""
        while (event := await self.next_event()) is not None:
            yield event

    def pause_reading(self) -> None:
        """Stop reading: the application's next body send waits."""
        self._reading = False

    def resume_reading(self) -> None:
        """Read again."""
        self._reading = True
        self._changed.set()

    def disconnect(self) -> None:
        """Hang up without leaving the context."""
        self.disconnected = True
        self._changed.set()

    def cancel(self) -> None:
        """Cancel the request's task, as a server that stops does."""
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until the application has returned or raised."""
        await self._until(lambda: self.app_ended)

    async def aclose(self) -> None:
        """Hang up and wait for the application to end.

        Raises:
            TimeoutError: It did not; it was cancelled then.
        """
        self.disconnect()
        try:
            if await self._ends_in_time():
                return
            self._task.cancel()
            outcome = "ended when cancelled" if await self._ends_in_time() else "is still running"
            raise TimeoutError(f"the application ran on after the disconnect; it {outcome}")
        finally:
            await self.upload.aclose()

    def raise_app_error(self) -> None:
        """Raise what the application raised, unless the test has seen it or hung up on it."""
        error = self.app_error
        if error is None or self._error_was_raised or isinstance(error, ClientGoneError):
            return
        raise error

    @property
    def _body_over(self) -> bool:
        return self.complete or self.app_ended

    def _started_or_raise(self) -> tuple[int, Headers]:
        if self._start is None:
            raise RuntimeError("the response has not started; await started() first")
        return self._start

    async def _until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(self._wait_seconds):
            await self._wait_for(condition)

    async def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _ends_in_time(self) -> bool:
        # Shielded: the caller may be on its way out because it was cancelled itself.
        with anyio.move_on_after(self._wait_seconds, shield=True):
            await asyncio.wait({self._task})
        return self._task.done()

    def _retrieve_error(self, task: asyncio.Task[None]) -> None:
        # An application left behind must not log "exception was never retrieved" as well.
        _ = task.cancelled() or task.exception()
        self._changed.set()

    async def _run(self, app: ASGIApp) -> None:
        await app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self.upload.exhausted:
            pull = self.upload.pull()
            pull.add_done_callback(lambda _: self._changed.set())
            await self._wait_for(lambda: pull.done() or self.disconnected)
            if not self.disconnected:
                return self.upload.take(pull)
        await self._wait_for(lambda: self.disconnected or self.complete)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not self._reading:
            self.send_blocked.set()
            await self._wait_for(lambda: self._reading or self.disconnected)
            self.send_blocked.clear()
        if self.disconnected:
            self._refuse_send()
            return
        match message["type"]:
            case "http.response.start" if self._start is None:
                self._start = checked_start(message)
            case "http.response.body" if self._start is not None and not self.complete:
                self.sends.append(checked_body(message, self.status))
                self.complete = not message.get("more_body", False)
            case unexpected:
                raise RuntimeError(f"unexpected ASGI message {unexpected!r}")
        self._changed.set()

    def _refuse_send(self) -> None:
        # An application that sends on and on without suspending would hang the test for good.
        self._sends_after_disconnect += 1
        if self._sends_after_disconnect > _MAX_SENDS_AFTER_DISCONNECT:
            raise RuntimeError("the application goes on sending after the disconnect")
        version = tuple(int(part) for part in self._scope["asgi"]["spec_version"].split("."))
        if version >= (2, 4):
            raise ClientGoneError("the client has gone")


@dataclass(frozen=True)
class Response:
    """A complete response."""

    status: int
    headers: Headers
    body: bytes
    sends: tuple[bytes, ...]
    app_error: BaseException | None

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """Return the body, decoded from JSON."""
        return loads(self.body)

    def events(self) -> list[ReceivedEvent]:
        """Return the events of the body."""
        return decode_events(self.body)


@asynccontextmanager
async def open_stream(
    app: ASGIApp, method: str, path: str, **options: Unpack[RequestOptions]
) -> AsyncIterator[StreamedResponse]:
    """Send a request; enter when the response starts, hang up when the context is left.

    Leaving waits until the application has ended. Cancelling the caller hangs up as well, also
    while it still waits for the response to start.

    Raises:
        TimeoutError: The response did not start, or the application did not end, in time.
        Exception: What the application raised; before the response start at once, else on leaving.
    """
    source = dumps(options["json"]).encode() if "json" in options else options.get("body", b"")
    response = StreamedResponse(
        app,
        build_scope(method, path, source, options),
        Upload(source),
        read=options.get("read", True),
        wait_seconds=options.get("wait_seconds", WAIT_SECONDS),
    )
    try:
        if options.get("wait_for_start", True):
            await response.started()
        yield response
    finally:
        await response.aclose()
    if options.get("raise_app_errors", True):
        response.raise_app_error()


async def request(
    app: ASGIApp, method: str, path: str, **options: Unpack[RequestOptions]
) -> Response:
    """Send a request and return the complete response."""
    async with open_stream(app, method, path, **options) as stream:
        body = await stream.read()
        await stream.ended()
    return Response(stream.status, stream.headers, body, tuple(stream.sends), stream.app_error)


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Run the application's startup and shutdown; yields the state for `open_stream`.

    Raises:
        Exception: What the application raised at startup or shutdown.
        RuntimeError: It reported a failure, or ended, without raising.
    """
    conversation = _Lifespan(app)
    try:
        await conversation.tell("startup")
        yield conversation.state
        await conversation.tell("shutdown")
    finally:
        await conversation.aclose()


class _Lifespan:
    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    async def tell(self, phase: str) -> None:
        self._to_app.put_nowait({"type": f"lifespan.{phase}"})
        with anyio.fail_after(WAIT_SECONDS):
            answer = await self._from_app.get()
            if answer["type"] == f"lifespan.{phase}.complete":
                return
            await self._task
        raise RuntimeError(f"{phase} failed: {answer.get('message', answer['type'])}")

    async def aclose(self) -> None:
        with anyio.move_on_after(WAIT_SECONDS, shield=True):
            if self._from_app.empty() and not self._task.done():
                self._to_app.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait({self._task})
        if not self._task.done():
            self._task.cancel()
            raise TimeoutError("the application did not end after lifespan.shutdown")
        _ = self._task.cancelled() or self._task.exception()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._to_app.get, self._from_app.put)
        finally:
            self._from_app.put_nowait({"type": "the application ended"})
