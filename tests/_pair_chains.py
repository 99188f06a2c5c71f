"""The runnables of the pairs: what a LangServe user mounts, with answers that are always the same.

Each function makes a new runnable, since some fakes count their answers.
"""

# No `from __future__ import annotations`: RunnableGenerator and LangGraph read the annotations.

import datetime
import enum
import itertools
import operator
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, cast

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSerializable,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

from tests._chains import answering, echo, message_chunks, streaming, tool_call_chunks

AnyRunnable: TypeAlias = Runnable[Any, Any]


class Color(enum.Enum):
    """An enumeration as an output."""

    RED = "red"


class Level(enum.IntEnum):
    """An enumeration of numbers as an output."""

    LOW = 1


@dataclass
class Point:
    """A dataclass as an output."""

    x: int
    y: float


class Address(BaseModel):
    """A part of an input or output model."""

    street: str
    zip: str | None = None


class Customer(BaseModel):
    """A pydantic model of the user's own."""

    name: str
    age: int = 0
    addresses: list[Address] = []
    home: Address | None = None


class Member(Customer):
    """A customer with a field more."""

    number: int


class Even(BaseModel):
    """A model that looks at its values itself."""

    number: int

    @field_validator("number")
    @classmethod
    def _even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("odd")
        return number


class Answered(TypedDict):
    """A schema that names fewer keys than the chain gives."""

    text: str


FIXED_UUID = uuid.UUID(int=5)
"""An id that is not random: the comparison leaves it in place."""

MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC)


class ScriptedChatModel(BaseChatModel):
    """Answers with the chunks it was given, streamed or added up."""

    chunks: list[AIMessageChunk]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        first, *rest = self.chunks
        total = first.__add__(rest)
        message = AIMessage(
            total.content,
            id=total.id,
            tool_calls=total.tool_calls,
            usage_metadata=total.usage_metadata,
            response_metadata=total.response_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk)


def list_model() -> AnyRunnable:
    """Return a model that streams its answer by characters."""
    return FakeListChatModel(responses=["Hi שלום 😀"])


def generic_model() -> AnyRunnable:
    """Return a model that streams its answer by words."""
    return GenericFakeChatModel(messages=itertools.repeat(AIMessage("hello big world")))


def usage_model() -> AnyRunnable:
    """Return a model that streams text, then its usage."""
    return ScriptedChatModel(chunks=message_chunks(["hel", "lo"]))


def tool_model() -> AnyRunnable:
    """Return a model that streams a tool call."""
    return ScriptedChatModel(chunks=tool_call_chunks("weather", ['{"city":', '"Bonn"}']))


def completion_model() -> AnyRunnable:
    """Return a model that is not a chat model."""
    return FakeListLLM(responses=["completed"])


def prompt() -> AnyRunnable:
    """Return a prompt of messages."""
    return ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "Tell of {topic}")])


def text_prompt() -> AnyRunnable:
    """Return a prompt of text."""
    return PromptTemplate.from_template("Tell of {topic}")


def text_chain() -> AnyRunnable:
    """Return the usual chain of prompt, model, and parser."""
    return prompt() | list_model() | StrOutputParser()


def json_chain() -> AnyRunnable:
    """Return a chain whose parser streams growing objects."""
    pieces = ['{"a": 1, "b":', ' ["x", ', '"y"]}']
    return prompt() | ScriptedChatModel(chunks=message_chunks(pieces)) | JsonOutputParser()


def _double(value: int) -> int:
    return value * 2


async def _adouble(value: int) -> int:
    return value * 2


def sync_double() -> AnyRunnable:
    """Return a sync function."""
    return RunnableLambda(_double)


def async_double() -> AnyRunnable:
    """Return an async function."""
    return RunnableLambda(_adouble)


def parallel() -> AnyRunnable:
    """Return branches that run side by side, of which only one streams more than a chunk."""
    return RunnableParallel(same=RunnablePassthrough(), once=sync_double())


def assigned() -> AnyRunnable:
    """Return the input with a key more."""
    return RunnablePassthrough.assign(length=_length)


def _length(value: dict[str, Any]) -> int:
    return len(value["text"])


def picked() -> AnyRunnable:
    """Return one key of an object."""
    return assigned().pick("length")


def branch() -> AnyRunnable:
    """Return a choice by the input."""
    return RunnableBranch(
        (RunnableLambda(_is_big), answering("big")),
        answering("small"),
    )


def _is_big(value: int) -> bool:
    return value > 10


def with_fallback() -> AnyRunnable:
    """Return a chain whose first choice fails."""
    return RunnableLambda(_fail).with_fallbacks([answering("second choice")])


def with_retries() -> AnyRunnable:
    """Return a chain that works on every second attempt; LangChain does not retry a stream."""
    attempts = itertools.count()

    def work(value: Any) -> Any:
        if next(attempts) % 2 == 0:
            raise ValueError("not yet")
        return value

    return RunnableLambda(work).with_retry(wait_exponential_jitter=False)


def _fail(value: Any) -> Any:
    raise ValueError("a secret of the chain")


def failing_function() -> AnyRunnable:
    """Return a function that fails with an unexpected error."""
    return RunnableLambda(_fail)


def raising(error: Callable[[], Exception]) -> Callable[[], AnyRunnable]:
    """Return the maker of a function that raises."""

    def fail(value: Any) -> Any:
        raise error()

    return lambda: RunnableLambda(fail)


def failing_at_the_end() -> AnyRunnable:
    """Return a chain that has streamed its whole answer when it fails."""
    return streaming("a", "b") | RunnableGenerator(_then_fail)


async def _then_fail(inputs: AsyncIterator[str]) -> AsyncIterator[str]:
    async for text in inputs:
        yield text
    raise ValueError("a secret of the chain")


def generator() -> AnyRunnable:
    """Return an async generator over its inputs."""

    async def words(inputs: AsyncIterator[str]) -> AsyncIterator[str]:
        async for text in inputs:
            for word in text.split():
                yield word

    return RunnableGenerator(words)


def sync_generator() -> AnyRunnable:
    """Return a generator that has no async form, which LangChain cannot stream from a server."""

    def words(inputs: Iterator[str]) -> Iterator[str]:
        for text in inputs:
            yield from text.split()

    return RunnableGenerator(words)


def generator_function() -> AnyRunnable:
    """Return a RunnableLambda of a function that yields."""

    def words(text: str) -> Iterator[str]:
        yield from text.split()

    return RunnableLambda(words)


def each() -> AnyRunnable:
    """Return a function for each item of a list."""
    return echo().map()


def bound() -> AnyRunnable:
    """Return a function with an argument bound to it."""

    def describe(value: Any, unit: str = "m") -> str:
        return f"{value} {unit}"

    return RunnableLambda(describe).bind(unit="km")


def _config_of(value: Any, config: RunnableConfig) -> Any:
    metadata = config.get("metadata", {})
    return {
        "tags": sorted(config.get("tags") or []),
        "metadata": {name: metadata[name] for name in sorted(metadata) if "_version" not in name},
        "recursion_limit": config.get("recursion_limit"),
        "configurable": config.get("configurable"),
    }


def telling_config() -> AnyRunnable:
    """Answer with the config that reached the chain; versions aside, since each package has one."""
    return RunnableLambda(_config_of)


def with_own_config() -> AnyRunnable:
    """Answer with a config that the chain has of its own."""
    return telling_config().with_config(tags=["own"], metadata={"own": 1}, recursion_limit=7)


class _NameKeeper(AsyncCallbackHandler):
    def __init__(self, names: list[str]) -> None:
        self._names = names

    async def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self._names.append(kwargs.get("name") or "")


def telling_run_name() -> AnyRunnable:
    """Answer with the names under which the runs are traced."""
    names: list[str] = []

    def traced(value: Any) -> list[str]:
        return names

    return RunnableLambda(traced).with_config(callbacks=[_NameKeeper(names)])


def configurable_prompt() -> AnyRunnable:
    """Return a prompt whose template a caller may set."""
    return PromptTemplate.from_template("Tell of {topic}").configurable_fields(
        template=ConfigurableField(id="template", name="Template", description="The question")
    )


def configurable_model() -> AnyRunnable:
    """Return a model whose answers a caller may set, all of one type."""
    fields = {"responses": ConfigurableField(id="responses"), "i": ConfigurableField(id="first")}
    return FakeListChatModel(responses=["one", "two"]).configurable_fields(**fields) | (
        StrOutputParser()
    )


def model_choice() -> AnyRunnable:
    """Return a choice between two models, the cheap one by default."""
    return (
        FakeListChatModel(responses=["cheap"]).configurable_alternatives(
            ConfigurableField(id="llm", name="Model"),
            default_key="cheap",
            dear=FakeListChatModel(responses=["dear"]),
        )
        | StrOutputParser()
    )


class Renamed(BaseModel):
    """A model whose field has another name in JSON."""

    order_number: int = Field(alias="orderNumber")


def configurable_telling_config() -> AnyRunnable:
    """Answer with the config that reached a chain of several fields."""
    return configurable_prompt() | configurable_model() | telling_config()


def input_choice() -> AnyRunnable:
    """Return a choice between chains of different input."""
    number, text, customer = (telling_type(type_)() for type_ in (int, str, Customer))
    return with_alternatives("kind", number, text=text, customer=customer)


def with_alternatives(field: str, default: AnyRunnable, **others: AnyRunnable) -> AnyRunnable:
    """Return a choice between runnables by a configurable field."""
    chosen = cast("RunnableSerializable[Any, Any]", default)
    options: dict[str, Any] = dict(others)
    return chosen.configurable_alternatives(ConfigurableField(id=field), **options)


class _History(BaseChatMessageHistory):
    def __init__(self) -> None:
        self.messages: list[BaseMessage] = [AIMessage("before")]

    def clear(self) -> None:
        self.messages.clear()


def history_chain() -> AnyRunnable:
    """Return a chain that tells what its session's history holds."""
    histories: dict[str, _History] = {}

    def history(session_id: str) -> _History:
        return histories.setdefault(session_id, _History())

    def answer(value: dict[str, Any]) -> str:
        return f"{value['question']} after {len(value['past'])}"

    return RunnableWithMessageHistory(
        RunnableLambda(answer),
        history,
        input_messages_key="question",
        history_messages_key="past",
    ).with_types(input_type=Question, output_type=str)


class Question(TypedDict):
    """The input of a chain with a history."""

    question: str


class _Shelf(BaseRetriever):
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(f"{query} {number}", metadata={"page": number}) for number in (1, 2)]


def retriever() -> AnyRunnable:
    """Return a retriever of two documents."""
    return _Shelf()


def a_tool() -> AnyRunnable:
    """Return a tool with two arguments."""

    @tool
    def add(first: int, second: int = 1) -> int:
        """Add two numbers."""
        return first + second

    return add


def telling_type(input_type: Any) -> Callable[[], AnyRunnable]:
    """Return the maker of a chain that answers how its input looks in Python."""
    return lambda: RunnableLambda(repr).with_types(input_type=input_type)


def typed(output_type: Any, value: Any) -> Callable[[], AnyRunnable]:
    """Return the maker of a chain that gives a value and is said to give a type."""
    return lambda: answering(value).with_types(output_type=output_type)


def annotated(output_type: Any, value: Any) -> Callable[[], AnyRunnable]:
    """Return the maker of a chain that gives a value; its function is annotated with a type."""

    def answer(_: Any) -> Any:
        return value

    answer.__annotations__["return"] = output_type
    return lambda: RunnableLambda(answer)


class Count(TypedDict):
    """The state of a graph without messages."""

    number: int
    steps: Annotated[list[str], operator.add]


def counting_graph() -> AnyRunnable:
    """Return a graph of two nodes over a TypedDict."""

    def increase(state: Count) -> dict[str, Any]:
        return {"number": state["number"] + 1, "steps": ["increase"]}

    async def double(state: Count) -> dict[str, Any]:
        return {"number": state["number"] * 2, "steps": ["double"]}

    graph = StateGraph(Count)
    graph.add_node("increase", increase)
    graph.add_node("double", double)
    graph.add_edge(START, "increase")
    graph.add_edge("increase", "double")
    graph.add_edge("double", END)
    return graph.compile()


def chat_graph() -> AnyRunnable:
    """Return a graph over messages with a model that streams."""
    model = ScriptedChatModel(chunks=message_chunks(["hel", "lo"]))

    async def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call)
    graph.add_edge(START, "model")
    graph.add_edge("model", END)
    return graph.compile()


def nested_graph() -> AnyRunnable:
    """Return a graph with a conditional edge into a subgraph."""

    def is_small(state: Count) -> str:
        return "small" if state["number"] < 10 else "big"

    def stop(state: Count) -> dict[str, Any]:
        return {"steps": ["stop"]}

    graph = StateGraph(Count)
    graph.add_node("counting", counting_graph())
    graph.add_node("stop", stop)
    graph.add_conditional_edges(START, is_small, {"small": "counting", "big": "stop"})
    graph.add_edge("counting", END)
    graph.add_edge("stop", END)
    return graph.compile()


def messages_in() -> AnyRunnable:
    """Return a chain over a list of messages."""

    def describe(messages: Sequence[AnyMessage]) -> list[str]:
        return [f"{type(message).__name__}: {message.content!r}" for message in messages]

    return RunnableLambda(describe).with_types(input_type=list[AnyMessage])


def messages_out() -> AnyRunnable:
    """Return the messages as they came."""
    return echo(list[AnyMessage])
