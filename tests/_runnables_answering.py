"""Chat models that answer in one piece, to be called in the fast way and in LangChain's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from pydantic import PrivateAttr

from tests._equivalence import Case
from tests._handlers import handler
from tests._journal import Journal
from tests._runnables_models import PROMPT, QUESTION, CountingLimiter
from tests._steps import AnyRunnable, passing

_WORD: ContextVar[str] = ContextVar("word", default="unset")
_USAGE = UsageMetadata(input_tokens=3, output_tokens=1, total_tokens=4)

Answer = Callable[["AnsweringModel"], Awaitable[ChatResult]]


class AnsweringModel(BaseChatModel):
    """A chat model that answers at once, as providers do that are not asked to stream."""

    streaming: bool = False
    _journal: Journal = PrivateAttr()
    _answer: Answer = PrivateAttr()

    @property
    def _llm_type(self) -> str:
        return "answering"

    def answering(self, journal: Journal, answer: Answer) -> AnsweringModel:
        """Say what it answers, and let the journal know of what it is asked."""
        self._journal, self._answer = journal, answer
        return self

    def note(self, *what: Any) -> None:
        """Write into the journal."""
        self._journal.note("model", *what)

    async def stall(self) -> None:
        """Wait for what never comes."""
        self._journal.stalls.set()
        await asyncio.Event().wait()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.note("is asked", messages, stop, run_manager is not None, kwargs)
        return await self._answer(self)


class WithoutManager(AnsweringModel):
    """A model that wants no run manager."""

    async def _agenerate(  # type: ignore[override]
        self, messages: list[BaseMessage], stop: list[str] | None = None, **kwargs: Any
    ) -> ChatResult:
        self.note("is asked", messages, stop, sorted(kwargs))
        return await self._answer(self)


class OwnWay(AnsweringModel):
    """A model that is called in a way of its own."""

    async def agenerate_prompt(self, *args: Any, **kwargs: Any) -> Any:
        """Note that it was this one."""
        self.note("in its own way")
        return await super().agenerate_prompt(*args, **kwargs)


class Combining(AnsweringModel):
    """A model that does not like what it answered."""

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        self.note("combines", llm_outputs)
        raise ArithmeticError("these do not add up")


def _said(*messages: AIMessage, **members: Any) -> Answer:
    """Answer with these messages."""

    async def answer(model: AnsweringModel) -> ChatResult:
        generations = [
            ChatGeneration(
                message=message.model_copy(deep=True), generation_info={"finish": "stop"}
            )
            for message in messages
        ]
        return ChatResult(generations=generations, **members)

    return answer


def _raised(error: Callable[[], BaseException], *, late: bool = False) -> Answer:
    async def answer(model: AnsweringModel) -> ChatResult:
        if late:
            await asyncio.sleep(0)
        raise error()

    return answer


async def _set_a_variable(model: AnsweringModel) -> ChatResult:
    model.note("sees", _WORD.get())
    _WORD.set("of the model")
    await asyncio.sleep(0)
    model.note("sees", _WORD.get())
    return ChatResult(generations=[ChatGeneration(message=AIMessage("set"))])


async def _wait_for_what_is_cancelled(model: AnsweringModel) -> ChatResult:
    task = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    task.cancel("of the model")
    await task
    raise AssertionError


async def _time_out(model: AnsweringModel) -> ChatResult:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()
    raise AssertionError


async def _survive_a_time_out(model: AnsweringModel) -> ChatResult:
    try:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    except TimeoutError as error:
        model.note("timed out", error)
    return ChatResult(generations=[ChatGeneration(message=AIMessage("still here"))])


async def _wait(model: AnsweringModel) -> ChatResult:
    try:
        await model.stall()
    finally:
        await asyncio.sleep(0)
        model.note("is left")
    raise AssertionError


async def _stay(model: AnsweringModel) -> ChatResult:
    try:
        await model.stall()
    except asyncio.CancelledError as error:
        model.note("stays", error)
        await asyncio.sleep(0)
    return ChatResult(generations=[ChatGeneration(message=AIMessage("nobody hears"))])


async def _wait_and_raise(model: AnsweringModel) -> ChatResult:
    try:
        await model.stall()
    finally:
        raise KeyError("on the way out")


def _seeing_the_variable(journal: Journal) -> AnyRunnable:
    async def see(value: Any) -> Any:
        journal.note("after", _WORD.get())
        return value

    return RunnableLambda(see)


def _model(answer: Answer, kind: type[AnsweringModel] = AnsweringModel, **members: Any) -> Any:
    """Return a model between two steps."""

    def build(journal: Journal) -> AnyRunnable:
        made = {name: make(journal) if callable(make) else make for name, make in members.items()}
        model = kind(**made).answering(journal, answer)
        return PROMPT | model | passing(journal)

    return Case(build, input=QUESTION)


def _bound(answer: Answer, **kwargs: Any) -> Any:
    def build(journal: Journal) -> AnyRunnable:
        model = AnsweringModel().answering(journal, answer)
        return PROMPT | model.bind(**kwargs) | passing(journal)

    return Case(build, input=QUESTION)


HELLO = _said(AIMessage("hello"))

ANSWERING = {
    "an answer": _model(HELLO),
    "an answer with an id": _model(_said(AIMessage("hello", id="mine"))),
    "an answer with usage": _model(_said(AIMessage("hello", usage_metadata=_USAGE))),
    "an answer with output of the model": _model(
        _said(
            AIMessage("hello", response_metadata={"own": 1, "both": "message"}),
            llm_output={"model_name": "x", "both": "output"},
        )
    ),
    "several answers": _model(_said(AIMessage("a"), AIMessage("b", id="b"), llm_output={"n": 2})),
    "no answer": _model(_said()),
    "an answer in the version v1": _model(
        _said(AIMessage([{"type": "text", "text": "hello"}])), output_version="v1"
    ),
    "a model without a manager": _model(HELLO, WithoutManager),
    "a model in its own way": _model(HELLO, OwnWay),
    "outputs that are not combined": _model(
        _said(AIMessage("hello"), llm_output={"n": 1}), Combining
    ),
    "an error at once": _model(_raised(lambda: ValueError("no"))),
    "an error later": _model(_raised(lambda: ValueError("no"), late=True)),
    "an error with a response": _model(_raised(lambda: _with_a_response("no"))),
    "a cancelled model": _model(_raised(lambda: asyncio.CancelledError("of its own"))),
    "a model that waits for what is cancelled": _model(_wait_for_what_is_cancelled),
    "a model that times out": _model(_time_out),
    "a model that survives a time-out": _model(_survive_a_time_out),
    "a model that sets a variable": Case(
        lambda j: (
            AnsweringModel().answering(j, _set_a_variable)
            | _seeing_the_variable(j)
            | AnsweringModel().answering(j, _set_a_variable)
        )
    ),
    "a model given what is no message": Case(
        lambda j: passing(j) | AnsweringModel().answering(j, HELLO), input=5
    ),
    "a cache": _model(HELLO, cache=lambda _: InMemoryCache()),
    "a cache that is off": _model(HELLO, cache=False),
    "a cache that is not there": _model(HELLO, cache=True),
    "a limit": _model(HELLO, rate_limiter=CountingLimiter),
    "streaming is asked for": _model(HELLO, streaming=True),
    "streaming is asked for in the call": _bound(HELLO, stream=True),
    "handlers of the model": _model(
        HELLO, callbacks=lambda j: [handler(j, "inline")], tags=["own"], metadata={"own": 1}
    ),
    "arguments": _bound(HELLO, stop=["x"], extra=1),
    "an argument that is a config's": _bound(HELLO, tags=["twice"]),
    "an output format": _bound(
        HELLO, ls_structured_output_format={"kwargs": {"a": 1}, "schema": {"title": "T"}}
    ),
}

WAITING = {
    "a model that waits": _model(_wait),
    "a model that stays": _model(_stay),
    "a model that raises when it is left": _model(_wait_and_raise),
}


def _with_a_response(text: str) -> Exception:
    error: Any = RuntimeError(text)
    error.response = None
    return error  # type: ignore[no-any-return]
