"""One run of a chain on a server: called or joined, read, written, and cancelled by Ctrl-C."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from langchain_core.messages import BaseMessage

from chainserve.cli.connecting import LISTED, not_such_a_server, unreachable
from chainserve.cli.events import RemoteChain, StreamEvent
from chainserve.cli.exits import (
    BAD_USAGE,
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    UNREACHABLE,
    CommandError,
)
from chainserve.cli.inputs import input_of, json_input
from chainserve.cli.terminal import TextOutput, Waiting, tell, telling
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


def call(url: str, text: str | None, options: argparse.Namespace) -> int:
    """Write what a run says, and return the exit code.

    Args:
        url: The URL of the chain.
        text: The input as it was given; None to join the run of `options.run_id`.
        options: The command's.
    """
    headers = dict(options.header)
    with RemoteChain(url, headers=headers, timeout=options.timeout) as remote:
        run = _Joined(remote, options) if text is None else _Started(remote, options, text)
        try:
            run.check()
            write = _write_events if options.json else _write_text
            write(run)
        except KeyboardInterrupt:
            tell(run.farewell())
            return CANCELLED
        except (RemoteError, ValueError, *_LIBRARY_ERRORS) as error:  # type: ignore[misc]
            raise _as_command_error(url, error) from error
    return DONE


class _Run:
    """A run that is read."""

    def __init__(self, remote: RemoteChain, options: argparse.Namespace) -> None:
        self._remote = remote
        self._options = options
        self._schema: Mapping[str, Any] = {}

    def check(self) -> None:
        """Ask for the schema of the chain's input, with a request that is not made again.

        So a server that is not there is told at once; while a run is read it may come back.
        """
        with caught_as_any():
            response = self._remote.sync_client.get("input_schema")
        schema: Any = None
        if response.status_code == 200:
            with suppress(ValueError, RecursionError):
                schema = response.json()
        self._schema = schema if isinstance(schema, dict) else {}


class _Started(_Run):
    """A run that is started by reading it, and cancelled by leaving it."""

    def __init__(self, remote: RemoteChain, options: argparse.Namespace, text: str) -> None:
        super().__init__(remote, options)
        self._text = text

    def chunks(self) -> Iterator[Any]:
        """Yield the run's chunks."""
        yield from self._remote.stream(self._input(), self._options.config)

    def events(self) -> Iterator[StreamEvent]:
        """Yield the run's events."""
        yield from self._remote.events(self._input(), self._options.config)

    def farewell(self) -> str:
        """Return what became of a run that was left."""
        run = self._remote.last_run
        if run is None:
            return "cancelled before the run was started"
        return f"cancelled run {run.run_id}" if run.run_id else "cancelled the run"

    def _input(self) -> Any:
        value, is_known = json_input(self._text)
        return value if is_known else input_of(self._text, value, self._schema)


class _Joined(_Run):
    """A run that was started before, and goes on when its reader leaves."""

    def chunks(self) -> Iterator[Any]:
        """Yield the run's chunks."""
        yield from self._remote.join(self._options.run_id)

    def events(self) -> Iterator[StreamEvent]:
        """Yield the run's events."""
        yield from self._remote.joined_events(self._options.run_id)

    def farewell(self) -> str:
        """Return what became of a run that was left."""
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


def _waited_for(values: Iterator[Any]) -> Iterator[Any]:
    """Yield values; on a terminal, say how long each is waited for, and what is tried meanwhile."""
    with Waiting(sys.stderr) as waiting, telling(waiting), closing(values):  # type: ignore[type-var]
        for value in values:
            if sys.stdout.isatty():  # From now on the notice would stand within the text.
                waiting.stop()
            waiting.erase()
            yield value


def _as_command_error(url: str, error: Exception) -> CommandError:
    """Return an error as this command tells it, with its exit code."""
    match error:
        case RemoteStatusError() if _is_from_elsewhere(error):
            return CommandError(not_such_a_server(shown_url(url), error.response.text), UNREACHABLE)
        case RemoteStatusError():
            if _is_in_stream(error):
                return CommandError(f"The run failed: {error}", FAILED)
            hint = f" {LISTED}" if (error.status_code, error.code) == (404, "http_error") else ""
            return CommandError(f"{error}{hint}", FAILED)
        case StreamInterruptedError():
            return CommandError(str(error), INTERRUPTED)
        case UnexpectedAnswerError():
            return CommandError(str(error), UNREACHABLE)
        case ValueError():
            return CommandError(str(error), BAD_USAGE)
    if isinstance(error, _NOT_CONNECTED):
        return unreachable(url, error)
    reason = str(error) or type(error).__name__
    return CommandError(f"The connection to {shown_url(url)} was lost: {reason}", INTERRUPTED)


def _is_in_stream(error: RemoteStatusError) -> bool:
    """Tell whether a stream has told of an error: then there is nothing but its message."""
    return bool(error.detail == str(error))


def _is_from_elsewhere(error: RemoteStatusError) -> bool:
    """Tell whether something else has answered, such as a proxy: neither a problem nor JSON."""
    is_json = "json" in error.response.headers.get("content-type", "")
    return not _is_in_stream(error) and not is_json
