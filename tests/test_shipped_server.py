"""The shipped server with a key and a base URL: all chains stream from that provider."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from tests._openai import OpenAIServer, Script, Tokens, ToolCall
from tests._openai_exchange import UpstreamRequest
from tests._processes import ServerProcess

pytestmark = pytest.mark.anyio

CHAINS = ["/agent", "/analyst", "/assistant", "/chat", "/coder", "/tutor", "/writer"]


def answer(request: UpstreamRequest) -> Script:
    """Answer with a text; an agent that has asked nothing yet is told to use its calculator."""
    messages = request.body["messages"]
    if request.body.get("tools") and messages[-1]["role"] != "tool":
        return ToolCall("calculate", ['{"expression": ', '"6 * 7"}'])
    return Tokens(["An ", "answer."])


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(default=answer) as server:
        yield server


@pytest.fixture(scope="module")
async def address(upstream: OpenAIServer) -> AsyncIterator[str]:
    environment = {
        "OPENAI_API_KEY": "sk-canary",
        "OPENAI_BASE_URL": upstream.base_url,
        "OPENAI_MODEL": "canary-1",
        "PORT": "0",
    }
    process = ServerProcess(["server.py"], environment)
    yield f"http://127.0.0.1:{await asyncio.to_thread(process.port)}"
    await asyncio.to_thread(process.close)


async def described(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return what `/chains` says of each chain, by path."""
    return {chain["path"]: chain for chain in (await client.get("/chains")).json()}


async def test_the_chains_name_the_model_that_answers(address: str) -> None:
    async with httpx.AsyncClient(base_url=address) as client:
        chains = await described(client)

    assert sorted(chains) == CHAINS
    assert {chain["model"] for chain in chains.values()} == {"canary-1"}


@pytest.mark.parametrize("path", CHAINS)
async def test_a_chain_streams_the_providers_tokens(
    path: str, address: str, upstream: OpenAIServer
) -> None:
    before = len(upstream.requests)
    async with httpx.AsyncClient(base_url=address, timeout=10) as client:
        example = (await described(client))[path]["examples"][0]
        response = await client.post(f"{path}/stream", json={"input": example})
    events = [block.split("\r\n") for block in response.text.split("\r\n\r\n") if block]
    chunks = [json.loads(lines[1][6:]) for lines in events if lines[0] == "event: data"]
    text = "".join(chunk if isinstance(chunk, str) else chunk["content"] for chunk in chunks)

    assert events[-1] == ["event: end"]
    assert text == "An answer."
    assert sum("An " in str(chunk) for chunk in chunks) == 1
    sent = upstream.requests[before:]
    assert all(request.streams for request in sent)
    assert all(request.body["model"] == "canary-1" for request in sent)
    assert all(request.headers["authorization"] == "Bearer sk-canary" for request in sent)
    if path == "/agent":
        assert any("= 42" in str(request.body["messages"][-1]["content"]) for request in sent)


async def test_a_client_that_leaves_closes_the_providers_connection(
    address: str, upstream: OpenAIServer
) -> None:
    gate = asyncio.Event()
    upstream.enqueue(Tokens(["An ", "answer."], gates={1: gate}))
    count = len(upstream.requests)
    async with httpx.AsyncClient(base_url=address, timeout=10) as client:
        body = {"input": {"question": "Why?"}}
        async with client.stream("POST", "/assistant/stream", json=body) as response:
            async for line in response.aiter_lines():
                if line == 'data: "An "':
                    break
    request = await upstream.received(count + 1)
    with anyio.fail_after(1):
        await request.closed_by_client.wait()
