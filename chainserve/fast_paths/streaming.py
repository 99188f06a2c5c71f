"""How a step transforms a stream: LangChain's own way without a task for each chunk."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from chainserve.callbacks import RunObserver
from chainserve.fast_paths.configs import below, context_of, ensured
from chainserve.fast_paths.contexts import going_on
from chainserve.fast_paths.managers import child_of, manager_of
from chainserve.fast_paths.signatures import takes
from chainserve.fast_paths.sums import Sum, adds_as_text
from chainserve.fast_paths.telling import is_told_nothing, on_chain_end, on_chain_start

_NOTHING: Any = object()


async def transform_in_place(
    self: Any,
    inputs: AsyncIterator[Any],
    transformer: Any,
    config: RunnableConfig | None,
    run_type: str | None = None,
    **kwargs: Any,
) -> AsyncIterator[Any]:
    """Transform a stream as `Runnable._atransform_stream_with_config` does.

    This is that method of langchain-core 1.7 with three differences, which nobody can tell from
    what is streamed, from callbacks or from contexts:

    - each chunk is awaited in the step's context without a task of its own;
    - what goes in is passed on without a lock, a buffer for each of two readers, and a generator
      for each of them;
    - chunks are added up late (`Sum`), and only for those who are told what they add up to.
    """
    defers_inputs = kwargs.pop("defers_inputs", False)
    inputs, read, total = aiter(inputs), list[Any](), Sum()
    # What comes before is to start first.
    first = await anext(inputs, _NOTHING)
    if first is not _NOTHING:
        total.add(first)
    config = ensured(config)
    run_manager = await on_chain_start(
        manager_of(config),
        None,
        {"input": ""},
        run_type=run_type,
        name=config.get("run_name") or self.get_name(),
        run_id=config.pop("run_id", None),
        defers_inputs=defers_inputs,
    )
    output, transformed = Sum(), None
    steps: Any = None
    try:
        child_config = below(config, child_of(run_manager))
        del config  # A stream may wait for long, and each of its steps with it.
        takes_config, takes_run_manager = takes(transformer)
        if takes_config:
            kwargs["config"] = child_config
        if takes_run_manager:
            kwargs["run_manager"] = run_manager
        context = context_of(child_config)
        noting = _noting(first, inputs, read, forgets=is_told_nothing(run_manager))
        transformed = context.run(transformer, noting, **kwargs)
        tapped = transformed
        for handler in run_manager.handlers:
            # To ask a protocol takes long, and is not needed for the one that is always there.
            if type(handler) is not RunObserver and isinstance(handler, _StreamingCallbackHandler):
                tapped = handler.tap_output_aiter(run_manager.run_id, transformed)
                break
        try:
            while True:
                steps = anext(tapped).__await__()
                try:  # `in_context`, in place: most chunks of some chains are there at once.
                    waits_for = context.run(steps.send, None)
                except StopIteration as there:
                    chunk = there.value
                else:
                    chunk = await going_on(steps, waits_for, context)
                yield chunk
                output.add(chunk)
        except StopAsyncIteration:
            pass
        for chunk in read:
            total.add(chunk)
        async for chunk in inputs:  # What nobody asked for counts as well.
            total.add(chunk)
    except BaseException as error:
        steps = waits_for = None  # They have the error, which has this frame.
        await run_manager.on_chain_error(error, inputs=total.result())
        raise
    else:
        await on_chain_end(run_manager, output.result, inputs=total.result)
    finally:
        if transformed is not None and hasattr(transformed, "aclose"):
            await transformed.aclose()


async def _noting(
    first: Any, inputs: AsyncIterator[Any], read: list[Any], *, forgets: bool
) -> AsyncIterator[Any]:
    """Yield what goes in, and note what is read after the first.

    Messages that add nothing but text are not kept where nobody is told what goes in.
    """
    if first is _NOTHING:
        return
    yield first
    forgets = forgets and type(first) is AIMessageChunk
    async for chunk in inputs:
        read.append(chunk)
        yield chunk
        if forgets and adds_as_text(chunk, first):
            read.pop()
