"""How the parts of a `RunnableParallel` stream: the last one left without a task for each chunk."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import copy_context
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import patch_config
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.aiter import atee

from chainserve.fast_paths.contexts import in_context

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


async def _next(stream: AsyncIterator[Any]) -> Any:
    """Return what comes next, or that nothing does, which is no error for a task to end with."""
    return await anext(stream, _END)
