"""Responses that read runs: the only place where a stream meets `receive` and `send`."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chainserve.connection import (
    Connection,
    Departure,
    Pace,
    current_task,
)
from chainserve.errors import ChainServeError, LogEvictedError, LogExpiredError
from chainserve.executor import RunExecutor
from chainserve.runs import Run
from chainserve.stores.base import BEFORE_FIRST, LogNotFoundError, LogTruncatedError
from chainserve.transports import watch_the_rest
from chainserve.types import RunId
from chainserve.wire.events import Event, error_event


class Wire(Protocol):
    """A projection of a log's events to the bytes of one response."""

    @property
    def media_type(self) -> str:
        """The response's media type."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's other headers."""

    @property
    def cuts_on_error(self) -> bool:
        """Whether a failure is told by a body that does not end."""

    def project(self, events: Sequence[Event]) -> Iterator[bytes]:
        """Yield the bytes of consecutive events, each piece for a write of its own."""

    def gap(self, earliest: int, lost: int) -> bytes | None:
        """Return how a reader learns that events are gone; None if it cannot."""

    def heartbeat(self, now: datetime) -> bytes:
        """Return what an idle stream sends, if anything."""


class EventStreamResponse(Response):
    """Streams a run's log to one client.

    It reads by position: whatever the run does meanwhile, a slow client costs a cursor and no
    queue. The headers go out at once. At the end, whichever it is, the run is left, and its policy
    says whether it goes on. The exit (`finished`, `broken_off`, `client_gone`, `too_slow` or
    `cancelled`) is noted in the scope as `chainserve.exit`.

    Args:
        executor: Where the run is joined and left.
        run_id: The run.
        epoch: Tells it from others that have the same id later.
        wire: How its events are written.
        pace: The times of the stream.
        after: The number of the last event that the client has.
        resumable: Whether the client can come back after leaving.
        headers: More headers.
    """

    def __init__(
        self,
        executor: RunExecutor,
        run_id: RunId,
        epoch: str,
        wire: Wire,
        pace: Pace,
        *,
        after: int = BEFORE_FIRST,
        resumable: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = 200
        self.media_type = wire.media_type
        self.background = None
        self.init_headers({**wire.headers, **(headers or {})})
        self._executor = executor
        self._run_id = run_id
        self._epoch = epoch
        self._wire = wire
        self._pace = pace
        self.cursor = after
        self._resumable = resumable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the log until its end, or until the client is gone or too slow."""
        connection = Connection(scope, receive, send, self._pace)
        run = self._executor.join(self._run_id, resumable=self._resumable, follower=self)
        unwatch = self._executor.store.watch(self._run_id, connection.wake)
        try:
            await connection.start(self.status_code, self.raw_headers)
            self.raw_headers = []  # Nobody asks for them again, and a stream may wait for long.
            await self._note_an_earlier_end(connection)
            await self._send_log(connection)
        except OSError:  # how a server of ASGI 2.4 says that the client is gone
            connection.leave("client_gone")
        except asyncio.CancelledError as cancelled:
            if connection.exit != "too_slow":
                await self._say_farewell(connection, run, cancelled)
            connection.task.uncancel()
        finally:
            unwatch()
            connection.close()
            scope["chainserve.exit"] = connection.exit
            self._executor.leave(run, follower=self)
        if self.background is not None:
            await self.background()

    async def _note_an_earlier_end(self, connection: Connection) -> None:
        """Tell the connection if the run has ended before it was watched."""
        record = await self._executor.store.get(self._run_id)
        if record is None or record.ended or record.epoch != self._epoch:
            connection.wake(True)

    async def _send_log(self, connection: Connection) -> None:
        """Send what follows the cursor again and again, and a heartbeat when nothing does."""
        while connection.exit is None:
            events, more = await self._events_after_cursor(connection)
            if events:
                await self._send_events(connection, events)
            elif connection.log_has_ended and not more:
                await connection.finish()  # The cursor was past the end.
            elif connection.heartbeat_is_due:
                await self._send_heartbeat(connection)
            if more:
                # A reader that never suspends would keep the loop from seeing its client leave.
                await asyncio.sleep(0)
            else:
                await connection.wait()

    async def _send_events(self, connection: Connection, events: Sequence[Event]) -> None:
        last = events[-1]
        self.cursor = last.seq
        pieces = [*self._wire.project(events)]
        cuts = last.event == "error" and self._wire.cuts_on_error
        final = pieces.pop() if pieces and last.terminal and not cuts else b""
        for piece in pieces:
            await connection.send(piece)
        if cuts:
            await connection.break_off()
        elif last.terminal:
            await connection.finish(final)

    async def _send_heartbeat(self, connection: Connection) -> None:
        if heartbeat := self._wire.heartbeat(datetime.now(UTC)):
            await connection.send(heartbeat)

    async def _events_after_cursor(self, connection: Connection) -> tuple[Sequence[Event], bool]:
        """Read on; tell a reader what is gone, or end its stream if it could not come back."""
        try:
            return await self._executor.store.read_after(
                self._run_id, self.cursor, epoch=self._epoch
            )
        except LogTruncatedError as truncated:
            earliest = truncated.earliest
            gap = self._wire.gap(earliest, earliest - self.cursor - 1)
            if gap is not None:
                await connection.send(gap)
                self.cursor = earliest - 1
                return (), True
            return self._ended_with(LogEvictedError())
        except LogNotFoundError:
            return self._ended_with(LogExpiredError())

    def _ended_with(self, error: ChainServeError) -> tuple[Sequence[Event], bool]:
        return (error_event(self.cursor + 1, error.event()),), False

    async def _say_farewell(
        self, connection: Connection, run: Run | None, cancelled: asyncio.CancelledError
    ) -> None:
        """Send how the run ends after the server has cancelled the request.

        Raises:
            asyncio.CancelledError: Nobody listens, the run goes on, or the server has no patience.
        """
        listens = connection.exit is None and not connection.is_sending
        try:
            if not (listens and await self._executor.ends_soon(run, cancelled)):
                raise cancelled
            await self._send_log(connection)
        except asyncio.CancelledError:
            connection.leave("cancelled")
            raise


class OutputResponse(Response):
    """The JSON of an invoke's or batch's outputs, for a client that reads it in time."""

    media_type = "application/json"

    def __init__(self, body: bytes, send_timeout: float) -> None:
        super().__init__(body)
        self._send_timeout = send_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body; a client that reads nothing for the time-out is cut off."""
        loop = asyncio.get_running_loop()
        watch = loop.call_later(
            self._send_timeout, watch_the_rest, receive, send, self._send_timeout
        )
        await super().__call__(scope, receive, send)
        watch.cancel()
        watch_the_rest(receive, send, self._send_timeout)


async def wait_for_end(
    executor: RunExecutor,
    run_id: RunId,
    receive: Receive,
    *,
    resumable: bool = False,
    seconds: float | None = None,
) -> None:
    """Wait as a reader until a run has ended, its client is gone, or some time has passed."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def release(ended: bool = True) -> None:
        if ended and not over.done():
            over.set_result(None)

    unwatch = executor.store.watch(run_id, release)
    run = executor.join(run_id, resumable=resumable)
    departure: Departure | None = None
    patience = None if seconds is None else loop.call_later(seconds, release)
    try:
        await asyncio.sleep(0)  # A run that never waits has ended then.
        record = await executor.store.get(run_id)
        if record is not None and not record.ended:
            departure = Departure(receive, release)
            await over
    except asyncio.CancelledError as cancelled:
        is_gone = departure is not None and departure.is_known
        if is_gone or not await executor.ends_soon(run, cancelled):
            raise
        if run is not None:
            await run.ended.wait()
        current_task().uncancel()
    finally:
        if patience is not None:
            patience.cancel()
        if departure is not None:
            departure.close()
        unwatch()
        executor.leave(run)
