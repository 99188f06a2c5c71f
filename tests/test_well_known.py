"""LangChain's objects from plain data: as LangServe's client makes them, and nothing is lost."""

import json
from typing import Any

import langserve.serialization
import orjson
import pytest
from hypothesis import given, strategies as st
from langchain_core.agents import AgentAction, AgentActionMessageLog, AgentFinish
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)
from langchain_core.prompt_values import (
    ChatPromptValue,
    ChatPromptValueConcrete,
    ImagePromptValue,
    StringPromptValue,
)

from chainserve.serialization import WellKnownLCSerializer

OURS = WellKnownLCSerializer()
THEIRS: Any = langserve.serialization.WellKnownLCSerializer()
USAGE: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
CALL: Any = {"name": "f", "args": {"a": [1]}, "id": "c", "type": "tool_call"}

SAME: dict[str, Any] = {
    "ai": AIMessage("x", id="1", usage_metadata=USAGE, response_metadata={"a": {"b": 1}}),
    "ai with a call": AIMessage("", tool_calls=[CALL]),
    "ai with more members": AIMessage("x", ticket=5),
    "human of parts": HumanMessage(
        [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "u"}}]
    ),
    "system": SystemMessage("x", name="n"),
    "chat": ChatMessage(content="x", role="r"),
    "function": FunctionMessage(content="x", name="f"),
    "tool": ToolMessage("x", tool_call_id="c", artifact={"a": 1}, status="error"),
    "ai chunk": AIMessageChunk(
        content="x",
        id="1",
        tool_call_chunks=[{"name": "f", "args": '{"a', "id": "c", "index": 0}],
        usage_metadata=USAGE,
    ),
    "human chunk": HumanMessageChunk(content="x"),
    "system chunk": SystemMessageChunk(content="x"),
    "chat chunk": ChatMessageChunk(content="x", role="r"),
    "function chunk": FunctionMessageChunk(content="x", name="f"),
    "tool chunk": ToolMessageChunk(content="x", tool_call_id="c"),
    "document": Document("x", metadata={"type": "ai", "page": 1}, id="d"),
    "text prompt": StringPromptValue(text="x"),
    "messages prompt": ChatPromptValueConcrete(messages=[HumanMessage("x"), AIMessage("y")]),
    "action": AgentAction(tool="t", tool_input={"a": 1}, log="l"),
    "action with messages": AgentActionMessageLog(
        tool="t", tool_input="x", log="l", message_log=[AIMessage("x")]
    ),
    "finish": AgentFinish({"a": 1}, "l"),
    "generation": Generation(text="x", generation_info={"a": 1}),
    "chat generation": ChatGeneration(message=AIMessage("x")),
    "chat generation chunk": ChatGenerationChunk(message=AIMessageChunk(content="x")),
    "result": LLMResult(
        generations=[[ChatGeneration(message=AIMessage("x"))]], llm_output={"a": 1}
    ),
    "deep inside": {"a": [{"b": (AIMessage("x"), [Document("y")])}, 5], "c": None},
}  # fmt: skip

CHANGED: dict[str, Any] = {
    "remove": RemoveMessage(id="1"),
    "messages prompt of any kind": ChatPromptValue(messages=[HumanMessage("x")]),
    "image prompt": ImagePromptValue(image_url={"url": "u"}),
    "chat result": ChatResult(generations=[ChatGeneration(message=AIMessage("x"))]),
    "generation chunk": GenerationChunk(text="x"),
}
"""What LangServe's client does not make what it was."""

PLAIN: dict[str, Any] = {
    "type alone": {"type": "ai"},
    "a system": {"type": "system", "content": "x"},
    "a document": {"type": "Document", "page_content": "x"},
    "a ticket": {"type": "ai", "content": "x", "ticket": 5},
    "no text": {"type": "human", "content": 5},
    "another type": {"type": "invoice", "content": "x"},
    "a number": {"type": 5, "content": "x"},
    "a list": {"type": ["ai"], "content": "x"},
    "a part of a message": {"type": "text", "text": "x"},
    "lc": {"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {}},
}


def shown(value: Any) -> str:
    """Return how a value looks, the classes of its parts included."""
    return repr(value)


@pytest.mark.parametrize("value", [*SAME.values(), *CHANGED.values()], ids=[*SAME, *CHANGED])
def test_an_object_comes_back_as_langserves_client_reads_it(value: Any) -> None:
    written = OURS.dumps(value)
    assert written == THEIRS.dumps(value)
    assert shown(OURS.loads(written)) == shown(THEIRS.loads(written))


@pytest.mark.parametrize("name", [name for name in SAME if name != "deep inside"])
def test_an_object_comes_back_as_it_was(name: str) -> None:
    back = OURS.loads(OURS.dumps(SAME[name]))

    assert type(back) is type(SAME[name])
    assert back == SAME[name]


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN.keys())
def test_a_dict_with_a_type_is_read_as_langserves_client_reads_it(data: Any) -> None:
    assert shown(OURS.loadd(data)) == shown(THEIRS.loadd(data))


@pytest.mark.parametrize(
    "data",
    [
        {"type": "Document", "page_content": "x", "score": 0.5},
        {"type": "AgentFinish", "return_values": {}, "log": "l", "cost": 1},
        {"type": "Generation", "text": "x", "mine": 1},
        {"type": "StringPromptValue", "text": "x", "mine": 1},
        {"type": "ai", "content": "x", "ticket": 5},
    ],
)
def test_no_member_of_a_users_dict_is_lost(data: dict[str, Any]) -> None:
    """LangServe's client loses what the class does not have."""
    back = OURS.loadd(data)
    members = back if isinstance(back, dict) else back.model_dump()

    assert data.items() <= members.items()


@pytest.mark.parametrize(
    "data",
    [
        {"type": "tool", "content": 5},
        {"type": "tool", "content": ["x", 5]},
        {"type": "Document", "page_content": None, "metadata": 5},
        {"type": "ai", "content": "x", "tool_calls": 5},
        {"type": "AIMessageChunk", "content": "x", "tool_call_chunks": [5]},
        {"type": "ChatGeneration", "message": {"type": "x"}},
        {"type": "LLMResult", "generations": 5},
    ],
)
def test_a_dict_that_does_not_fit_its_type_stays_as_it_is(data: dict[str, Any]) -> None:
    """LangServe's client fails of some of them, and a stream with it."""
    assert OURS.loads(json.dumps(data).encode()) == data


def test_what_is_read_is_not_what_was_given() -> None:
    data = {"type": "ai", "content": ["x"], "response_metadata": {"a": [1]}}
    before = json.dumps(data)
    OURS.loadd(data)

    assert json.dumps(data) == before


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "a", "id"]) | st.text(), inner,
                          max_size=4)
        | st.fixed_dictionaries({"type": st.sampled_from(["ai", "Document", "tool", "x"]),
                                 "content": inner}),
        max_leaves=10,
    )
)  # fmt: skip
def test_plain_data_stays_plain_data_or_tells_the_same(data: Any) -> None:
    back = OURS.loads(json.dumps(data).encode())

    assert _members(data, json.loads(OURS.dumps(back)))


def _members(data: Any, back: Any) -> bool:
    """Tell whether all of the data is in what came back; messages have more members."""
    if isinstance(data, dict):
        return isinstance(back, dict) and all(
            key in back and _members(item, back[key]) for key, item in data.items()
        )
    if isinstance(data, list):
        return len(data) == len(back) and all(map(_members, data, back))
    return bool(data == back)


@pytest.mark.parametrize("depth", [100, 400])
def test_nested_data_is_read_as_far_as_it_can_be_written(depth: int) -> None:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    assert OURS.loads(orjson.dumps(data) if depth < 250 else json.dumps(data).encode()) == data
