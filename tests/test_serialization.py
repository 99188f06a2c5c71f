"""Objects that are hard to write: they end no process and fail no intermediate event."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import Enum
from typing import Any

import langserve
import orjson
import pytest
from hypothesis import given, strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk
from pydantic import BaseModel, field_serializer

from chainserve import WellKnownLCSerializer
from chainserve.errors import OutputNotSerializableError
from chainserve.json_text import dumps_any
from tests import _pair_chains as chains
from tests._pair_values import Slotted, half_made
from tests._pairs import CHAINSERVE, forget_oracle_state
from tests.test_client import served

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve")


@dataclass
class Plain:
    first: Any
    _private: int = 1


class Model(BaseModel):
    inner: Any


class Choice(Enum):
    HALF_MADE = half_made()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Choice.HALF_MADE, {"first": 1}),
        ({"a": Choice.HALF_MADE, "b": "\ud800"}, {"a": {"first": 1}, "b": "\ud800"}),
        (half_made(), {"first": 1}),
        ([half_made()], [{"first": 1}]),
        ({"a": half_made(), "big": 2**70}, {"a": {"first": 1}, "big": 2**70}),
        (Plain(half_made()), {"first": {"first": 1}}),
        (Slotted(Plain(2)), {"first": {"first": 2}, "second": None}),
    ],
)
def test_a_dataclass_with_a_field_that_is_not_set_is_written_without_it(
    value: Any, expected: Any
) -> None:
    assert json.loads(WellKnownLCSerializer().dumps(value)) == expected


@pytest.mark.parametrize("write", [WellKnownLCSerializer().dumps, dumps_any])
def test_a_list_that_changes_while_it_is_written_is_written_as_it_was(write: Any) -> None:
    """Another thread may do so; here its own item does, each time."""
    shared: list[Any] = []

    class Clearing(BaseModel):
        text: str

        @field_serializer("text")
        def clear(self, text: str) -> str:
            shared.clear()
            return text

    texts = [f"text {n}" for n in range(5000)]
    shared += [Clearing(text="a"), *texts]

    assert json.loads(write({"all": shared})) == {"all": [{"text": "a"}, *texts]}


@pytest.mark.parametrize("write", [WellKnownLCSerializer().dumps, dumps_any])
def test_a_list_of_an_enumeration_that_changes_is_written_as_it_was(write: Any) -> None:
    shared: list[Any] = []

    class Clearing(Enum):
        ONE = 1

        @property
        def value(self) -> int:
            shared.clear()
            return 1

    texts = [f"text {n}" for n in range(5000)]
    shared += [Clearing.ONE, *texts]

    assert json.loads(write({"all": shared})) == {"all": [1, *texts]}


class LostZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise ValueError("no such time")


@pytest.mark.parametrize("zone", [LostZone(), tzinfo()])  # type: ignore[abstract]
def test_a_time_zone_that_raises_ends_no_process(zone: tzinfo) -> None:
    moment = datetime(2026, 3, 29, 2, 30, tzinfo=zone)
    for value in (moment, {"at": [moment]}, Model(inner=moment)):
        with pytest.raises(OutputNotSerializableError, match="is of type datetime"):
            WellKnownLCSerializer().dumps(value)
        assert b"not_implemented" in dumps_any(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.fromisoformat("2024-01-02T03:04:05"), "2024-01-02T03:04:05"),
        (datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC), "2024-01-02T03:04:05.000678+00:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(3, 4, 5), "03:04:05"),
    ],
)
def test_moments_are_written_as_orjson_writes_them(value: Any, expected: str) -> None:
    assert orjson.loads(orjson.dumps(value)) == expected
    for one in (value, [value], Model(inner=value)):
        assert expected in WellKnownLCSerializer().dumps(one).decode()


@dataclass
class FailureWithFieldsError(Exception):
    reason: str


@pytest.mark.parametrize("error", [ValueError("secret"), FailureWithFieldsError("secret")])
def test_of_an_exception_no_more_than_its_class_is_told(error: Exception) -> None:
    for value in (error, {"error": error}, [Plain(error)]):
        with pytest.raises(OutputNotSerializableError, match=type(error).__name__):
            WellKnownLCSerializer().dumps(value)
        told = dumps_any(value).decode()
        assert type(error).__name__ in told
        assert "secret" not in told


def test_what_a_dataclass_holds_is_named_where_it_has_no_form() -> None:
    with pytest.raises(OutputNotSerializableError, match=r"output\.first is of type set"):
        WellKnownLCSerializer().dumps(Plain({1}))


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


leaves = (
    st.none()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=5)
    | st.builds(half_made)
    | st.builds(lambda: Choice.HALF_MADE)
    | st.sampled_from([ValueError("x"), "\ud800", {1, 2}, 2**70])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.booleans(), inner, max_size=3)
        | st.builds(Slotted, inner, inner)
        | st.builds(Plain, inner)
        | st.builds(Model, inner=inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@given(value=values)
def test_anything_has_some_form(value: Any) -> None:
    json.loads(dumps_any(value))


@pytest.mark.parametrize("value", [Hostile, Slotted], ids=["class", "dataclass"])
def test_a_class_is_told_of(value: type[Any]) -> None:
    assert value.__name__ in json.loads(dumps_any([value]))[0]["repr"]


def test_a_class_of_no_module_is_told_of_in_its_place() -> None:
    class Lost:
        __module__ = None  # type: ignore[assignment]

    assert json.loads(dumps_any({"ops": [Lost()]}))["ops"][0]["id"][-1].endswith("Lost")


def test_a_number_that_python_does_not_write_is_told_of() -> None:
    assert json.loads(dumps_any({"n": 10**5000}))["n"]["id"] == ["builtins", "int"]


def test_an_object_without_a_repr_is_told_of_by_its_class() -> None:
    for value in (Hostile(), {"a": Hostile()}, {Hostile(): 1}):
        assert b"Hostile" in dumps_any(value)


def test_cycles_and_depth_have_an_end() -> None:
    cycle: list[Any] = []
    cycle.append({"a": cycle})
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]

    for value in (cycle, deep):
        assert len(dumps_any(value)) < 2000


@pytest.mark.anyio
async def test_langserves_client_tells_its_callbacks_of_a_models_end() -> None:
    class Told(BaseCallbackHandler):
        ends: list[str]

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            pass

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.ends.append(response.generations[0][0].text)

    told = Told()
    told.ends = []
    forget_oracle_state()
    async with served(CHAINSERVE, chains.list_model(), include_callback_events=True) as ours:
        theirs: Any = langserve.RemoteRunnable(ours.url, verify=False)
        for client in (ours, theirs):
            await client.ainvoke("hi", {"callbacks": [told]})
        await theirs.async_client.aclose()
        theirs.sync_client.close()

    assert len(told.ends) == 2
    assert told.ends[0] == told.ends[1]


def chunk_of(**members: Any) -> AIMessageChunk:
    """Return a chunk of a model's answer."""
    return AIMessageChunk(**{"content": "a", "id": "run-1", **members})


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(chunk_of(), id="text"),
        pytest.param(chunk_of(content=""), id="no text"),
        pytest.param(chunk_of(content="\u2028\ud800"), id="odd characters"),
        pytest.param(chunk_of(response_metadata={"a": {"b": [1, None]}}), id="metadata"),
        pytest.param(chunk_of(response_metadata={"at": date(2026, 1, 2)}), id="a date in metadata"),
        pytest.param(chunk_of(response_metadata={"m": chunk_of()}), id="a model in metadata"),
        pytest.param(chunk_of(additional_kwargs={"m": chunk_of()}), id="a model in arguments"),
        pytest.param(chunk_of(extra=1), id="an extra member"),
        pytest.param(chunk_of(name="bot", chunk_position="last"), id="other members"),
        pytest.param(
            chunk_of(usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
            id="usage",
        ),
        pytest.param(
            chunk_of(tool_call_chunks=[{"name": "f", "args": "{}", "id": "1", "index": 0}]),
            id="a tool call",
        ),
        pytest.param(chunk_of().model_copy(update={"content": ["a"]}), id="a list of texts"),
        pytest.param(AIMessageChunk.model_construct(content="a"), id="what was not validated"),
        pytest.param(AIMessageChunk.model_construct(), id="a chunk without content"),
    ],
)
def test_a_chunk_of_a_model_is_written_as_its_dump(chunk: AIMessageChunk) -> None:
    serializer = WellKnownLCSerializer()

    assert serializer.dumps(chunk) == serializer.dumps(chunk.model_dump())
