"""The scripted OpenAI-compatible server, driven by the client it stands in for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import openai
import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.utils.json import parse_partial_json
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests._openai import (
    WAIT_SECONDS,
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
    refused_base_url,
)

pytestmark = pytest.mark.anyio


# From version 3 on openai translates what breaks off a body that has begun; before, httpx's own
# error reaches the caller.
BREAKS_OFF = (openai.APIConnectionError, httpx.TransportError)


def model_at(base_url: str, *, stream_usage: bool = False) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=base_url,
        api_key=SecretStr("test"),
        model="scripted",
        max_retries=0,
        stream_usage=stream_usage,
    )


async def collect(model: ChatOpenAI, into: list[AIMessageChunk]) -> None:
    async for chunk in model.astream("hi"):
        assert isinstance(chunk, AIMessageChunk)
        into.append(chunk)


def text_of(chunks: Sequence[AIMessageChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_a_stream_concatenates_to_the_tokens() -> None:
    chunks: list[AIMessageChunk] = []
    async with OpenAIServer(Tokens(["Hel", "lo"])) as upstream:
        await collect(model_at(upstream.base_url), chunks)
        await upstream.all_closed()
    assert [chunk.text for chunk in chunks if chunk.text] == ["Hel", "lo"]
    (request,) = upstream.requests
    assert request.body["messages"] == [{"content": "hi", "role": "user"}]
    assert request.headers["authorization"] == "Bearer test"
    assert (request.streams, request.tokens_sent) == (True, 2)
    assert request.finished.is_set()
    assert not request.closed_by_client.is_set()


async def test_a_token_waits_for_its_gate() -> None:
    gate = asyncio.Event()
    async with OpenAIServer(Tokens(["a", "b"], gates={1: gate})) as upstream:
        stream = model_at(upstream.base_url).astream("hi")
        assert [(await anext(stream)).text for _ in range(2)] == ["", "a"]
        assert upstream.requests[0].tokens_sent == 1
        gate.set()
        assert "".join([chunk.text async for chunk in stream]) == "b"


@pytest.mark.parametrize(("asked", "tokens"), [(True, 2), (False, None)])
async def test_usage_comes_when_the_client_asks_for_it(asked: bool, tokens: int | None) -> None:
    chunks: list[AIMessageChunk] = []
    async with OpenAIServer(Tokens(["a", "b"])) as upstream:
        await collect(model_at(upstream.base_url, stream_usage=asked), chunks)
    usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert [entry["output_tokens"] for entry in usage] == ([tokens] if asked else [])


async def test_invoke_gets_the_whole_text_and_its_usage() -> None:
    gate = asyncio.Event()
    gate.set()
    async with OpenAIServer(Tokens(["Hel", "lo"], gates={0: gate})) as upstream:
        message = await model_at(upstream.base_url).ainvoke("hi")
    assert message.text == "Hello"
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 9
    assert message.response_metadata["finish_reason"] == "stop"


async def test_a_tool_call_streams_its_arguments() -> None:
    chunks: list[AIMessageChunk] = []
    script = ToolCall("weather", ['{"city": ', '"Bonn"}'])
    async with OpenAIServer(script) as upstream:
        await collect(model_at(upstream.base_url), chunks)
        message = await model_at(upstream.base_url).ainvoke("hi")
    pieces = [piece["args"] for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [piece for piece in pieces if piece] == ['{"city": ', '"Bonn"}']
    assert parse_partial_json("".join(piece or "" for piece in pieces)) == {"city": "Bonn"}
    (call,) = message.tool_calls
    assert (call["name"], call["args"], call["id"]) == ("weather", {"city": "Bonn"}, "call_1")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_an_error_status_raises_before_the_first_chunk(
    status: int, error: type[openai.APIStatusError]
) -> None:
    chunks: list[AIMessageChunk] = []
    async with OpenAIServer(Status(status, headers={"retry-after": "7"})) as upstream:
        with pytest.raises(error, match="scripted") as streamed:
            await collect(model_at(upstream.base_url), chunks)
        with pytest.raises(error, match="scripted"):
            await model_at(upstream.base_url).ainvoke("hi")
    assert chunks == []
    assert streamed.value.response.headers["retry-after"] == "7"


async def test_a_refused_connection_is_a_connection_error() -> None:
    with pytest.raises(openai.APIConnectionError):
        await model_at(refused_base_url()).ainvoke("hi")


@pytest.mark.parametrize("script", [Reset(after=2), Truncate(after=2)])
async def test_a_stream_that_breaks_off_raises_a_connection_error(script: Script) -> None:
    chunks: list[AIMessageChunk] = []
    async with OpenAIServer(script) as upstream:
        with pytest.raises(BREAKS_OFF):
            await collect(model_at(upstream.base_url), chunks)
        with pytest.raises(openai.APIConnectionError):
            await model_at(upstream.base_url).ainvoke("hi")
    assert text_of(chunks) == "t0 t1 "
    assert not upstream.requests[0].closed_by_client.is_set()


async def test_garbage_in_a_stream_raises_a_value_error() -> None:
    chunks: list[AIMessageChunk] = []
    async with OpenAIServer(Garbage(after=2)) as upstream:
        with pytest.raises(ValueError, match="property name"):
            await collect(model_at(upstream.base_url), chunks)
        with pytest.raises(ValueError, match="property name"):
            await model_at(upstream.base_url).ainvoke("hi")
    assert text_of(chunks) == "t0 t1 "


@pytest.mark.parametrize("script", [Hang(), Stall(after=0), Stall(after=3)])
async def test_cancelling_the_stream_closes_the_connection_within_a_second(script: Script) -> None:
    chunks: list[AIMessageChunk] = []
    async with OpenAIServer(script) as upstream:
        task = asyncio.create_task(collect(model_at(upstream.base_url), chunks))
        request = await upstream.received()
        if isinstance(script, Stall):
            await until_text(chunks, script.tokens)
        assert upstream.open_connections == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.all_closed()
    assert request.closed_by_client.is_set()
    assert not request.finished.is_set()


async def until_text(chunks: Sequence[AIMessageChunk], tokens: Sequence[str]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while text_of(chunks) != "".join(tokens):  # noqa: ASYNC110 - the list has no event
            await asyncio.sleep(0)


async def test_cancelling_an_invoke_closes_the_connection_within_a_second() -> None:
    async with OpenAIServer(Hang()) as upstream:
        task = asyncio.create_task(model_at(upstream.base_url).ainvoke("hi"))
        request = await upstream.received()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(1.0):
            await request.closed_by_client.wait()


async def test_a_gate_holds_the_interruption_back() -> None:
    gate = asyncio.Event()
    chunks: list[AIMessageChunk] = []
    async with OpenAIServer(Reset(after=1, gate=gate)) as upstream:
        task = asyncio.create_task(collect(model_at(upstream.base_url), chunks))
        await until_text(chunks, ["t0 "])
        assert not task.done()
        gate.set()
        with pytest.raises(BREAKS_OFF):
            await task


async def test_queued_scripts_come_first_and_the_default_may_look_at_the_request() -> None:
    def repeat(request: object) -> Script:
        return Tokens([upstream.requests[-1].body["messages"][0]["content"]])

    async with OpenAIServer(repeat) as upstream:
        upstream.enqueue(Tokens(["first"]), Status(500))
        model = model_at(upstream.base_url)
        assert (await model.ainvoke("a")).text == "first"
        with pytest.raises(openai.InternalServerError):
            await model.ainvoke("b")
        assert (await model.ainvoke("c")).text == "c"
        assert (await upstream.received(3)).body["messages"][0]["content"] == "c"


async def test_many_connections_are_served_at_once() -> None:
    gate = asyncio.Event()
    async with OpenAIServer(Tokens(["a", "b"], gates={1: gate})) as upstream:
        answers: list[list[AIMessageChunk]] = [[] for _ in range(50)]
        model = model_at(upstream.base_url)
        tasks = [asyncio.create_task(collect(model, chunks)) for chunks in answers]
        await upstream.received(50)
        assert upstream.open_connections == 50
        gate.set()
        await asyncio.gather(*tasks)
        await upstream.all_closed()
    assert [text_of(chunks) for chunks in answers] == ["ab"] * 50


async def test_other_paths_are_not_found() -> None:
    async with OpenAIServer() as upstream, httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"{upstream.base_url}/models")
    assert (response.status_code, upstream.requests[0].body) == (404, None)


async def test_leaving_ends_a_script_that_still_waits() -> None:
    async with OpenAIServer(Hang()) as upstream:
        task = asyncio.create_task(model_at(upstream.base_url).ainvoke("hi"))
        request = await upstream.received()
    with pytest.raises(openai.APIConnectionError):
        await task
    assert not request.closed_by_client.is_set()
    assert upstream.open_connections == 0


async def test_an_error_in_a_script_is_raised_on_leaving() -> None:
    class Broken:
        async def play(self, exchange: object) -> None:
            raise LookupError("in the script")

    async def use_it() -> None:
        async with OpenAIServer(Broken()) as upstream:
            with pytest.raises(openai.APIConnectionError):
                await model_at(upstream.base_url).ainvoke("hi")

    with pytest.raises(LookupError, match="in the script"):
        await use_it()
