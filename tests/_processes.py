"""Servers as processes of their own: started, watched by what they print, ended by signals.

And what a server does to its process, undone.
"""

import gc
import http.client
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 30.0
"""Several start at once, on a machine that may have little to spare."""

_LISTENING = re.compile(r"(?:Uvicorn running on|serves .+ at) http://127\.0\.0\.1:(\d+)")
ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class ServerProcess:
    """A server in a process; everything it prints is kept.

    Args:
        arguments: What follows `python` on the command line.
        environment: Variables beside PATH; no others are passed on.
        directory: Where it runs.
    """

    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str], directory: Path = ROOT
    ) -> None:
        self._printed: list[str] = []
        self._grown = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env={"PATH": os.environ["PATH"], **environment},
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return "".join(self._printed)

    def port(self) -> int:
        """Wait until it listens, and return its port."""
        with self._grown:
            assert self._grown.wait_for(self._listens_or_ended, START_SECONDS), self.output
        found = _LISTENING.search(self.output)
        assert found is not None, self.output
        return int(found[1])

    def until_printed(self, text: str) -> None:
        """Wait until it has printed the text: what it prints may come after what it answers."""
        with self._grown:
            assert self._grown.wait_for(lambda: text in self.output, START_SECONDS), self.output

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> tuple[int, float]:
        """Wait for its end; return its exit code and how many seconds that took."""
        began = time.monotonic()
        code = self._process.wait(seconds)
        took = time.monotonic() - began
        self._reader.join(seconds)
        return code, took

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait(5)
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listens_or_ended(self) -> bool:
        return _LISTENING.search(self.output) is not None or self._process.poll() is not None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._grown:
                self._printed.append(line)
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()


@contextmanager
def asking(
    port: int, method: str, path: str, json: object = None
) -> Iterator[http.client.HTTPResponse]:
    """Send a request and enter when the response's head is there; leaving hangs up."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        body = None if json is None else dumps(json)
        headers = {} if json is None else {"content-type": "application/json"}
        connection.request(method, path, body, headers)
        yield connection.getresponse()
    finally:
        connection.close()


def ask(port: int, method: str, path: str, json: object = None) -> tuple[int, str]:
    """Return the status and the body of a response."""
    with asking(port, method, path, json) as response:
        return response.status, response.read().decode()


@contextmanager
def undone() -> Iterator[None]:
    """Undo what a server's start does to its process: here, to that of the tests."""
    logger, threshold = logging.getLogger("chainserve"), gc.get_threshold()
    level, handlers, propagate = logger.level, [*logger.handlers], logger.propagate
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.handlers[:], logger.propagate = handlers, propagate
        gc.unfreeze()
        gc.set_threshold(*threshold)
