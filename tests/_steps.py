"""Steps for chains that write into a journal what they see and how they end."""

# No `from __future__ import annotations`: RunnableGenerator reads its types from the annotations.

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, SimpleChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
from pydantic import PrivateAttr

from tests._journal import STEPS, Journal

AnyRunnable = Runnable[Any, Any]


def source(journal: Journal, *chunks: Any, slow: bool = False, name: str = "source") -> AnyRunnable:
    """Stream the chunks whatever the input; an exception among them is raised.

    Args:
        journal: Where each step of it is noted.
        chunks: What to stream.
        slow: Whether to wait for a turn of the loop before each chunk.
        name: Its name.
    """

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        journal.note(name, "starts")
        try:
            async for value in inputs:
                journal.note(name, "is given", value)
            for chunk in chunks:
                if slow:
                    await asyncio.sleep(0)
                journal.note(name, "is asked for", chunk)
                yield _made(chunk)
            journal.note(name, "ends")
        except BaseException as error:
            journal.note(name, "is left", error)
            raise
        finally:
            if slow:
                await asyncio.sleep(0)
            journal.note(name, "is closed")

    def stream(inputs: Iterator[Any]) -> Iterator[Any]:
        for value in inputs:
            journal.note(name, "is given", value)
        for chunk in chunks:
            yield _made(chunk)

    return RunnableGenerator(stream, astream, name=name)


def _made(chunk: Any) -> Any:
    """Return a chunk for this run alone, since who receives one may change it."""
    if isinstance(chunk, BaseException):
        raise deepcopy(chunk)
    return deepcopy(chunk)


def passing(journal: Journal, name: str = "passing") -> AnyRunnable:
    """Hand on each chunk."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        journal.note(name, "starts")
        try:
            async for value in inputs:
                journal.note(name, "passes", value)
                yield value
        except BaseException as error:
            journal.note(name, "is left", error)
            raise
        finally:
            journal.note(name, "is closed")

    def stream(inputs: Iterator[Any]) -> Iterator[Any]:
        for value in inputs:
            journal.note(name, "passes", value)
            yield value

    return RunnableGenerator(stream, astream, name=name)


def taking(journal: Journal, count: int, *, then: Sequence[Any] = ()) -> AnyRunnable:
    """Hand on so many chunks, stop reading, stream some of its own, and end."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        left = count
        try:
            while left:
                left -= 1
                yield await anext(inputs)
            for chunk in then:
                journal.note("taking", "adds", chunk)
                yield chunk
        except StopAsyncIteration as error:
            raise ValueError("there are too few chunks") from error
        finally:
            journal.note("taking", "is closed")

    return RunnableGenerator(astream, name="taking")


def gathering(journal: Journal) -> AnyRunnable:
    """Read all chunks, then stream what they were, and more when the input has ended."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        read = [value async for value in inputs]
        journal.note("gathering", "has read", read)
        for value in read:
            yield f"<{value}>"
        yield "<end>"

    return RunnableGenerator(astream, name="gathering")


def setting(journal: Journal, value: str) -> AnyRunnable:
    """Set the steps' context variable for as long as it streams, and for each chunk."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        token = STEPS.set(value)
        try:
            count = 0
            async for chunk in inputs:
                journal.note("setting", value, chunk)
                yield chunk
                count += 1
                journal.note("setting", value, "goes on")
                inner = STEPS.set(f"{value} {count}")
                yield f"{value} {count}"
                STEPS.reset(inner)
        finally:
            journal.note("setting", value, "is closed")
            STEPS.reset(token)

    return RunnableGenerator(astream, name=f"setting {value}")


def seeing(journal: Journal, name: str = "seeing") -> AnyRunnable:
    """Return the input; note the config that is given and that of the context."""

    def see(value: Any, config: RunnableConfig) -> Any:
        journal.note_config(name, config)
        return value

    async def asee(value: Any, config: RunnableConfig) -> Any:
        journal.note_config(name, config)
        return value

    return RunnableLambda(see, asee, name=name)


def seeing_stream(journal: Journal) -> AnyRunnable:
    """Hand on each chunk; note the config that is given and, at each, that of the context."""

    async def astream(inputs: AsyncIterator[Any], config: RunnableConfig) -> AsyncIterator[Any]:
        async for value in inputs:
            journal.note_config("seeing stream", config)
            yield value

    return RunnableGenerator(astream, name="seeing stream")  # type: ignore[arg-type]


class ScriptedModel(BaseChatModel):
    """A chat model that streams messages, and raises an exception among them."""

    script: tuple[Any, ...] = ()
    info: dict[str, Any] | None = None
    fresh: bool = True
    _journal: Journal | None = PrivateAttr(default=None)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"length": len(self.script)}

    def watched_by(self, journal: Journal) -> "ScriptedModel":
        """Let the journal know of what it is asked."""
        self._journal = journal
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = ""
        for part in self.script:
            text += str(_made(part).content)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text, id="whole"))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._note("is asked", messages, stop, kwargs)
        try:
            for part in self.script:
                message = _made(part)
                info = deepcopy(self.info) if part is self.script[-1] else None
                self._note("streams", message)
                yield ChatGenerationChunk(message=message, generation_info=info)
        except BaseException as error:
            self._note("is left", error)
            raise
        finally:
            await asyncio.sleep(0)
            self._note("is closed")

    def _note(self, *what: Any) -> None:
        if self._journal is not None:
            self._journal.note("model", *what)


class WholeModel(SimpleChatModel):
    """A chat model of the application's own that does not stream."""

    text: str = "all at once"

    @property
    def _llm_type(self) -> str:
        return "whole"

    def _call(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        return self.text


class ThreadModel(WholeModel):
    """A chat model that streams in a thread alone."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for token in self.text.split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=token))


def text_chunks(*tokens: str, **members: Any) -> tuple[AIMessageChunk, ...]:
    """Return message chunks with these texts."""
    return tuple(AIMessageChunk(content=token, **members) for token in tokens)


def scripted(*script: Any, **fields: Any) -> Callable[[Journal], AnyRunnable]:
    """Return what builds a model with that script."""
    return lambda journal: ScriptedModel(script=script, **fields).watched_by(journal)
