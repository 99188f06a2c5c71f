"""Runnables that a test can steer: they wait at gates, fail, count, ignore cancellation, block.

Build them inside the test's event loop. What waits for the test gives up after WAIT_SECONDS with
a TimeoutError, so that a forgotten gate is a failure and not a hang. langchain-core runs each
step of a stream in a task of its own, so nothing here holds a scope over a yield.
"""

# No `from __future__ import annotations`: RunnableGenerator reads its types from the annotations.

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from pydantic import BaseModel

WAIT_SECONDS = 20.0


class GatedChain(RunnableGenerator[Any, str]):
    """Streams tokens, and waits at a gate before one of them.

    Its events are shared by all its runs; the counters tell several apart.

    Attributes:
        gate: Open it with `gate.set()`.
        reached: `reached[n]` is set when a run comes to token n, before the gate there;
            `reached[len(tokens)]` when it comes to the end.
        started: How many runs have started.
        cancellations: How many were cancelled, or closed by their reader.
        cancelled: Set with the first of these.
        finished: Set when a run has come to its end.
    """

    def __init__(self, tokens: Sequence[str] = ("a", "b", "c"), *, before: int = 1) -> None:
        super().__init__(self._stream, name="gated")
        self.tokens = tuple(tokens)
        self.before = before
        self.gate = asyncio.Event()
        self.reached = tuple(asyncio.Event() for _ in range(len(tokens) + 1))
        self.started = 0
        self.cancellations = 0
        self.cancelled = asyncio.Event()
        self.finished = asyncio.Event()

    async def _stream(self, inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        self.started += 1
        try:
            async for _ in inputs:
                pass
            for index, token in enumerate(self.tokens):
                await self._come_to(index)
                yield token
            await self._come_to(len(self.tokens))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancellations += 1
            self.cancelled.set()
            raise
        self.finished.set()

    async def _come_to(self, index: int) -> None:
        self.reached[index].set()
        if index == self.before:
            await _wait(self.gate)


class CountingChain(RunnableLambda[Any, Any]):
    """Returns its input once released; knows how many runs were in flight at once.

    Attributes:
        release: Lets all runs, also later ones, go on.
        in_flight: How many runs wait now.
        highest: The most there ever were.
        total: How many runs have started.
        cancellations: How many were cancelled.
    """

    def __init__(self) -> None:
        super().__init__(self._hold, name="counting")
        self.release = asyncio.Event()
        self.in_flight = 0
        self.highest = 0
        self.total = 0
        self.cancellations = 0
        self._changed = asyncio.Event()

    async def until_in_flight(self, count: int) -> None:
        """Wait until exactly so many runs are in flight."""
        async with asyncio.timeout(WAIT_SECONDS):
            while self.in_flight != count:
                self._changed.clear()
                await self._changed.wait()

    async def _hold(self, value: Any) -> Any:
        self._count(1)
        try:
            await _wait(self.release)
        except asyncio.CancelledError:
            self.cancellations += 1
            raise
        finally:
            self._count(-1)
        return value

    def _count(self, change: int) -> None:
        self.in_flight += change
        self.total += change == 1
        self.highest = max(self.highest, self.in_flight)
        self._changed.set()


class SwallowingChain(RunnableLambda[Any, Any]):
    """Goes on when it is cancelled, however often, until it is released.

    Attributes:
        release: Lets it return its input.
        started: Set when a run has started.
        cancellations: How many cancellations it has swallowed.
        cancelled: Set with the first of these.
        finished: Set when a run has returned.
    """

    def __init__(self) -> None:
        super().__init__(self._swallow, name="swallowing")
        self.release = asyncio.Event()
        self.started = asyncio.Event()
        self.cancellations = 0
        self.cancelled = asyncio.Event()
        self.finished = asyncio.Event()

    async def _swallow(self, value: Any) -> Any:
        self.started.set()
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while not self.release.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self.release.wait()
            except asyncio.CancelledError:
                self.cancellations += 1
                self.cancelled.set()
        self.finished.set()
        return value


class BlockingChain(RunnableLambda[Any, Any]):
    """Synchronous: blocks its thread until it is released, and cannot be cancelled.

    Attributes:
        release: A threading.Event; the rest are asyncio's, set from the thread.
        started: Set when a run has started.
        finished: Set when a run has returned or given up.
    """

    def __init__(self) -> None:
        super().__init__(self._block, name="blocking")
        self.release = threading.Event()
        self.started = asyncio.Event()
        self.finished = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def _block(self, value: Any) -> Any:
        self._loop.call_soon_threadsafe(self.started.set)
        try:
            if not self.release.wait(WAIT_SECONDS):
                raise TimeoutError("the test did not release the blocking chain")
        finally:
            self._loop.call_soon_threadsafe(self.finished.set)
        return value


class Person(BaseModel):
    """A pydantic model of the application's own, for inputs and outputs."""

    name: str
    age: int = 0


def echo(type_: Any = Any) -> Runnable[Any, Any]:
    """Return its input; the type goes into both schemas."""
    return RunnableLambda(_same, name="echo").with_types(input_type=type_, output_type=type_)


def answering(value: Any) -> Runnable[Any, Any]:
    """Return the value, whatever the input."""

    def answer(_: Any) -> Any:
        return value

    return RunnableLambda(answer, name="answering")


def streaming(*chunks: Any) -> Runnable[Any, Any]:
    """Stream the chunks, whatever the input, synchronously and asynchronously; maybe none."""

    def stream(inputs: Iterator[Any]) -> Iterator[Any]:
        for _ in inputs:
            pass
        yield from chunks

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            pass
        for chunk in chunks:
            yield chunk

    return RunnableGenerator(stream, astream, name="streaming")


def failing(after: int = 0, error: Exception | None = None) -> Runnable[Any, str]:
    """Stream so many tokens ("t0 ", "t1 " and so on), then raise."""
    to_raise = error or ValueError("the chain failed on purpose")
    tokens = [f"t{index} " for index in range(after)]

    def stream(inputs: Iterator[Any]) -> Iterator[str]:
        for _ in inputs:
            pass
        yield from tokens
        raise to_raise

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            pass
        for token in tokens:
            yield token
        raise to_raise

    return RunnableGenerator(stream, astream, name="failing")


def message_chunks(tokens: Sequence[str], *, message_id: str = "run-1") -> list[AIMessageChunk]:
    """Return the chunks in which a model streams a text, with a last empty one for the usage."""
    count = len(tokens)
    last = AIMessageChunk(
        content="",
        id=message_id,
        response_metadata={"finish_reason": "stop"},
        usage_metadata=UsageMetadata(input_tokens=7, output_tokens=count, total_tokens=7 + count),
    )
    return [*(AIMessageChunk(content=token, id=message_id) for token in tokens), last]


def tool_call_chunks(
    name: str, arguments: Sequence[str], *, call_id: str = "call_1", message_id: str = "run-1"
) -> list[AIMessageChunk]:
    """Return the chunks in which a model streams a tool call, its JSON arguments in pieces."""
    first = tool_call_chunk(name=name, args="", id=call_id, index=0)
    rest = [tool_call_chunk(args=piece, index=0) for piece in arguments]
    parts = [first, *rest]
    return [AIMessageChunk(content="", id=message_id, tool_call_chunks=[part]) for part in parts]


def sample_values() -> dict[str, Any]:
    """Return a value of each kind that goes over the wire, by the name of the kind."""
    call = tool_call(name="weather", args={"city": "Bonn"}, id="call_1")
    return {
        "str": "Grüße \u2028 \u0085 \U0001f600\r\n",
        "empty str": "",
        "int": 2**53 + 1,
        "float": 0.1,
        "bool": False,
        "null": None,
        "list": [1, "two", [None, {}]],
        "dict": {"a": 1, "nested": {"b": [True]}, "": "empty key"},
        "human message": HumanMessage("hi", name="ann"),
        "system message": SystemMessage("be brief"),
        "ai message": AIMessage(
            "hello",
            id="run-1",
            response_metadata={"model_name": "scripted"},
            usage_metadata={"input_tokens": 7, "output_tokens": 1, "total_tokens": 8},
        ),
        "ai message with content blocks": AIMessage([{"type": "text", "text": "hello"}]),
        "ai message with a tool call": AIMessage("", tool_calls=[call]),
        "ai message chunk": AIMessageChunk(content="hel", id="run-1"),
        "tool message": ToolMessage("sunny", tool_call_id="call_1"),
        "messages": [HumanMessage("hi"), AIMessage("hello")],
        "document": Document("text", metadata={"source": "a.txt", "page": 1}),
        "documents": {"docs": [Document("one"), Document("two")]},
        "string prompt": StringPromptValue(text="say hello"),
        "chat prompt": ChatPromptValue(messages=[HumanMessage("hi")]),
        "pydantic model": Person(name="Ann", age=7),
    }


def _same(value: Any) -> Any:
    return value


async def _wait(gate: asyncio.Event) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await gate.wait()


class History(BaseChatMessageHistory):
    """Messages in memory."""

    def __init__(self) -> None:
        self.messages: list[BaseMessage] = []

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        self.messages.extend(messages)

    def clear(self) -> None:
        self.messages.clear()
