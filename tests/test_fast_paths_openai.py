"""The fast way asks a server that is like OpenAI's, and reads its answers, as `ChatOpenAI` does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputToolsParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from chainserve.fast_paths import faster
from tests import _calls
from tests._calls import events, told
from tests._equivalence import AnyRunnable, Call, Case, Verb, as_it_is, assert_equal, seen
from tests._journal import Journal
from tests._leaving import cancel, left_after, until
from tests._openai import (
    Garbage,
    Hang,
    OpenAIServer,
    Reset,
    Script,
    Stall,
    Status,
    Tokens,
    ToolCall,
    Truncate,
)
from tests._openai_exchange import Exchange, encode
from tests._shown import Shown, shown
from tests._steps import passing

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]

PROMPT = ChatPromptTemplate.from_messages([("system", "be brief"), ("placeholder", "{question}")])


@dataclass(frozen=True)
class Raw:
    """Streams these chunks; each lacks nothing but what names the stream.

    Attributes:
        chunks: What is merged into the envelope of each; text is sent as it is.
        ends: Whether the stream ends as it should.
    """

    chunks: Sequence[dict[str, Any] | str]
    ends: bool = True

    async def play(self, exchange: Exchange) -> None:
        """Answer; a request that does not stream gets an error."""
        if not exchange.request.streams:
            await Status(400).play(exchange)
            return
        await exchange.start_stream(content="")
        for chunk in self.chunks:
            data = chunk.encode() if isinstance(chunk, str) else encode({**_ENVELOPE, **chunk})
            await exchange.send_data(data)
        if self.ends:
            await exchange.end_stream("stop", None)
        else:
            exchange.close()


_ENVELOPE = {"id": "chatcmpl-raw", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def _delta(finish_reason: str | None = None, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return {"choices": [choice]}


LOGPROBS = {
    "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
    "refusal": None,
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DETAILS = {
    **USAGE,
    "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": None},
}
CALL = {"index": 0, "id": "call_9", "type": "function"}
ERROR = {"error": {"message": "overloaded", "type": "server_error", "code": "503", "param": None}}

SCRIPTS: dict[str, Script] = {
    "text": Tokens(["Hello", " big", " world", ""]),
    "many tokens": Tokens([f"t{number} " for number in range(30)]),
    "text without usage": Tokens(["Hello", " world"], usage=False),
    "nothing": Tokens([]),
    "a length that is reached": Tokens(["cut"], finish_reason="length"),
    "text of all kinds": Tokens(["Grüße", "\u2028\u0085", "\U0001f600", '"\\\n', "data: x"]),
    "JSON": Tokens(['{"a": ', '[1, {"b"', ': "c"}]', "}"]),
    "a tool call": ToolCall("weather", ['{"city"', ': "Bonn"}']),
    "tool calls and text": Raw(
        [
            _delta(content="let me see"),
            _delta(tool_calls=[{**CALL, "function": {"name": "f", "arguments": ""}}]),
            _delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
            _delta(tool_calls=[{**CALL, "index": 1, "function": {"name": "g", "arguments": "{}"}}]),
        ]
    ),
    "a function call": Raw(
        [
            _delta(function_call={"name": "f", "arguments": ""}),
            _delta(function_call={"arguments": "{}"}),
        ]
    ),
    "a refusal": Raw([_delta(refusal="I "), _delta(refusal="won't"), _delta(content=None)]),
    "log probabilities": Raw([_delta(content="a", logprobs=LOGPROBS), _delta(content="b")]),
    "usage in each chunk": Raw([{**_delta(content="a"), "usage": USAGE}, {"choices": []}]),
    "usage in detail": Raw([_delta(content="a"), {"choices": [], "usage": DETAILS}]),
    "a service tier and a fingerprint": Raw(
        [
            {**_delta(content="a"), "service_tier": "flex", "system_fingerprint": "fp_1"},
            {**_delta(finish_reason="stop"), "service_tier": "flex", "system_fingerprint": "fp_1"},
        ]
    ),
    "padding": Raw([{**_delta(content="a"), "obfuscation": "x7Gh"}, _delta(content="b")]),
    "members that nobody knows": Raw(
        [
            {**_delta(content="a", reasoning_content="hm"), "provider": {"name": "x"}},
            {**_delta(content="b", audio={"id": "y"}), "x": 1},
        ]
    ),
    "several choices": Raw(
        [
            {"choices": [_delta(content="a")["choices"][0], _delta(content="b")["choices"][0]]},
            {"choices": [{**_delta(content="c")["choices"][0], "index": 1}]},
        ]
    ),
    "choices that lack members": Raw(
        [{"choices": [{"index": 0, "delta": {"content": "a"}}]}, {"choices": [{"delta": {}}]}]
    ),
    "no choices at all": Raw([{}, {"choices": None}]),
    "another role": Raw([_delta(role="user", content="a"), _delta(role="developer", content="b")]),
    "content that is no text": Raw([_delta(content=[{"type": "text", "text": "a"}])]),
    "an unknown finish": Raw([_delta(content="a"), _delta(finish_reason="content_filter")]),
    "another model on the way": Raw([{**_delta(content="a"), "model": "other"}]),
    "an error on the way": Raw([_delta(content="a"), ERROR]),
    "an error in text on the way": Raw([_delta(content="a"), {"error": "no"}]),
    "garbage on the way": Garbage(2),
    "empty data": Raw([_delta(content="a"), "", _delta(content="b")]),
    "a list": Raw([_delta(content="a"), "[1, 2]"]),
    "a number": Raw([_delta(content="a"), "5"]),
    "null": Raw([_delta(content="a"), "null"]),
    "a connection that is cut": Truncate(2),
    "a connection that is reset": Reset(2),
    "a stream without an end": Raw([_delta(content="a")], ends=False),
    "too many requests": Status(429, {"retry-after": "0"}),
    "a server error": Status(500),
    "a request that is refused": Status(400),
    "no such model": Status(404, body=b"not JSON"),
}


_ASKING: AnyRunnable = RunnableLambda(lambda messages: {"question": messages})


class Answer(BaseModel):
    """What is asked for in a structure."""

    a: list[Any] = []


VERBS: dict[str, Verb] = {
    "stream": told("inline"),
    "events": events(version="v2"),
}
VERBS_OF_A_FEW: dict[str, Verb] = {
    "invoke": _calls.ainvoke_told,
    "closed after two": left_after(2),
}

CHAINS: dict[str, Callable[[ChatOpenAI, Journal], AnyRunnable]] = {
    "with the stream's usage off": lambda model, _: model.model_copy(
        update={"stream_usage": False}
    ),
    "told to stream": lambda model, _: (
        _ASKING | PROMPT | model.model_copy(update={"streaming": True})
    ),
    "in a chain": lambda model, j: _ASKING | PROMPT | model | StrOutputParser() | passing(j),
    "with tools": lambda model, _: (
        _ASKING | PROMPT | model.bind_tools([Answer]) | JsonOutputToolsParser()
    ),
    "in a structure": lambda model, _: model.with_structured_output(Answer, method="json_mode"),
    "in raw structure": lambda model, _: model.with_structured_output(Answer, include_raw=True),
    "with JSON": lambda model, _: model | JsonOutputParser(),
    "with a fallback": lambda model, j: model.with_fallbacks([passing(j)]),
    "tried again": lambda model, _: model.with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    ),
    "with log probabilities": lambda model, _: model.bind(logprobs=True, stop=["x"], seed=1),
    "in the version v1": lambda model, _: model.model_copy(update={"output_version": "v1"}),
}
ANSWERS = ["text", "a tool call", "JSON", "a server error", "a connection that is cut"]


IN_PARALLEL = "in raw structure"


@pytest.fixture(scope="module")
async def server(anyio_backend: str) -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def model(server: OpenAIServer) -> ChatOpenAI:
    """Return the model: it holds nothing of a run, and takes long to make."""
    key = SecretStr("none")
    return ChatOpenAI(model="scripted", base_url=server.base_url, api_key=key, max_retries=0)


async def _assert_same(server: OpenAIServer, case: Case, script: Script, verb: Verb) -> None:
    """Assert that both ways see the same, and ask the server for the same."""
    server.default = script
    slow = await seen(case, as_it_is, verb)
    asked = _asked(server)
    assert_equal(slow, await seen(case, faster, verb))
    assert_equal(asked, _asked(server))


def _asked(server: OpenAIServer) -> Shown:
    """Return what was asked, and forget it."""
    asked = [(request.method, request.path, request.body) for request in server.requests]
    headers = [
        {name: value for name, value in request.headers.items() if name not in _OF_A_CONNECTION}
        for request in server.requests
    ]
    server.requests.clear()
    return shown(json.loads(json.dumps([asked, headers])))


_OF_A_CONNECTION = ("host", "content-length", "x-stainless-read-timeout")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("verb", VERBS)
async def test_an_answer_is_read_alike(
    server: OpenAIServer, model: ChatOpenAI, verb: str, script: str
) -> None:
    await _assert_same(server, Case(lambda _: model, "why?"), SCRIPTS[script], VERBS[verb])


@pytest.mark.parametrize("script", ANSWERS)
@pytest.mark.parametrize("verb", VERBS_OF_A_FEW)
async def test_an_answer_is_read_alike_in_other_ways(
    server: OpenAIServer, model: ChatOpenAI, verb: str, script: str
) -> None:
    await _assert_same(server, Case(lambda _: model, "why?"), SCRIPTS[script], VERBS_OF_A_FEW[verb])


@pytest.mark.parametrize("script", ANSWERS)
@pytest.mark.parametrize("chain", CHAINS)
async def test_a_chain_asks_alike(
    server: OpenAIServer, model: ChatOpenAI, chain: str, script: str
) -> None:
    build = partial(CHAINS[chain], model)
    case = Case(build, [("user", "why?")], concurrent=chain == IN_PARALLEL)
    await _assert_same(server, case, SCRIPTS[script], told("inline"))


@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_the_connection_is_closed_when_the_run_is_cancelled(
    server: OpenAIServer, model: ChatOpenAI, chunks: int
) -> None:
    server.default = Stall(chunks - 1) if chunks else Hang()

    async def verb(call: Call) -> None:
        server.requests.clear()
        task = asyncio.create_task(_read_until(call, chunks))
        await server.received()
        if chunks:
            await until(call.journal.stalls, task)
        await cancel(call.journal, task)
        await server.all_closed()
        call.journal.add("the connection is closed")

    case = Case(
        lambda journal: _ASKING | PROMPT | model | StrOutputParser() | passing(journal),
        [("user", "why?")],
    )
    assert_equal(await seen(case, as_it_is, verb), await seen(case, faster, verb))


async def _read_until(call: Call, count: int) -> None:
    async for chunk in call.stream("inline"):
        call.journal.chunk(chunk)
        count -= 1
        if not count:
            call.journal.stalls.set()
