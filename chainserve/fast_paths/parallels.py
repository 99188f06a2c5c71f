"""How the parts of a `RunnableParallel` stream, also of one in `RunnablePassthrough.assign`."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import copy_context
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.aiter import atee

from chainserve.fast_paths.contexts import in_context
from chainserve.fast_paths.streaming import transform_in_place

_END: Any = object()


async def transform_parts(
    self: Any, inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig
) -> AsyncIterator[AddableDict]:
    """Transform a stream as `RunnableParallel._atransform` of langchain-core 1.7 does.

    It makes a task for each chunk, so that the parts go on beside each other. The last part that is
    left, which is the only one of many a chain, has nobody beside it: it goes on in this task.
    """
    parts = dict(self.steps__)
    copies = list(atee(inputs, len(parts), lock=asyncio.Lock()))
    streams = {
        name: part.atransform(
            copies.pop(),
            patch_config(config, callbacks=run_manager.get_child(f"map:key:{name}")),
        )
        for name, part in parts.items()
    }
    tasks = {asyncio.create_task(_next(stream)): name for name, stream in streams.items()}
    while tasks:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            name = tasks.pop(task)
            if (chunk := task.result()) is _END:
                del streams[name]
                continue
            yield AddableDict({name: chunk})
            if len(streams) > 1:
                tasks[asyncio.create_task(_next(streams[name]))] = name
    for name, stream in streams.items():
        while (chunk := await in_context(_next(stream), copy_context())) is not _END:
            yield AddableDict({name: chunk})


async def transform_and_assign(
    self: Any, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
) -> AsyncIterator[Any]:
    """Transform a stream as `RunnableAssign.atransform` of langchain-core 1.7 does.

    Its task for each chunk lets the loop go on. So here the loop goes on after what is passed
    through: what is assigned starts before a step that follows.
    """
    assigning = _Assigning(self)
    async for chunk in transform_in_place(self, input, assigning.transform, config, **kwargs):
        if assigning.passes:
            await asyncio.sleep(0)
        yield chunk


class _Assigning:
    """One stream through a `RunnableAssign`.

    Attributes:
        passes: Whether what comes is passed through.
    """

    def __init__(self, runnable: Any) -> None:
        self.passes = True
        self._mapper = runnable.mapper

    async def transform(
        self, values: AsyncIterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Transform as `RunnableAssign._atransform` does."""
        names = set(self._mapper.steps__)
        passed, mapped = atee(values, 2, lock=asyncio.Lock())
        stream = self._mapper.atransform(
            mapped, patch_config(config, callbacks=run_manager.get_child()), **kwargs
        )
        first = asyncio.create_task(anext(stream, None))
        async for chunk in passed:
            if not isinstance(chunk, dict):
                raise ValueError("The input to RunnablePassthrough.assign() must be a dict.")
            kept = AddableDict({name: value for name, value in chunk.items() if name not in names})
            if kept:
                yield kept
        self.passes = False
        if (chunk := await first) is not None:
            yield chunk
            async for chunk in stream:
                yield chunk


async def _next(stream: AsyncIterator[Any]) -> Any:
    """Return what comes next, or that nothing does, which is no error for a task to end with."""
    return await anext(stream, _END)
