"""The counterparts of LangServe's modules: the same names in the same places."""

import importlib
from typing import Any

import langserve
import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel

import chainserve
from chainserve import serialization, validation
from chainserve.migrate import names
from tests import _pair_chains as chains, _pair_values as values
from tests._apps import make_app
from tests._bridge import request
from tests.migration._names import own_names

pytestmark = pytest.mark.anyio

MODULES = [
    "api_handler",
    "callbacks",
    "client",
    "schema",
    "serialization",
    "server",
    "validation",
    "version",
]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_of_a_module_is_in_its_counterpart(name: str) -> None:
    theirs = own_names(f"langserve.{name}")
    ours: Any = importlib.import_module(f"chainserve.{name}")

    assert theirs or name == "version"
    assert {one for one in theirs if not hasattr(ours, one)} <= {*names.NAMES_WITHOUT_COUNTERPART}


@pytest.mark.parametrize("name", MODULES)
def test_a_type_checker_finds_each_name_in_the_counterpart(name: str) -> None:
    ours: Any = importlib.import_module(f"chainserve.{name}")
    exported = {*getattr(ours, "__all__", own_names(ours.__name__))}
    found_when_asked_for = {"WellKnownLCObject", "__version__"}

    assert names.MODULES[name] - found_when_asked_for <= exported


def test_every_public_name_of_the_package_is_there() -> None:
    assert {*langserve.__all__} <= {*chainserve.__all__}
    assert importlib.import_module("chainserve.version").__version__


def test_pydantic_v1_says_what_to_write_instead() -> None:
    with pytest.raises(ImportError, match="from pydantic import BaseModel, Field"):
        importlib.import_module("chainserve.pydantic_v1")


def test_a_name_that_is_nowhere_is_said_to_be_so() -> None:
    for module in (serialization, chainserve):
        with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
            module.nowhere  # noqa: B018


def test_a_well_known_object_is_told_by_its_type() -> None:
    model: Any = serialization.WellKnownLCObject

    assert model.model_validate({"type": "ai", "content": "x"}).root == AIMessage("x")
    assert model.model_validate(AIMessage("x")).root == AIMessage("x")


async def test_our_events_are_those_that_the_models_describe() -> None:
    for chain, value in (
        (chains.text_chain, values.TOPIC),
        (chains.completion_model, "hi"),
        (chains.a_tool, {"first": 1, "second": 2}),
        (chains.retriever, "cats"),
    ):
        app = make_app(chain(), include_callback_events=True)
        answer = await request(app, "POST", "/chain/invoke", json={"input": value})
        for event in answer.json()["callback_events"]:
            parsed: Any = validation.CallbackEvent.model_validate(event)
            assert parsed.root.type == event["type"]


REQUESTS = ["invoke", "batch", "stream", "stream_log", "stream_events"]


class _Config(BaseModel):
    tags: list[str] = []


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_model_takes_what_langserves_takes(name: str) -> None:
    made = {}
    for package in ("langserve", "chainserve"):
        module = importlib.import_module(f"{package}.validation")
        made[package] = getattr(module, f"create_{name}_request_model")("ns", int, _Config)
    body = {"inputs" if name == "batch" else "input": [1] if name == "batch" else 1}

    theirs, ours = made["langserve"], made["chainserve"]
    assert ours.__name__ == theirs.__name__
    assert ours.model_fields.keys() >= theirs.model_fields.keys()
    more: dict[str, Any]
    for more in ({}, {"config": {"tags": ["a"]}}, {"kwargs": {}}):
        shown = ours.model_validate({**body, **more}).model_dump(include={*body})
        assert shown == theirs.model_validate({**body, **more}).model_dump(include={*body})


@pytest.mark.parametrize("name", ["invoke", "batch"])
@pytest.mark.parametrize("events", [True, False])
def test_a_response_model_takes_what_langserve_answers(name: str, events: bool) -> None:
    for package in ("langserve", "chainserve"):
        module = importlib.import_module(f"{package}.validation")
        model = getattr(module, f"create_{name}_response_model")("ns", int, events)
        assert ("callback_events" in model.model_fields) is events
        base = "InvokeBaseResponse" if name == "invoke" else "BatchBaseResponse"
        assert issubclass(model, getattr(module, base))
