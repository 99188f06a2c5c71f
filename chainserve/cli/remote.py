"""A chain on a server as commands ask it, and what they say of a server that fails."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from chainserve.calls import Call
from chainserve.cli.connecting import is_loopback
from chainserve.cli.exits import BAD_USAGE, FAILED, INTERRUPTED, UNREACHABLE, CommandError
from chainserve.client import RemoteRunnable
from chainserve.client_errors import (
    RemoteError,
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.client_requests import shown_url
from chainserve.remote import RemoteRun
from chainserve.remote_streams import StreamReader
from chainserve.retries import Retries
from chainserve.transport import caught_as_any, errors_named
from chainserve.wire.parser import ReceivedEvent

_TIMEOUT = (10.0, 60.0, 60.0, 60.0)
"""Seconds to connect, to wait for the next sign of life, to send, and for a free connection."""

_DIRECT = {"http://": None, "https://": None}
"""Has this machine be reached without the proxy that the environment may name: none knows it."""

LISTED = "`chainserve list URL` lists the chains of a server."
"""What is said where a server has no such chain."""

_MAX_SHOWN = 300
"""How many characters of an answer that nobody expects are shown."""

_LIBRARY_ERRORS = errors_named("HTTPError", "InvalidURL")
"""What httpx raises of a request."""

_NOT_CONNECTED = errors_named("ConnectError", "ConnectTimeout", "InvalidURL", "UnsupportedProtocol")
"""What it raises where no request was ever sent."""


class StreamEvent(NamedTuple):
    """An event of a stream.

    Attributes:
        event: Its name.
        data: Its data; None where it has none, and a text where that is no JSON.
        id: Its id; None on the wires that have none.
    """

    event: str
    data: Any
    id: str | None


class RemoteChain(RemoteRunnable[Any, Any]):
    """A `RemoteRunnable` that gives whole events, too: what `stream` and `join` make chunks of.

    It resumes after cuts, and cancels what it has started when it is left, just as they do.

    Args:
        url: As of `RemoteRunnable`; of a server, where none of its chains is called.
        headers: Sent with each request.
        timeout: Seconds; those above when None.
    """

    def __init__(self, url: str, headers: Any, timeout: float | None = None) -> None:
        direct = _DIRECT if is_loopback(urlsplit(url).hostname) else {}
        super().__init__(
            url, headers=headers, timeout=timeout or _TIMEOUT, client_kwargs={"mounts": direct}
        )

    def get(self, path: str) -> Any:
        """Return the JSON that a GET answers, which is not made again.

        Raises:
            RemoteError: The server refuses, or answers something else.
        """
        call = Call("GET", path, b"", RemoteRun(), Retries(0), repeatable=False)
        response, body = self._exchanges.send(call)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            text = body[: 4 * _MAX_SHOWN].decode(errors="replace")
            raise unexpected(str(response.request.url), text) from None

    def events(self, input: Any, config: Any = None) -> Generator[StreamEvent]:
        """Run the chain once, and yield the events of its stream up to the terminal one.

        Raises:
            RemoteError: As the class says; the run's own error after its event.
        """
        body, run = self._body(input, config, {}), self._new_run()
        yield from self._exchanges.stream(
            self._stream("stream", body, {}, run, reader=_EventReader)
        )

    def joined_events(self, run_id: str) -> Generator[StreamEvent]:
        """Yield the events of a run that was started before, as `events` does."""
        yield from self._exchanges.stream(self._join(run_id, "", reader=_EventReader))


class _EventReader(StreamReader):
    """Yields each event before what it tells is heeded."""

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        for event in self._events(data):
            yield _told(event)
            self._heed(event)
            if self.ended:
                return


def _told(event: ReceivedEvent) -> StreamEvent:
    data: Any = event.data
    if event.data is not None:
        with suppress(ValueError, RecursionError):
            data = json.loads(event.data)
    return StreamEvent(event.event, data, event.last_event_id or None)


def unexpected(url: str, answer: str) -> UnexpectedAnswerError:
    """Return the error for an answer that no chainserve gives."""
    shown = " ".join(answer[:_MAX_SHOWN].split())
    answered = f"{shown_url(url)} answered what no chainserve answers. Is it the right URL?"
    return UnexpectedAnswerError(f"{answered} {shown}".rstrip())


@contextmanager
def failures_told(url: str, if_not_found: str = LISTED) -> Iterator[None]:
    """Have the client's errors end the command, each with a sentence and its exit code.

    Args:
        url: What is asked.
        if_not_found: What is said beside a 404 of a path.

    Raises:
        CommandError: Instead of them.
    """
    try:
        with caught_as_any():
            yield
    except (RemoteError, ImportError, ValueError, *_LIBRARY_ERRORS) as error:  # type: ignore[misc]
        raise _as_command_error(url, error, if_not_found) from error


def _as_command_error(url: str, error: Exception, if_not_found: str) -> CommandError:
    match error:
        case RemoteStatusError() if _is_in_stream(error):
            return CommandError(f"The run failed: {error}", FAILED)
        case RemoteStatusError() if _is_from_elsewhere(error):
            return CommandError(f"{error} Is it the URL of a chainserve?", UNREACHABLE)
        case RemoteStatusError(status_code=404, code="http_error"):
            return CommandError(f"{error} {if_not_found}", FAILED)
        case RemoteStatusError():
            return CommandError(str(error), FAILED)
        case StreamInterruptedError():
            return CommandError(str(error), INTERRUPTED)
        case UnexpectedAnswerError():
            return CommandError(str(error), UNREACHABLE)
        case ValueError() | ImportError():  # A proxy may need a package that is not there.
            return CommandError(str(error), BAD_USAGE)
    reason = str(error) or type(error).__name__
    if isinstance(error, _NOT_CONNECTED):
        return CommandError(
            f"{shown_url(url)} cannot be reached: {reason}. Start it with `chainserve serve`, or "
            "give the URL of the one that runs.",
            UNREACHABLE,
        )
    return CommandError(f"The connection to {shown_url(url)} was lost: {reason}", INTERRUPTED)


def _is_in_stream(error: RemoteStatusError) -> bool:
    """Tell whether a stream has told of an error: then there is nothing but its message."""
    return bool(error.detail == str(error))


def _is_from_elsewhere(error: RemoteStatusError) -> bool:
    """Tell whether something else has answered: chainserve and LangServe say what is wrong."""
    try:
        told = error.response.json()
    except (ValueError, RecursionError):
        return True
    return not isinstance(told, dict) or not {"detail", "message"} & told.keys()
