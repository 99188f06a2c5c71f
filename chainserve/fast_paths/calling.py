"""How a runnable is called: LangChain's own way without a task, and a thread, for each step."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    patch_config,
    set_config_context,
)

from chainserve.fast_paths.contexts import in_context
from chainserve.fast_paths.signatures import takes


async def call_in_place(
    self: Any,
    func: Any,
    input_: Any,
    config: RunnableConfig | None,
    run_type: str | None = None,
    serialized: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Call a function as `Runnable._acall_with_config` does, in the task that calls."""
    config = ensure_config(config)
    run_manager = await get_async_callback_manager_for_config(config).on_chain_start(
        serialized,
        input_,
        run_type=run_type,
        name=config.get("run_name") or self.get_name(),
        run_id=config.pop("run_id", None),
    )
    try:
        child_config = patch_config(config, callbacks=run_manager.get_child())
        with set_config_context(child_config) as context:
            takes_config, takes_run_manager = takes(func)
            if takes_config:
                kwargs["config"] = patch_config(config, callbacks=run_manager.get_child())
            if takes_run_manager:
                kwargs["run_manager"] = run_manager
            output = await in_context(func(input_, **kwargs), context)
    except BaseException as error:
        await run_manager.on_chain_error(error)
        raise
    await run_manager.on_chain_end(output)
    return output


async def invoke_in_place(
    self: Any,
    input: Any,
    config: RunnableConfig | None = None,
    **kwargs: Any,
) -> Any:
    """Call the steps one after the other as `RunnableSequence.ainvoke` does, in one task."""
    config = ensure_config(config)
    run_manager = await get_async_callback_manager_for_config(config).on_chain_start(
        None,
        input,
        name=config.get("run_name") or self.get_name(),
        run_id=config.pop("run_id", None),
    )
    value = input
    try:
        for number, step in enumerate(self.steps, start=1):
            child = run_manager.get_child(f"seq:step:{number}")
            config = patch_config(config, callbacks=child)
            with set_config_context(config) as context:
                value = await in_context(step.ainvoke(value, config, **kwargs), context)
            kwargs = {}  # They are for the first step alone.
    except BaseException as error:
        await run_manager.on_chain_error(error)
        raise
    await run_manager.on_chain_end(value)
    return value
