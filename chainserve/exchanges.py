"""Requests and their answers over HTTP: the I/O of the client, once for threads, once for loops.

What is sent is in `client_requests`, what is made of answers in `answers` and `remote_streams`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import suppress
from typing import Any

from chainserve.answers import AnswerReader, Body, check_coding
from chainserve.client_errors import UnexpectedAnswerError
from chainserve.client_requests import EVENT_STREAM_HEADERS, accepted_codings, below
from chainserve.remote import RemoteRun
from chainserve.remote_streams import StreamReader
from chainserve.transport import (
    CUT_ERRORS,
    REQUEST_ERRORS,
    HTTPClients,
    caught_as_any,
    package_for,
)

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
    """Sends the requests of one `RemoteRunnable`.

    Args:
        url: The URL of the chain, with a slash at the end of its path.
        options: What the HTTP clients are made with; a `timeout` of None stands for the bounds
            above.
        answers: Makes values, or errors, of answers.

    Attributes:
        clients: The HTTP clients.
    """

    def __init__(self, url: str, options: Mapping[str, Any], answers: AnswerReader) -> None:
        self._url = url
        self._answers = answers
        self._stream_options: dict[str, Any] = {"headers": EVENT_STREAM_HEADERS}
        if options["timeout"] is None:
            options = {**options, "timeout": _timeout(ANSWER_TIMEOUT)}
            self._stream_options["timeout"] = _timeout(STREAM_TIMEOUT)
        self.clients = HTTPClients(package_for(options.values()), options)

    def send(self, endpoint: str, body: bytes, kwargs: Mapping[str, Any]) -> tuple[Any, bytes]:
        """Send a request, and return the response and its body."""
        with caught_as_any():
            client = self.clients.sync
            response = client.send(self._request(client, endpoint, body, kwargs), stream=True)
            return response, self._read(response)

    async def asend(
        self, endpoint: str, body: bytes, kwargs: Mapping[str, Any]
    ) -> tuple[Any, bytes]:
        """Send a request, and return the response and its body."""
        with caught_as_any():
            client = self.clients.in_loop
            request = self._request(client, endpoint, body, kwargs)
            response = await client.send(request, stream=True)
            return response, await self._aread(response)

    def stream(
        self, endpoint: str, body: bytes, kwargs: Mapping[str, Any], run: RemoteRun
    ) -> Generator[Any]:
        """Send a request and yield what its stream carries.

        Raises:
            RemoteError: As `RemoteRunnable` says.
        """
        with caught_as_any():
            client = self.clients.sync
            request = self._request(client, endpoint, body, kwargs, **self._stream_options)
            response = client.send(request, stream=True)
            reader = StreamReader(self._answers, run, request)
            try:
                if not self._answers.is_stream(response):
                    self._answers.refuse(response, self._read(response), run)
                for data in response.iter_bytes():
                    yield from reader.feed(data)
                    if reader.ended:
                        return
            except CUT_ERRORS:
                pass  # The body was left unfinished, which is said below.
            finally:
                response.close()
            reader.finish()

    async def astream(
        self, endpoint: str, body: bytes, kwargs: Mapping[str, Any], run: RemoteRun
    ) -> AsyncGenerator[Any]:
        """Send a request and yield what its stream carries, as `stream` does."""
        with caught_as_any():
            client = self.clients.in_loop
            request = self._request(client, endpoint, body, kwargs, **self._stream_options)
            response = await client.send(request, stream=True)
            reader = StreamReader(self._answers, run, request)
            try:
                if not self._answers.is_stream(response):
                    self._answers.refuse(response, await self._aread(response), run)
                pieces = response.aiter_bytes()
                async for data in pieces:
                    for value in reader.feed(data):
                        yield value
                    if reader.ended:
                        await _drain(pieces)
                        return
            except CUT_ERRORS:
                pass  # The body was left unfinished, which is said below.
            finally:
                await response.aclose()
            reader.finish()

    def _request(
        self, client: Any, endpoint: str, body: bytes, kwargs: Mapping[str, Any], **options: Any
    ) -> Any:
        accepted = accepted_codings(client.headers.get("accept-encoding", ""))
        headers = {"accept-encoding": accepted, "content-type": "application/json"}
        headers |= options.pop("headers", {})
        if kwargs:  # A server that cannot pass them on shall say so.
            headers["prefer"] = "handling=strict"
        return client.build_request(
            "POST", below(self._url, endpoint), content=body, headers=headers, **options
        )

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
