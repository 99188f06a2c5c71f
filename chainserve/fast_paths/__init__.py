"""Faster ways to run LangChain's own runnables, which nobody can tell but by the time."""

from collections.abc import AsyncIterator
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig

from chainserve.fast_paths.known import is_core_known, unknown_packages

__all__ = ["faster", "is_core_known", "stream_events", "unknown_packages"]


def faster(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return what is run in a runnable's place: a copy, or itself where nothing is recognised.

    The runnable is never changed, and the copy has the same name, types and parts.
    """
    if not is_core_known():
        return runnable
    from chainserve.fast_paths.copies import copied

    return cast("Runnable[Any, Any]", copied(runnable))


def stream_events(
    runnable: Runnable[Any, Any], value: Any, config: RunnableConfig, **options: Any
) -> AsyncIterator[Any]:
    """Return what `runnable.astream_events(value, config, **options)` returns."""
    if not is_core_known():
        return cast("AsyncIterator[Any]", runnable.astream_events(value, config, **options))
    from chainserve.fast_paths import events

    return events.stream_events(runnable, value, config, **options)
