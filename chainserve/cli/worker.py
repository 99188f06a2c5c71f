"""A server process of `chainserve serve --reload`: it imports what takes long, and then waits."""

import gc
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from starlette.types import Receive, Scope, Send

import chainserve.app  # noqa: F401 - it takes longest to import, so it is there before it is needed
from chainserve.cli.interrupts import let_interrupts_in
from chainserve.cli.reload import Report
from chainserve.cli.serving import AnnouncingServer, server_config
from chainserve.cli.target import Application, Folder, Loaded
from chainserve.errors import ConfigurationError
from chainserve.problems import problem_response
from chainserve.settings import read_settings

END_SECONDS = 0.5
"""How long a server may take to end, whatever its chains do."""


class _NotLoadedError(ConfigurationError):
    """What is to be served cannot be; in development that is known to be mended soon."""

    status_code = 503


def work(
    orders: Connection,
    listener: socket.socket,
    target: Folder | Application,
    modules: Sequence[str],
) -> None:
    """Wait for the order to serve, and serve until there will be no more orders.

    Open streams are ended at once then, and the process ends with all of its threads.

    Args:
        orders: Where the order comes from, and what is reported goes to.
        listener: The socket.
        target: What is served.
        modules: Installed modules that it will import anyway.
    """
    for name in modules:
        with suppress(Exception):  # Whoever needs it will be told.
            importlib.import_module(name)
    gc.freeze()  # The collector would look at all of it again and again while chains are mounted.
    with suppress(OSError):  # So that a debugger works in a chain; there may be no such file.
        sys.stdin = os.fdopen(0, closefd=False)
    try:
        orders.recv()
    except EOFError:
        return
    _leave_interrupts()
    servers: list[_Server] = []
    threading.Thread(target=_end_without_orders, args=(orders, servers), daemon=True).start()
    _serve(orders, listener, target, servers)


class _Server(AnnouncingServer):
    """Serves until it is told to end: signals are for the process that tells it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take no notice of a signal."""


def _serve(
    orders: Connection,
    listener: socket.socket,
    target: Folder | Application,
    servers: list[_Server],
) -> None:
    # A module that changes twice within a second would be taken for what was compiled before.
    sys.dont_write_bytecode = True
    loaded, failure = _load(target)
    settings = read_settings()
    lifespan = "off" if failure else "auto"
    config = server_config(loaded.app, settings, lifespan=lifespan, timeout_graceful_shutdown=0)
    logging.getLogger("uvicorn.error").addFilter(_is_worth_saying)
    report = Report([*loaded.chains], failure, _installed_modules())
    server = _Server(config, lambda: _report(orders, report))
    servers.append(server)
    server.run(sockets=[listener])


def _leave_interrupts() -> None:
    """Leave Ctrl-C to the process that has started this one, but not for what a chain starts.

    A handler, unlike a mask or `SIG_IGN`, is not what processes get from the one that starts them.
    """
    signal.signal(signal.SIGINT, lambda *_: None)
    let_interrupts_in()


def _load(target: Folder | Application) -> tuple[Loaded, str | None]:
    """Return what is served, and why it is not what should be."""
    try:
        return target.load(), None
    except ConfigurationError as error:
        answer = problem_response(_NotLoadedError(str(error)))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await answer(scope, receive, send)

        return Loaded(app, []), str(error)


def _installed_modules() -> list[str]:
    """Return the names of what was imported that no change of the project changes."""
    known = [*sys.modules.items()]
    files = ((name, getattr(module, "__file__", None)) for name, module in known)
    return [name for name, file in files if file and _INSTALLED.intersection(Path(file).parts)]


_INSTALLED = frozenset({"site-packages", "dist-packages"})


def _report(orders: Connection, report: Report) -> None:
    with suppress(OSError):  # Who would be told has ended.
        orders.send(report)


def _end_without_orders(orders: Connection, servers: Sequence[_Server]) -> None:
    """End what serves when nobody is left who could say so, with a process that ends in time.

    It ends while it imports, too.
    """
    with suppress(EOFError, OSError):
        orders.recv()
    for server in servers:
        server.should_exit = True
    time.sleep(END_SECONDS)
    os._exit(0)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Tell whether a line of uvicorn's is news: that streams are ended at once is on purpose."""
    return record.levelno >= logging.WARNING and not record.getMessage().startswith("Cancel ")
