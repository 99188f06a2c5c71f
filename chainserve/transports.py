"""What ASGI has no word for: the transport of a connection of uvicorn, and its socket."""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, cast

from starlette.types import Receive, Send

try:
    import fcntl
    import termios
except ImportError:  # Windows has neither.
    fcntl = termios = None  # type: ignore[assignment]

_WRITE_POLL_INTERVAL = 0.02
"""Seconds between two looks at whether a transport has written what it holds."""


def transport_of(*callables: Any) -> asyncio.Transport | None:
    """Return the connection's transport, if the server is uvicorn.

    ASGI has no word for ending a connection: a server that waits for a client to read goes on
    waiting after the application has returned. uvicorn's `receive` and `send` are methods of an
    object that has the transport; frameworks wrap them in closures.
    """
    seen: set[int] = set()
    pending = [*reversed(callables)]  # The first is looked at first.
    while pending and len(seen) < 200:
        found = pending.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        owner = getattr(found, "__self__", None)
        transport = getattr(owner, "transport", None)
        if hasattr(transport, "abort") and hasattr(transport, "get_write_buffer_size"):
            # Not by its class: uvloop's transports are no asyncio.Transport.
            return cast("asyncio.Transport", transport)
        pending += [cell.cell_contents for cell in getattr(found, "__closure__", None) or ()]
        pending += [getattr(owner, name, None) for name in ("receive", "send", "_receive", "_send")]
    return None


def watch_the_rest(receive: Receive, send: Send, timeout: float) -> None:
    """Reset the connection of a response that has ended if its client stops reading it.

    Nobody waits for these bytes any more, so nobody else would notice.
    """
    transport = transport_of(receive, send)
    if transport is not None and transport.get_write_buffer_size():
        _look_again(transport, _request_on(transport), timeout, own=True)


def _look_again(transport: asyncio.Transport, request: Any, timeout: float, *, own: bool) -> None:
    loop = asyncio.get_running_loop()
    unread = unread_bytes(transport)
    loop.call_later(timeout, _reset_unless_read, transport, request, unread, timeout, own)


def _reset_unless_read(
    transport: asyncio.Transport, request: Any, unread: int, timeout: float, own: bool
) -> None:
    """Reset a connection whose client has read none of the rest of an ended response.

    Another response may follow on it: how much of that is unread says nothing before its end.
    """
    if transport.get_write_buffer_size() == 0:
        return
    current = _request_on(transport)
    judged = current is request and (own or getattr(current, "response_complete", True))
    if judged and unread_bytes(transport) >= unread:
        reset(transport)
        return
    _look_again(transport, current, timeout, own=own and current is request)


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes the client's side has not acknowledged, as far as this system tells.

    The kernel takes bytes from the transport only after it has sent many: a client that reads
    slowly shows in what the kernel holds.
    """
    unread = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    with suppress(OSError, ValueError, AttributeError):
        queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        unread += int.from_bytes(queued, sys.byteorder)
    return unread


def _request_on(transport: asyncio.Transport) -> Any:
    """Return what stands for the request that a connection of uvicorn answers."""
    return getattr(transport.get_protocol(), "cycle", None)


async def until_written(transport: asyncio.Transport, seconds: float) -> None:
    """Wait until the kernel has all bytes, or for so many seconds."""
    for _ in range(round(seconds / _WRITE_POLL_INTERVAL)):
        if not transport.get_write_buffer_size():
            return
        await asyncio.sleep(_WRITE_POLL_INTERVAL)


def reset(transport: asyncio.Transport) -> None:
    """Close at once, without waiting until the client has read what the kernel holds for it."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError, struct.error):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
