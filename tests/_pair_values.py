"""What goes into the chains of the pairs, what comes out, and the chains, by readable names."""

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from langchain_core.agents import AgentAction, AgentActionMessageLog, AgentFinish
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.prompt_values import ChatPromptValueConcrete
from langchain_core.runnables import RunnableLambda

from tests import _pair_chains as chains
from tests._chains import sample_values
from tests._pairs import Chain

PLAIN_VALUES: dict[str, Any] = {
    "a str": "text",
    "an empty str": "",
    "emoji, CJK and right-to-left text": "😀👩‍👩‍👧 中文 日本語 שלום العربية",
    "control characters, quotes and markup": '\x00\x07\x1f\x7f\r\n\t"\\/</script>',
    "an int": 7,
    "an int of 64 bits": 2**64 - 1,
    "a float": 0.1,
    "a float with a large exponent": 1.5e300,
    "negative zero": -0.0,
    "a bool": True,
    "null": None,
    "a list": [1, "two", None, [[]]],
    "a nested dict": {"a": {"b": [{"c": None}], "": 1}, "é": "ü"},
    "an empty dict": {},
    "a dict that looks like a message": {"type": "ai", "content": "x", "ticket": 5},
    "a dict that looks like LangChain's own JSON": {"lc": 1, "type": "secret", "id": ["KEY"]},
}

CALL = {"name": "weather", "args": {"city": "Bonn"}, "id": "call_1", "type": "tool_call"}

OUTPUTS: dict[str, Any] = {
    **{
        name: value
        for name, value in sample_values().items()
        if name not in ("str", "int", "chat prompt")
    },
    "an AIMessage that has everything": AIMessage(
        [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
        id="m1",
        name="bot",
        tool_calls=[CALL],
        invalid_tool_calls=[{"name": "f", "args": "{", "id": "c2", "error": "cut"}],
        additional_kwargs={"refusal": None},
        response_metadata={"model_name": "scripted", "finish_reason": "stop"},
        usage_metadata={
            "input_tokens": 7,
            "output_tokens": 1,
            "total_tokens": 8,
            "input_token_details": {"cache_read": 5},
        },
    ),
    "an AIMessage with fields of its own": AIMessage("x", **{"ticket": 5}),
    "a ToolMessage with an artifact": ToolMessage(
        "sunny", tool_call_id="call_1", artifact={"raw": [1]}, status="error"
    ),
    "a ChatMessage": ChatMessage(role="judge", content="x"),
    "a FunctionMessage": FunctionMessage(name="f", content="x"),
    "a RemoveMessage": RemoveMessage(id="m1"),
    "a Document with an id": Document("text", id="d1", metadata={"score": 0.5}),
    "a ChatPromptValueConcrete": ChatPromptValueConcrete(messages=[HumanMessage("hi")]),
    "an AgentAction": AgentAction(tool="add", tool_input={"a": 1}, log="adding"),
    "an AgentActionMessageLog": AgentActionMessageLog(
        tool="add", tool_input="1", log="adding", message_log=[AIMessage("x")]
    ),
    "an AgentFinish": AgentFinish({"output": 3}, "done"),
    "a Generation": Generation(text="x", generation_info={"a": 1}),
    "a ChatGeneration": ChatGeneration(message=AIMessage("x")),
    "an LLMResult": LLMResult(generations=[[Generation(text="x")]], llm_output={"a": 1}),
    "nested pydantic models": chains.Customer(
        name="Ann", addresses=[chains.Address(street="a")], home=chains.Address(street="b")
    ),
    "a dataclass": chains.Point(1, 2.5),
    "a datetime": datetime.datetime(2024, 1, 2, 3, 4, 5),  # noqa: DTZ001 - naive on purpose
    "a datetime with a zone": chains.MOMENT,
    "a date": chains.MOMENT.date(),
    "a time": chains.MOMENT.time(),
    "a UUID": chains.FIXED_UUID,
    "an Enum": chains.Color.RED,
    "an IntEnum": chains.Level.LOW,
    "a tuple": (1, (2,)),
    "NaN": float("nan"),
    "infinities inside a list": [float("inf"), {"a": float("-inf")}],
    "objects inside plain data": {
        "docs": (Document("x"),),
        "at": chains.MOMENT,
        "who": [AIMessage("x")],
    },
}


def output_named() -> chains.AnyRunnable:
    """Return a chain that answers one of the outputs by its name."""
    return RunnableLambda(lambda name: OUTPUTS[name])


TYPED_OUTPUTS: dict[str, tuple[Any, Any]] = {
    "str": (str, "x"),
    "int": (int, 5),
    "an optional int": (int | None, None),
    "a list of pydantic models": (list[chains.Customer], [chains.Customer(name="Ann")]),
    "a dict of pydantic models": (dict[str, chains.Customer], {"a": chains.Customer(name="Ann")}),
    "a dataclass": (chains.Point, chains.Point(1, 2.5)),
    "a UUID": (uuid.UUID, chains.FIXED_UUID),
    "an Enum": (chains.Color, chains.Color.RED),
    "a tuple": (tuple[int, str], (1, "x")),
    "AIMessage": (AIMessage, AIMessage("x", id="m1", tool_calls=[CALL])),
    "BaseMessage": (BaseMessage, AIMessage("x", id="m1", tool_calls=[CALL])),
    "any message": (AnyMessage, ToolMessage("x", tool_call_id="call_1", artifact=[1])),
    "a list of BaseMessage": (
        list[BaseMessage],
        [HumanMessage("hi"), ToolMessage("x", tool_call_id="call_1"), AIMessageChunk(content="x")],
    ),
    "Document": (Document, Document("x", metadata={"a": 1})),
    "a list of Document": (list[Document], [Document("x")]),
    "AgentAction": (AgentAction, AgentAction(tool="t", tool_input="x", log="l")),
    "AgentFinish": (AgentFinish, AgentFinish({"a": 1}, "l")),
}
CUSTOMER = {"name": "Ann", "addresses": [{"street": "a"}], "home": {"street": "b", "zip": "1"}}
TYPED_INPUTS: dict[str, tuple[Any, Any]] = {
    "any": (Any, {"a": [1]}),
    "an int from a str": (int, "5"),
    "a float from an int": (float, 1),
    "a pydantic model": (chains.Customer, CUSTOMER),
    "a list of pydantic models": (list[chains.Customer], [CUSTOMER]),
    "a TypedDict": (chains.Question, {"question": "why", "more": 1}),
    "a dataclass": (chains.Point, {"x": 1, "y": 2}),
    "a datetime": (datetime.datetime, "2024-01-02T03:04:05Z"),
    "a UUID": (uuid.UUID, str(chains.FIXED_UUID)),
    "an Enum": (chains.Color, "red"),
    "a union": (int | list[str], ["x"]),
    "a HumanMessage": (HumanMessage, {"type": "human", "content": "hi"}),
    "messages of every kind": (
        list[AnyMessage],
        [
            {"type": "system", "content": "be brief"},
            {"type": "human", "content": [{"type": "text", "text": "hi"}]},
            {"type": "ai", "content": "", "tool_calls": [CALL]},
            {"type": "tool", "content": "sunny", "tool_call_id": "call_1"},
        ],
    ),
    "a message as LangChain's own JSON": (
        Any,
        {"lc": 1, "type": "constructor", "id": ["langchain", "AIMessage"], "kwargs": {}},
    ),
    "a Document": (Document, {"page_content": "x", "metadata": {"a": 1}}),
    "documents in a dict": (dict[str, list[Document]], {"docs": [{"page_content": "x"}]}),
}
TOPIC = {"topic": "cats"}
CHAINS: dict[str, tuple[Chain, Any]] = {
    "prompt": (chains.prompt, TOPIC),
    "text prompt": (chains.text_prompt, TOPIC),
    "prompt, model and parser": (chains.text_chain, TOPIC),
    "prompt, model and JSON parser": (chains.json_chain, TOPIC),
    "model that streams characters": (chains.list_model, "hi"),
    "model that streams words": (chains.generic_model, "hi"),
    "model that tells its usage": (chains.usage_model, "hi"),
    "model that calls a tool": (chains.tool_model, "hi"),
    "model that is not a chat model": (chains.completion_model, "hi"),
    "sync function": (chains.sync_double, 3),
    "async function": (chains.async_double, 3),
    "parallel": (chains.parallel, 3),
    "pick": (chains.picked, {"text": "abc"}),
    "branch": (chains.branch, 11),
    "branch to the default": (chains.branch, 1),
    "fallback": (chains.with_fallback, 1),
    "generator": (chains.generator, "a b c"),
    "map over a list": (chains.each, [1, 2]),
    "bind": (chains.bound, 3),
    "with_config": (chains.with_own_config, 3),
    "retriever": (chains.retriever, "cats"),
    "tool": (chains.a_tool, {"first": 1, "second": 2}),
    "messages in": (chains.messages_in, [{"type": "human", "content": "hi"}]),
    "messages in and out": (chains.messages_out, [{"type": "human", "content": "hi"}]),
    "configurable prompt": (chains.configurable_prompt, TOPIC),
    "configurable model": (chains.configurable_model, "hi"),
    "choice of models": (chains.model_choice, "hi"),
    "choice of inputs": (chains.input_choice, 3),
    "graph over a TypedDict": (chains.counting_graph, {"number": 1, "steps": ["start"]}),
    "graph over messages": (
        chains.chat_graph,
        {"messages": [{"type": "human", "content": "hi", "id": "h1"}]},
    ),
    "graph with a subgraph": (chains.nested_graph, {"number": 1, "steps": []}),
    "graph that takes the other way": (chains.nested_graph, {"number": 99, "steps": []}),
}
CHAT_INPUTS = {
    "messages": [{"type": "system", "content": "x"}, {"type": "human", "content": "hi"}],
    "a prompt value": {"type": "StringPromptValue", "text": "hi"},
    "a prompt value of messages": {
        "type": "ChatPromptValueConcrete",
        "messages": [{"type": "human", "content": "hi"}],
    },
    "a message with an image": [
        {"type": "human", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    ],
}


@dataclass(slots=True)
class Slotted:
    first: Any
    second: Any = None


def half_made() -> Slotted:
    """Return a dataclass with slots and a field not set, at which orjson ends the process."""
    made = object.__new__(Slotted)
    made.first = 1
    return made
