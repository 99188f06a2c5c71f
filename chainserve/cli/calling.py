"""One run of a chain on a server: called or joined, read, written, and cancelled by Ctrl-C."""

import argparse
import json
import sys
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

from langchain_core.messages import BaseMessage

from chainserve.cli.inputs import input_of, json_input
from chainserve.cli.remote import RemoteChain, StreamEvent, failures_told
from chainserve.cli.terminal import TextOutput, Waiting, say, tell, telling
from chainserve.client_errors import RemoteError
from chainserve.serialization import WellKnownLCSerializer


def call(url: str, text: str | None, options: argparse.Namespace) -> None:
    """Write what a run says.

    Args:
        url: The URL of the chain.
        text: The input as it was given; None to join the run of `options.run_id`.
        options: The command's.

    Raises:
        CommandError: It cannot be called, or fails.
        KeyboardInterrupt: By Ctrl-C; what became of the run has been said.
    """
    with RemoteChain(url, options.header, options.timeout) as remote, failures_told(url):
        run = _Joined(remote, options) if text is None else _Started(remote, options, text)
        try:
            with Waiting(sys.stderr) as waiting, telling(waiting):
                _read(run, options, waiting)
        except KeyboardInterrupt:
            tell(run.farewell())
            raise


def _read(run: "_Started | _Joined", options: argparse.Namespace, waiting: Waiting) -> None:
    """Write what a run says; who leaves before its end has left it when this returns."""
    values = run.values()
    write = _write_events if options.json else _write_text
    with closing(values):
        write(_noted(values, waiting))


class _Started:
    """A run that is started by reading it, and cancelled by leaving it."""

    def __init__(self, remote: RemoteChain, options: argparse.Namespace, text: str) -> None:
        self._remote = remote
        self._options = options
        self._text = text

    def values(self) -> Generator[Any]:
        """Return the run's chunks, or events."""
        schema = _schema(self._remote)
        value, is_known = json_input(self._text)
        given = value if is_known else input_of(self._text, value, schema)
        read: Any = self._remote.events if self._options.json else self._remote.stream
        return read(given, self._options.config)  # type: ignore[no-any-return]

    def farewell(self) -> str:
        """Return what became of a run that was left."""
        run = self._remote.last_run
        if run is None:
            return "cancelled before the run was started"
        name = f"run {run.run_id}" if run.run_id else "the run"
        if run.status == "cancelled":
            return f"cancelled {name}"
        if run.status in ("success", "error", "timeout"):
            return f"left {name}, which had ended: {run.status}"
        return f"left {name}, which the server has not said to be cancelled"


class _Joined:
    """A run that was started before, and goes on when its reader leaves."""

    def __init__(self, remote: RemoteChain, options: argparse.Namespace) -> None:
        self._remote = remote
        self._options = options

    def values(self) -> Generator[Any]:
        """Return the run's chunks, or events."""
        _schema(self._remote)
        read: Any = self._remote.joined_events if self._options.json else self._remote.join
        return read(self._options.run_id)  # type: ignore[no-any-return]

    def farewell(self) -> str:
        """Return what became of a run that was left."""
        return f"left run {self._options.run_id}, which goes on"


def _schema(remote: RemoteChain) -> Any:
    """Return the schema of the chain's input, asked for with a request that is not made again.

    So a server that is not there is told at once; while a run is read it may come back.
    """
    try:
        return remote.get("input_schema")
    except RemoteError:
        return {}  # What is wrong, the answer to the run tells better.


def _noted(values: Iterable[Any], waiting: Waiting) -> Generator[Any]:
    """Yield values, each when what was shown of the wait for it is taken away."""
    for value in values:
        if sys.stdout.isatty():  # From now on the notice would stand within the text.
            waiting.stop()
        waiting.erase()
        yield value


def _write_text(chunks: Iterable[Any]) -> None:
    with TextOutput(sys.stdout) as output:
        for chunk in chunks:
            if isinstance(chunk, str):
                output.write(chunk)
            elif isinstance(chunk, BaseMessage):
                output.write(str(chunk.text))
            else:
                output.write_line(WellKnownLCSerializer().dumps(chunk).decode())


def _write_events(events: Iterable[StreamEvent]) -> None:
    for event in events:
        say(json.dumps(event._asdict()))
