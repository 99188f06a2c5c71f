"""The model behind the shipped chains: OpenAI's if the environment says so, else an offline demo.

Importing this module needs langchain-core alone and touches no network.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import (
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from chainserve.demo_answers import ToolCall, answer, fitting_calls, tokens
from chainserve.errors import ConfigurationError

OFFLINE_MODEL_NAME: Final = "offline-demo"
"""What `model_name` says of the offline model."""

DEFAULT_OPENAI_MODEL = "gpt-4.1-mini"
"""The model when `OPENAI_MODEL` names none."""

DEFAULT_PAUSE = 0.03
"""How long the offline model waits between two tokens, in seconds: the pace of a fast reader."""

_OPENAI_URL = "https://api.openai.com/v1"
_PLACEHOLDER_KEY = "no-key-needed"


class OfflineChatModel(BaseChatModel):
    """A chat model without a network, whose answers are true but need no intelligence.

    The same messages always get the same answer, token by token. It says that it is a demo, then
    does something checkable with the last message (see `chainserve.demo_answers`). Cancelling an
    answer ends it at once; only the synchronous methods hold their thread for one pause longer.

    Attributes:
        pause: How long to wait between two tokens, in seconds.
        model_name: The name it gives in its response metadata.
    """

    pause: float = Field(DEFAULT_PAUSE, ge=0, allow_inf_nan=False)
    model_name: Literal["offline-demo"] = OFFLINE_MODEL_NAME

    @property
    def _llm_type(self) -> str:
        return OFFLINE_MODEL_NAME

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools it may call.

        A tool is called when all its required arguments can be read from the last human message.
        Nothing makes this model invent one, so `tool_choice` has no effect.
        """
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for position, chunk in enumerate(self._answer(messages, **kwargs)):
            if position:
                time.sleep(self.pause)
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for position, chunk in enumerate(self._answer(messages, **kwargs)):
            if position:
                await asyncio.sleep(self.pause)
            yield ChatGenerationChunk(message=chunk)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, **kwargs))

    def _answer(
        self, messages: Sequence[BaseMessage], *, tools: Sequence[dict[str, Any]] = (), **_: Any
    ) -> list[AIMessageChunk]:
        """Return the answer, a token a chunk; the last one tells how it ended and what it used."""
        calls = fitting_calls(messages, tools)
        chunks = _call_chunks(calls) or _text_chunks(answer(messages))
        last = chunks[-1]
        last.chunk_position = "last"
        last.usage_metadata = _usage(messages, len(chunks))
        last.response_metadata = {
            "model_name": self.model_name,
            "finish_reason": "tool_calls" if calls else "stop",
        }
        return chunks


def _text_chunks(text: str) -> list[AIMessageChunk]:
    return [AIMessageChunk(content=token) for token in tokens(text)]


def _call_chunks(calls: Sequence[ToolCall]) -> list[AIMessageChunk]:
    """Return tool calls in pieces, as providers stream them: first the name, then the JSON."""
    return [
        AIMessageChunk(content="", tool_call_chunks=[piece])
        for index, call in enumerate(calls)
        for piece in (
            tool_call_chunk(name=call.name, args="", id=call.id, index=index),
            *(tool_call_chunk(args=token, index=index) for token in tokens(call.args)),
        )
    ]


def _usage(messages: Sequence[BaseMessage], output_tokens: int) -> UsageMetadata:
    input_tokens = sum(len(tokens(message.text)) for message in messages)
    return UsageMetadata(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
    )


def chat_model(**options: Any) -> BaseChatModel:
    """Return the chat model that the environment asks for.

    `OPENAI_API_KEY` or `OPENAI_BASE_URL` (a local server such as Ollama or vLLM needs no key) give
    a `ChatOpenAI` of the model `OPENAI_MODEL`. Without them it is an `OfflineChatModel` with
    `CHAINSERVE_DEMO_PAUSE` seconds between tokens. An empty variable counts as unset.

    Args:
        **options: Arguments for `ChatOpenAI`, such as `temperature`; unused offline.

    Raises:
        ConfigurationError: langchain-openai is not installed, or the pause is no number of seconds.
    """
    key, base_url = _variable("OPENAI_API_KEY"), _variable("OPENAI_BASE_URL")
    if key is None and base_url is None:
        return OfflineChatModel(pause=_demo_pause())
    settings: dict[str, Any] = {
        "model": _variable("OPENAI_MODEL") or DEFAULT_OPENAI_MODEL,
        "api_key": key or _PLACEHOLDER_KEY,
        # Never None: the openai package would read the variable itself, and an empty one as it is.
        "base_url": base_url or _OPENAI_URL,
        "streaming": True,
        # Not every server that speaks OpenAI's protocol accepts `stream_options`.
        "stream_usage": base_url is None,
        "timeout": 60,
        "max_retries": 2,
    }
    return _openai_model(settings | options)


def model_name(model: BaseChatModel) -> str:
    """Return the name of a model from `chat_model`: "offline-demo", or OpenAI's name for it."""
    return str(getattr(model, "model_name", type(model).__name__))


def _openai_model(settings: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise ConfigurationError(
            "OPENAI_API_KEY or OPENAI_BASE_URL is set, but langchain-openai is not installed. "
            "Install chainserve[openai], or unset both for the offline demo."
        ) from error
    return ChatOpenAI(**settings)


def _demo_pause() -> float:
    text = _variable("CHAINSERVE_DEMO_PAUSE")
    if text is None:
        return DEFAULT_PAUSE
    try:
        pause = float(text)
    except ValueError:
        pause = -1.0
    if not 0 <= pause <= 60:
        raise ConfigurationError(
            f"CHAINSERVE_DEMO_PAUSE is {text!r}; set a number of seconds from 0 to 60."
        )
    return pause


def _variable(name: str) -> str | None:
    """Return an environment variable; an empty one is unset, as Compose files pass it."""
    return os.environ.get(name, "").strip() or None
