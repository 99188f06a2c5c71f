"""What happens inside a run: LangServe 0.3.3 and chainserve tell it in the same bytes."""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jsonpatch
import pytest
from fastapi import Depends
from langchain_core.messages import AIMessageChunk

from tests import _pair_chains as chains, _pair_servers as servers, _pair_values as values
from tests._chains import echo, failing, streaming
from tests._pairs import (
    CHAINSERVE,
    LANGSERVE,
    Answer,
    Package,
    Pair,
    Pairs,
    ask,
    ask_over_socket,
    forget_oracle_state,
    option,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
    pytest.mark.filterwarnings("ignore:`config_schema` is deprecated"),  # LangGraph's
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
    pytest.mark.filterwarnings("ignore:astream_events version='v1' is deprecated"),
]


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


_TIME = re.compile(rb'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"')
_GRAPHS_ID = re.compile(rb":[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MARKS = re.compile(rb'"__(?:useragent|langserve_version|langserve_endpoint)":"[^"]*",?')


def told(answer: Answer) -> Answer:
    """Return an answer without times, and without what LangServe notes for itself."""
    body = _GRAPHS_ID.sub(b":<id>", _TIME.sub(b'"<time>"', answer.body))
    body = _MARKS.sub(b"", body).replace(b",}", b"}")
    return Answer(answer.status, answer.headers, body, answer.complete)


def both(name: str, chain: Any, value: Any, config: Any = None, **rest: Any) -> Pairs:
    """Return the requests for both streams of steps; `filters` are more members of the body."""
    body = {"input": value, **rest.pop("filters", {})}
    if config is not None:
        body["config"] = config
    return {
        f"{target}: {name}": Pair(chain=chain, target=target, body=body, **rest)
        for target in ("stream_log", "stream_events")
    }


def table(pairs: Mapping[str, Pair]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", pairs.values(), ids=pairs.keys())


PAIRS: Pairs = {}
for name, (chain, value) in values.CHAINS.items():
    PAIRS |= both(name, chain, value)
    version_1 = both(name, chain, value, options=option(astream_events_version="v1"))
    PAIRS[f"stream_events, version 1: {name}"] = version_1[f"stream_events: {name}"]
CONCURRENT: Pairs = {
    name: PAIRS.pop(name) for name in [*PAIRS] if re.search("parallel|map over a list|graph", name)
}
"""What runs in several tasks or threads, and is told of in no certain order."""

FILTERS: dict[str, dict[str, Any]] = {
    "names": {"include_names": ["ChatPromptTemplate"]},
    "types": {"include_types": ["parser", "chat_model"]},
    "tags": {"include_tags": ["seq:step:2"]},
    "names or tags": {"include_names": ["ChatPromptTemplate"], "include_tags": ["seq:step:2"]},
    "no names": {"include_names": []},
    "all but names": {"exclude_names": ["ChatPromptTemplate"]},
    "all but types": {"exclude_types": ["parser"]},
    "all but tags": {"exclude_tags": ["seq:step:2", "seq:step:1"]},
    "some of the names": {"include_names": ["StrOutputParser"], "exclude_tags": ["seq:step:3"]},
    "null": dict.fromkeys(
        f"{verb}_{what}" for verb in ("include", "exclude") for what in ("names", "types", "tags")
    ),
    "diff, as clients send it": {"diff": False, "kwargs": {"version": "v2"}},
    "a name that is none": {"include_names": "ChatPromptTemplate"},
    "tags that are none": {"exclude_tags": [1]},
    "types that are an object": {"include_types": {}},
}
for name, filters in FILTERS.items():
    PAIRS |= both(f"filtered by {name}", chains.text_chain, values.TOPIC, filters=filters)

TEMPLATE = {"configurable": {"template": "Say no to {topic}"}}
KEYS = ("tags", "metadata", "configurable", "run_id")
MARKED = {"tags": ["a"], "metadata": {"a": 1, "b": {"c": []}}}
PAIRS |= (
    both("nothing", streaming, 1)
    | both("chunks of several kinds", partial(streaming, "a", 1, None, {"b": []}), 1)
    | both("message chunks", partial(streaming, *[AIMessageChunk(content="x", id="1")] * 3), 1)
    | both("a line separator", partial(streaming, "a\nb\r\n\t\u00e9"), 1)
    | both("a field set by the caller", chains.configurable_prompt, values.TOPIC, TEMPLATE)
    | both("keys that are dropped", echo, 1, MARKED)
    | both("keys that are allowed", echo, 1, MARKED, options=option(config_keys=KEYS))
    | both("the chain's own config", chains.with_own_config, 1)
    | both("an input that does not fit", chains.prompt, "cats")
    | both("a config that does not fit", echo, 1, {"configurable": 1})
    | both(
        "a modifier",
        chains.configurable_prompt,
        values.TOPIC,
        headers={"x-template": "From a header: {topic}"},
        options=option(per_req_config_modifier=servers.by_header),
    )
    | both(
        "a dependency that refuses", echo, 1, options=option(dependencies=[Depends(servers.no_key)])
    )
    | both("an endpoint that is disabled", echo, 1, options=option(enabled_endpoints=["invoke"]))
    | both("a router with a prefix", echo, 1, mount=servers.on_router, base="/v1/chain")
    | both("the empty path", echo, 1, mount=servers.at_root, base="")
    | both("a serializer", echo, 1, options=servers.plain_serializer)
)
BROKEN: Pairs = (
    both("before the first chunk", failing, 1)
    | both("in the middle", partial(failing, after=2), 1)
    | both("in a function", chains.failing_function, 1)
)


def comparable(answer: Answer) -> Any:
    """Return an answer; of a refusal, the status and what it says is wrong."""
    if answer.status == 200 or "event-stream" in answer.headers.get("content-type", ""):
        return told(answer)
    return answer.status, answer.detail


def steps_of(answer: Answer) -> Any:
    """Return what an answer says of each step, in no order; of a run log, its end."""
    data = [
        json.loads(line.removeprefix(b"data: "))
        for line in re.sub(rb"<id \d+>", b"<id>", told(answer).body).split(b"\r\n")
        if line.startswith(b"data: ")
    ]
    if any("ops" in told for told in data):
        ops = [op for told in data for op in told.get("ops", ())]
        state = jsonpatch.apply_patch(None, ops)
        logs = sorted(json.dumps(log, sort_keys=True) for log in state["logs"].values())
        return state["final_output"], sorted(map(str, state["streamed_output"])), logs
    return sorted(json.dumps(told, sort_keys=True) for told in data)


@table(PAIRS)
async def test_both_tell_the_same_steps_in_the_same_bytes(pair: Pair) -> None:
    theirs = comparable(await ask(LANGSERVE, pair))
    ours = comparable(await ask(CHAINSERVE, pair))

    assert ours == theirs


@table(CONCURRENT)
async def test_both_tell_of_the_same_steps_that_run_side_by_side(pair: Pair) -> None:
    theirs, ours = await ask(LANGSERVE, pair), await ask(CHAINSERVE, pair)

    assert steps_of(ours) == steps_of(theirs)
    assert (ours.body[-14:] == b"event: end\r\n\r\n") is (b"event: error" not in theirs.body)


@table(BROKEN)
async def test_both_break_off_with_the_same_events(pair: Pair) -> None:
    theirs, ours = told(await ask(LANGSERVE, pair)), told(await ask(CHAINSERVE, pair))

    assert ours.body == theirs.body
    assert b"event: error" in ours.body


@table(both("on the wire", chains.text_chain, values.TOPIC))
async def test_both_answer_the_same_over_a_socket(pair: Pair) -> None:
    theirs = await ask_over_socket(LANGSERVE, pair)
    ours = await ask_over_socket(CHAINSERVE, pair)

    assert told(ours) == told(theirs)


@pytest.mark.parametrize("package", [LANGSERVE, CHAINSERVE], ids=repr)
async def test_only_langserve_tells_callers_what_it_notes_for_itself(package: Package) -> None:
    [pair, _] = both("", chains.text_chain, values.TOPIC).values()

    answer = await ask(package, pair)

    assert (b"__useragent" in answer.body) is (package is LANGSERVE)
    assert (b"__langserve_endpoint" in answer.body) is (package is LANGSERVE)
