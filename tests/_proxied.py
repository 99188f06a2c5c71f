"""A server behind the proxy, both in a thread with an event loop of its own.

For clients that block and for clients that are processes: whoever has `base_url` may be one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import ASGIApp

from tests._bridge import WAIT_SECONDS
from tests._proxy import Fault, FaultProxy, PassedRequest, proxy
from tests._server import serve


class ProxiedServer:
    """What a `FaultProxy` can do, for any thread but its own.

    Attributes:
        portal: Calls functions, async ones too, in the loop of server and proxy.
        proxy: The proxy. Its lists may be read from any thread.
        direct_url: The server's own URL, past the proxy.
    """

    def __init__(self, portal: BlockingPortal, proxy: FaultProxy, direct_url: str) -> None:
        self.portal = portal
        self.proxy = proxy
        self.direct_url = direct_url

    @property
    def base_url(self) -> str:
        """The URL through the proxy, without a trailing slash."""
        return self.proxy.base_url

    def add(self, fault: Fault) -> Fault:
        """Plan a fault, after those that were planned before, and return it."""
        return self.portal.call(self.proxy.add, fault)

    def cut_each(self, path: str, after_bytes: list[int]) -> list[Fault]:
        """Plan to cut consecutive responses to a path, each after so many of its bytes."""
        return self.portal.call(self.proxy.cut_each, path, after_bytes)

    def refuse(self, connections: int) -> None:
        """Reset so many of the next connections at the first byte that comes."""
        self.portal.call(setattr, self.proxy, "refusals", connections)

    def closed(self) -> Any:
        """Have the system refuse new connections within a `with` block."""
        return self.portal.wrap_async_context_manager(self.proxy.closed())

    def let_go(self, fault: Fault) -> None:
        """Let a fault that stalls strike, or what it delays pass."""
        self.portal.call(fault.go.set)

    def until_reached(self, fault: Fault) -> None:
        """Wait until a response has come to a fault's place."""
        self.portal.call(_within_bound, fault)

    def until_requests(self, path: str, count: int) -> None:
        """Wait until there were so many requests with this in their target."""
        self.portal.call(self.proxy.until_requests, path, count)

    def until_connections(self, count: int) -> None:
        """Wait until there were so many connections."""
        self.portal.call(self.proxy.until_connections, count)

    def to(self, path: str) -> list[PassedRequest]:
        """Return the requests with this in their target."""
        return self.portal.call(self.proxy.to, path)


async def _within_bound(fault: Fault) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        await fault.reached.wait()


@contextmanager
def proxied(app: ASGIApp, **config: Any) -> Iterator[ProxiedServer]:
    """Serve an application behind a proxy, in a thread; other keywords go to `serve`."""

    @asynccontextmanager
    async def both() -> Any:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serve(app, **config))
            before = await stack.enter_async_context(proxy(server.port))
            yield before, server.base_url

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(both()) as running:
        yield ProxiedServer(portal, *running)
