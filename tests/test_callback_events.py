"""What happened in a run, in the answer of `invoke` and `batch` (`include_callback_events`)."""

import itertools
import re
from typing import Any
from uuid import uuid4

import anyio.to_thread
import pytest
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
)
from langchain_core.documents import Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableLambda

from chainserve.callbacks import AsyncEventAggregatorCallback
from chainserve.serialization import ServerSideException, load_events
from tests import _pair_chains as chains, _pair_values as values
from tests._apps import make_app
from tests._bridge import request
from tests._chains import echo, failing
from tests._pairs import (
    CHAINSERVE,
    LANGSERVE,
    Answer,
    Package,
    Pair,
    Pairs,
    ask,
    batch,
    forget_oracle_state,
    invoke,
    option,
)
from tests.test_client import served

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:`config_schema` is deprecated"),  # LangGraph's
    pytest.mark.filterwarnings("ignore:Including callback events"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]

TOLD = option(include_callback_events=True)


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


_MARKS = re.compile(rb'"__[a-z_]+":"[^"]*",?')


def told(answer: Answer) -> Answer:
    """Return an answer without what LangServe notes for itself."""
    body = _MARKS.sub(b"", answer.body).replace(b",}", b"}")
    return Answer(answer.status, answer.headers, body, answer.complete)


LANGSERVE_FAILS = {
    "prompt, model and parser",
    "prompt, model and JSON parser",
    "model that streams characters",
    "model that streams words",
    "model that tells its usage",
    "model that calls a tool",
    "model that is not a chat model",
    "choice of models",
    "configurable model",
    "tool",
    "graph over messages",
}
IN_NO_ORDER = re.compile("graph|parallel|map|fallback|pick")

PAIRS: Pairs = {}
for name, (chain, value) in values.CHAINS.items():
    if name not in LANGSERVE_FAILS and not IN_NO_ORDER.search(name):
        PAIRS[f"invoke: {name}"] = invoke(chain, value, options=TOLD)
        PAIRS[f"batch: {name}"] = batch(chain, [value], options=TOLD)
PAIRS |= {
    "batch: several": batch(echo, [1, 2, 3], options=TOLD),
    "batch: nothing": batch(echo, [], options=TOLD),
    "invoke: tags and metadata": invoke(
        chains.with_own_config, 1, {"tags": ["x"], "metadata": {"a": [1]}},
        options=option(include_callback_events=True, config_keys=["tags", "metadata"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
async def test_both_tell_the_same_of_a_run(pair: Pair) -> None:
    theirs, ours = told(await ask(LANGSERVE, pair)), told(await ask(CHAINSERVE, pair))

    assert ours == theirs
    assert b'"callback_events"' in ours.body


@pytest.mark.parametrize("name", sorted(LANGSERVE_FAILS))
@pytest.mark.parametrize("package", [LANGSERVE, CHAINSERVE], ids=repr)
async def test_only_we_tell_of_models_and_tools(package: Package, name: str) -> None:
    chain, value = values.CHAINS[name]

    answer = await ask(package, invoke(chain, value, options=TOLD))

    assert answer.status == (500 if package is LANGSERVE else 200)


KINDS: dict[str, tuple[Any, Any, list[str]]] = {
    "a chat model": (chains.usage_model, "hi", ["on_chat_model_start", "on_llm_end"]),
    "a completion model": (chains.completion_model, "hi", ["on_llm_start", "on_llm_end"]),
    "a tool": (chains.a_tool, {"first": 1, "second": 2}, ["on_tool_start", "on_tool_end"]),
    "a retriever": (chains.retriever, "cats", ["on_retriever_start", "on_retriever_end"]),
    "a function": (chains.sync_double, 3, ["on_chain_start", "on_chain_end"]),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_step_is_told_of(kind: str) -> None:
    make, value, expected = KINDS[kind]
    app = make_app(make(), include_callback_events=True)

    events = (await request(app, "POST", "/chain/invoke", json={"input": value})).json()[
        "callback_events"
    ]

    assert [event["type"] for event in events] == expected
    assert all(event["run_id"] and event["parent_run_id"] is None for event in events)


async def test_a_failure_that_a_fallback_catches_is_told_without_its_text() -> None:
    app = make_app(failing().with_fallbacks([echo()]), include_callback_events=True)

    response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    [error] = [one for one in response.json()["callback_events"] if "error" in one]
    assert error["type"] == "on_chain_error"
    assert error["error"]["message"] == "Internal Server Error"
    assert error["error"]["status_code"] == 500


async def test_an_exception_that_a_chain_passes_on_is_told_by_its_class() -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("secret")

    first: Runnable[Any, Any] = RunnableLambda(lambda _: {"text": "a"})
    caught = RunnableLambda(fail).with_fallbacks([RunnableLambda(str)], exception_key="failure")
    app = make_app(first | caught | RunnableLambda(lambda _: "x"), include_callback_events=True)

    response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert "secret" not in response.json()["callback_events"]
    assert "RuntimeError" in str(response.json()["callback_events"])


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_nothing_is_noted_where_nobody_asks(verb: str) -> None:
    body = {"input": 1} if verb == "invoke" else {"inputs": [1]}
    response = await request(make_app(echo()), "POST", f"/chain/{verb}", json=body)

    assert "callback_events" not in response.json()


async def test_a_step_may_hold_what_has_no_json_form() -> None:
    first: Runnable[Any, Any] = RunnableLambda(lambda _: {"set": {1}, "big": 2**70, "n": object()})
    app = make_app(first | RunnableLambda(lambda _: "x"), include_callback_events=True)

    response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert response.json()["output"] == "x"
    assert "not_implemented" in response.text
    assert "__useragent" not in response.text


async def test_a_repeated_request_gets_its_output_without_what_happened() -> None:
    app = make_app(echo(), include_callback_events=True)
    headers = {"idempotency-key": "k"}
    answers = [
        await request(app, "POST", "/chain/invoke", json={"input": 1}, headers=headers)
        for _ in range(2)
    ]

    assert answers[0].json()["callback_events"]
    assert answers[1].json() == {**answers[0].json(), "callback_events": []}


class _Keeper(BaseCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.told.append(("chain start", inputs))

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.told.append(("model start", messages[0][0].content))

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.told.append(("model end", response.generations[0][0].text))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.told.append(("chain end", outputs))

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.told.append(("chain error", error))


class _AsyncKeeper(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.parents: set[Any] = set()

    async def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.told.append("model start")
        self.parents.add(kwargs["parent_run_id"])

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.told.append("model end")


@pytest.mark.parametrize("verb", ["ainvoke", "abatch"])
async def test_a_clients_callbacks_are_told_what_happened_on_the_server(verb: str) -> None:
    keeper, in_loop = _Keeper(), _AsyncKeeper()
    async with served(CHAINSERVE, chains.text_chain(), include_callback_events=True) as client:
        value: Any = values.TOPIC if verb == "ainvoke" else [values.TOPIC]
        await getattr(client, verb)(value, {"callbacks": [keeper, in_loop]})

    assert [kind for kind, _ in keeper.told if "model" in kind] == ["model start", "model end"]
    assert in_loop.told == ["model start", "model end"]
    assert None not in in_loop.parents


async def test_a_sync_clients_callbacks_are_told_too() -> None:

    keeper = _Keeper()
    async with served(CHAINSERVE, chains.usage_model(), include_callback_events=True) as client:
        await anyio.to_thread.run_sync(lambda: client.invoke("hi", {"callbacks": [keeper]}))

    assert [kind for kind, _ in keeper.told] == [
        "chain start",
        "model start",
        "model end",
        "chain end",
    ]


async def test_a_clients_callbacks_count_the_tokens_of_the_servers_models() -> None:
    here, there = UsageMetadataCallbackHandler(), UsageMetadataCallbackHandler()
    chain = counting_model()
    await chain.ainvoke("hi", {"callbacks": [here]})
    async with served(CHAINSERVE, counting_model(), include_callback_events=True) as client:
        await client.ainvoke("hi", {"callbacks": [there]})

    assert here.usage_metadata
    assert there.usage_metadata == here.usage_metadata


def counting_model() -> Runnable[Any, Any]:
    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    message = AIMessage(
        "hi", usage_metadata=usage, response_metadata={"model_name": "m"}, tool_calls=[]
    )
    return GenericFakeChatModel(messages=itertools.repeat(message))


async def test_a_client_may_leave_them_out() -> None:
    keeper = _Keeper()
    async with served(CHAINSERVE, chains.usage_model(), include_callback_events=True) as client:
        client._use_server_callback_events = False
        await client.ainvoke("hi", {"callbacks": [keeper]})

    assert [kind for kind, _ in keeper.told] == ["chain start", "chain end"]


RUN = "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"


def test_loaded_events_have_langchains_objects() -> None:
    [start, error] = load_events(
        [
            {"type": "on_chain_start", "run_id": RUN, "inputs": {"type": "ai", "content": "x"}},
            {
                "type": "on_tool_error",
                "run_id": RUN,
                "parent_run_id": RUN,
                "error": {"status_code": 500, "message": "no", "type": "error"},
            },
        ]
    )

    assert start["inputs"] == AIMessage("x")
    assert (str(start["run_id"]), start["parent_run_id"]) == (RUN, None)
    assert isinstance(error["error"], ServerSideException)
    assert str(error["error"]) == "500: no"


@pytest.mark.parametrize(
    "events",
    [None, "x", [1], [{}], [{"type": 1, "run_id": RUN}], [{"type": "x", "run_id": RUN}],
     [{"type": "on_chain_start", "run_id": "x"}], [{"type": "on_x_error", "run_id": RUN}]],
)  # fmt: skip
def test_what_is_no_event_is_left_out(events: Any) -> None:
    assert load_events(events) == []


async def test_agents_steps_are_noted() -> None:
    aggregator, run_id = AsyncEventAggregatorCallback(), uuid4()
    aggregator.on_agent_action(AgentAction(tool="t", tool_input="x", log="l"), run_id=run_id)
    aggregator.on_agent_finish(AgentFinish({"a": 1}, "l"), run_id=run_id, tags=["a"])
    aggregator.on_retriever_end([Document("x")], run_id=run_id)

    assert [event["type"] for event in aggregator.callback_events] == [
        "on_agent_action",
        "on_agent_finish",
        "on_retriever_end",
    ]
