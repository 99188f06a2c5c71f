"""What hangs on an application: settings, store and executor, a set for each event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

from starlette.requests import Request

from chainserve.chain import Chain
from chainserve.observability import make_logger
from chainserve.responses import Pace
from chainserve.runs import RunExecutor, RunOptions
from chainserve.settings import Settings
from chainserve.stores.memory import MemoryStore

_ATTRIBUTE = "_chainserve_runtimes"


class Runtime:
    """What the runs of one application on one event loop share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = make_logger(settings)
        self.store = MemoryStore(
            max_log_bytes=settings.max_log_bytes,
            max_run_log_bytes=settings.max_run_log_bytes,
            max_runs=settings.max_runs,
            log_ttl=settings.log_ttl,
            run_ttl=settings.run_ttl,
        )
        self.executor = RunExecutor(
            self.store, cancel_timeout=settings.cancel_timeout, log=self.log
        )
        self.pace = Pace(
            heartbeat_interval=settings.heartbeat_interval,
            send_timeout=settings.send_timeout,
            flush_interval=settings.flush_interval_ms / 1000,
        )

    def run_options(self, chain: Chain, path: str) -> RunOptions:
        """Return the chain's policy and deadlines, the settings' where it has none."""
        settings = self.settings
        return RunOptions(
            path=path,
            on_disconnect=chain.on_disconnect or settings.on_disconnect,
            run_timeout=_first(chain.run_timeout, settings.run_timeout),
            first_event_timeout=_first(chain.first_event_timeout, settings.first_event_timeout),
            idle_timeout=_first(chain.idle_timeout, settings.idle_timeout),
        )


def _first(own: Any, default: Any) -> Any:
    return default if own is None else own


class Runtimes:
    """The runtimes of one root application: one for each event loop, made on first use."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()

    def current(self) -> Runtime:
        """Return the runtime of the running event loop."""
        loop = asyncio.get_running_loop()
        runtime = self._of_loop.get(loop)
        if runtime is None:
            if self._settings is None:
                self._settings = Settings()
            runtime = self._of_loop[loop] = Runtime(self._settings)
        return runtime

    async def close(self) -> None:
        """End the runs of the running event loop and forget its runtime."""
        runtime = self._of_loop.pop(asyncio.get_running_loop(), None)
        if runtime is not None:
            await runtime.executor.shutdown()


def runtimes_on(router: Any, settings: Settings | None = None) -> Runtimes:
    """Return the runtimes that hang on a root application's router, made on first use."""
    runtimes = getattr(router, _ATTRIBUTE, None)
    if runtimes is None:
        runtimes = Runtimes(settings)
        setattr(router, _ATTRIBUTE, runtimes)
    return runtimes


def runtime_of(request: Request) -> Runtime:
    """Return the runtime for a request: that of the root application, also in mounted ones.

    Starlette keeps the outermost router in the scope. A mounted application with settings of its
    own has a runtime of its own.
    """
    router = request.scope["app"].router
    runtimes = getattr(router, _ATTRIBUTE, None)
    if runtimes is None:
        runtimes = runtimes_on(request.scope["router"])
        setattr(router, _ATTRIBUTE, runtimes)
    return cast("Runtimes", runtimes).current()


def close_with(router: Any) -> None:
    """End the runs when the router's own lifespan ends; asked twice, it does so once."""
    if getattr(router.lifespan_context, "_chainserve", False):
        return
    inner = router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with inner(app) as state:
            try:
                yield state
            finally:
                await runtimes_on(app.router).close()

    lifespan._chainserve = True  # type: ignore[attr-defined]
    router.lifespan_context = lifespan
