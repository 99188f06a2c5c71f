"""The fast way tells as LangChain does: in events, logs and traces, and where handlers fail."""

from typing import Any

import pytest

from chainserve.fast_paths import faster
from tests import _calls
from tests._calls import events, events_and_handler, failing_handler
from tests._equivalence import Verb, as_it_is, assert_equal, assert_same, seen
from tests._runnables import CASES, EVERY_KIND

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]

VERBS: dict[str, Verb] = {
    "log": _calls.log,
    "events": events(version="v2"),
    "events of version 1": events(version="v1"),
    "trace": _calls.traced,
    "trace of an invocation": _calls.traced_invocation,
    "events beside a handler": events_and_handler("inline"),
    "events beside an async handler": events_and_handler("async"),
}

FILTERS: dict[str, dict[str, Any]] = {
    "names": {"include_names": ["passing", "source", "RunnableSequence"]},
    "types": {"include_types": ["chat_model", "parser", "prompt"]},
    "tags": {"include_tags": ["seq:step:2", "map:key:a"]},
    "other names": {"exclude_names": ["passing", "RunnableSequence"]},
    "other types": {"exclude_types": ["chain"]},
    "other tags": {"exclude_tags": ["seq:step:1"]},
}

FAILING = [
    "on_chain_start",
    "on_chain_end",
    "on_chain_error",
    "on_chat_model_start",
    "on_llm_new_token",
    "on_llm_end",
]

FAILS = {
    "inline, raised": ("inline", True),
    "inline, logged": ("inline", False),
    "async, raised": ("async", True),
    "in a thread, raised": ("sync", True),
}

HANDLED = [
    "nested sequences",
    "a model, then text",
    "a model that raises after two",
    "a chain in a lambda without the config",
]

FILTERED = [
    "nested sequences",
    "a model, then text",
    "a text prompt in a sequence",
    "parallel in a sequence",
    "configs that are bound",
]


@pytest.mark.parametrize("case", CASES)
async def test_our_own_events_are_those_of_langchain(case: str) -> None:
    slow = await seen(CASES[case], as_it_is, events(version="v2"))
    assert_equal(slow, await seen(CASES[case], faster, _calls.own_events))


@pytest.mark.parametrize("case", EVERY_KIND)
@pytest.mark.parametrize("verb", VERBS)
async def test_what_is_told_is_the_same(verb: str, case: str) -> None:
    await assert_same(CASES[case], VERBS[verb])


@pytest.mark.parametrize("case", FILTERED)
@pytest.mark.parametrize("chosen", FILTERS)
async def test_events_are_filtered_alike(chosen: str, case: str) -> None:
    await assert_same(CASES[case], events(version="v2", **FILTERS[chosen]))


@pytest.mark.parametrize("case", HANDLED)
@pytest.mark.parametrize("method", FAILING)
@pytest.mark.parametrize("how", FAILS)
async def test_a_handler_fails_alike(how: str, method: str, case: str) -> None:
    kind, raises = FAILS[how]
    await assert_same(CASES[case], failing_handler(kind, method, raises=raises))
