"""What hangs on an application: settings, store and executor, a set for each event loop."""

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

from starlette.requests import Request

from chainserve.chain import Chain
from chainserve.connection import Pace
from chainserve.executor import RunExecutor
from chainserve.feedback import LangSmith
from chainserve.hooks import Principal
from chainserve.observability import make_logger
from chainserve.runs import RunOptions
from chainserve.settings import Settings, read_settings
from chainserve.stores.memory import MemoryStore
from chainserve.types import DisconnectMode
from chainserve.workers import refuse_second_worker

_ATTRIBUTE = "_chainserve_runtimes"

_EXPIRY_INTERVAL = 5.0
"""Seconds between two looks at what is over its time."""


class Runtime:
    """What the runs of one application on one event loop share."""

    def __init__(self, settings: Settings, principal: Principal | None) -> None:
        self.settings = settings
        self.principal = principal
        self.log = make_logger(settings)
        self.store = MemoryStore(
            max_log_bytes=settings.max_log_bytes,
            max_run_log_bytes=settings.max_run_log_bytes,
            max_runs=settings.max_runs,
            log_ttl=settings.log_ttl,
            run_ttl=settings.run_ttl,
        )
        self.executor = RunExecutor(
            self.store,
            cancel_timeout=settings.cancel_timeout,
            on_end_timeout=settings.on_end_timeout,
            # A log over its bound loses a little more than it must.
            max_lead=min(settings.max_run_log_bytes, settings.max_log_bytes) * 7 // 8,
            log=self.log,
        )
        self.langsmith = LangSmith(self.log)
        self.pace = Pace(
            heartbeat_interval=settings.heartbeat_interval,
            send_timeout=settings.send_timeout,
            flush_interval=settings.flush_interval_ms / 1000,
        )
        self._closed = False
        self._expire()

    async def close(self) -> None:
        """End all runs, and let them be read to their ends."""
        self._closed = True
        await self.executor.shutdown()
        await self.langsmith.close()

    def _expire(self) -> None:
        """Give back the memory of what is over its time, also where nobody asks for anything."""
        if self._closed:
            return
        self.store.expire()
        # The handle is not kept: it holds the loop, and a loop that is gone must take this with it.
        asyncio.get_running_loop().call_later(_EXPIRY_INTERVAL, self._expire)

    def retry_ms(self) -> int:
        """Return a time after which a client reconnects, spread so that not all do at once."""
        shortest = self.settings.retry_ms
        return shortest + round(shortest * random.random() / 2)

    def run_options(
        self, chain: Chain, *, on_disconnect: DisconnectMode | None, **requested: Any
    ) -> RunOptions:
        """Return the chain's policy and deadlines, the settings' where it has none.

        Args:
            chain: The chain.
            on_disconnect: The caller's policy, which goes before both.
            requested: What else the request says, such as `path`.
        """
        settings = self.settings
        keeps = not settings.stateless
        return RunOptions(
            on_disconnect=on_disconnect or chain.on_disconnect or settings.on_disconnect,
            run_timeout=_first(chain.run_timeout, settings.run_timeout),
            first_event_timeout=_first(chain.first_event_timeout, settings.first_event_timeout),
            idle_timeout=_first(chain.idle_timeout, settings.idle_timeout),
            resume_grace=_first(chain.resume_grace, settings.resume_grace) if keeps else 0,
            retained=_first(chain.retention, settings.retention) if keeps else False,
            max_output_bytes=settings.max_output_bytes,
            on_end=chain.on_end,
            translate_error=chain.translate_error,
            **requested,
        )


def _first(own: Any, default: Any) -> Any:
    return default if own is None else own


def settings_on(router: Any) -> Settings:
    """Return the settings that a root application has, or those of the environment.

    Raises:
        ConfigurationError: A variable has a wrong value.
    """
    runtimes = getattr(router, _ATTRIBUTE, None)
    return read_settings(listens=False) if runtimes is None else runtimes.settings


class Runtimes:
    """The runtimes of one root application: one for each event loop, made on first use."""

    def __init__(
        self, settings: Settings | None = None, principal: Principal | None = None
    ) -> None:
        self._settings = settings
        self._principal = principal
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()
        self._with_threads: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    @property
    def settings(self) -> Settings:
        """The settings of the application, or else of the environment.

        Raises:
            ConfigurationError: A variable has a wrong value.
        """
        if self._settings is None:
            self._settings = read_settings(listens=False)
        return self._settings

    def current(self) -> Runtime:
        """Return the runtime of the running event loop."""
        loop = asyncio.get_running_loop()
        runtime = self._of_loop.get(loop)
        if runtime is None:
            runtime = self._of_loop[loop] = Runtime(self.settings, self._principal)
            self.give_threads()
        return runtime

    def give_threads(self) -> None:
        """Give the running event loop a default executor, once, unless it is known to have one.

        LangChain runs sync steps there, and asyncio's own has as few threads as the machine cores.
        """
        loop = asyncio.get_running_loop()
        if loop in self._with_threads:
            return
        self._with_threads.add(loop)
        if getattr(loop, "_default_executor", None) is None:
            threads = ThreadPoolExecutor(self.settings.max_threads, thread_name_prefix="chainserve")
            loop.set_default_executor(threads)

    async def close(self) -> None:
        """End the runs of the running event loop and forget its runtime."""
        loop = asyncio.get_running_loop()
        if (runtime := self._of_loop.get(loop)) is not None:
            await runtime.close()
            self._of_loop.pop(loop, None)


def runtimes_on(
    router: Any, settings: Settings | None = None, principal: Principal | None = None
) -> Runtimes:
    """Return the runtimes that hang on a root application's router, made on first use."""
    runtimes = getattr(router, _ATTRIBUTE, None)
    if runtimes is None:
        runtimes = Runtimes(settings, principal)
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


def closes_runs(router: Any) -> bool:
    """Tell whether runs end with the router's lifespan: whether a chain was mounted there."""
    return getattr(router.lifespan_context, "_chainserve", False)


def close_with(router: Any) -> None:
    """End the runs when the router's own lifespan ends, and give their sync steps threads.

    It does not begin in a second worker, which would know nothing of the runs of the first. Asked
    twice, it does so once. What the application's own lifespan does comes after: a default executor
    that is set there stays.
    """
    if closes_runs(router):
        return
    inner = router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        runtimes = runtimes_on(app.router)
        if not runtimes.settings.stateless:
            refuse_second_worker()
        runtimes.give_threads()
        async with inner(app) as state:
            try:
                yield state
            finally:
                await runtimes.close()

    lifespan._chainserve = True  # type: ignore[attr-defined]
    router.lifespan_context = lifespan
