"""Telling handlers of a run's start and end: without a task, and without what nobody wants to know.

The handler that each run of this server has wants to know nothing of starts, and of ends no more
than the output of the root run.
"""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.callbacks.manager import (
    AsyncCallbackManagerForChainRun,
    AsyncCallbackManagerForLLMRun,
    BaseRunManager,
)
from langchain_core.outputs import LLMResult
from langchain_core.utils.uuid import uuid7

from chainserve.callbacks import InlineHandler, RunObserver


async def on_chain_start(
    manager: AsyncCallbackManager, serialized: Any, inputs: Any, *, run_id: Any, **options: Any
) -> AsyncCallbackManagerForChainRun:
    """Do what `AsyncCallbackManager.on_chain_start` does."""
    if not are_observers(manager.handlers):
        return await manager.on_chain_start(serialized, inputs, run_id=run_id, **options)
    return AsyncCallbackManagerForChainRun(
        run_id=uuid7() if run_id is None else run_id,
        handlers=manager.handlers,
        inheritable_handlers=manager.inheritable_handlers,
        parent_run_id=manager.parent_run_id,
        tags=manager.tags,
        inheritable_tags=manager.inheritable_tags,
        metadata=manager.metadata,
        inheritable_metadata=manager.inheritable_metadata,
    )


async def on_chain_end(
    run_manager: AsyncCallbackManagerForChainRun,
    output: Callable[[], Any],
    **options: Callable[[], Any],
) -> None:
    """Do what `run_manager.on_chain_end` does; what is told is made for those who look at it.

    Args:
        run_manager: The run that has ended.
        output: Makes its output.
        options: Make what else is told of the end.
    """
    handlers: Sequence[Any] = run_manager.handlers
    if are_observers(handlers):
        run_id, parent_run_id = run_manager.run_id, run_manager.parent_run_id
        for handler in handlers:
            if handler.wants(run_id, parent_run_id):
                handler.output = output()
        return
    told = run_manager.on_chain_end
    made = {name: make() for name, make in options.items()}
    if all(isinstance(handler, InlineHandler) for handler in handlers):
        # Without its shield: nothing can interrupt those who never wait.
        await told.__func__.__wrapped__(run_manager, output(), **made)  # type: ignore[attr-defined]
    else:
        await told(output(), **made)


async def on_llm_end(run_manager: AsyncCallbackManagerForLLMRun, response: LLMResult) -> None:
    """Do what `run_manager.on_llm_end` does."""
    told = run_manager.on_llm_end
    if all(isinstance(handler, InlineHandler) for handler in run_manager.handlers):
        await told.__func__.__wrapped__(run_manager, response)  # type: ignore[attr-defined]
    else:
        await told(response)


def is_told_nothing(run_manager: BaseRunManager) -> bool:
    """Tell whether nobody looks at what a run gets and gives, but for the usage of models."""
    run_id, parent_run_id = run_manager.run_id, run_manager.parent_run_id
    handlers: Sequence[Any] = run_manager.handlers
    return are_observers(handlers) and not any(
        handler.wants(run_id, parent_run_id) for handler in handlers
    )


def are_observers(handlers: Sequence[Any]) -> bool:
    """Tell whether nobody but this server listens."""
    for handler in handlers:  # noqa: SIM110 - a generator takes longer than the look itself
        if type(handler) is not RunObserver:
            return False
    return True
