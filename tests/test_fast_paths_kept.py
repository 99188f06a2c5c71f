"""What a stream keeps of the messages that have passed."""

import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import PrivateAttr

from chainserve.callbacks import RunObserver
from chainserve.config import ensure_run_id
from chainserve.fast_paths import faster

pytestmark = pytest.mark.anyio

USAGE = UsageMetadata(input_tokens=1, output_tokens=2, total_tokens=3)
TOKENS = 50


class Model(BaseChatModel):
    """Says tokens and, with the last one, how many; notes how many messages are there at once."""

    _made: list[weakref.ref[AIMessageChunk]] = PrivateAttr(default_factory=list)
    _most: int = 0

    @property
    def _llm_type(self) -> str:
        return "noting"

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(TOKENS):
            usage = USAGE if number == TOKENS - 1 else None
            message = AIMessageChunk(content=f"{number} ", usage_metadata=usage)
            self._made.append(weakref.ref(message))
            self._most = max(self._most, sum(made() is not None for made in self._made))
            yield ChatGenerationChunk(message=message)
            del message

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("unused"))])


class Told(AsyncCallbackHandler):
    """Wants to know what the model said."""

    def __init__(self) -> None:
        self.text = ""

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Note it."""
        self.text = response.generations[0][0].text


@pytest.fixture
def model() -> Model:
    return Model()


async def said(chain: Runnable[Any, Any], *handlers: Any) -> tuple[str, RunObserver]:
    """Stream as the server does, and return the text and the run's own handler."""
    config = RunnableConfig()
    ensure_run_id(config)
    observer = RunObserver(config["run_id"])  # type: ignore[arg-type]
    config["callbacks"] = [observer, *handlers]
    texts = [text async for text in faster(chain).astream("?", config)]
    return "".join(map(str, texts)), observer


TEXT = "".join(f"{number} " for number in range(TOKENS))


async def test_no_message_of_text_is_kept_where_nobody_is_told(model: Model) -> None:
    text, observer = await said(model | StrOutputParser())

    assert text == observer.output == TEXT
    assert observer.usage == USAGE
    assert model._most < 5


async def test_all_are_kept_for_a_handler_that_is_told_what_they_add_up_to(model: Model) -> None:
    told = Told()

    text, observer = await said(model | StrOutputParser(), told)

    assert text == told.text == TEXT
    assert observer.usage == USAGE
    assert model._most == TOKENS


async def test_a_run_that_is_a_model_has_all_of_its_message_as_output(model: Model) -> None:
    _, observer = await said(model)

    assert observer.output.content == TEXT
    assert observer.output.usage_metadata == observer.usage == USAGE
