"""Runnables to compare: sequences, steps of every kind, and what binds them."""

# No `from __future__ import annotations`: RunnableGenerator reads its types from the annotations.

from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
    RunnableSequence,
    RunnableSerializable,
    chain,
)

from tests._equivalence import Case
from tests._handlers import handler
from tests._journal import STEPS, Journal
from tests._steps import (
    AnyRunnable,
    gathering,
    passing,
    seeing,
    seeing_stream,
    setting,
    source,
    taking,
)

PROMPT = ChatPromptTemplate.from_messages([("system", "be brief"), ("human", "{question}")])
QUESTION = {"question": "why?"}
THREE = ("one", "two", "three")


class Addable:
    """A chunk that can be added to its like alone."""

    def __init__(self, *parts: int) -> None:
        self.parts = parts

    def __add__(self, other: Any) -> "Addable":
        return Addable(*self.parts, *other.parts) if isinstance(other, Addable) else NotImplemented


class Unhappy:
    """A chunk whose addition fails as no addition should."""

    def __add__(self, other: Any) -> Any:
        raise ValueError("this cannot be added")


class OwnSequence(RunnableSequence[Any, Any]):
    """A sequence of the application's own that marks each chunk."""

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async for chunk in super().atransform(input, config, **kwargs):
            yield f"*{chunk}"


class OwnSerializable(RunnableSerializable[Any, Any]):
    """A runnable of the application's own with fields."""

    mark: str = "+"

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return f"{input}{self.mark}"

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        yield f"{input}"
        yield self.mark


class OwnRunnable(Runnable[Any, Any]):
    """A runnable of the application's own that knows nothing of callbacks."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return [input, sorted(kwargs)]


def _of(*steps: Any, name: str | None = None) -> RunnableSequence[Any, Any]:
    return RunnableSequence(*steps, name=name)


def _upper(text: Any) -> Any:
    return text.upper() if isinstance(text, str) else text


def _failing(value: Any) -> Any:
    raise KeyError("the step fails", value)


async def _failing_because(value: Any) -> Any:
    try:
        raise OSError("deep down")
    except OSError as error:
        raise LookupError("the step fails for a reason") from error


async def _exiting(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for chunk in inputs:
        yield chunk
        raise StopIteration("of no one")


async def _counting(value: Any) -> AsyncIterator[int]:
    for number in range(3):
        yield number


def _counting_in_a_thread(value: Any) -> Iterator[int]:
    yield from range(3)


def _endless(value: Any) -> Any:
    return RunnableLambda(_endless, name="endless")


async def _dispatching(value: Any) -> Any:
    await adispatch_custom_event("of our own", {"value": value})
    return value


def _calling(journal: Journal, *, with_config: bool) -> AnyRunnable:
    """Call a chain within a step, handing the config on or not."""
    inner = source(journal, *THREE) | passing(journal) | _upper

    async def call(value: Any, config: RunnableConfig) -> Any:
        given = config if with_config else None
        read = [chunk async for chunk in inner.astream(value, given)]
        return [read, await inner.ainvoke(value, given)]

    return RunnableLambda(call, name="calling")


def _reading_events(journal: Journal) -> AnyRunnable:
    """Read the events of a chain within a step, so that two who read events hear of it."""
    inner = source(journal, *THREE) | passing(journal)

    async def read(value: Any) -> Any:
        events = inner.astream_events(value, version="v2")
        return [[event["event"], event["name"], event["data"]] async for event in events]

    return RunnableLambda(read, name="reading events")


def _chained(journal: Journal) -> AnyRunnable:
    inner = source(journal, *THREE) | passing(journal)

    @chain
    async def decorated(value: Any) -> AsyncIterator[Any]:
        async for piece in inner.astream(value):
            yield f"({piece})"

    return decorated


def _leaking(journal: Journal) -> AnyRunnable:
    """Set a context variable and leave it so."""

    async def astream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for chunk in inputs:
            journal.note("leaking", "before")
            STEPS.set(f"left by {chunk}")
            yield chunk

    return RunnableGenerator(astream, name="leaking")


def _bound(journal: Journal) -> AnyRunnable:
    own = handler(journal, "inline")
    inner = source(journal, *THREE).with_config(
        tags=["inner"], metadata={"depth": 2}, run_name="in"
    )
    return (inner | passing(journal)).with_config(
        tags=["outer", "b"], metadata={"depth": 1}, run_name="out", callbacks=[own]
    )


def _listened(journal: Journal) -> AnyRunnable:
    def listen(run: Any) -> None:
        journal.add_aside("listened", run.name, run.inputs, run.outputs)

    return (source(journal, *THREE) | passing(journal)).with_listeners(
        on_start=listen, on_end=listen, on_error=listen
    )


def _alistened(journal: Journal) -> AnyRunnable:
    async def listen(run: Any, config: RunnableConfig) -> None:
        journal.add_aside("listened", run.name, run.inputs, run.outputs)

    return (source(journal, *THREE) | passing(journal)).with_alisteners(
        on_start=listen, on_end=listen, on_error=listen
    )


SEQUENCES = {
    "two steps": Case(lambda j: _of(source(j, *THREE), passing(j)), inputs=("h", "i")),
    "two steps with a name": Case(lambda j: _of(source(j, *THREE), passing(j), name="mine")),
    "five steps": Case(
        lambda j: _of(passing(j, "a"), passing(j, "b"), source(j, *THREE), passing(j, "c"), _upper),
        inputs=("h", "i"),
    ),
    "nested sequences": Case(
        lambda j: passing(j, "a") | _of(_of(source(j, *THREE), passing(j), name="in"), passing(j)),
        inputs=("h", "i"),
    ),
    "a slow source": Case(lambda j: source(j, *THREE, slow=True) | passing(j) | passing(j, "b")),
    "many chunks": Case(lambda j: source(j, *map(str, range(40))) | passing(j)),
    "one generator": Case(lambda j: source(j, *THREE), inputs=("h", "i")),
    "no chunks": Case(lambda j: source(j) | passing(j)),
    "no chunks into a lambda": Case(lambda j: source(j) | RunnableLambda(_upper)),
    "objects": Case(lambda j: source(j, object(), object()) | passing(j)),
    "None": Case(lambda j: source(j, None, None, "a", None) | passing(j)),
    "None at the end": Case(lambda j: source(j, "a", None, "b") | passing(j) | seeing(j)),
    "a dict, then text": Case(lambda j: source(j, {"a": 1}, "text", "more") | passing(j)),
    "text, then a dict, then text": Case(
        lambda j: source(j, "a", {"b": 1}, "c", "d") | passing(j) | seeing(j)
    ),
    "lists": Case(lambda j: source(j, [1], [2, 3], []) | passing(j), inputs=([1], [2])),
    "numbers": Case(lambda j: source(j, 1, 2.5, True) | passing(j) | seeing(j)),
    "what is false": Case(lambda j: source(j, False, True, 2) | passing(j)),
    "what is empty, then text": Case(lambda j: source(j, {}, "a", "b") | passing(j)),
    "empty texts": Case(lambda j: source(j, "", "", "a", "") | passing(j)),
    "addable objects": Case(lambda j: source(j, Addable(1), Addable(2), Addable(3)) | passing(j)),
    "objects that cannot be added after a while": Case(
        lambda j: source(j, Addable(1), Addable(2), "x", Addable(3), Addable(4)) | passing(j)
    ),
    "chunks whose addition raises": Case(lambda j: source(j, Unhappy(), Unhappy()) | passing(j)),
    "a source that raises at once": Case(lambda j: source(j, ValueError("no", 1)) | passing(j)),
    "a source that raises after two": Case(
        lambda j: passing(j, "a") | source(j, "x", "y", ValueError("no")) | passing(j)
    ),
    "a lambda that raises": Case(lambda j: source(j, *THREE) | RunnableLambda(_failing)),
    "an async lambda that raises for a reason": Case(
        lambda j: source(j, *THREE) | RunnableLambda(_failing_because)
    ),
    "a step that raises after a chunk": Case(
        lambda j: source(j, *THREE) | RunnableGenerator(_exiting) | passing(j)
    ),
    "a step that takes two and ends": Case(lambda j: source(j, *THREE) | taking(j, 2) | passing(j)),
    "a step that takes one of an input in chunks": Case(
        lambda j: taking(j, 1) | passing(j), inputs=("a", "b", "c")
    ),
    "a step that takes two, then goes on": Case(
        lambda j: source(j, *THREE, slow=True) | taking(j, 2, then=["x", "y"]) | passing(j)
    ),
    "a step that reads nothing": Case(
        lambda j: source(j, *THREE) | taking(j, 0, then=["x"]), inputs=("a", "b")
    ),
    "a step that reads too much": Case(lambda j: source(j, *THREE) | taking(j, 5)),
    "a step that reads all first": Case(lambda j: source(j, *THREE) | gathering(j), inputs=THREE),
    "context variables": Case(
        lambda j: source(j, *THREE) | setting(j, "a") | passing(j) | setting(j, "b") | seeing(j),
    ),
    "context variables in a stream": Case(
        lambda j: passing(j) | setting(j, "a") | passing(j, "after"), inputs=("a", "b", "c")
    ),
    "a context variable that is left set": Case(
        lambda j: passing(j) | _leaking(j) | passing(j, "after"), inputs=("a", "b", "c")
    ),
    "configs in steps": Case(
        lambda j: _of(seeing(j, "a"), seeing_stream(j), _of(seeing(j, "b"), seeing(j, "c"))),
        inputs=("a", "b"),
        config=lambda: {"tags": ["t"], "metadata": {"m": 1}, "configurable": {"c": "d", "n": 1}},
    ),
    "a chain in a lambda with the config": Case(lambda j: _calling(j, with_config=True)),
    "a chain in a lambda without the config": Case(
        lambda j: passing(j, "before") | _calling(j, with_config=False) | seeing(j)
    ),
    "events that are read in a lambda": Case(lambda j: passing(j) | _reading_events(j)),
    "a decorated generator": Case(_chained),
    "a decorated generator in a sequence": Case(lambda j: _chained(j) | passing(j)),
    "a lambda": Case(lambda j: RunnableLambda(_upper), inputs=("a", "b")),
    "an async generator lambda": Case(lambda j: RunnableLambda(_counting) | passing(j)),
    "a generator lambda": Case(lambda j: RunnableLambda(_counting_in_a_thread) | passing(j)),
    "a lambda that returns a chain": Case(
        lambda j: passing(j) | RunnableLambda(lambda _: source(j, *THREE) | passing(j)) | passing(j)
    ),
    "the limit of recursion": Case(
        lambda j: passing(j) | RunnableLambda(_endless), config=lambda: {"recursion_limit": 3}
    ),
    "an event of our own": Case(lambda j: source(j, *THREE) | RunnableLambda(_dispatching)),
    "itemgetter": Case(lambda j: itemgetter("a") | passing(j), input={"a": "x"}),
    "passthrough": Case(lambda j: RunnablePassthrough() | passing(j), inputs=("a", "b")),
    "passthrough with a function": Case(
        lambda j: source(j, *THREE) | RunnablePassthrough(lambda value: j.note("passed", value))
    ),
    "a prompt": Case(lambda j: PROMPT, input=QUESTION),
    "a prompt that lacks a variable": Case(lambda j: PROMPT | passing(j), input={"other": 1}),
    "a text prompt in a sequence": Case(
        lambda j: PromptTemplate.from_template("say {question}") | passing(j) | seeing(j),
        input=QUESTION,
    ),
    "a sequence of our own": Case(
        lambda j: OwnSequence(first=source(j, *THREE), last=passing(j)) | passing(j, "after")
    ),
    "a serialisable of our own": Case(
        lambda j: source(j, *THREE) | OwnSerializable(mark="!") | passing(j), inputs=("a", "b")
    ),
    "a runnable of our own": Case(lambda j: source(j, *THREE) | OwnRunnable() | passing(j)),
    "bound arguments": Case(lambda j: passing(j) | OwnRunnable().bind(b=1, a=2) | passing(j)),
    "configs that are bound": Case(lambda j: _bound(j) | seeing(j)),
    "listeners": Case(_listened),
    "async listeners": Case(_alistened),
    "types that are bound": Case(
        lambda j: _of(source(j, *THREE), passing(j)).with_types(input_type=str, output_type=str)
    ),
}
