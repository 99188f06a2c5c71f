"""The handlers that this library adds to a run, and those of the chain's author beside them."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from chainserve import RemoteRunnable
from tests._apps import make_app
from tests._pair_chains import completion_model, list_model
from tests._verbs import VERBS, ask

pytestmark = pytest.mark.anyio


class _Told(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.events: list[str] = []

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("start")

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("start")

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("end")


@pytest.mark.parametrize("model", [completion_model, list_model])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_chains_own_handler_is_told_of_a_models_start_and_end(
    verb: str, model: Any
) -> None:
    told = _Told()
    response = await ask(make_app(model().with_config(callbacks=[told])), verb, "hi")

    assert response.status == 200
    assert told.events == ["start", "end"]


# What a client's handlers are told of a server's events.

RUN = "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"
MESSAGE = {"type": "human", "content": "hi"}


class _Named(BaseCallbackHandler):
    """A handler whose arguments have names of its own, and which knows nothing of chat models."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_chain_start(self, serialised: Any, given: Any, **kwargs: Any) -> None:  # type: ignore[override]
        if kwargs["parent_run_id"] is not None:
            self.told.append((given, kwargs))

    def on_llm_start(self, serialised: Any, texts: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self.told.append((texts, kwargs))


class _NamedInLoop(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []

    async def on_chain_start(self, serialised: Any, given: Any, **kwargs: Any) -> None:  # type: ignore[override]
        if kwargs["parent_run_id"] is not None:
            self.told.append((given, kwargs))

    async def on_llm_start(self, serialised: Any, texts: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self.told.append((texts, kwargs))


async def retold(*events: dict[str, Any]) -> list[list[Any]]:
    """Return what handlers of either kind are told of events by either form of each verb."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        several = "batch" in request.url.path
        told: dict[str, Any] = {"output": 1, "callback_events": [*events]}
        if several:
            told = {"output": [1], "callback_events": [[*events]]}
        return httpx2.Response(200, content=json.dumps(told))

    client = RemoteRunnable[Any, Any](
        "http://test/x", client_kwargs={"transport": httpx2.MockTransport(answer)}, verify=False
    )
    handlers = [(_Named(), _NamedInLoop()) for _ in range(4)]
    configs: list[Any] = [{"callbacks": [*pair]} for pair in handlers]
    first, second, third, fourth = configs
    assert await client.ainvoke(1, first) == 1
    assert await asyncio.to_thread(client.invoke, 1, second) == 1
    assert await client.abatch([1], third) == [1]
    assert await asyncio.to_thread(client.batch, [1], fourth) == [1]
    await client.aclose()
    return [handler.told for pair in handlers for handler in pair]


async def test_a_handler_may_name_its_arguments_as_it_likes() -> None:
    for told in await retold({"type": "on_chain_start", "run_id": RUN, "inputs": {"a": 1}}):
        [(given, _)] = told
        assert given == {"a": 1}


async def test_a_handler_without_chat_models_is_told_of_their_messages_as_text() -> None:
    event = {"type": "on_chat_model_start", "run_id": RUN, "messages": [[MESSAGE]]}
    for told in await retold(event):
        [(texts, _)] = told
        assert texts == ["Human: hi"]


async def test_an_events_own_members_go_before_its_other_arguments() -> None:
    other = {"run_id": 5, "parent_run_id": 6, "inputs": 7, "type": "x", "kwargs": 8, "name": "n"}
    event = {"type": "on_chain_start", "run_id": RUN, "inputs": 1, "parent_run_id": None}
    for told in await retold({**event, "kwargs": other}):
        [(given, arguments)] = told
        assert given == 1
        assert arguments["name"] == "n"
        assert arguments["run_id"] not in (5, None)
        assert arguments["parent_run_id"] not in (6, None)


@pytest.mark.parametrize(
    "odd",
    [
        {"kwargs": 5}, {"kwargs": [["a"]]}, {"kwargs": "ab"}, {"kwargs": MESSAGE},
        *({name: 1} for name in ("handlers", "event_name", "ignore_condition_name", "handler")),
        *({"kwargs": {name: 1}} for name in ("handlers", "event_name", "handler", "coro")),
        {"inputs": json.loads("[" * 900 + "]" * 900)},
        *({"type": "on_chat_model_start", "messages": odd} for odd in (5, [5], [[5]], ["a"])),
        {"type": "on_chat_model_start"},
    ],
    ids=lambda odd: json.dumps(odd)[:50],
)  # fmt: skip
async def test_an_event_that_no_handler_can_be_told_of_is_left_out(odd: dict[str, Any]) -> None:
    first = {"type": "on_chain_start", "run_id": RUN, "inputs": 1}
    for told in await retold({**first, **odd}, {**first, "inputs": 2}):
        assert [given for given, _ in told] == [2]
