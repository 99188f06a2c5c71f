"""What clients make of the data in which LangChain's objects travel."""

from typing import Any

import langserve.serialization as theirs
import orjson
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import GenerationChunk

from chainserve import WellKnownLCSerializer
from tests import _pair_values as values
from tests._chains import message_chunks, tool_call_chunks

OURS, THEIRS = WellKnownLCSerializer(), theirs.WellKnownLCSerializer()

OBJECTS: dict[str, Any] = {
    **values.OUTPUTS,
    "message chunks": message_chunks(["a", "b"]),
    "tool call chunks": tool_call_chunks("f", ["{", "}"]),
    "a generation chunk": GenerationChunk(text="x"),
    "objects inside of others": {"a": [{"b": Document("x", metadata={"m": {"type": "ai"}})}]},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_comes_back_as_with_langserve(name: str) -> None:
    written = OURS.dumps(OBJECTS[name])

    assert repr(OURS.loads(written)) == repr(THEIRS.loads(written))


@pytest.mark.parametrize(
    "data",
    [
        {"type": "ai"},
        {"type": "ai", "content": 5},
        {"type": ["ai"], "content": "x"},
        {"type": None},
        {"type": {"a": 1}, "content": "x"},
        {"type": "nothing", "content": "x"},
        {"type": "constructor", "lc": 1, "id": ["langchain", "AIMessage"], "kwargs": {}},
        {"type": "LLMResult", "generations": 5},
        [{"type": "human", "content": "x"}, {"type": "human"}],
        {"type": "ai", "content": "x", "ticket": 5},
        {"type": "system", "content": "x"},
        {"content": "x"},
        "ai",
        None,
    ],
)
def test_other_data_is_read_as_with_langserve(data: Any) -> None:
    assert repr(OURS.loadd(data)) == repr(THEIRS.loadd(data))


def test_a_dict_that_an_object_would_lose_members_of_stays() -> None:
    data = {"type": "Document", "page_content": "x", "more": 1}

    assert THEIRS.loadd(data) == Document("x")
    assert OURS.loadd(data) == data


def test_a_dict_that_is_no_object_after_all_stays() -> None:
    data = {"type": "tool", "content": "x"}

    with pytest.raises(KeyError):
        THEIRS.loadd(data)
    assert OURS.loadd(data) == data


def test_no_class_is_chosen_by_what_the_data_says() -> None:
    secret = {"lc": 1, "type": "secret", "id": ["PATH"]}

    assert OURS.loadd({"a": secret}) == {"a": secret}


def test_a_custom_serializer_is_a_pair_of_methods() -> None:
    class Upper(WellKnownLCSerializer):
        def dumps(self, obj: Any) -> bytes:
            return orjson.dumps({"upper": str(obj).upper()})

        def loadd(self, s: Any) -> Any:
            return s["upper"].lower()

    assert Upper().dumpd("a") == {"upper": "A"}
    assert Upper().loads(Upper().dumps("a")) == "a"


def test_chunks_that_were_read_add_up() -> None:
    chunks = [OURS.loads(OURS.dumps(chunk)) for chunk in message_chunks(["a", "b"])]
    total: Any = chunks[0] + chunks[1]

    assert (type(total), total.content) == (AIMessageChunk, "ab")
    assert OURS.loads(OURS.dumps([AIMessage("x"), HumanMessage("y")])) == [
        AIMessage("x"),
        HumanMessage("y"),
    ]
