"""Workers: processes that share a server's socket, so that any of them may get any request."""

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress

from chainserve.errors import ConfigurationError

SEVERAL_WORKERS = (
    "Several workers would each keep runs in a memory of their own: what resumes a stream, asks "
    "for a run or repeats an idempotency key would reach the wrong one. Serve with one worker, or "
    "keep nothing beyond a request: CHAINSERVE_STATELESS=true, or `chainserve serve --stateless`."
)


def refuse_second_worker() -> None:
    """Claim the sockets that this process was given to listen on, as long as it has them.

    A process that binds its own is alone there. That others have the same is noticed on Linux.

    Raises:
        ConfigurationError: Another process has claimed one.
    """
    if sys.platform != "linux":
        return
    import fcntl

    for fd in _bound_sockets():
        try:
            # Of all locks only this one is not shared by those who share the open socket. The
            # kernel takes it back when the process ends or closes the socket.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(SEVERAL_WORKERS) from None


def _bound_sockets() -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # What has listed them is closed by now.
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode) and _is_bound(int(name)):
                yield int(name)


def _is_bound(fd: int) -> bool:
    """Tell whether connections can come to a socket, now or once it listens."""
    found = socket.socket(fileno=fd)
    try:
        if found.type != socket.SOCK_STREAM or not _has_address(found.getsockname()):
            return False
        found.getpeername()
    except OSError:
        return True  # It has no peer.
    finally:
        found.detach()  # It is somebody else's to close.
    return False


def _has_address(name: object) -> bool:
    """Tell whether a socket's name is a path, or has a port."""
    return bool(name[1] if isinstance(name, tuple) else name)
