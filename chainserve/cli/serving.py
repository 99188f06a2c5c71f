"""One server process of `chainserve serve`: where it listens, and what it says when it does."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import uvicorn

from chainserve.cli.exits import DONE, FAILED, CommandError
from chainserve.cli.target import Application, Folder, ServedChain
from chainserve.errors import ConfigurationError
from chainserve.settings import Settings, read_settings
from chainserve.version import __version__

_EVERYWHERE = ("0.0.0.0", "::")


def settings_of_the_environment() -> Settings:
    """Return the settings.

    Raises:
        CommandError: One of them cannot be used.
    """
    try:
        return read_settings()
    except ConfigurationError as error:
        raise CommandError(str(error)) from None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; the server that gets it listens.

    Raises:
        CommandError: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small pieces at once only where the socket's protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # Elsewhere the option lets two servers share a port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, UnicodeError) as error:  # No host has a name like some.
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise CommandError(
            f"Port {port} of {host} cannot be used: {reason}. "
            "End what uses it, or choose another: --port 8001"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL at which a socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in _EVERYWHERE:
        host = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announcement(
    target: str,
    chains: Sequence[ServedChain],
    listener: socket.socket,
    *,
    reloads: bool = False,
    workers: int = 1,
) -> str:
    """Return what is said when a server has started."""
    url = url_of(listener)
    what = _count(len(chains), "chain") if chains else target
    lines = [f"chainserve {__version__} serves {what} at {url}"]
    if workers > 1:
        lines[0] += f" with {workers} workers"
    if listener.getsockname()[0] in _EVERYWHERE:
        lines[0] += " and at every other address of this machine"
    width = max((len(one.path) for one in chains), default=0)
    for one in chains:
        model = f" ({one.model})" if one.model else ""
        lines.append(f"  {one.path:{width}}  {one.title}{model}")
    if reloads:
        lines.append("It starts again whenever a file changes.")
    return "\n".join([*lines, "Ctrl-C stops it."])


def serve_here(target: Folder | Application, settings: Settings) -> int:
    """Serve a target in this process until a signal stops it, and return the exit code."""
    with closing(listen(settings.host, settings.port)) as listener:
        try:
            loaded = target.load()
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        said = announcement(str(target), loaded.chains, listener)
        config = server_config(loaded.app, settings)
        server = AnnouncingServer(config, lambda: print(said, flush=True))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            return DONE
        except SystemExit:  # The application's start-up failed, and uvicorn has said how.
            return FAILED
    return DONE


def server_config(app: Any, settings: Settings, **options: Any) -> uvicorn.Config:
    """Return how uvicorn serves an application: as `run` has it, but for these options."""
    return uvicorn.Config(app, **{**settings.uvicorn_options(), **options})


class AnnouncingServer(uvicorn.Server):
    """Says when it serves.

    Args:
        config: How it serves.
        announce: Called when it takes requests.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._announce()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
