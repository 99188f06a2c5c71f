"""Runnables in which a step waits for what never comes, until it is cancelled."""

# No `from __future__ import annotations`: RunnableGenerator reads its types from the annotations.

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    chain,
)
from langchain_core.tools import StructuredTool

from tests._equivalence import Case
from tests._journal import STEPS, Journal
from tests._steps import (
    AnyRunnable,
    ScriptedModel,
    gathering,
    passing,
    setting,
    source,
    text_chunks,
)

PROMPT = ChatPromptTemplate.from_template("{question}")
QUESTION = {"question": "why?"}


async def _stall(journal: Journal, name: str) -> None:
    """Wait for ever, and note what ends it."""
    journal.stalls.set()
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        journal.note(name, "is left", error)
        raise
    finally:
        journal.note(name, "is closed")


def _source(journal: Journal, *chunks: str) -> AnyRunnable:
    """Stream the chunks, then stall."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            pass
        for chunk in chunks:
            yield chunk
        await _stall(journal, "stalling")

    return RunnableGenerator(astream, name="stalling")


def _lambda(journal: Journal) -> AnyRunnable:
    async def wait(value: Any) -> Any:
        await _stall(journal, "waiting")

    return RunnableLambda(wait, name="waiting")


def _shielded(journal: Journal) -> AnyRunnable:
    """Wait behind a shield for what goes on when the step is cancelled."""

    async def work() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        journal.note("work", "is done")

    async def wait(value: Any) -> Any:
        journal.stalls.set()
        task = asyncio.create_task(work())
        try:
            await asyncio.shield(task)
            await asyncio.Event().wait()
        finally:
            await task
            journal.note("shielded", "is closed")

    return RunnableLambda(wait, name="shielded")


def _swallowing(journal: Journal) -> AnyRunnable:
    """Go on when cancelled."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        yield "before"
        try:
            await _stall(journal, "swallowing")
        except asyncio.CancelledError:
            yield "cancelled"
        yield "after"

    return RunnableGenerator(astream, name="swallowing")


def _turning(journal: Journal) -> AnyRunnable:
    """Make an error of a cancellation."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        yield "before"
        try:
            await _stall(journal, "turning")
        except asyncio.CancelledError as cancelled:
            raise ValueError("it was cancelled") from cancelled

    return RunnableGenerator(astream, name="turning")


def _slow_to_close(journal: Journal) -> AnyRunnable:
    """Take some turns of the loop to close."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        token = STEPS.set("set by the slow one")
        try:
            yield "before"
            await _stall(journal, "slow to close")
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            journal.note("slow to close", "resets")
            STEPS.reset(token)

    return RunnableGenerator(astream, name="slow to close")


class _StallingModel(ScriptedModel):
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            yield chunk
        assert self._journal is not None
        await _stall(self._journal, "the model's end")


def _model(journal: Journal, *texts: str) -> AnyRunnable:
    return _StallingModel(script=text_chunks(*texts)).watched_by(journal)


def _calling(journal: Journal) -> AnyRunnable:
    inner = _source(journal, "a") | passing(journal, "inner")

    async def call(value: Any) -> Any:
        return [chunk async for chunk in inner.astream(value)]

    return RunnableLambda(call, name="calling")


def _chained(journal: Journal) -> AnyRunnable:
    inner = _source(journal, "a") | passing(journal, "inner")

    @chain
    async def decorated(value: Any) -> AsyncIterator[Any]:
        async for piece in inner.astream(value):
            yield piece

    return decorated


def _tool(journal: Journal) -> AnyRunnable:
    async def wait(city: str) -> str:
        """Wait for the weather."""
        await _stall(journal, "the tool")
        return city

    return StructuredTool.from_function(coroutine=wait, name="weather")


STALLED = {
    "a source": Case(lambda j: _source(j, "a", "b") | passing(j) | passing(j, "b")),
    "a source before its first chunk": Case(lambda j: passing(j) | _source(j) | passing(j, "b")),
    "a source alone": Case(lambda j: _source(j, "a")),
    "a source that all is read of first": Case(lambda j: _source(j, "a") | gathering(j)),
    "a source in nested sequences": Case(
        lambda j: passing(j, "a") | (passing(j, "b") | (_source(j, "x") | passing(j))) | passing(j)
    ),
    "a source among context variables": Case(
        lambda j: _source(j, "a") | setting(j, "x") | passing(j) | setting(j, "y")
    ),
    "a lambda": Case(lambda j: source(j, "a", "b") | _lambda(j) | passing(j)),
    "a lambda behind a source that is open": Case(lambda j: _lambda(j) | passing(j)),
    "a shield": Case(lambda j: passing(j) | _shielded(j) | passing(j)),
    "a step that goes on": Case(lambda j: _swallowing(j) | passing(j) | passing(j, "b")),
    "a step that makes an error of it": Case(lambda j: _turning(j) | passing(j)),
    "a step that is slow to close": Case(lambda j: _slow_to_close(j) | passing(j)),
    "a model": Case(lambda j: PROMPT | _model(j, "a", "b") | StrOutputParser(), input=QUESTION),
    "a model before its first chunk": Case(
        lambda j: PROMPT | _model(j) | StrOutputParser(), input=QUESTION
    ),
    "a chain within a lambda": Case(lambda j: passing(j) | _calling(j) | passing(j)),
    "a chain within a generator": Case(lambda j: _chained(j) | passing(j)),
    "one of parallel": Case(
        lambda j: RunnableParallel(a=_source(j, "x"), b=passing(j)),
        concurrent=True,
    ),
    "all of parallel": Case(
        lambda j: RunnableParallel(a=_source(j, "x"), b=_lambda(j)), concurrent=True
    ),
    "what is assigned": Case(
        lambda j: RunnablePassthrough.assign(a=_model(j, "x") | StrOutputParser()),
        input=QUESTION,
        concurrent=True,
    ),
    "a fallback": Case(
        lambda j: (
            source(j, ValueError("no")).with_fallbacks([_source(j, "a") | passing(j)]) | passing(j)
        )
    ),
    "what is tried again": Case(lambda j: passing(j) | _lambda(j).with_retry() | passing(j)),
    "what is bound": Case(
        lambda j: (_source(j, "a") | passing(j)).with_config(tags=["x"]) | passing(j)
    ),
    "a tool": Case(lambda j: _tool(j) | passing(j), input={"city": "Bonn"}),
}
