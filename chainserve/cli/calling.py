"""One run of a chain on a server: called or joined, read, written, and cancelled by Ctrl-C."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any
from urllib.parse import quote

from langchain_core.messages import BaseMessage

from chainserve.cli.connecting import not_such_a_server, unreachable
from chainserve.cli.events import StreamEvent, events_of
from chainserve.cli.exits import (
    BAD_USAGE,
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    UNREACHABLE,
    CommandError,
)
from chainserve.cli.inputs import NoPlaceForTextError, input_of, json_input
from chainserve.cli.terminal import TextOutput, Waiting, tell
from chainserve.client import RemoteRunnable
from chainserve.client_errors import (
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.client_requests import shown_url
from chainserve.errors import RemoteError
from chainserve.serialization import WellKnownLCSerializer
from chainserve.transport import caught_as_any, errors_named

_LIBRARY_ERRORS = errors_named("HTTPError", "InvalidURL")
"""What httpx raises of a request."""

_NOT_CONNECTED = errors_named("ConnectError", "ConnectTimeout", "InvalidURL", "UnsupportedProtocol")
"""What it raises where no request was ever sent."""

_CANCEL_SECONDS = 2.0
"""How long a server may take to answer that it has cancelled a run."""


def call(url: str, text: str | None, options: argparse.Namespace) -> int:
    """Write what a run says, and return the exit code.

    Args:
        url: The URL of the chain.
        text: The input as it was given; None to join the run of `options.run_id`.
        options: The command's.
    """
    headers = dict(options.header)
    with RemoteRunnable[Any, Any](url, headers=headers, timeout=options.timeout) as remote:
        run = _Joined(remote, options) if text is None else _Started(remote, options, text)
        try:
            write = _write_events if options.json else _write_text
            write(run)
        except KeyboardInterrupt:
            tell(run.leave())
            return CANCELLED
        except (RemoteError, NoPlaceForTextError, *_LIBRARY_ERRORS) as error:  # type: ignore[misc]
            raise _as_command_error(url, error) from error
    return DONE


class _Started:
    """A run that is started by reading it."""

    def __init__(
        self, remote: RemoteRunnable[Any, Any], options: argparse.Namespace, text: str
    ) -> None:
        self._remote = remote
        self._options = options
        self._text = text
        self._run_id: str | None = None

    def chunks(self) -> Iterator[Any]:
        """Yield the run's chunks."""
        yield from self._remote.stream(self._input(), self._options.config)

    def events(self) -> Iterator[StreamEvent]:
        """Yield the run's events."""
        body = {"input": self._input(), "config": self._options.config or {}}
        client, timeout = self._remote.sync_client, self._options.timeout
        for event in events_of(client, "POST", "stream", timeout=timeout, json=body):
            if event.event == "metadata" and isinstance(event.data, dict):
                self._run_id = event.data.get("run_id")
            yield event

    def leave(self) -> str:
        """Cancel the run, and return what became of it."""
        last = self._remote.last_run
        run_id = self._run_id or (last.run_id if last else None)
        if run_id is None:  # The server cancels it, for its only reader has left.
            return "cancelled: the connection was closed before the server told a run id"
        with suppress(*_LIBRARY_ERRORS):
            path = f"runs/{quote(run_id, safe='')}/cancel"
            self._remote.sync_client.post(path, timeout=_CANCEL_SECONDS)
        return f"cancelled run {run_id}"

    def _input(self) -> Any:
        """Return the input; the chain's schema says what a text is."""
        value, is_known = json_input(self._text)
        return value if is_known else input_of(self._text, value, self._schema())

    def _schema(self) -> Mapping[str, Any]:
        """Return the schema of the chain's input; an empty one where it has none to show."""
        with caught_as_any():
            response = self._remote.sync_client.get("input_schema")
        schema: Any = None
        if response.status_code == 200:
            with suppress(ValueError, RecursionError):
                schema = response.json()
        return schema if isinstance(schema, dict) else {}


class _Joined:
    """A run that was started before, and goes on when its reader leaves."""

    def __init__(self, remote: RemoteRunnable[Any, Any], options: argparse.Namespace) -> None:
        self._remote = remote
        self._options = options

    def chunks(self) -> Iterator[Any]:
        """Yield the run's chunks."""
        serializer = WellKnownLCSerializer()
        for event in self.events():
            if event.event == "data":
                yield serializer.loadd(event.data)
            elif event.event == "error":
                raise _failed(event)

    def events(self) -> Iterator[StreamEvent]:
        """Yield the run's events."""
        path = f"runs/{quote(self._options.run_id, safe='')}/stream"
        timeout = self._options.timeout
        yield from events_of(self._remote.sync_client, "GET", path, timeout=timeout)

    def leave(self) -> str:
        """Return what became of the run."""
        return f"left run {self._options.run_id}, which goes on"


def _write_text(run: _Started | _Joined) -> None:
    output = TextOutput(sys.stdout)
    try:
        for chunk in _waited_for(run.chunks()):
            if isinstance(chunk, str):
                output.write(chunk)
            elif isinstance(chunk, BaseMessage):
                output.write(str(chunk.text))
            else:
                output.write_line(WellKnownLCSerializer().dumps(chunk).decode())
    finally:
        output.end()


def _write_events(run: _Started | _Joined) -> None:
    for event in _waited_for(run.events()):
        print(json.dumps(event._asdict()), flush=True)
        if event.event == "error":
            raise _failed(event)


def _waited_for(values: Iterator[Any]) -> Iterator[Any]:
    """Yield values, and say on a terminal how long each is waited for, if nothing is in the way."""
    with Waiting(sys.stderr) as waiting, closing(values):  # type: ignore[type-var]
        for value in values:
            if sys.stdout.isatty():  # From now on the notice would stand within the text.
                waiting.stop()
            waiting.erase()
            yield value


def _failed(event: StreamEvent) -> CommandError:
    told = event.data if isinstance(event.data, dict) else {}
    return CommandError(f"The run failed: {told.get('message', event.data)}", FAILED)


def _as_command_error(url: str, error: Exception) -> CommandError:
    """Return an error as this command tells it, with its exit code."""
    match error:
        case RemoteStatusError() if _is_from_elsewhere(error):
            return CommandError(not_such_a_server(shown_url(url), error.response.text), UNREACHABLE)
        case RemoteStatusError():
            return CommandError(str(error), FAILED)
        case StreamInterruptedError():
            return CommandError(str(error), INTERRUPTED)
        case UnexpectedAnswerError():
            return CommandError(str(error), UNREACHABLE)
        case NoPlaceForTextError():
            return CommandError(str(error), BAD_USAGE)
    if isinstance(error, _NOT_CONNECTED):
        return unreachable(url, error)
    reason = str(error) or type(error).__name__
    return CommandError(f"The connection to {shown_url(url)} was lost: {reason}", INTERRUPTED)


def _is_from_elsewhere(error: RemoteStatusError) -> bool:
    """Tell whether something else has answered, such as a proxy: neither a problem nor JSON."""
    is_in_stream = error.detail == str(error)
    is_json = "json" in error.response.headers.get("content-type", "")
    return not is_in_stream and not is_json
