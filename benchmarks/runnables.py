"""The chains that are measured. None of them waits for anything, unless its name says so."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel, agenerate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
)

Build = Callable[[int], Runnable[Any, Any]]
"""Makes a chain whose answer has about so many chunks."""

PAUSE_SECONDS = 0.05
"""Between two tokens of a paced stream: 20 a second, as a model talks."""

GRAPH_STEPS = 10


def token(number: int) -> str:
    """Return one of many short words; a token of English has four or five characters."""
    return f"tok{number % 100:02} "


def stamp() -> str:
    """Return the time as a token: the clock is the same in all processes of a machine."""
    return f"@{time.monotonic_ns()} "


async def now(number: int) -> str:
    """Give a token at once."""
    return token(number)


async def paced(number: int) -> str:
    """Give a token that tells when, at the pace of a model."""
    await asyncio.sleep(PAUSE_SECONDS)
    return stamp()


async def one_then_none(number: int) -> str:
    """Give one token, and the next when everything is over."""
    if number:
        await asyncio.Event().wait()
    return token(number)


class ScriptedModel(BaseChatModel):
    """A chat model that costs as little as one can: tokens from a function, no network.

    Attributes:
        tokens: How many it says.
        say: Gives each of them.
    """

    tokens: int
    say: Callable[[int], Any] = now

    @property
    def _llm_type(self) -> str:
        return "scripted"

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(self.tokens):
            yield ChatGenerationChunk(message=AIMessageChunk(content=await self.say(number)))

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        raise NotImplementedError("the servers that are measured run chains asynchronously")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, run_manager, **kwargs))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("the servers that are measured run chains asynchronously")


def _prompt() -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_messages(
        [("system", "You answer in one paragraph."), ("human", "Tell me about {topic}.")]
    )


def messages(tokens: int) -> Runnable[Any, Any]:
    """Prompt and model."""
    return _prompt() | ScriptedModel(tokens=tokens)


def usual(tokens: int) -> Runnable[Any, Any]:
    """Prompt, model and parser: what most chains are."""
    return messages(tokens) | StrOutputParser()


def usual_paced(tokens: int) -> Runnable[Any, Any]:
    """The usual chain with a model that takes its time."""
    return _prompt() | ScriptedModel(tokens=tokens, say=paced) | StrOutputParser()


def usual_idle(tokens: int) -> Runnable[Any, Any]:
    """The usual chain with a model that stops after its first token."""
    return _prompt() | ScriptedModel(tokens=tokens, say=one_then_none) | StrOutputParser()


def bare(chunks: int) -> Runnable[Any, Any]:
    """A generator of strings: as little of LangChain as there can be."""
    return _generator(chunks, now)


def bare_idle(chunks: int) -> Runnable[Any, Any]:
    """A generator that stops after its first string."""
    return _generator(chunks, one_then_none)


def _generator(chunks: int, say: Callable[[int], Any]) -> Runnable[Any, Any]:
    async def words(given: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in given:
            for number in range(chunks):
                yield await say(number)

    return RunnableGenerator(words).with_types(input_type=Any)


def dicts(tokens: int) -> Runnable[Any, Any]:
    """An answer beside its question, as chains that look things up stream it."""
    return RunnablePassthrough.assign(answer=usual(tokens))


def echo(_: int) -> Runnable[Any, Any]:
    """A function that returns its input."""

    async def same(value: Any) -> Any:
        return value

    return RunnableLambda(same).with_types(input_type=Any)


def graph(steps: int) -> Runnable[Any, Any]:
    """A compiled graph that asks a model in a loop; each step is a chunk."""
    from langgraph.graph import END, START, MessagesState, StateGraph

    model = ScriptedModel(tokens=10)

    async def ask(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def more(state: Any) -> str:
        return "ask" if len(state["messages"]) <= steps else END

    states = StateGraph(MessagesState)
    states.add_node("ask", ask)
    states.add_edge(START, "ask")
    states.add_conditional_edges("ask", more, ["ask", END])
    return states.compile()


def openai(_: int) -> Runnable[Any, Any]:
    """The usual chain with OpenAI's client; the environment says where its server is."""
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    url = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    model = ChatOpenAI(model="scripted", base_url=url, api_key=SecretStr("none"), max_retries=0)
    return _prompt() | model | StrOutputParser()
