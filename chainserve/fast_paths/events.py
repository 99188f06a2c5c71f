"""`astream_events`, version 2, without a task for each token and a system call for each event."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler
from langchain_core.utils.uuid import uuid7

from chainserve.callbacks import InlineHandler

_MAX_WAITING = 64
"""After so many events a run lets its reader have the loop."""

_MAX_SECONDS = 0.005
"""So long a run may go on before its reader has the loop."""


def stream_events(
    runnable: Runnable[Any, Any], value: Any, config: RunnableConfig, **options: Any
) -> AsyncIterator[Any]:
    """Return what `runnable.astream_events` of the second version returns.

    Args:
        runnable: What is run.
        value: Its input.
        config: The config of the run.
        options: What `astream_events` takes.
    """
    while type(runnable) is RunnableBinding:
        options = {**runnable.kwargs, **options}
        config = runnable._merge_configs(config)
        runnable = runnable.bound
    version = options.pop("version", "v2")
    # A model that is bound has something in its place, which says that it is of the model's class.
    if version != "v2" or runnable.__class__.astream_events is not Runnable.astream_events:
        return cast(
            "AsyncIterator[Any]",
            runnable.astream_events(value, config, version=version, **options),
        )
    filters = {name: options.pop(name) for name in _FILTERS & options.keys()}
    return _stream_events(runnable, value, config, filters, options)


_FILTERS = frozenset(
    f"{what}_{of}" for what in ("include", "exclude") for of in ("names", "types", "tags")
)


async def _stream_events(
    runnable: Runnable[Any, Any],
    value: Any,
    config: RunnableConfig,
    filters: Mapping[str, Any],
    kwargs: Mapping[str, Any],
) -> AsyncGenerator[Any]:
    """Yield the events, as langchain-core 1.7 makes them."""
    handler = _EventHandler(**filters)
    config = ensure_config(config)
    run_id = cast("UUID", config.setdefault("run_id", uuid7()))
    config["callbacks"] = _with(handler, config.get("callbacks"))

    async def run() -> None:
        try:
            async with aclosing(
                cast("AsyncGenerator[Any]", runnable.astream(value, config, **kwargs))
            ) as stream:
                async for _ in handler.tap_output_aiter(run_id, stream):
                    await handler.give_way()
        finally:
            handler.finish()

    task = asyncio.create_task(run())
    first: Any = None
    try:
        async for event in handler:
            if first is None:
                first = event["run_id"]
                # What goes in is not known before all of it is read.
                event["data"]["input"] = value
            elif event["run_id"] == first and event["event"].endswith("_end"):
                event["data"].pop("input", None)
            yield event
    except asyncio.CancelledError as cancelled:
        task.cancel(*cancelled.args[:1])
        raise
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _with(handler: Any, callbacks: Any) -> Any:
    """Return callbacks with one more handler."""
    if callbacks is None or isinstance(callbacks, list):
        return [*(callbacks or ()), handler]
    manager: BaseCallbackManager = callbacks.copy()
    manager.add_handler(handler, inherit=True)
    return manager


class _EventHandler(InlineHandler, _AstreamEventsCallbackHandler):
    """LangChain's handler, called in place, with a queue that costs nothing while nobody waits."""

    def __init__(self, **filters: Any) -> None:
        super().__init__(**filters)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waiting: deque[Any] = deque()
        self._came: asyncio.Future[None] | None = None
        self._due = 0.0
        self._finished = False

    def _send(self, event: Any, event_type: str) -> None:
        if not self.root_event_filter.include_event(event, event_type):
            return
        if threading.get_ident() == self._thread:
            self._put(event)
        else:
            with suppress(RuntimeError):  # Nobody reads what comes after the end of the loop.
                self._loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: Any) -> None:
        if not self._waiting:
            self._due = self._loop.time() + _MAX_SECONDS
        self._waiting.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)

    def finish(self) -> None:
        """Have the events end with those that there are."""
        self._finished = True
        self._wake()

    async def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        """Tell of a token."""
        await super().on_llm_new_token(*args, **kwargs)
        await self.give_way()

    async def give_way(self) -> None:
        """Let the reader have the loop if it has waited long enough, or for enough."""
        if len(self._waiting) >= _MAX_WAITING or (self._waiting and self._loop.time() >= self._due):
            await asyncio.sleep(0)

    async def __aiter__(self) -> AsyncGenerator[Any]:
        """Yield the events as they come."""
        waiting = self._waiting
        while True:
            while waiting:
                yield waiting.popleft()
            if self._finished:
                return
            self._came = self._loop.create_future()
            await self._came
            self._came = None
