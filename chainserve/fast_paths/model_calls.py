"""How a chat model is called: `BaseChatModel.ainvoke` without tasks and without a signature."""

from typing import Any

from langchain_core.callbacks.manager import AsyncCallbackManagerForLLMRun
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import chat_models
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import RunnableConfig

from chainserve.fast_paths.configs import ensured
from chainserve.fast_paths.contexts import as_if_in_a_task
from chainserve.fast_paths.managers import configured
from chainserve.fast_paths.signatures import takes
from chainserve.fast_paths.telling import are_observers, on_llm_end

_core: Any = chat_models
"""What `BaseChatModel.ainvoke` calls is not public."""

_NAMED = frozenset({"callbacks", "tags", "metadata", "run_name", "run_id"})
"""What `ainvoke` gives to `agenerate` itself."""


async def ainvoke(
    model: Any,
    input: Any,
    config: RunnableConfig | None = None,
    *,
    stop: list[str] | None = None,
    **kwargs: Any,
) -> Any:
    """Call as `BaseChatModel.ainvoke` of langchain-core 1.7 does.

    That makes a task for the one answer, and two to tell of it.
    """
    if not _NAMED.isdisjoint(kwargs):
        return await model.ainvoke(input, config, stop=stop, **kwargs)
    config = ensured(config)
    messages = model._convert_input(input).to_messages()
    given = kwargs.pop("ls_structured_output_format", None)
    given = given or kwargs.pop("structured_output_format", None)
    format_ = _core._format_ls_structured_output(given)
    params = model._get_invocation_params(stop=stop, **kwargs)
    options = {"stop": stop, **format_}
    run_manager = await started(model, messages, config, params, options, kwargs)
    messages = _core._normalize_messages(messages)
    answered = _answered(model, messages, stop, run_manager, kwargs)
    result, error = await as_if_in_a_task(answered)
    if error is not None:
        told = _core._generate_response_from_error(error)
        await run_manager.on_llm_error(error, response=LLMResult(generations=[told]))
        if isinstance(error, Exception):
            raise error
        result = error  # LangChain takes a model that was cancelled for an answer, and fails there.
    response: Any = LLMResult(generations=[result.generations], llm_output=result.llm_output)
    model._combine_llm_outputs([result.llm_output])  # It may have something to say against it.
    await on_llm_end(run_manager, response)
    return response.generations[0][0].message


async def started(
    model: Any,
    messages: list[BaseMessage],
    config: RunnableConfig,
    params: dict[str, Any],
    options: dict[str, Any],
    kwargs: dict[str, Any],
) -> AsyncCallbackManagerForLLMRun:
    """Tell of the start of a run of a model, and return its manager."""
    metadata = {
        **(config.get("metadata") or {}),
        **model._get_ls_params_with_defaults(stop=options["stop"], **kwargs),
    }
    [run_manager] = await configured(
        config.get("callbacks"),
        model.callbacks,
        model.verbose,
        config.get("tags"),
        model.tags,
        metadata,
        model.metadata,
        langsmith_inheritable_metadata=_core._filter_invocation_params_for_tracing(params),
    ).on_chat_model_start(
        model._serialized,
        [_core._format_for_tracing(messages)],
        invocation_params=params,
        options=options,
        name=config.get("run_name"),
        run_id=config.pop("run_id", None),
        batch_size=1,
    )
    return run_manager


async def _answered(
    model: Any,
    messages: list[BaseMessage],
    stop: list[str] | None,
    run_manager: AsyncCallbackManagerForLLMRun,
    kwargs: dict[str, Any],
) -> ChatResult:
    """Return what `_agenerate_with_cache` does; it does all but the usual case itself."""
    if (
        model.rate_limiter
        or not are_observers(run_manager.handlers)  # Others may want tokens.
        or not (model.cache is False or (model.cache is None and get_llm_cache() is None))
        or model._should_stream(async_api=True, **kwargs)
    ):
        made: ChatResult = await model._agenerate_with_cache(
            messages, stop=stop, run_manager=run_manager, **kwargs
        )
        return made
    _, takes_run_manager = takes(model._agenerate)
    own = {"run_manager": run_manager} if takes_run_manager else {}
    result: ChatResult = await model._agenerate(messages, stop=stop, **own, **kwargs)
    if model.output_version == "v1":
        for generation in result.generations:
            generation.message = _core._update_message_content_to_blocks(generation.message, "v1")
    for index, generation in enumerate(result.generations):
        if generation.message.id is None:
            generation.message.id = f"{_core.LC_ID_PREFIX}-{run_manager.run_id}-{index}"
        generation.message.response_metadata = _core._gen_info_and_msg_metadata(generation)
    if len(result.generations) == 1 and result.llm_output is not None:
        [generation] = result.generations
        metadata = generation.message.response_metadata
        generation.message.response_metadata = {**result.llm_output, **metadata}
    return result
