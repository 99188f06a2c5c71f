"""`GET stream`: inputs in a query string, as a page's `EventSource` and curl send them."""

import json
from datetime import date
from enum import Enum, IntEnum
from typing import Any, Literal
from urllib.parse import urlencode
from uuid import UUID

import pytest
from fastapi import FastAPI
from hypothesis import given, settings, strategies as st
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, create_model
from typing_extensions import TypedDict

from chainserve.queries import RESERVED, input_of_query
from chainserve.validation import parse_json, validate_input
from tests._apps import assert_problem, executor_of, make_app
from tests._asgi import QueryTypes
from tests._bridge import Response, request
from tests._chains import echo

pytestmark = pytest.mark.anyio


class Color(Enum):
    """Text to choose from."""

    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    """Numbers to choose from."""

    SMALL = 1
    LARGE = 2


class Point(BaseModel):
    """Something with parts."""

    x: int
    y: int = 0


class Everything(BaseModel):
    """A field of each kind."""

    text: str = ""
    number: int = 0
    ratio: float = 0
    flag: bool = False
    names: list[str] = []
    numbers: list[int] = []
    point: Point | None = None
    points: list[Point] = []
    table: dict[str, int] = {}
    color: Color = Color.RED
    size: Size = Size.SMALL
    word: Literal["yes", "no"] = "no"
    maybe: str | None = None
    maybe_number: int | None = None
    maybe_names: list[str] | None = None
    either: int | str = 0
    anything: Any = None
    day: date | None = None
    id: UUID | None = None
    aliased: str = Field(default="", alias="in-other-words")


async def ask(app: FastAPI, query: QueryTypes, path: str = "/chain/stream") -> Response:
    return await request(app, "GET", path, query=query)


async def answer(app: FastAPI, query: QueryTypes) -> Any:
    """Return the one chunk of a run that was started with a query."""
    response = await ask(app, query)
    assert response.status == 200, response.text
    events = response.events()
    assert [event.event for event in events] == ["metadata", "data", "end"], response.text
    return events[1].json()


# The whole input as JSON.


VALUES: list[Any] = [
    {},
    {"a": [1, {"b": None}]},
    [],
    [1, "two", None],
    "text",
    "",
    '"quoted" & escaped = + % # é\u2028\U0001f600\r\n',
    0,
    -1.5,
    2**53 + 1,
    True,
    False,
    None,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_an_input_in_json_is_the_chains_input(value: Any) -> None:
    assert await answer(make_app(echo()), {"input": json.dumps(value)}) == value
    assert await answer(make_app(echo()), {"input": json.dumps(value, ensure_ascii=False)}) == value


async def test_an_input_in_json_goes_before_fields() -> None:
    app = make_app(echo())

    assert await answer(app, [("a", "1"), ("input", '{"b": 2}'), ("c", "3")]) == {"b": 2}


@pytest.mark.parametrize(
    "sent", ["hello", "", "{", "[1", "NaN", "'a'", "undefined", '"\\ud800"', "[" * 300]
)
async def test_an_input_that_is_no_json_is_refused_with_the_way_to_send_text(sent: str) -> None:
    app = make_app(echo())
    problem = assert_problem(await ask(app, {"input": sent}), 422, "invalid_json")

    assert f"The parameter input is not valid JSON: {sent[:60]!r}"[:-1] in problem["message"]
    assert """-G --data-urlencode 'input={"topic": "cats"}'""" in problem["message"]
    assert len(problem["message"]) < 300
    assert not executor_of(app).live


async def test_an_input_that_does_not_fit_is_refused_with_its_place() -> None:
    app = make_app(echo(Point))
    problem = assert_problem(await ask(app, {"input": '{"x": "no"}'}), 422, "invalid_input")

    assert problem["detail"][0]["loc"] == ["x"]


# A parameter for each field.


FIELDS: list[tuple[QueryTypes, dict[str, Any]]] = [
    ("text=hello", {"text": "hello"}),
    ("text=", {"text": ""}),
    ("text=a+b%20c%2Bd", {"text": "a b c+d"}),
    ("text=5", {"text": "5"}),
    ("text=null", {"text": "null"}),
    ("text=%5B1%5D", {"text": "[1]"}),
    ('text={"a":1}', {"text": '{"a":1}'}),
    ([("text", "Grüße \u2028 \U0001f600\r\n\t\0")], {"text": "Grüße \u2028 \U0001f600\r\n\t\0"}),
    ("number=5", {"number": 5}),
    ("number=-5", {"number": -5}),
    ("number=%2B5", {"number": 5}),
    ("ratio=1.5", {"ratio": 1.5}),
    ("ratio=1e3", {"ratio": 1000.0}),
    ("flag=true", {"flag": True}),
    ("flag=1", {"flag": True}),
    ("flag=off", {"flag": False}),
    ("names=one", {"names": ["one"]}),
    ("names=one&names=two", {"names": ["one", "two"]}),
    ("names=&names=", {"names": ["", ""]}),
    ("names=a,b", {"names": ["a,b"]}),
    ('names=["one","two"]', {"names": ["one", "two"]}),
    ("names=[]", {"names": []}),
    ("names=[a]&names=[b]", {"names": ["[a]", "[b]"]}),
    ("numbers=1&numbers=2", {"numbers": [1, 2]}),
    ("numbers=[1,2]", {"numbers": [1, 2]}),
    ('point={"x":1}', {"point": {"x": 1, "y": 0}}),
    ("point=null", {"point": None}),
    ('points=[{"x":1},{"x":2,"y":3}]', {"points": [{"x": 1, "y": 0}, {"x": 2, "y": 3}]}),
    ('table={"a":1}', {"table": {"a": 1}}),
    ("color=blue", {"color": "blue"}),
    ("size=2", {"size": 2}),
    ("word=yes", {"word": "yes"}),
    ("maybe=text", {"maybe": "text"}),
    ("maybe=", {"maybe": ""}),
    ("maybe_number=5", {"maybe_number": 5}),
    ("maybe_names=one", {"maybe_names": ["one"]}),
    ("maybe_names=[]", {"maybe_names": []}),
    ("either=five", {"either": "five"}),
    ("anything=text", {"anything": "text"}),
    ("day=2026-02-03", {"day": "2026-02-03"}),
    ("id=0d0f0000-1111-4222-8333-444455556666", {"id": "0d0f0000-1111-4222-8333-444455556666"}),
    ("in-other-words=yes", {"aliased": "yes"}),
    ("text=a&number=1&names=b&names=c", {"text": "a", "number": 1, "names": ["b", "c"]}),
]


@pytest.fixture(scope="module")
def everything() -> FastAPI:
    """An application whose chain answers its input."""
    return make_app(RunnableLambda(lambda value: value).with_types(input_type=Everything))


@pytest.mark.parametrize(("query", "expected"), FIELDS, ids=lambda value: str(value)[:40])
async def test_fields_are_read_as_their_types_say(
    everything: FastAPI, query: QueryTypes, expected: dict[str, Any]
) -> None:
    if isinstance(query, str):
        query = query.replace('"', "%22").replace("{", "%7B").replace("}", "%7D")
    read = await answer(everything, query)

    assert {name: read[name] for name in expected} == expected
    unsent = {name: value for name, value in read.items() if name not in expected}
    defaults = Everything.model_validate({}).model_dump(mode="json")
    assert unsent == {name: defaults[name] for name in unsent}


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("number=five", ["number"]),
        ("number=", ["number"]),
        ("number=1.5", ["number"]),
        ("flag=maybe", ["flag"]),
        ("numbers=1&numbers=x", ["numbers", 1]),
        ('point={"y":1}', ["point", "x"]),
        ("color=green", ["color"]),
        ("word=maybe", ["word"]),
        ("day=tomorrow", ["day"]),
    ],
)
async def test_a_field_that_does_not_fit_is_refused_with_its_place(
    everything: FastAPI, query: str, place: list[Any]
) -> None:
    response = await ask(everything, query.replace('"', "%22"))

    assert assert_problem(response, 422, "invalid_input")["detail"][0]["loc"] == place


@pytest.mark.parametrize(
    "query", ["point=x", "point=", "point=%7B", "table=a", "points=[1", "names=[a"]
)
async def test_a_field_that_must_be_json_and_is_not_is_named(
    everything: FastAPI, query: str
) -> None:
    problem = assert_problem(await ask(everything, query), 422, "invalid_json")

    name = query.partition("=")[0]
    assert f"The parameter {name} is not valid JSON" in problem["message"]


async def test_a_prompts_variables_are_fields() -> None:
    app = make_app(ChatPromptTemplate.from_template("{question} in {language}"))
    response = await ask(app, {"question": "How are you?", "language": "German"})

    assert "How are you? in German" in response.events()[1].json()["messages"][0]["content"]


class Entry(TypedDict):
    """A typed dict."""

    key: str
    values: list[int]


async def test_a_typed_dicts_members_are_fields() -> None:
    app = make_app(echo(Entry))

    assert await answer(app, "key=a&values=1") == {"key": "a", "values": [1]}


async def test_fields_that_no_schema_names_are_text() -> None:
    app = make_app(echo())

    assert await answer(app, "a=1&b=true&c=%5B%5D&a=2") == {"a": "2", "b": "true", "c": "[]"}


# Parameters that speak of the run.


@pytest.mark.parametrize("query", ["", "format=text", "config={}", "idempotency_key=k"])
async def test_a_query_without_an_input_is_refused_with_the_way_to_send_one(query: str) -> None:
    app = make_app(echo())
    problem = assert_problem(await ask(app, query), 422, "invalid_input")

    assert problem["detail"][0]["type"] == "missing"
    assert "input=<json>" in problem["message"]
    assert not executor_of(app).live


async def test_reserved_names_are_no_fields() -> None:
    app = make_app(echo())
    options = {"idempotency_key": "k", "on_disconnect": "continue", "config": "{}"}

    assert await answer(app, {"a": "1", **options}) == {"a": "1"}
    assert {*options, "input", "format", "last_event_id"} == RESERVED


async def test_fields_of_reserved_names_are_sent_in_the_input() -> None:
    value = dict.fromkeys(sorted(RESERVED), "mine")
    fields: dict[str, Any] = dict.fromkeys(value, (str, ...))
    model: Any = create_model("Reserved", **fields)
    app = make_app(echo(), input_type=model)

    assert await answer(app, {"input": json.dumps(value)}) == value


async def test_a_config_in_the_query_reaches_the_chain() -> None:
    prompt: Any = ChatPromptTemplate.from_template("{question}")
    base: Any = RunnableLambda(lambda value, config: config["configurable"])
    chain = base.with_types(input_type=dict)
    app = make_app(
        prompt.configurable_fields(messages=ConfigurableField(id="style")) | chain,
        config_keys=["configurable", "tags"],
    )
    config = {"configurable": {"session_id": "grüße"}, "tags": ["a"]}
    response = await ask(app, {"question": "hi", "config": json.dumps(config)})

    assert response.status == 200, response.text
    assert response.events()[1].json()["session_id"] == "grüße"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("x", "invalid_json"),
        ("", "invalid_json"),
        ("[]", "invalid_input"),
        ("null", "invalid_input"),
        ("1", "invalid_input"),
        ('{"tags": 1}', "invalid_input"),
    ],
)
async def test_a_bad_config_in_the_query_is_refused(config: str, code: str) -> None:
    app = make_app(echo(), config_keys=["tags"])
    assert_problem(await ask(app, {"input": "1", "config": config}), 422, code)
    assert not executor_of(app).live


async def test_a_config_that_is_no_json_and_one_that_is_no_object_are_told_apart() -> None:
    app = make_app(echo())

    unread = await ask(app, {"input": "1", "config": "[1"})
    assert "The parameter config is not valid JSON: '[1'" in unread.json()["message"]
    listed = await ask(app, {"input": "1", "config": "[1]"})
    assert "This is JSON, but no object" in listed.json()["message"]


# Parameters that mean nothing.


class Question(BaseModel):
    """An input whose fields are all known."""

    topic: str
    words: list[str] = []
    either: list[str] | str = ""
    anything: Any = None
    aliased: str = Field(default="", validation_alias=AliasChoices("first", "second"))


class Open(BaseModel):
    """An input that takes whatever comes."""

    model_config = ConfigDict(extra="allow")
    topic: str


@pytest.mark.parametrize(
    ("type_", "query"),
    [
        (Question, "topic=a&unknown=b&unknown=c"),
        (Question, "topic=a&words=1&words=2&either=1&either=2&anything=1&anything=2"),
        (dict, "topic=a&more=b&more=c"),
        (dict[str, str], "topic=a&more=b&more=c"),
        (Any, "topic=a&more=b&more=c"),
    ],
    ids=str,
)
async def test_a_parameter_that_may_mean_something_may_come_twice(type_: Any, query: str) -> None:
    response = await ask(make_app(echo(type_)), query)

    assert response.status == 200, response.text


async def test_a_plain_field_that_comes_twice_is_refused() -> None:
    problem = assert_problem(
        await ask(make_app(echo(Question)), "topic=a&topic=b"), 422, "invalid_input"
    )

    assert problem["detail"][0]["loc"] == ["query", "topic"]
    assert problem["detail"][0]["input"] == ["a", "b"]
    assert "comes 2 times" in problem["message"]


@pytest.mark.parametrize("name", ["on_disconnect", "format"])
@pytest.mark.parametrize("value", ["", "nonsense", "CANCEL", "TEXT"])
async def test_a_bad_option_in_the_query_is_refused_with_its_place(name: str, value: str) -> None:
    response = await ask(make_app(echo()), {"input": "1", name: value})

    [error] = assert_problem(response, 422, "invalid_input")["detail"]
    assert error["loc"] == ["query", name]
    assert error["input"] == value


async def test_each_form_of_the_url_takes_a_query() -> None:
    app = make_app(echo())
    for path in ("/chain/stream", "/chain/stream/", "/chain/c/N4XyA/stream"):
        response = await ask(app, {"input": "1"}, path)
        assert response.events()[1].json() == 1


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
async def test_no_other_method_starts_a_run(method: str) -> None:
    app = make_app(echo())
    response = await request(app, method, "/chain/stream?input=1")

    assert response.status == 405
    assert not executor_of(app).live


@pytest.mark.parametrize("query", ["%ff=1", "input=%ff", "a=%ff", "input=%22%ED%A0%80%22", "&&=&"])
async def test_bytes_that_are_no_text_are_never_a_server_error(query: str) -> None:
    response = await ask(make_app(echo()), query)

    assert response.status in (200, 422), response.text


# Any object there may be.


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Color: st.sampled_from(list(Color)),
    list[str]: st.lists(TEXT),
    list[int]: st.lists(st.integers(-(2**63), 2**63 - 1)),
    dict[str, int]: st.dictionaries(TEXT, st.integers(-(2**63), 2**63 - 1)),
}
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in RESERVED
)


def parameters_of(name: str, value: Any) -> list[tuple[str, str]]:
    """Return the parameters that stand for a field, as the documentation says they are sent."""
    if isinstance(value, list) and len(value) > 1:
        return [(name, str(item)) for item in value]
    if isinstance(value, list | dict):
        return [(name, json.dumps(value))]
    if isinstance(value, bool):
        return [(name, str(value).lower())]
    return [(name, value.value if isinstance(value, Enum) else str(value))]


@given(fields=st.dictionaries(NAMES, st.sampled_from(list(KINDS)), min_size=1), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_flat_object_survives_the_query_string(fields: dict[str, Any], data: Any) -> None:
    value = {name: data.draw(KINDS[kind], label=name) for name, kind in fields.items()}
    members: dict[str, Any] = {
        f"field_{index}": (kind, Field(alias=name))
        for index, (name, kind) in enumerate(fields.items())
    }
    model = create_model("Flat", **members)
    sent = [pair for name in value for pair in parameters_of(name, value[name])]

    read = input_of_query(sent, model)

    assert validate_input(model, read) == {
        f"field_{index}": item for index, item in enumerate(value.values())
    }
    assert urlencode(sent)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(value=JSON)
@settings(max_examples=100, deadline=None)
def test_any_json_survives_the_query_string(value: Any) -> None:
    written = json.dumps(value)

    assert input_of_query([("input", written)], BaseModel) == parse_json(written.encode())


# Queries that ask for the same run.


async def test_a_key_asks_for_the_same_run_whatever_the_order_of_its_fields() -> None:
    app = make_app(echo())
    key = {"idempotency_key": "k"}
    answers = [
        await ask(app, [*fields.items(), *options.items()])
        for fields, options in (
            ({"a": "1", "b": "2"}, key),
            ({"b": "2", "a": "1"}, key),
            ({"a": "1", "b": "2"}, {"format": "text", **key}),
        )
    ]

    assert len({answer.events()[0].json()["run_id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "query",
    [
        "a=1&b=3",
        "a=1",
        "a=1&b=2&c=3",
        "a=1&b=2&config=%7B%7D",
        "a=1&b=2&on_disconnect=continue",
        "input=%7B%7D",
    ],
)
async def test_a_key_of_another_query_is_refused(query: str) -> None:
    app = make_app(echo())
    await ask(app, "a=1&b=2&idempotency_key=k")

    refused = await ask(app, f"{query}&idempotency_key=k")
    assert_problem(refused, 422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("names=a&names=b", "names=b&names=a"),
        ("input=1&input=2", "input=2&input=1"),
    ],
)
async def test_the_order_of_one_fields_values_is_part_of_the_request(
    first: str, second: str
) -> None:
    app = make_app(echo(Everything if "input" not in first else Any))
    await ask(app, f"{first}&idempotency_key=k")

    refused = await ask(app, f"{second}&idempotency_key=k")
    assert_problem(refused, 422, "idempotency_key_reused")
