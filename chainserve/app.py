"""`create_app`: a whole server from declared chains, and `run` to start it."""

import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from chainserve.chain import Chain
from chainserve.cors import with_cors
from chainserve.errors import ConfigurationError
from chainserve.fast_paths import unknown_packages
from chainserve.flow import why_not_streaming
from chainserve.handover import HandoverLayer
from chainserve.hooks import Principal
from chainserve.mounting import mount
from chainserve.observability import RequestLogLayer, configure_logging, make_logger
from chainserve.registry import conflicts, refuse
from chainserve.routes.finding import RoutesOfChains
from chainserve.routes.index import add_index_routes
from chainserve.routes.unknown import answer_http_exception
from chainserve.runtime import runtimes_on
from chainserve.server import warn_of_streams, warn_of_variables
from chainserve.settings import Settings, read_settings
from chainserve.version import __version__

_GC_THRESHOLD = 50_000
"""Allocations between two looks of the garbage collector: streams make many short-lived objects."""


class _Application(FastAPI):
    """Has CORS around all its layers, those that are added later and FastAPI's own among them."""

    def __init__(self, settings: Settings, options: Mapping[str, Any]) -> None:
        super().__init__(**options)
        self._settings = settings
        self._with_cors: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if self._with_cors is None:
            self._with_cors = with_cors(super().__call__, self.user_middleware, self._settings)
        await self._with_cors(scope, receive, send)


def create_app(
    chains: Sequence[Chain],
    settings: Settings | None = None,
    *,
    principal: Principal | None = None,
    **options: Any,
) -> FastAPI:
    """Return an application that serves the chains, with a front page, `/chains` and probes.

    Args:
        chains: What `discover` returns, or declarations of your own.
        settings: The settings; read from the environment when None.
        principal: `(request) -> whose runs these are`, for chains that have none of their own.
        options: Arguments for `FastAPI`, such as `title` or `lifespan`.

    Raises:
        DiscoveryError: Chains cannot be served together.
        ConfigurationError: A chain cannot be served, or a setting cannot be used.
    """
    if not isinstance(chains, Sequence) or not all(isinstance(one, Chain) for one in chains):
        raise ConfigurationError(
            f"create_app was given {chains!r}: it must be a list of chains, each Chain(...)."
        )
    settings = settings or read_settings()
    if settings.stateless:
        chains = [chain.without_runs() for chain in chains]
    refuse([*conflicts((chain.path or "/", chain) for chain in chains)])
    log = make_logger(settings)
    options = {"title": "chainserve", "version": __version__, **options}
    options["lifespan"] = _lifespan(chains, settings, log, options.get("lifespan"))
    app = _Application(settings, options)
    runtimes_on(app.router, settings, principal)
    add_index_routes(app, chains)
    if principal is not None and not callable(principal):
        raise ConfigurationError(f"principal is {principal!r}: it must be a function.")
    for chain in chains:
        mount(app, chain, hands_over=True)
    if app.router.middleware_stack == app.router.app:  # A bound on bodies is around it.
        app.router.middleware_stack = RoutesOfChains(app.router, [one.path for one in chains])
    if HTTPException not in (options.get("exception_handlers") or {}):
        app.add_exception_handler(HTTPException, answer_http_exception)
    # The layers, the outermost last.
    if not app.user_middleware:
        app.add_middleware(HandoverLayer)
    app.add_middleware(RequestLogLayer, log=log)
    return app


def _lifespan(chains: Sequence[Chain], settings: Settings, log: Any, inner: Any) -> Any:
    """Return a lifespan that sets up the process, says what is served, and holds the user's own."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        configure_logging(settings)
        warn_of_variables(log)
        for packages in unknown_packages() if settings.fast_paths else ():
            log.warning("fast paths are off", packages=packages, reason=_UNKNOWN)
        for chain in chains:
            warn_of_streams(chain, log)
            if (reason := why_not_streaming(chain.runnable)) is not None:
                log.warning("chain does not stream", path=chain.path, reason=reason, mend=_MEND)
        log.info("serving", chains=[chain.path or "/" for chain in chains])
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD, 20, 100)
        if inner is None:
            yield
            return
        async with inner(app) as state:
            yield state

    return lifespan


_UNKNOWN = (
    "What they replace is another in this version, or wrapped, say by instrumentation."
    " LangChain's own way is taken."
)
_MEND = "Use a RunnableGenerator, or a parser that transforms, in its place."


def run(app: FastAPI, settings: Settings | None = None) -> None:
    """Serve an application with uvicorn until a signal stops it.

    Open streams may go on for `shutdown_grace_period` seconds; then their runs are cancelled.
    """
    settings = settings or read_settings()
    options = settings.uvicorn_options()
    uvicorn.run(app, host=settings.host, port=settings.port, **options)
