"""The runnables a test can steer, run by langchain-core itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableLambda

from tests._chains import (
    WAIT_SECONDS,
    BlockingChain,
    CountingChain,
    GatedChain,
    Person,
    SwallowingChain,
    answering,
    echo,
    failing,
    message_chunks,
    sample_values,
    streaming,
    tool_call_chunks,
)

pytestmark = pytest.mark.anyio


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await event.wait()


async def test_a_gated_chain_waits_before_its_token() -> None:
    chain = GatedChain(["a", "b", "c"], before=1)
    stream = chain.astream("x")
    assert await anext(stream) == "a"
    second = asyncio.ensure_future(anext(stream))
    await until(chain.reached[1])
    assert not second.done()
    assert not chain.reached[2].is_set()
    chain.gate.set()
    assert await second == "b"
    assert [token async for token in stream] == ["c"]
    assert chain.finished.is_set()
    assert (chain.started, chain.cancellations) == (1, 0)


@pytest.mark.parametrize("before", [0, 3])
async def test_a_gated_chain_may_wait_at_the_start_or_at_the_end(before: int) -> None:
    chain = GatedChain(["a", "b", "c"], before=before)
    run = asyncio.create_task(chain.ainvoke("x"))
    await until(chain.reached[before])
    assert not chain.finished.is_set()
    chain.gate.set()
    assert await run == "abc"


async def test_a_gated_chain_says_that_it_was_cancelled() -> None:
    chain = GatedChain()
    run = asyncio.create_task(chain.ainvoke("x"))
    await until(chain.reached[1])
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert chain.cancelled.is_set()
    assert chain.cancellations == 1
    assert not chain.finished.is_set()


async def test_a_gated_chain_that_its_reader_closes_counts_as_cancelled() -> None:
    chain = GatedChain()
    stream = chain.astream("x")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert chain.cancellations == 1


async def test_a_gated_chain_keeps_working_inside_a_sequence() -> None:
    chain = GatedChain(["a", "b"])
    chain.gate.set()
    sequence = RunnableLambda(str.upper) | chain
    assert [token async for token in sequence.astream("x")] == ["a", "b"]


async def test_a_gated_chain_declares_its_output_as_text() -> None:
    assert GatedChain().get_output_jsonschema()["type"] == "string"


async def test_a_failing_chain_streams_its_tokens_first() -> None:
    tokens: list[str] = []

    async def run() -> None:
        async for token in failing(after=2, error=LookupError("here")).astream("x"):
            tokens.append(token)  # noqa: PERF401 - the error must leave what came before

    with pytest.raises(LookupError, match="here"):
        await run()
    assert tokens == ["t0 ", "t1 "]
    with pytest.raises(ValueError, match="on purpose"):
        await failing().ainvoke("x")
    with pytest.raises(ValueError, match="on purpose"):
        failing(after=1).invoke("x")


async def test_a_counting_chain_knows_how_many_ran_at_once() -> None:
    chain = CountingChain()
    batch = asyncio.create_task(chain.abatch(list(range(6)), {"max_concurrency": 3}))
    await chain.until_in_flight(3)
    assert (chain.total, chain.highest) == (3, 3)
    chain.release.set()
    assert await batch == [0, 1, 2, 3, 4, 5]
    assert (chain.total, chain.highest, chain.in_flight, chain.cancellations) == (6, 3, 0, 0)


async def test_a_counting_chain_counts_cancelled_runs_too() -> None:
    chain = CountingChain()
    runs = [asyncio.create_task(chain.ainvoke(number)) for number in range(2)]
    await chain.until_in_flight(2)
    runs[0].cancel()
    await chain.until_in_flight(1)
    chain.release.set()
    first, second = await asyncio.gather(*runs, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert second == 1
    assert chain.cancellations == 1


async def test_a_swallowing_chain_ends_only_when_it_is_released() -> None:
    chain = SwallowingChain()
    run = asyncio.create_task(chain.ainvoke("x"))
    await until(chain.started)
    for count in range(1, 4):
        run.cancel()
        chain.cancelled.clear()
        await until(chain.cancelled)
        assert chain.cancellations == count
    assert not run.done()
    chain.release.set()
    assert await run == "x"
    assert chain.finished.is_set()


async def test_a_blocking_chain_leaves_the_loop_free_and_cannot_be_cancelled() -> None:
    chain = BlockingChain()
    run = asyncio.create_task(chain.ainvoke("x"))
    await until(chain.started)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not chain.finished.is_set()
    chain.release.set()
    await until(chain.finished)


@pytest.mark.parametrize("kind", sorted(sample_values()))
async def test_an_echo_returns_every_kind_of_value(kind: str) -> None:
    value = sample_values()[kind]
    assert await echo().ainvoke(value) == value
    assert await answering(value).ainvoke("x") == value
    assert [chunk async for chunk in streaming(value).astream("x")] == [value]


@pytest.mark.parametrize(
    ("type_", "expected"), [(int, "integer"), (list[str], "array"), (Person, "object")]
)
async def test_an_echo_declares_its_type(type_: Any, expected: str) -> None:
    chain = echo(type_)
    assert chain.get_input_jsonschema()["type"] == expected
    assert chain.get_output_jsonschema()["type"] == expected


async def test_an_echo_of_a_model_takes_it_as_its_input_schema() -> None:
    assert echo(Person).get_input_schema() is Person


async def test_an_empty_stream_has_no_chunk_and_invokes_to_none() -> None:
    assert [chunk async for chunk in streaming().astream("x")] == []
    assert await streaming().ainvoke("x") is None


async def test_message_chunks_add_up_to_a_message_with_its_usage() -> None:
    message = await streaming(*message_chunks(["Hel", "lo"])).ainvoke("x")
    assert isinstance(message, AIMessageChunk)
    assert (message.text, message.id) == ("Hello", "run-1")
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 9


async def test_tool_call_chunks_add_up_to_a_tool_call() -> None:
    chunks = tool_call_chunks("weather", ['{"city": ', '"Bonn"}'])
    message = await streaming(*chunks).ainvoke("x")
    assert isinstance(message, AIMessage)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [
        ("weather", {"city": "Bonn"})
    ]


async def test_a_chain_streams_the_same_synchronously() -> None:
    assert list(streaming("a", "b").stream("x")) == ["a", "b"]
