"""How a chat model streams: `BaseChatModel.astream` telling of tokens only who wants to know."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks.base import AsyncCallbackHandler, LLMManagerMixin
from langchain_core.language_models import chat_models
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

from chainserve.fast_paths.configs import ensured
from chainserve.fast_paths.model_calls import started
from chainserve.fast_paths.sums import adds_as_text
from chainserve.fast_paths.telling import is_told_nothing, on_llm_end

_core: Any = chat_models
"""What `BaseChatModel.astream` calls is not public."""


async def astream(
    model: Any,
    input: Any,
    config: RunnableConfig | None = None,
    *,
    stop: list[str] | None = None,
    **kwargs: Any,
) -> AsyncIterator[Any]:
    """Stream as `BaseChatModel.astream` of langchain-core 1.7 does.

    It tells each handler of each token, in a coroutine for each and in a future for all of them. Of
    those that do nothing with it, which is the usual case, nobody asks here.
    """
    if not model._should_stream(async_api=True, **{**kwargs, "stream": True}):
        yield await model.ainvoke(input, config=config, stop=stop, **kwargs)
        return

    config = ensured(config)
    messages = model._convert_input(input).to_messages()
    given = kwargs.pop("ls_structured_output_format", None)
    given = given or kwargs.pop("structured_output_format", None)
    params = model._get_invocation_params(stop=stop, **kwargs)
    options = {
        "stop": stop,
        **{key: params[key] for key in kwargs if key in params},
        **_core._format_ls_structured_output(given),
    }
    run_manager = await started(model, messages, config, params, options, kwargs)
    if model.rate_limiter:
        await model.rate_limiter.aacquire(blocking=True)

    tells = any(map(_wants_tokens, run_manager.handlers))
    forgets = is_told_nothing(run_manager)
    chunks: list[ChatGenerationChunk] = []
    message: Any = None
    try:
        run_id = f"{_core.LC_ID_PREFIX}-{run_manager.run_id}"
        blocks = _Blocks()
        async for chunk in model._astream(_core._normalize_messages(messages), stop=stop, **kwargs):
            message = chunk.message
            if message.id is None:
                message.id = run_id
            message.response_metadata = _core._gen_info_and_msg_metadata(chunk)
            if model.output_version == "v1":
                chunk.message = message = blocks.of(message)
            if tells:
                await run_manager.on_llm_new_token(message.content, chunk=chunk)
            chunks.append(chunk)
            yield message
            if forgets and _is_text_like(chunk, chunks[0]):
                chunks.pop()
        # The last chunk says that it is the last.
        if isinstance(message, AIMessageChunk) and not message.chunk_position:
            content: Any = "" if isinstance(message.content, str) else []
            last = AIMessageChunk(content=content, chunk_position="last", id=run_id)
            if tells:
                await run_manager.on_llm_new_token("", chunk=ChatGenerationChunk(message=last))
            yield last
    except BaseException as error:
        told = _core._generate_response_from_error(error)
        said = _core.merge_chat_generation_chunks(chunks)
        response = LLMResult(generations=[[said], told] if said else [told])
        await run_manager.on_llm_error(error, response=response)
        raise

    generation = _core.merge_chat_generation_chunks(chunks)
    if not generation:
        nothing = ValueError("No generation chunks were returned")
        await run_manager.on_llm_error(nothing, response=LLMResult(generations=[]))
        raise nothing
    await on_llm_end(run_manager, LLMResult(generations=[[generation]]))


def _wants_tokens(handler: Any) -> bool:
    """Tell whether a handler does anything with a token."""
    told = getattr(handler.on_llm_new_token, "__func__", None)
    return not handler.ignore_llm and told not in _NOBODY


def _is_text_like(chunk: ChatGenerationChunk, first: ChatGenerationChunk) -> bool:
    """Tell whether a chunk adds nothing but text to the first, which is another one."""
    return (
        chunk is not first
        and type(chunk) is type(first) is ChatGenerationChunk
        and not chunk.generation_info
        and adds_as_text(chunk.message, first.message)
    )


_NOBODY = (LLMManagerMixin.on_llm_new_token, AsyncCallbackHandler.on_llm_new_token)


class _Blocks:
    """Numbers the content blocks of a message's chunks, one number for each run of a type."""

    def __init__(self) -> None:
        self._index = -1
        self._type = ""

    def of(self, message: Any) -> Any:
        """Return a chunk with its content as standard blocks."""
        message = _core._update_message_content_to_blocks(message, "v1")
        for block in message.content:
            if block["type"] != self._type:
                self._type = block["type"]
                self._index += 1
            if "index" not in block:
                block["index"] = self._index
        return message
