"""How a runnable is called: LangChain's own way without a task, and a thread, for each step."""

from inspect import iscoroutinefunction
from types import FunctionType
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from chainserve.fast_paths.configs import below, context_of, ensured
from chainserve.fast_paths.contexts import in_context
from chainserve.fast_paths.managers import child_of, manager_of
from chainserve.fast_paths.signatures import takes
from chainserve.fast_paths.telling import on_chain_end, on_chain_start


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
    config = ensured(config)
    run_manager = await on_chain_start(
        manager_of(config),
        serialized,
        input_,
        run_type=run_type,
        name=config.get("run_name") or self.get_name(),
        run_id=config.pop("run_id", None),
    )
    try:
        child_config = below(config, child_of(run_manager))
        context = context_of(child_config)
        takes_config, takes_run_manager = takes(func)
        if getattr(func, "__func__", None) is call_function:
            kwargs["config"] = child_config  # It changes nothing in it.
        elif takes_config:
            kwargs["config"] = below(config, child_of(run_manager))
        if takes_run_manager:
            kwargs["run_manager"] = run_manager
        output = await in_context(func(input_, **kwargs), context)
    except BaseException as error:
        await run_manager.on_chain_error(error)
        raise
    await on_chain_end(run_manager, lambda: output)
    return output


async def call_function(
    self: Any, value: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any
) -> Any:
    """Call the coroutine function of a `RunnableLambda`; any other in LangChain's own way."""
    function = getattr(self, "afunc", None)
    if type(function) is not FunctionType or not iscoroutinefunction(function):
        return await RunnableLambda._ainvoke(self, value, run_manager, config, **kwargs)
    takes_config, takes_run_manager = takes(function)
    given = kwargs
    if takes_config:
        child_config = below(config, child_of(run_manager))
        given = {**given, "config": child_config}
    if takes_run_manager:
        given = {**given, "run_manager": run_manager}
    output = await function(value, **given)
    if not isinstance(output, Runnable):
        return output
    limit = config["recursion_limit"]
    if limit <= 0:
        raise RecursionError(f"Recursion limit reached when invoking {self} with input {value}.")
    child_config = below(config, child_of(run_manager))
    child_config["recursion_limit"] = limit - 1
    return await output.ainvoke(value, child_config, **kwargs)


async def invoke_in_place(
    self: Any,
    input: Any,
    config: RunnableConfig | None = None,
    **kwargs: Any,
) -> Any:
    """Call the steps one after the other as `RunnableSequence.ainvoke` does, in one task."""
    config = ensured(config)
    run_manager = await on_chain_start(
        manager_of(config),
        None,
        input,
        name=config.get("run_name") or self.get_name(),
        run_id=config.pop("run_id", None),
    )
    value = input
    try:
        for number, step in enumerate(self.steps, start=1):
            child = child_of(run_manager, f"seq:step:{number}")
            config = below(config, child)
            value = await in_context(step.ainvoke(value, config, **kwargs), context_of(config))
            kwargs = {}  # They are for the first step alone.
    except BaseException as error:
        await run_manager.on_chain_error(error)
        raise
    await on_chain_end(run_manager, lambda: value)
    return value
