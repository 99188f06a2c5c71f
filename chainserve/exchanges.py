"""Requests and their answers over HTTP: the I/O of the client, once for threads, once for loops.

What is sent, and whether it is sent again, is in `calls`, what is made of answers in `answers` and
`remote_streams`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing, contextmanager, suppress
from typing import Any

from chainserve.answers import AnswerReader, Body, check_coding
from chainserve.calls import REPEATED_ERRORS, Call, StreamCall
from chainserve.client_errors import RemoteError, UnexpectedAnswerError
from chainserve.client_requests import MAX_REDIRECTS, accepted_codings, below, redirected
from chainserve.peer import LEAVE_TIMEOUT, cancelling, is_of_chainserve, probe
from chainserve.transport import (
    CONNECT_ERRORS,
    CUT_ERRORS,
    REQUEST_ERRORS,
    HTTPClients,
    caught_as_any,
    package_for,
)

_log = logging.getLogger("chainserve.client")

CONNECT_TIMEOUT = 10.0
"""Seconds in which a connection must be there, unless the caller sets a time-out."""

SEND_TIMEOUT = 60.0
"""Seconds for which the server may take nothing, unless the caller sets a time-out."""

ANSWER_TIMEOUT = 600.0
"""Seconds for which an invoke or a batch may say nothing, unless the caller sets a time-out."""

STREAM_TIMEOUT = 60.0
"""Seconds for which a stream may say nothing, unless the caller sets a time-out.

A server sends a comment every 15 seconds when it has nothing else to send.
"""

DRAIN_TIMEOUT = 1.0
"""Seconds for which a stream that has told its end may take to close its body."""

UNREADABLE: tuple[type[Any], ...] = (*REQUEST_ERRORS, UnexpectedAnswerError)
"""What is raised of a body that cannot be read, or not within bounds."""


class Exchanges:
    """Makes the calls of one `RemoteRunnable`, each with as many requests as it takes.

    Args:
        url: The URL of the chain, with a slash at the end of its path.
        options: What the HTTP clients are made with; a `timeout` of None stands for the bounds
            above.
        answers: Makes values, or errors, of answers.

    Attributes:
        clients: The HTTP clients.
        is_chainserve: Whether the server is known to do the same once if it is asked twice.
    """

    def __init__(self, url: str, options: Mapping[str, Any], answers: AnswerReader) -> None:
        self._url = url
        self._answers = answers
        self._stream_options: dict[str, Any] = {}
        if options["timeout"] is None:
            options = {**options, "timeout": _timeout(ANSWER_TIMEOUT)}
            self._stream_options["timeout"] = _timeout(STREAM_TIMEOUT)
        self._leaving: set[asyncio.Task[None]] = set()
        self.clients = HTTPClients(package_for(options.values()), options)
        self.is_chainserve = False

    def send(self, call: Call) -> tuple[Any, bytes]:
        """Make a call that answers once, and return the response and its body.

        Raises:
            RemoteStatusError: The server answered with an error.
        """
        with caught_as_any(), self._left_at_the_end(call):
            while True:
                try:
                    response = self._open(call)
                    body = self._read(response)
                    self._answers.refuse(response, body, call.run)
                    return response, body
                except REPEATED_ERRORS as error:
                    if not self._has_waited(call, error):
                        raise

    async def asend(self, call: Call) -> tuple[Any, bytes]:
        """Make a call that answers once, as `send` does."""
        with caught_as_any():
            async with self._aleft_at_the_end(call):
                while True:
                    try:
                        response = await self._aopen(call)
                        body = await self._aread(response)
                        self._answers.refuse(response, body, call.run)
                        return response, body
                    except REPEATED_ERRORS as error:
                        if not await self._ahas_waited(call, error):
                            raise

    def stream(self, call: StreamCall) -> Generator[Any]:
        """Make a call that streams, and yield what it carries, each piece once.

        Raises:
            RemoteError: As `RemoteRunnable` says.
        """
        with caught_as_any(), self._left_at_the_end(call):
            while not call.ended:
                try:
                    yield from self._connected(call)
                except REPEATED_ERRORS as error:
                    if self._has_waited(call, error):
                        continue
                    if (interrupted := call.interrupted(error)) is None:
                        raise
                    raise interrupted from error

    async def astream(self, call: StreamCall) -> AsyncGenerator[Any]:
        """Make a call that streams, and yield what it carries, as `stream` does."""
        with caught_as_any():
            async with self._aleft_at_the_end(call):
                while not call.ended:
                    try:
                        async with aclosing(self._aconnected(call)) as values:
                            async for value in values:
                                yield value
                    except REPEATED_ERRORS as error:
                        if await self._ahas_waited(call, error):
                            continue
                        if (interrupted := call.interrupted(error)) is None:
                            raise
                        raise interrupted from error

    def _connected(self, call: StreamCall) -> Generator[Any]:
        """Yield what one connection brings, until the end of the stream or its own."""
        response = self._open(call)
        try:
            if not call.begins(response):
                self._answers.refuse(response, self._read(response), call.run)
            self._note_server(call)
            for data in response.iter_bytes():
                yield from call.feed(data)
                if call.ended:
                    return
        except RemoteError:
            raise
        except CUT_ERRORS:
            pass  # The body was left unfinished, which is said below.
        finally:
            response.close()
        call.finish()

    async def _aconnected(self, call: StreamCall) -> AsyncGenerator[Any]:
        """Yield what one connection brings, as `_connected` does."""
        response = await self._aopen(call)
        try:
            if not call.begins(response):
                self._answers.refuse(response, await self._aread(response), call.run)
            self._note_server(call)
            pieces = response.aiter_bytes()
            async for data in pieces:
                for value in call.feed(data):
                    yield value
                if call.ended:
                    await _drain(pieces)
                    return
        except RemoteError:
            raise
        except CUT_ERRORS:
            pass  # The body was left unfinished, which is said below.
        finally:
            await response.aclose()
        call.finish()

    def _note_server(self, call: Call) -> None:
        """Remember what the answer to a start has told of the server."""
        if call.key is not None:
            self.is_chainserve = bool(call.repeatable)

    # One request.

    def _open(self, call: Call) -> Any:
        """Send the request of a call, and return the response, whose body is not read yet."""
        client = self.clients.sync
        response = client.send(self._request(client, call), stream=True)
        for _ in range(MAX_REDIRECTS):
            if (request := redirected(response)) is None:
                break
            response.close()
            response = client.send(request, stream=True)
        return response

    async def _aopen(self, call: Call) -> Any:
        """Send the request of a call, as `_open` does."""
        client = self.clients.in_loop
        response = await client.send(self._request(client, call), stream=True)
        for _ in range(MAX_REDIRECTS):
            if (request := redirected(response)) is None:
                break
            await response.aclose()
            response = await client.send(request, stream=True)
        return response

    def _request(self, client: Any, call: Call) -> Any:
        if self.is_chainserve and call.repeatable is None:
            call.repeatable = True
        accepted = accepted_codings(client.headers.get("accept-encoding", ""))
        headers = {"accept-encoding": accepted, **call.headers}
        options = self._stream_options if call.streams else {}
        if call.timeout is not None:
            options = {"timeout": call.timeout}
        url = below(self._url, call.path)
        return client.build_request(
            call.method, url, content=call.body or None, headers=headers, **options
        )

    # Asking again.

    def _has_waited(self, call: Call, error: Exception) -> bool:
        """Wait until a call may be made again; tell whether it may.

        A server that nobody knows is asked which it is first, for as long as it does not answer.
        """
        if _is_first_refusal(call, error):
            return False
        while (delay := call.delay_after(error)) is not None:
            setback = self._probe(call)
            if setback is None and not call.repeatable:
                return False
            _tell(error, delay)
            time.sleep(delay)
            if setback is None:
                return True
            error = setback
        return False

    async def _ahas_waited(self, call: Call, error: Exception) -> bool:
        """Wait until a call may be made again, as `_has_waited` does."""
        if _is_first_refusal(call, error):
            return False
        while (delay := call.delay_after(error)) is not None:
            setback = await self._aprobe(call)
            if setback is None and not call.repeatable:
                return False
            _tell(error, delay)
            await asyncio.sleep(delay)
            if setback is None:
                return True
            error = setback
        return False

    def _probe(self, call: Call) -> Exception | None:
        """Ask whether the server does once what it is asked twice, if nobody knows.

        Returns:
            What kept it from answering.
        """
        if call.repeatable is None:
            try:
                call.repeatable = self._is_chainserve()
            except REPEATED_ERRORS as error:
                return error  # type: ignore[no-any-return]
        return None

    async def _aprobe(self, call: Call) -> Exception | None:
        """Ask whether the server does once what it is asked twice, as `_probe` does."""
        if call.repeatable is None:
            try:
                call.repeatable = await self._ais_chainserve()
            except REPEATED_ERRORS as error:
                return error  # type: ignore[no-any-return]
        return None

    def _is_chainserve(self) -> bool:
        """Ask the server for a run that there is not, which chainserve alone knows to answer."""
        response = self._open(probe())
        if response.status_code != 404:  # Its body may be of any length.
            response.close()
            return False
        self.is_chainserve = is_of_chainserve(response, self._read(response))
        return self.is_chainserve

    async def _ais_chainserve(self) -> bool:
        """Ask the server for a run that there is not, as `_is_chainserve` does."""
        response = await self._aopen(probe())
        if response.status_code != 404:
            await response.aclose()
            return False
        self.is_chainserve = is_of_chainserve(response, await self._aread(response))
        return self.is_chainserve

    # Leaving.

    @contextmanager
    def _left_at_the_end(self, call: Call) -> Iterator[None]:
        """Cancel the run of a call whose caller goes before it has ended."""
        try:
            yield
        except BaseException as error:
            if call.is_left_running(error):
                with suppress(Exception), closing(self._open(cancelling(call))) as response:
                    # One piece, for all of it may take any time.
                    told = next(response.iter_bytes(), b"")
                    self._answers.note_left(response, told, call.run)
            raise

    @asynccontextmanager
    async def _aleft_at_the_end(self, call: Call) -> AsyncIterator[None]:
        """Cancel the run of a call whose caller goes, as `_left_at_the_end` does."""
        try:
            yield
        except BaseException as error:
            if call.is_left_running(error):
                # A task of its own: a caller that is cancelled may be so again at each wait.
                leaving = asyncio.ensure_future(self._acancel(call))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
                await asyncio.shield(leaving)
            raise

    async def _acancel(self, call: Call) -> None:
        until = asyncio.get_running_loop().time() + LEAVE_TIMEOUT
        with suppress(Exception):
            try:
                await self._aask_to_cancel(call, until)
            except asyncio.CancelledError:
                # A loop that ends cancels each task once, and waits for it.
                await self._aask_to_cancel(call, until)

    async def _aask_to_cancel(self, call: Call, until: float) -> None:
        async with asyncio.timeout_at(until):
            response = await self._aopen(cancelling(call))
            self._answers.note_left(response, await self._aread(response), call.run)

    def _read(self, response: Any) -> bytes:
        """Return the body of a response within a bound; of an error, as much as came."""
        body = Body(response)
        try:
            check_coding(response)
            for data in response.iter_bytes():
                if not body.add(data):
                    break
        except UNREADABLE:
            if not body.is_error:
                raise
        finally:
            response.close()
        return body.content

    async def _aread(self, response: Any) -> bytes:
        """Return the body of a response, as `_read` does."""
        body = Body(response)
        try:
            check_coding(response)
            async for data in response.aiter_bytes():
                if not body.add(data):
                    break
        except UNREADABLE:
            if not body.is_error:
                raise
        finally:
            await response.aclose()
        return body.content


def _is_first_refusal(call: Call, error: Exception) -> bool:
    """Tell whether there was no connection to a server that was never met: the URL may be wrong."""
    return call.repeatable is None and isinstance(error, CONNECT_ERRORS)


def _tell(error: Exception, delay: float) -> None:
    told = str(error) or type(error).__name__
    _log.info("Asking again in %.2f s: %s", delay, told)


def _timeout(read: float) -> tuple[float, float, float, float]:
    """Return the bounds of connecting, reading, sending and of waiting for a free connection."""
    return CONNECT_TIMEOUT, read, SEND_TIMEOUT, read


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows the end of a stream: with its body read, the connection can be used again.

    The sync methods do without, for they could not stop to wait for a server that keeps it open.
    """
    with suppress(TimeoutError, *REQUEST_ERRORS):
        async with asyncio.timeout(DRAIN_TIMEOUT):
            async for _ in pieces:
                pass
