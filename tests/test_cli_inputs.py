"""What a text means as the input of a chain, by the chain's schema."""

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnablePassthrough
from pydantic import BaseModel

from chains import agent, analyst, assistant, chat, coder
from chainserve import Chain, create_app
from chainserve.cli.inputs import NoPlaceForTextError, input_of, json_input
from tests._bridge import request

pytestmark = pytest.mark.anyio


class Optional(BaseModel):
    words: str = ""


class Nullable(BaseModel):
    words: str | None


class Two(BaseModel):
    number: int
    words: str = ""


class Recursive(BaseModel):
    text: str
    below: "Recursive | None" = None


async def schema_of(chain: Chain) -> dict[str, Any]:
    answer = await request(create_app([chain]), "GET", f"{chain.path}/input_schema")
    schema: dict[str, Any] = answer.json()
    return schema


def taking(input_type: Any, runnable: Runnable[Any, Any] | None = None) -> Chain:
    return Chain(path="/chain", runnable=runnable or RunnablePassthrough(), input_type=input_type)


HUMAN = [{"type": "human", "content": "42"}]


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param(assistant.chain, {"question": "42"}, id="assistant"),
        pytest.param(coder.chain, {"task": "42"}, id="coder"),
        pytest.param(chat.chain, {"messages": HUMAN}, id="chat"),
        pytest.param(agent.chain, {"messages": HUMAN}, id="agent"),
        pytest.param(Chain(path="/chain", runnable=agent.agent), {"messages": HUMAN}, id="a graph"),
        pytest.param(
            Chain(path="/chain", runnable=FakeListChatModel(responses=["a"])), "42", id="a model"
        ),
        pytest.param(taking(list[AnyMessage]), HUMAN, id="messages"),
        pytest.param(taking(str), "42", id="a text"),
        pytest.param(taking(str | int), "42", id="a text or a number"),
        pytest.param(taking(int), 42, id="a number"),
        pytest.param(taking("auto"), 42, id="anything"),
        pytest.param(taking(Optional), {"words": "42"}, id="one optional field"),
        pytest.param(taking(Nullable), {"words": "42"}, id="a field that may be null"),
        pytest.param(taking(Recursive), {"text": "42"}, id="a schema that refers to itself"),
    ],
)
async def test_a_text_goes_where_the_schema_has_room_for_it(chain: Chain, expected: Any) -> None:
    assert input_of("42", 42, await schema_of(chain)) == expected


@pytest.mark.parametrize(
    ("chain", "fields"),
    [
        pytest.param(analyst.chain, "data (required), question (required)", id="analyst"),
        pytest.param(taking(Two), "number (required), words", id="a number"),
    ],
)
async def test_where_it_has_no_one_place_its_fields_are_told(chain: Chain, fields: str) -> None:
    with pytest.raises(NoPlaceForTextError, match="Give it as JSON, such as") as refused:
        input_of("x", "x", await schema_of(chain))

    assert f"the fields {fields}. " in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value", "is_known"),
    [
        ('{"a": 1}', {"a": 1}, True),
        ("[1]", [1], True),
        ("42", 42, False),
        ('"a text"', "a text", False),
        ("a text", "a text", False),
        ("", "", False),
        ("[" * 100_000, "[" * 100_000, False),
    ],
    ids=["object", "array", "number", "string", "text", "nothing", "deep"],
)
def test_an_object_or_an_array_is_the_input_whatever_the_schema_says(
    text: str, value: Any, is_known: bool
) -> None:
    assert json_input(text) == (value, is_known)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": ["string", "null"]}, "x"),
        ({"allOf": [{"$ref": "#/$defs/text"}], "$defs": {"text": {"type": "string"}}}, "x"),
        (
            {
                "type": "object",
                "properties": {"a": {"allOf": [{"$ref": "#/$defs/text"}]}},
                "$defs": {"text": {"type": "string"}},
            },
            {"a": "x"},
        ),
    ],
    ids=["several types", "a reference as pydantic 1 writes it", "a field that is one"],
)
def test_other_forms_of_schemas_are_understood(schema: Any, expected: Any) -> None:
    assert input_of("x", "x", schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {}, "required": None},
        {"properties": 1, "required": True},
        {"properties": {"a": None}, "required": [1]},
        {"properties": {"a": {"type": "array", "items": {"properties": [1], "enum": 3}}}},
        {"properties": {"a": {"anyOf": 3, "$ref": 1}}},
    ],
    ids=str,
)
def test_no_object_schema_that_a_server_may_have_breaks_the_command(schema: Any) -> None:
    with pytest.raises(NoPlaceForTextError, match="Give it as JSON"):
        input_of("x", "x", {"type": "object", **schema})


def test_a_json_string_is_the_text_that_it_stands_for() -> None:
    assert input_of('"a"', "a", {"type": "string"}) == "a"
    assert input_of("a", "a", {}) == "a"
    assert input_of("1", 1, {"$ref": "#/nowhere"}) == 1
