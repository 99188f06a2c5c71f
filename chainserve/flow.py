"""Whether chunks flow through a chain, and which step keeps them from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.llms import BaseLLM
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.configurable import DynamicRunnable


def why_stream_fails(runnable: Runnable[Any, Any]) -> str | None:
    """Return what makes every stream of a runnable fail, or None where nothing is known to."""
    for step in _steps(runnable):
        # Its atransform refuses to work where it was not given an async generator.
        if isinstance(step, RunnableGenerator) and not hasattr(step, "_atransform"):
            return f"{step.get_name()} (RunnableGenerator) is made of a sync generator alone"
    return None


def streams(runnable: Runnable[Any, Any]) -> bool:
    """Tell whether a runnable's output may come in more than one piece."""
    return _flow(runnable).streams


def why_not_streaming(runnable: Runnable[Any, Any]) -> str | None:
    """Return what keeps a runnable from streaming although a part of it does, or None.

    In a sequence, what follows the last step that makes chunks must pass them on one by one; a
    function does not, it waits for the whole.
    """
    return _flow(runnable).reason


@dataclass(frozen=True, slots=True)
class _Flow:
    """How an output comes: in chunks or not, and what turned chunks into a whole."""

    streams: bool = False
    reason: str | None = None


def _flow(runnable: Runnable[Any, Any]) -> _Flow:
    """Follow the chunks through a runnable."""
    if parts := _parts(runnable):
        flows = [_flow(part) for part in parts]
        if any(flow.streams for flow in flows):
            return _Flow(streams=True)
        return next((flow for flow in flows if flow.reason), _Flow())
    flow = _Flow()
    for step in _steps(runnable):
        own = _flow(step) if _parts(step) else _Flow(_makes_chunks(step), _switched_off(step))
        if own.streams or own.reason:
            flow = own
        elif flow.streams and not _passes_chunks_on(step):
            flow = _Flow(
                reason=f"{step.get_name()} ({type(step).__name__}) waits for the whole answer"
            )
    return flow


def _steps(runnable: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Yield the steps that run one after the other, what bindings are bound to in their place."""
    while isinstance(runnable, RunnableBindingBase) and not isinstance(runnable, RunnableEachBase):
        runnable = runnable.bound
    if not isinstance(runnable, RunnableSequence):
        yield runnable
        return
    for step in runnable.steps:
        yield from _steps(step)


def _parts(runnable: Runnable[Any, Any]) -> list[Runnable[Any, Any]]:
    """Return the runnables of which one or all answer in the place of this one."""
    match runnable:
        case RunnableParallel():
            return list(runnable.steps__.values())
        case RunnableAssign():
            return [runnable.mapper]
        case RunnableWithFallbacks():
            return [runnable.runnable]
        case RunnableBranch():
            return [*(branch for _, branch in runnable.branches), runnable.default]
        case DynamicRunnable():
            return [runnable.default]
    return []


def _makes_chunks(step: Runnable[Any, Any]) -> bool:
    """Tell whether a step answers one input with chunks: a model, a generator, a graph."""
    if isinstance(step, RunnableLambda | RunnablePassthrough | RunnablePick | RunnableEachBase):
        return False
    if isinstance(step, BaseChatModel | BaseLLM):
        return not _switched_off(step)
    return _overrides(step, Runnable, "astream", "stream")


def _switched_off(step: Runnable[Any, Any]) -> str | None:
    """Return why a model does not stream, be it its own doing or that of a `map()`."""
    if isinstance(step, RunnableEachBase) and _flow(step.bound).streams:
        return f"{step.get_name()} waits for all of its answers"
    if isinstance(step, BaseChatModel) and step.disable_streaming is True:
        return f"{step.get_name()} has disable_streaming set"
    base = BaseChatModel if isinstance(step, BaseChatModel) else BaseLLM
    if isinstance(step, base) and not _overrides(step, base, "_astream", "_stream"):
        return f"{step.get_name()} ({type(step).__name__}) has no _astream"
    return None


def _passes_chunks_on(step: Runnable[Any, Any]) -> bool:
    """Tell whether a step handles chunks as they come."""
    if isinstance(step, RunnableAssign):
        return True
    if parts := _parts(step):
        one_by_one = _overrides(step, Runnable, "atransform", "transform")
        return one_by_one and all(_passes_on(part) for part in parts)
    if isinstance(step, RunnableLambda | RunnableEachBase):
        return False
    return _overrides(step, Runnable, "atransform", "transform")


def _passes_on(part: Runnable[Any, Any]) -> bool:
    return all(_passes_chunks_on(step) for step in _steps(part))


def _overrides(step: Runnable[Any, Any], base: type[Any], *methods: str) -> bool:
    """Tell whether a class has its own way to stream, where the base class has none."""
    return any(getattr(type(step), name) is not getattr(base, name) for name in methods)
