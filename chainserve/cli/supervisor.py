"""`chainserve serve --workers`: several server processes that share a socket."""

import socket
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from typing import Any

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from chainserve.cli.exits import DONE, CommandError
from chainserve.cli.interrupts import interrupts_held, let_interrupts_in
from chainserve.cli.serving import announcement, listen, server_config
from chainserve.cli.target import Application, Folder, ServedChain
from chainserve.cli.terminal import say
from chainserve.errors import ConfigurationError
from chainserve.settings import Settings


def serve_with_workers(target: Folder | Application, settings: Settings, workers: int) -> int:
    """Serve a target in some processes until a signal stops them, and return the exit code.

    Raises:
        CommandError: A worker cannot start.
    """
    with closing(listen(settings.host, settings.port)) as listener:
        supervisor = _Supervisor(target, settings, workers, listener)
        supervisor.run()
    if supervisor.failure is not None:
        raise CommandError(supervisor.failure)
    return DONE


class _Supervisor(Multiprocess):
    """Says when all workers serve; until then, the end of one is the end of all.

    One that ends later is replaced, unless its replacement cannot start.
    """

    def __init__(
        self,
        target: Folder | Application,
        settings: Settings,
        workers: int,
        listener: socket.socket,
    ) -> None:
        self.failure: str | None = None
        self._target = target
        self._listener = listener
        self._loaded: list[Sequence[ServedChain]] = []
        self._serves = False
        # Where each worker says which chains it has loaded, or why it could not.
        self._reports: Any = get_context("spawn").SimpleQueue()
        config = server_config(
            partial(_application, target, self._reports),
            settings,
            factory=True,
            workers=workers,
        )
        super().__init__(config, [listener])

    def init_processes(self) -> None:
        """Start the workers."""
        with interrupts_held():
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        """See what has become of the workers; uvicorn asks for it twice a second."""
        if self.should_exit.is_set():
            return
        if self._serves:
            super().keep_subprocess_alive()
        elif any(process.exitcode is not None for process in self.processes):
            self.should_exit.set()
        self._take_reports()
        if self.should_exit.is_set():
            self.failure = self.failure or "A worker has ended before it served."
        elif not self._serves:
            self._announce_if_all_serve()

    def _take_reports(self) -> None:
        while not self._reports.empty():
            report = self._reports.get()
            if isinstance(report, str):
                self.failure = self.failure or report
            else:
                self._loaded.append(report)

    def _announce_if_all_serve(self) -> None:
        if len(self._loaded) < self.processes_num:
            return  # One that still imports would let the question wait.
        self._serves = all(process.is_ready() for process in self.processes)
        if self._serves:
            what, chains = str(self._target), self._loaded[0]
            say(announcement(what, chains, self._listener, workers=self.processes_num))


def _application(target: Folder | Application, reports: Any) -> Any:
    """Return what a worker serves."""
    let_interrupts_in()
    try:
        loaded = target.load()
    except ConfigurationError as error:
        reports.put(str(error))
        raise SystemExit(STARTUP_FAILURE) from error
    reports.put([*loaded.chains])
    return loaded.app
