"""`ChatOpenAI` without a model of the OpenAI SDK for each piece of text."""

import sys
from collections.abc import AsyncGenerator
from functools import cache
from typing import Any

from langchain_core.runnables import Runnable

from chainserve.fast_paths.known import is_openai_known


def is_chat_openai(runnable: Runnable[Any, Any]) -> bool:
    """Tell whether a runnable is `ChatOpenAI` itself; its package is not imported for that."""
    module = sys.modules.get("langchain_openai.chat_models.base")
    return module is not None and type(runnable) is module.ChatOpenAI and is_openai_known()


@cache
def chat_openai() -> type:
    """Return the class that takes the place of `ChatOpenAI`."""
    replaced: Any = sys.modules["langchain_openai.chat_models.base"].ChatOpenAI
    taken = type(replaced.__name__, (replaced,), {"__module__": replaced.__module__})
    # Set on the class, it goes before the member of the instance.
    taken.async_client = property(_plain_completions)  # type: ignore[attr-defined]
    return taken


def _plain_completions(model: Any) -> Any:
    given = model.__dict__["async_client"]
    return PlainCompletions(given) if given is not None and is_openai_known() else given


class PlainCompletions:
    """The SDK's `chat.completions`, whose streams have plain data for chunks of nothing but text.

    The SDK makes a model of each chunk, of which `ChatOpenAI` makes a `dict` again. That is what
    it was before, where it has only members that mean the same with and without their defaults.

    Args:
        completions: What the SDK gave the model.
    """

    def __init__(self, completions: Any) -> None:
        self._completions = completions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._completions, name)

    async def create(self, **payload: Any) -> Any:
        """Do what the SDK does; return its answer, or an equal stream.

        Raises:
            openai.APIError: As the SDK does.
        """
        answer = await self._completions.create(**payload)
        sdk = sys.modules["openai"]
        return _PlainStream(answer) if type(answer) is sdk.AsyncStream else answer


class _PlainStream:
    """A stream of the SDK; chunks of more than text are the models that they always were."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._chunk_type = stream._cast_to
        stream._cast_to = object  # Of which the SDK makes no model.

    async def __aenter__(self) -> "_PlainStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.close()

    async def __aiter__(self) -> AsyncGenerator[Any]:
        stream = self._stream
        async for data in stream:
            if _is_plain(data):
                yield data
            else:
                yield stream._client._process_response_data(
                    data=data, cast_to=self._chunk_type, response=stream.response
                )


_OF_A_DELTA = {"role", "content", "refusal", "tool_calls", "function_call"}
_OF_A_CHOICE = {"index", "delta", "finish_reason", "logprobs"}
_OF_A_CHUNK = {
    "id",
    "object",
    "created",
    "model",
    "service_tier",
    "system_fingerprint",
    "choices",
    "usage",
    "obfuscation",
}


def _is_plain(data: Any) -> bool:
    """Tell whether a chunk is a choice with text in it, and nothing else that would count."""
    try:
        [choice] = data["choices"]
        delta = choice["delta"]
        content = delta["content"]
    except (KeyError, TypeError, ValueError):
        return False
    return (
        (type(content) is str or content is None)
        and delta.get("role") in (None, "assistant")
        and not delta.get("tool_calls")
        and not delta.get("function_call")
        and choice.get("finish_reason") is None
        and choice.get("logprobs") is None
        and data.get("usage") is None
        and delta.keys() <= _OF_A_DELTA
        and choice.keys() <= _OF_A_CHOICE
        and data.keys() <= _OF_A_CHUNK
    )
