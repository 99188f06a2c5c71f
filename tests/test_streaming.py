"""Streams: as they come, read at any speed, ended exactly once."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, HTTPException
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from chainserve import ChainServeError, add_routes
from chainserve.settings import Settings
from chainserve.types import RunId
from chainserve.wire.events import Event
from tests._apps import executor_of, make_app, only_run
from tests._bridge import open_stream, request
from tests._chains import GatedChain, failing, streaming
from tests._server import RawConnection, serve

pytestmark = pytest.mark.anyio

TERMINAL = {"end", "error"}


async def test_the_first_event_arrives_while_the_chain_waits() -> None:
    chain = GatedChain(["a", "b"], before=1)
    async with open_stream(make_app(chain), "POST", "/chain/stream", json={"input": 1}) as stream:
        metadata = await stream.next_event()
        first = await stream.next_event()
        assert not chain.finished.is_set()
        chain.gate.set()
        rest = [event async for event in stream.events()]

    assert metadata is not None
    assert metadata.event == "metadata"
    assert first is not None
    assert first.data == '"a"'
    assert [(event.event, event.data) for event in rest] == [("data", '"b"'), ("end", None)]


async def test_the_first_event_arrives_through_a_real_server_while_the_chain_waits() -> None:
    chain = GatedChain(["a", "b"], before=1)
    async with serve(make_app(chain)) as server, await RawConnection.open(server.port) as client:
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        status, headers = await client.read_head()
        await client.next_event()
        first = await client.next_event()
        assert not chain.finished.is_set()
        chain.gate.set()
        body = await client.read_body()

    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert first is not None
    assert first.data == '"a"'
    assert body.endswith(b"event: end\r\n\r\n")


async def test_the_headers_go_out_before_the_chain_has_said_anything() -> None:
    chain = GatedChain(["a"], before=0)
    async with open_stream(make_app(chain), "POST", "/chain/stream", json={"input": 1}) as stream:
        assert stream.status == 200
        assert stream.headers["cache-control"] == "no-cache"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.sends == []
        chain.gate.set()
        assert len([event async for event in stream.events()]) == 3


async def test_metadata_and_the_terminal_event_are_writes_of_their_own() -> None:
    response = await request(
        make_app(streaming(*"abc")), "POST", "/chain/stream", json={"input": 1}
    )

    written = [send for send in response.sends if send]
    assert written[0].startswith(b"event: metadata")
    assert written[0].count(b"event:") == 1
    assert written[-1] == b"event: end\r\n\r\n"


async def test_events_that_come_close_together_share_writes() -> None:
    app = make_app(streaming(*range(1000)), settings=Settings(flush_interval_ms=50))
    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert len(response.events()) == 1002
    assert len(response.sends) < 200


async def test_each_event_is_a_write_where_none_may_wait() -> None:
    chain = GatedChain(["a", "b", "c"], before=2)
    app = make_app(chain, settings=Settings(flush_interval_ms=0))
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        for _ in range(3):
            await stream.next_event()
        assert [send.count(b"event:") for send in stream.sends] == [1, 1, 1]
        chain.gate.set()
        await stream.read()


async def test_an_empty_stream_has_its_end_alone() -> None:
    response = await request(make_app(streaming()), "POST", "/chain/stream", json={"input": 1})

    assert response.body == b"event: end\r\n\r\n"


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_stream_that_fails_has_one_error_and_no_end(after: int) -> None:
    response = await request(make_app(failing(after)), "POST", "/chain/stream", json={"input": 1})

    events = response.events()
    assert [event.event for event in events if event.event in TERMINAL] == ["error"]
    assert events[-1].data == '{"status_code": 500, "message": "Internal Server Error"}'
    assert sum(event.event == "data" for event in events) == after
    assert response.app_error is None


async def test_an_http_exception_keeps_its_status_in_a_stream() -> None:
    chain = failing(1, HTTPException(429, "slow down"))
    response = await request(make_app(chain), "POST", "/chain/stream", json={"input": 1})

    assert response.events()[-1].json() == {"status_code": 429, "message": "slow down"}


async def test_a_chunk_without_json_form_ends_the_stream_with_its_place() -> None:
    chain = streaming("fine", {"a": [1, {2, 3}]})
    response = await request(make_app(chain), "POST", "/chain/stream", json={"input": 1})

    error = response.events()[-1]
    assert error.event == "error"
    assert error.json()["status_code"] == 500
    assert "output.a[1] is of type set" in error.json()["message"]


@pytest.mark.parametrize(
    ("chunk", "data"),
    [
        ("\ud800", '"\\ud800"'),
        (float("nan"), "null"),
        (2**80, str(2**80)),
        ({"\udfff": float("inf")}, '{"\\udfff":null}'),
    ],
)
async def test_a_chunk_that_is_hard_to_write_is_written(chunk: Any, data: str) -> None:
    response = await request(make_app(streaming(chunk)), "POST", "/chain/stream", json={"input": 1})

    assert [event.data for event in response.events()][1:] == [data, None]


async def test_an_idle_stream_sends_pings_and_a_busy_one_does_not() -> None:
    chain = GatedChain(["a"], before=0)
    app = make_app(chain, settings=Settings(heartbeat_interval=0.02))
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        pings = [await stream.next_chunk(), await stream.next_chunk()]
        chain.gate.set()
        await stream.read()
    busy = await request(make_app(streaming(*"abc")), "POST", "/chain/stream", json={"input": 1})

    assert all(ping is not None and ping.startswith(b": ping - 20") for ping in pings)
    assert all(ping is not None and ping.endswith(b"\r\n\r\n") for ping in pings)
    assert b"ping" not in busy.body


async def test_two_readers_of_one_log_both_see_all_of_it() -> None:
    chain = GatedChain([str(number) for number in range(50)], before=25)
    app = make_app(chain)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        store, run_id = executor_of(app).store, only_run(app).id
        events, _ = await store.read_after(run_id, -1)
        assert events[0].event == "metadata"
        chain.gate.set()
        seen = [event async for event in stream.events()]
    read, _ = await store.read_after(run_id, -1)

    assert [event.data.decode() for event in read if event.event == "data"] == [
        event.data for event in seen if event.event == "data"
    ]


async def test_a_run_is_remembered_with_its_final_state() -> None:
    app = make_app(streaming("a"))
    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    run_id = RunId(response.events()[0].json()["run_id"])
    record = await executor_of(app).store.get(run_id)
    assert record is not None
    assert (record.status, record.mode, record.path) == ("success", "stream", "/chain")
    assert record.ended_at is not None


async def test_a_long_replay_gives_the_loop_a_turn_after_each_bounded_write() -> None:
    chain = GatedChain(["a"], before=0)
    app = make_app(chain)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        run = only_run(app)
        replayed = [Event(seq, "data", b'"%s"' % (b"x" * 100)) for seq in range(1, 10_001)]
        await executor_of(app).store.append(run.id, replayed)
        seen = set()
        while sum(map(len, stream.sends)) < 1_000_000:
            await asyncio.sleep(0)
            seen.add(len(stream.sends))

        assert max(map(len, stream.sends)) < 200_000
        assert len(seen) > 10


async def test_a_reset_in_a_long_replay_does_not_hold_up_other_requests() -> None:
    held = GatedChain(["a"], before=0)
    app = FastAPI()
    add_routes(app, held, path="/held")
    add_routes(app, streaming("ok"), path="/other")
    async with serve(app) as server, await RawConnection.open(server.port) as client:
        await client.send_request("POST", "/held/stream", json={"input": 1})
        await client.read_head()
        run = only_run(app)
        store = executor_of(app).store
        await store.append(run.id, [Event(seq, "data", b'"x"' * 100) for seq in range(1, 10_001)])
        await client.next_chunk()
        client.reset()
        with anyio.fail_after(2):
            async with await RawConnection.open(server.port) as other:
                await other.send_request("POST", "/other/invoke", json={"input": 1})
                status, _ = await other.read_head()
                assert status == 200


class HostileError(Exception):
    """An exception none of whose attributes can be trusted."""

    status_code = 418

    @property
    def detail(self) -> str:
        raise RuntimeError("no detail for you")

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class TeapotError(ChainServeError):
    """An error of an application's own, whose code is no text."""

    code = b"teapot"  # type: ignore[assignment]
    status_code = 418


class NotEvenAnExceptionError(BaseException):
    """What `except Exception` does not catch."""


@pytest.mark.parametrize(
    "error",
    [
        HostileError(),
        TeapotError("short"),
        NotEvenAnExceptionError(),
        BaseExceptionGroup("all", [HostileError()]),
    ],
    ids=["hostile attributes", "no text for a code", "no Exception", "a group"],
)
async def test_an_error_that_cannot_be_told_still_ends_its_run(error: Any) -> None:
    app = make_app(failing(1, error))
    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert [e.event for e in response.events() if e.event in TERMINAL] == ["error"]
    assert response.events()[-1].json()["status_code"] == 500
    assert not executor_of(app).live


async def test_a_chain_that_never_suspends_leaves_its_reader_and_others_their_turn() -> None:
    class Pure(RunnableLambda[Any, Any]):
        async def astream(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            for number in range(5000):
                yield number

    settings = Settings(max_run_log_bytes=200_000, flush_interval_ms=0)
    app = make_app(Pure(lambda value: value), settings=settings)
    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert [e.json() for e in response.events() if e.event == "data"] == [*range(5000)]


async def test_others_have_the_loop_after_each_chunk_that_takes_longer_than_a_turn() -> None:
    rounds = 0
    seen: list[int] = []

    def go_round() -> None:
        nonlocal rounds
        rounds += 1
        if not over.is_set():
            asyncio.get_running_loop().call_soon(go_round)

    async def work(_: AsyncIterator[Any]) -> AsyncIterator[int]:
        for number in range(6):
            until = time.monotonic() + 0.01
            while time.monotonic() < until:
                pass
            seen.append(rounds)
            yield number

    over = asyncio.Event()
    app = make_app(RunnableGenerator(work))
    go_round()
    response = await request(app, "POST", "/chain/stream", json={"input": 1})
    over.set()

    assert [event.data for event in response.events() if event.event == "data"] == [*"012345"]
    assert sorted(set(seen)) == seen


async def test_a_server_of_asgi_24_that_raises_on_send_is_understood() -> None:
    chain = GatedChain([*"abc"], before=1)
    app = make_app(chain)
    async with open_stream(
        app, "POST", "/chain/stream", json={"input": 1}, spec_version="2.4"
    ) as stream:
        await stream.next_event()
        stream.disconnect()
        async with asyncio.timeout(20):
            await chain.cancelled.wait()
        await stream.ended()
        assert stream.app_error is None


async def test_chunks_are_sent_in_the_order_they_were_made() -> None:
    async def numbers(_: Any) -> Any:
        for number in range(500):
            if number % 7 == 0:
                await asyncio.sleep(0)
            yield number

    app = make_app(RunnableGenerator(numbers))
    response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert [e.json() for e in response.events() if e.event == "data"] == [*range(500)]
