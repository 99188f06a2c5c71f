"""`chainserve serve --reload`: a server that is started again whenever a file changes.

uvicorn's own reloader waits until all is imported, and sees no new files. Here the next server is a
process that waits already, with everything imported but the project's own modules.
"""

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from chainserve.cli.interrupts import interrupts_held
from chainserve.cli.serving import announcement
from chainserve.cli.target import Application, Folder, ServedChain
from chainserve.cli.terminal import tell
from chainserve.cli.watch import Watch

_INTERVAL = 0.1
"""Seconds between two looks at the files, unless a look takes long."""

_LOOKING_SHARE = 0.2
"""The part of the time that goes into looking, at most."""

_KILL_SECONDS = 1.0
"""After so long a server process that was told to end is killed."""

_MAX_SHOWN = 3
"""How many changed files are named."""


class Report(NamedTuple):
    """What a server process says when it serves.

    Attributes:
        chains: The chains that it serves.
        failure: Why it serves none; requests are answered with it.
        modules: The installed modules that it has imported, in their order.
    """

    chains: list[ServedChain]
    failure: str | None
    modules: list[str]


class Reloader:
    """Keeps one server process that serves, and a second one that could at once.

    Args:
        target: What is served.
        listener: The socket; what connects between two servers waits there for the next.
        patterns: Files to watch beside those of Python.
    """

    def __init__(
        self, target: Folder | Application, listener: socket.socket, patterns: Sequence[str]
    ) -> None:
        self._target = target
        self._listener = listener
        self._watch = Watch([Path(), target.watched], patterns)
        self._stopping = threading.Event()
        self._chains: Sequence[ServedChain] | None = None
        self._modules: Sequence[str] = ()
        self._began = time.monotonic()
        self._spare: _Worker | None = None
        self._current = self._start()

    def run(self) -> None:
        """Serve until a signal comes."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        try:
            while not self._stopping.wait(self._look()):
                pass
        finally:
            for worker in (self._current, self._spare):
                if worker is not None:
                    worker.end()

    def _look(self) -> float:
        """Do what there is to do, and return after how many seconds to look again."""
        if (report := self._current.report()) is not None:
            self._tell(report)
            self._modules = report.modules
            self._spare = self._spare or self._make()
        elif self._current.has_died():
            tell("The server's process has ended. The next change of a file starts it again.")
        began = time.monotonic()
        changed = self._watch.changed()
        if changed:
            self._restart(changed)
        return max(_INTERVAL, (time.monotonic() - began) / _LOOKING_SHARE)

    def _restart(self, changed: Sequence[str]) -> None:
        self._began = time.monotonic()
        shown = [_relative(path) for path in changed[:_MAX_SHOWN]]
        more = f" and {len(changed) - _MAX_SHOWN} more" if len(changed) > _MAX_SHOWN else ""
        tell(f"{', '.join(shown)}{more} changed.")
        self._current.end()
        self._current = self._start()

    def _start(self) -> "_Worker":
        worker, self._spare = self._spare, None
        if worker is None or not worker.is_alive:
            worker = self._make()
        worker.go()
        return worker

    def _make(self) -> "_Worker":
        return _Worker(self._target, self._listener, self._modules)

    def _tell(self, report: Report) -> None:
        if report.failure is not None:
            tell(f"{report.failure}\nWaiting for a change…")
            self._chains = None
        elif report.chains == self._chains:
            tell(f"Started again after {time.monotonic() - self._began:.2f} s.")
        else:
            self._chains = report.chains
            told = announcement(str(self._target), self._chains, self._listener, reloads=True)
            print(told, flush=True)


class _Worker:
    """A process that can serve, and does so when it is told to."""

    def __init__(
        self, target: Folder | Application, listener: socket.socket, modules: Sequence[str]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._is_known_dead = False
        self._process = context.Process(target=_work, args=(theirs, listener, target, modules))
        with interrupts_held():
            self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        """Whether there is such a process."""
        return self._process.is_alive()

    def go(self) -> None:
        """Have it serve, unless it has died."""
        with suppress(OSError):
            self._orders.send(None)

    def report(self) -> Report | None:
        """Return what it has said since the last call."""
        with suppress(EOFError, OSError):
            if self._orders.poll():
                report: Report = self._orders.recv()
                return report
        return None

    def has_died(self) -> bool:
        """Tell once that it has ended by itself."""
        if self._is_known_dead or self.is_alive:
            return False
        self._is_known_dead = True
        return True

    def end(self) -> None:
        """End it: it takes a lack of further orders for one."""
        self._orders.close()
        self._process.join(_KILL_SECONDS)
        if self.is_alive:
            self._process.kill()
            self._process.join()
        self._process.close()


def _work(*arguments: Any) -> None:
    from chainserve.cli.worker import work

    work(*arguments)


def _relative(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
