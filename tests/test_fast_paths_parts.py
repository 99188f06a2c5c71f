"""What fast paths are made of: awaiting in a context, and adding up late."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar, copy_context
from itertools import product
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessageChunk
from langchain_core.runnables import RunnableGenerator
from langchain_core.runnables.utils import AddableDict, accepts_config, accepts_run_manager
from pydantic import BaseModel

from chainserve import Chain, create_app
from chainserve.fast_paths.contexts import in_context
from chainserve.fast_paths.signatures import takes
from chainserve.fast_paths.sums import Sum
from chainserve.settings import Settings
from tests._bridge import request

_NUMBER: ContextVar[int] = ContextVar("number", default=0)


async def test_what_is_awaited_runs_in_the_context_and_leaves_there_what_it_sets() -> None:
    context = copy_context()
    context.run(_NUMBER.set, 1)

    async def count() -> tuple[int, int]:
        before = _NUMBER.get()
        _NUMBER.set(2)
        await asyncio.sleep(0)
        return before, _NUMBER.get()

    assert await in_context(count(), context) == (1, 2)
    assert (context[_NUMBER], _NUMBER.get()) == (2, 0)


async def test_it_runs_in_the_task_that_awaits() -> None:
    async def task() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    assert await in_context(task(), copy_context()) is asyncio.current_task()


async def test_its_error_is_raised() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("nothing")

    with pytest.raises(LookupError, match="nothing"):
        await in_context(fail(), copy_context())


async def test_being_cancelled_reaches_it_where_it_waits_and_in_its_context() -> None:
    context = copy_context()
    context.run(_NUMBER.set, 7)
    seen: list[int] = []
    waits = asyncio.Event()

    async def wait() -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append(_NUMBER.get())

    task = asyncio.ensure_future(in_context(wait(), context))
    await waits.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [7]


async def test_what_is_thrown_in_may_be_answered() -> None:
    waits = asyncio.Event()

    async def stubborn() -> str:
        waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "still here"

    task = asyncio.ensure_future(in_context(stubborn(), copy_context()))
    await waits.wait()
    task.cancel()

    assert await task == "still here"


async def test_a_context_is_free_while_what_runs_in_it_waits() -> None:
    context = copy_context()
    go = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        await go.wait()
        yield 1

    reading = asyncio.ensure_future(in_context(anext(numbers()), context))
    await asyncio.sleep(0)

    assert context.run(_NUMBER.get) == 0
    go.set()
    assert await reading == 1


def one_by_one(chunks: list[Any]) -> Any:
    """Add up as LangChain does."""
    total: Any = None
    addable = True
    for chunk in chunks:
        if not addable or total is None:
            total = chunk
            continue
        try:
            total = total + chunk
        except TypeError:
            total, addable = chunk, False
    return total


def at_the_end(chunks: list[Any]) -> Any:
    """Add up as the fast paths do."""
    total = Sum()
    for chunk in chunks:
        total.add(chunk)
    return total.result()


class _Word(str):
    def __add__(self, other: str) -> "_Word":
        return _Word(f"{self!s} {other!s}")


def message(content: Any = "", **members: Any) -> AIMessageChunk:
    """Return a chunk as models make them."""
    return AIMessageChunk(content=content, **{"id": "lc_run--1", **members})


_OPENAI = {"model_provider": "openai"}
_CALL = {"name": "add", "args": '{"a"', "id": "1", "index": 0, "type": "tool_call_chunk"}
_USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
KINDS: dict[str, Any] = {
    "text": "a",
    "no text": "",
    "text of a message": message("m").text,
    "nothing": None,
    "a word of its own": _Word("b"),
    "a number": 1,
    "an object": {"a": 1},
    "an addable object": AddableDict(a="x"),
    "a list": [1],
    "a message": message("c"),
    "a message of openai": message("d", response_metadata=_OPENAI),
    "a message of another": message("e", response_metadata={"model_provider": "other"}),
    "a message with metadata": message("f", response_metadata={**_OPENAI, "model_name": "gpt"}),
    "a message with an id of its own": message("g", id="chatcmpl-1"),
    "a message without an id": message("h", id=None),
    "a message with blocks": message([{"type": "text", "text": "i", "index": 0}]),
    "a message with a tool call": message(tool_call_chunks=[_CALL]),
    "a message with usage": message("", usage_metadata=_USAGE),
    "a message with more": message("j", additional_kwargs={"refusal": "no"}),
    "the last message": message("", chunk_position="last"),
    "a message with a name": message("k", name="bot"),
    "a human message": HumanMessageChunk(content="l"),
}
PAIRS = [pytest.param([*pair], id=" and ".join(pair)) for pair in product(KINDS, repeat=2)]


def told(add_up: Callable[[list[Any]], Any], chunks: list[Any]) -> Any:
    """Return the type and the members of a sum, or of what adding raised."""
    try:
        total = add_up(chunks)
    except Exception as error:  # noqa: BLE001 - whatever adding raises
        return type(error), error.args
    return type(total), total.__dict__ if isinstance(total, BaseModel) else total


@pytest.mark.parametrize("names", PAIRS)
def test_two_chunks_of_any_kind_add_up_as_langchain_adds_them(names: list[str]) -> None:
    chunks = [KINDS[name] for name in names]

    assert told(at_the_end, chunks) == told(one_by_one, chunks)


@pytest.mark.parametrize("seed", range(50))
def test_many_chunks_add_up_as_langchain_adds_them(seed: int) -> None:
    chooser = random.Random(seed)
    usual = chooser.sample(sorted(KINDS), chooser.randint(1, 3))
    chunks = [
        KINDS[chooser.choice(usual if chooser.random() < 0.95 else sorted(KINDS))]
        for _ in range(chooser.randint(1, 700))
    ]

    assert told(at_the_end, chunks) == told(one_by_one, chunks)


def test_what_there_is_may_be_asked_for_meanwhile() -> None:
    total = Sum()
    sums = []
    for chunk in ("a", "b", None, "c"):
        total.add(chunk)
        sums.append(total.result())

    assert sums == ["a", "ab", None, "c"]


async def tasks_of_chunks(settings: Settings) -> int:
    """Return in how many tasks a server with these settings makes three chunks."""
    tasks = set()

    async def words(given: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in given:
            for word in "abc":
                tasks.add(id(held := asyncio.current_task()))
                kept.append(held)  # Its id is nobody else's then.
                yield word

    kept: list[Any] = []
    app = create_app([Chain(path="/words", runnable=RunnableGenerator(words))], settings)
    response = await request(app, "POST", "/words/stream", json={"input": 1})
    assert response.body.count(b"event: data") == 3
    return len(tasks)


async def test_a_setting_turns_them_off() -> None:
    assert await tasks_of_chunks(Settings()) == 1
    assert await tasks_of_chunks(Settings(fast_paths=False)) == 3


class Methods:
    def one(self, value: Any, config: Any) -> None: ...

    def named(self, *, run_manager: Any) -> None: ...

    def of_all(*config: Any) -> None: ...

    def of_first(config: Any, value: Any) -> None: ...  # noqa: N805

    @classmethod
    def of_class(cls, run_manager: Any, **config: Any) -> None: ...

    @staticmethod
    def of_none(config: Any) -> None: ...


@pytest.mark.parametrize("name", [name for name in vars(Methods) if not name.startswith("_")])
@pytest.mark.parametrize("owner", [Methods, Methods()])
def test_a_function_takes_what_its_signature_says(owner: Any, name: str) -> None:
    function = getattr(owner, name)

    assert takes(function) == (accepts_config(function), accepts_run_manager(function))
