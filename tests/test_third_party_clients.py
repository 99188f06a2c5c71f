"""Clients that others wrote for LangServe, in JavaScript: both servers give them the same.

chat-ui by Hugging Face, assistant-ui, nlux and fetch-event-source.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chainserve.settings import Settings
from tests import _pair_chains as chains
from tests._apps import make_app
from tests._chains import failing, streaming
from tests._js import FOLDER
from tests._pairs import CHAINSERVE, LANGSERVE, Package, forget_oracle_state
from tests._proxied import proxied
from tests._proxy import Fault

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]


class Question(BaseModel):
    """What chat-ui sends, and what nlux makes of a schema with one text."""

    text: str


class Number(BaseModel):
    number: int


async def _words(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
    """Yield the words of the question, each with the space behind it."""
    question = "".join([_text_of(value) async for value in inputs])
    *words, last = question.split(" ")
    for word in words:
        yield f"{word} "
    yield last


def _text_of(value: Any) -> str:
    return str(value["text"] if isinstance(value, dict) else value.text)


def _blocks() -> Runnable[Any, Any]:
    """Return a model whose content is blocks, of which some are no text."""
    blocks = [[{"type": "text", "text": "hi ", "index": 0}], [{"type": "image", "index": 1}]]
    parts = [AIMessageChunk(content=content, id="run-1") for content in blocks]  # type: ignore[arg-type]
    return chains.ScriptedChatModel(chunks=parts)


def _served(package: Package) -> FastAPI:
    messages = RunnableLambda(lambda value: value["messages"])
    model = chains.usage_model()
    app = FastAPI()
    for path, chain in {
        "/words": RunnableGenerator(_words).with_types(input_type=Question),
        "/broken": failing(after=1).with_types(input_type=Question),
        "/strict": streaming("a").with_types(input_type=Number),
        "/texts": streaming("one ", "", "two\u2028"),
        "/model": messages | model,
        "/blocks": messages | _blocks(),
        "/textModel": (RunnableLambda(_text_of) | model).with_types(input_type=Question),
    }.items():
        package.add_routes(app, chain, path=path)
    return app


class Paced:
    """Holds each piece of a body below `/paced` back until `/read` was asked for the last one.

    chat-ui judges a read by how it begins. What is written at once may be read at once, so without
    this chance would have a say.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._reads = asyncio.Semaphore()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/read":
            self._reads.release()
            return await Response()(scope, receive, send)
        if scope["type"] == "http" and scope["path"].startswith("/paced/"):
            scope = {**scope, "path": scope["path"].removeprefix("/paced")}
            self._reads = asyncio.Semaphore()
            return await self._app(scope, receive, self._paced(send))
        return await self._app(scope, receive, send)

    def _paced(self, send: Send) -> Send:
        async def send_in_time(message: Message) -> None:
            if message.get("body"):
                await self._reads.acquire()
            await send(message)

        return send_in_time


def _run_in_node(node: str, *command: str, given: str = "") -> Any:
    done = subprocess.run(
        [node, *command],
        cwd=FOLDER, input=given, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _results(node: str, package: Package) -> dict[str, Any]:
    forget_oracle_state()
    with proxied(Paced(_served(package))) as server:
        results: dict[str, Any] = _run_in_node(node, "clients.mjs", server.base_url)
    return results


def test_clients_of_langserve_get_the_same_of_both_servers(node: str) -> None:
    theirs, ours = [_results(node, package) for package in (LANGSERVE, CHAINSERVE)]
    differing = {name: (theirs[name], ours[name]) for name in ours if theirs[name] != ours[name]}

    assert ours["chatUi"]["value"] == {"tokens": TOKENS, "text": "".join(TOKENS)}
    assert len(ours["chatUiLong"]["value"]["tokens"]) == 200
    assert ours["assistantUi"]["value"] == ['0:"one "', '0:"two\u2028"']
    assert ours["assistantUiMessages"]["value"] == ['0:"hel"', '0:"lo"']
    assert ours["assistantUiBlocks"]["value"] == ['0:"hi "']
    assert ours["nlux"]["value"] == TOKENS
    assert "".join(ours["nluxMessages"]["value"]) == "hello"
    assert [event for event, _ in ours["fetchEventSource"]["value"]] == [
        "metadata", *("data" for _ in TOKENS), "end",
    ]  # fmt: skip
    assert differing == {
        # A connection to LangServe breaks after the error.
        "chatUiBroken": ({"error": "terminated"}, {"value": {"tokens": ["t0 "], "text": None}}),
        "fetchEventSourceBroken": (
            {"error": "terminated"},
            {
                "value": [
                    ["metadata", ["run_id"]],
                    ["data", "t0 "],
                    ["error", {"status_code": 500, "message": "Internal Server Error"}],
                ]
            },
        ),
        # nlux does not find a chunk in which U+2028 is not escaped.
        "nluxSeparators": (
            {"value": ["b\u0085 ", "c"]},
            {"value": ["a\u2028 ", "b\u0085 ", "c"]},
        ),
        "fetchEventSourceInvalid": (
            {"error": f"{_NO_STREAM} application/json"},
            {"error": f"{_NO_STREAM} application/problem+json"},
        ),
    }


TOKENS = ["a ", "é ", "😀\n\n ", "b"]
_NO_STREAM = "Expected content-type to be text/event-stream, Actual:"

# In the last four bytes of an event are two line ends, of its last line and of the blank one.
SHIFTS = (-5, -4, -3, -2, -1, 0, 1)
BORDERS = [(count, shift) for count in range(1, len(TOKENS) + 3) for shift in SHIFTS]
CUTS = [(0, 0), (0, 1), *BORDERS[:-1]]


def _loses_an_event(count: int, shift: int) -> bool:
    """Tell whether fetch-event-source has the id of an event that it does not have yet.

    It takes an id when its line has ended, and has the event when the blank line has. In `metadata`
    there is another line between.
    """
    return shift in (-3, -2) or (count == 1 and shift in (-5, -4))


def test_fetch_event_source_goes_on_where_it_was_cut(node: str) -> None:
    app = make_app(streaming(*TOKENS), settings=Settings(retry_ms=5))
    with proxied(app) as server:
        targets = [f"/chain/stream?cut={number}-" for number in range(len(CUTS))]
        for target, (count, shift) in zip(targets, CUTS, strict=True):
            server.add(Fault(target, after_events=count, shift=shift))
        urls = [f"{server.base_url}{target}" for target in targets]
        followed = _run_in_node(node, "resume.mjs", given=json.dumps(urls))
        assert server.proxy.faults == []
        asked = [server.to(target) for target in targets]

    for (count, shift), seen, requests in zip(CUTS, followed, asked, strict=True):
        lost = count - 1 if _loses_an_event(count, shift) else None
        expected = [seq for seq in range(len(TOKENS) + 2) if seq != lost]
        assert [_sequence_number(event_id) for _, _, event_id in seen] == expected, (count, shift)
        chunks = [json.loads(data) for event, data, _ in seen if event == "data"]
        assert chunks == [TOKENS[seq - 1] for seq in expected if 0 < seq <= len(TOKENS)]
        assert len({event_id.rpartition(".")[0] for _, _, event_id in seen}) == 1  # One run.
        assert {request.method for request in requests} == {"POST"}
        assert "last-event-id" not in requests[0].headers


def _sequence_number(event_id: str) -> int:
    return int(event_id.rpartition(".")[2])
