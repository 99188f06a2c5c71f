"""Clients that leave: what becomes of their run, seen from the socket of the model's provider."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from chainserve import Chain, add_routes, add_stream_route
from chainserve.runs import Run
from chainserve.settings import Settings
from tests._apps import executor_of, make_app, only_run
from tests._bridge import open_stream, request
from tests._chains import CountingChain, GatedChain
from tests._openai import Hang, OpenAIServer, Script, Stall, Tokens
from tests._openai_exchange import UpstreamRequest
from tests._server import RawConnection, serve
from tests._sse import decode_events

pytestmark = pytest.mark.anyio

GRACE = 0.05
"""Seconds: so short that a run which must wait for it, and does not, is caught by the clock."""

KEY = {"idempotency-key": "order-1"}
RESUMABLE = {"prefer": "resumable"}


@dataclass(frozen=True)
class Way:
    """A request that starts a run and reads it."""

    target: str
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None

    async def send(self, client: RawConnection, **headers: str) -> None:
        method = "GET" if self.json is None else "POST"
        fields = {**self.headers, **headers}
        await client.send_request(method, self.target, headers=fields, json=self.json)


def post(verb: str, **headers: str) -> Way:
    body = {"inputs": ["hi"]} if verb == "batch" else {"input": "hi"}
    return Way(f"/chain/{verb}", headers, body)


IMPATIENT = {
    "langserve": post("stream"),
    "ndjson": post("stream", accept="application/x-ndjson"),
    "text": post("stream", accept="text/plain"),
    "invoke": post("invoke"),
    "batch": post("batch"),
}
PATIENT = {
    "ids": post("stream", **RESUMABLE),
    "langserve with a key": post("stream", **KEY),
    "text with a key": post("stream", accept="text/plain", **KEY),
    "invoke with a key": post("invoke", **KEY),
    "batch with a key": post("batch", **KEY),
    "get": Way('/chain/stream?input="hi"'),
    "get as text": Way('/chain/stream?input="hi"', {"accept": "text/plain"}),
    "plain": Way("/plain", {}, "hi"),
    "plain get": Way('/plain?input="hi"'),
}
impatient = pytest.mark.parametrize("way", IMPATIENT.values(), ids=IMPATIENT.keys())
patient = pytest.mark.parametrize("way", PATIENT.values(), ids=PATIENT.keys())


def chain_at(upstream: OpenAIServer) -> Runnable[Any, Any]:
    model = ChatOpenAI(
        base_url=upstream.base_url, api_key=SecretStr("test"), model="test", max_retries=0
    )
    return model | StrOutputParser()


@dataclass(frozen=True)
class Scene:
    """A provider, a chain that asks it, and a server with that chain."""

    upstream: OpenAIServer
    app: FastAPI
    port: int

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RawConnection]:
        async with await RawConnection.open(self.port) as client:
            yield client

    async def asked(self) -> tuple[Run, UpstreamRequest]:
        """Wait until the provider was asked; return the run and that request."""
        sent = await self.upstream.received()
        run = only_run(self.app)
        await until(lambda: run.readers > 0)
        return run, sent


@asynccontextmanager
async def scene(script: Script, **settings: Any) -> AsyncIterator[Scene]:
    """Serve a chain whose provider follows the script."""
    async with OpenAIServer(default=script) as upstream:
        chain = chain_at(upstream)
        app = make_app(chain, settings=Settings.model_validate(settings))
        add_stream_route(app, chain, "/plain")
        async with serve(app) as server:
            yield Scene(upstream, app, server.port)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that nothing tells of."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def patience_is_over(run: Run) -> None:
    """Wait until the time is up for which the run waits for a reader."""
    assert run.patience is not None
    await reached(run.patience.when())


async def reached(moment: float) -> None:
    """Wait until the loop's clock has reached a moment, and has called what was due then."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_at(moment, over.set)
    await over.wait()
    await anyio.lowlevel.checkpoint()


async def closed_after(sent: UpstreamRequest, moment: float) -> None:
    """Assert that the provider's socket is closed at a moment: not before, and not at another."""
    async with asyncio.timeout(20):
        await sent.closed_by_client.wait()
    assert sent.closed_at is not None
    assert moment <= sent.closed_at + 0.001, "closed too early"
    assert sent.closed_at < moment + 20


async def ended(run: Run) -> None:
    async with asyncio.timeout(20):
        await run.ended.wait()


# Cancel at once.


@impatient
@pytest.mark.parametrize("leave", [RawConnection.close, RawConnection.reset])
async def test_a_run_whose_only_reader_leaves_is_cancelled_at_once(
    way: Way, leave: Callable[[RawConnection], None]
) -> None:
    async with scene(Stall(after=2), resume_grace=60) as at, at.client() as client:
        await way.send(client)
        run, sent = await at.asked()
        left = asyncio.get_running_loop().time()
        leave(client)
        await closed_after(sent, left)
        await ended(run)

    assert (run.status, run.cancel_reason) == ("cancelled", "client_disconnect")


@impatient
async def test_a_provider_that_has_said_nothing_is_left_at_once_as_well(way: Way) -> None:
    async with scene(Hang(), resume_grace=60) as at, at.client() as client:
        await way.send(client)
        _, sent = await at.asked()
        left = asyncio.get_running_loop().time()
        client.close()
        await closed_after(sent, left)


async def test_a_whole_batch_is_cancelled_when_its_client_leaves() -> None:
    async with scene(Hang(), resume_grace=60) as at, at.client() as client:
        await Way("/chain/batch", {}, {"inputs": ["a", "b", "c"]}).send(client)
        await at.upstream.received(3)
        run = only_run(at.app)
        client.close()
        await at.upstream.all_closed()
        await ended(run)
        records = [await executor_of(at.app).store.get(run_id) for run_id in run.ids]

    assert [record and record.status for record in records] == ["cancelled"] * 3


# Cancel after the grace.


@patient
async def test_a_run_that_can_be_resumed_is_cancelled_when_its_grace_is_over(way: Way) -> None:
    async with scene(Stall(after=2), resume_grace=GRACE) as at, at.client() as client:
        await way.send(client)
        run, sent = await at.asked()
        left = asyncio.get_running_loop().time()
        client.close()
        await closed_after(sent, left + GRACE)
        await ended(run)

    assert (run.status, run.cancel_reason) == ("cancelled", "client_disconnect")


@patient
async def test_while_the_grace_lasts_nothing_happens_to_the_run(way: Way) -> None:
    async with scene(Stall(after=2), resume_grace=60) as at, at.client() as client:
        await way.send(client)
        run, sent = await at.asked()
        left = asyncio.get_running_loop().time()
        client.close()
        await until(lambda: run.readers == 0)
        assert run.patience is not None
        assert 60 <= run.patience.when() - left < 61
        assert run.status == "running"
        assert run.cancel_reason is None
        assert not sent.closed_by_client.is_set()
        executor_of(at.app).cancel(run, "requested")
        await ended(run)


@patient
async def test_without_a_grace_a_run_that_can_be_resumed_is_cancelled_at_once(way: Way) -> None:
    async with scene(Stall(after=2), resume_grace=0) as at, at.client() as client:
        await way.send(client)
        _, sent = await at.asked()
        left = asyncio.get_running_loop().time()
        client.close()
        await closed_after(sent, left)


async def test_a_chain_may_have_a_grace_of_its_own() -> None:
    async with OpenAIServer(default=Stall()) as upstream:
        app = FastAPI()
        add_routes(app, Chain(path="/chain", runnable=chain_at(upstream), resume_grace=GRACE))
        async with serve(app) as server, await RawConnection.open(server.port) as client:
            await PATIENT["ids"].send(client)
            sent = await upstream.received()
            left = asyncio.get_running_loop().time()
            client.close()
            await closed_after(sent, left + GRACE)


# Back within the grace.


@pytest.mark.parametrize(
    "name", ["ids", "langserve with a key", "text with a key", "get", "plain", "plain get"]
)
async def test_who_is_back_within_the_grace_loses_nothing(name: str) -> None:
    gates = {2: asyncio.Event(), 3: asyncio.Event()}
    way = PATIENT[name]
    async with scene(Tokens(["a", "b", "c", "d"], gates), resume_grace=60) as at:
        async with at.client() as client:
            await way.send(client)
            run, sent = await at.asked()
            first, cursor = await read_two_tokens(client)
        await until(lambda: run.readers == 0)
        gates[2].set()  # It goes on while nobody reads.
        await until(lambda: run.next_seq >= 4)
        async with at.client() as client:
            await way.send(client, **({"last-event-id": cursor} if cursor else {}))
            await until(lambda: run.readers == 1)
            gates[3].set()
            _, headers = await client.read_head()
            rest = text_of(headers["content-type"], await client.read_body())
        await ended(run)

    assert first == "ab"
    assert rest == ("cd" if cursor else "abcd")
    assert len(at.upstream.requests) == 1
    assert run.status == "success"
    assert sent.finished.is_set()
    assert not sent.closed_by_client.is_set()


async def read_two_tokens(client: RawConnection) -> tuple[str, str]:
    """Read up to the second token; return the text and the id to go on from, "" if none."""
    _, headers = await client.read_head()
    body = b""
    while text_of(headers["content-type"], body) != "ab":
        chunk = await client.next_chunk()
        assert chunk is not None
        body += chunk
    ids = [event.id for event in decode_events(body) if event.id]
    return "ab", ids[-1] if ids else ""


def text_of(media_type: str, body: bytes) -> str:
    if media_type.startswith("text/plain"):
        return body.decode()
    events = decode_events(body)
    named = "".join(event.json() for event in events if event.event == "data")
    return named + "".join(event.data or "" for event in events if event.event == "message")


@pytest.mark.parametrize("name", ["invoke with a key", "batch with a key"])
async def test_who_asks_again_within_the_grace_gets_the_output_of_the_same_run(name: str) -> None:
    gate = asyncio.Event()
    way = PATIENT[name]
    async with scene(Tokens(["a", "b"], {0: gate}), resume_grace=60) as at:
        async with at.client() as client:
            await way.send(client)
            run, sent = await at.asked()
        await until(lambda: run.readers == 0)
        async with at.client() as client:
            await way.send(client)
            await until(lambda: run.readers == 1)
            gate.set()
            status, _ = await client.read_head()
            output = json.loads(await client.read_body())["output"]

    assert (status, output) in [(200, "ab"), (200, ["ab"])]
    assert len(at.upstream.requests) == 1
    assert not sent.closed_by_client.is_set()


async def test_the_grace_of_a_reader_that_came_back_does_not_end_the_run() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain, settings=Settings(resume_grace=GRACE))
    async with open_stream(
        app, "POST", "/chain/stream", json={"input": 1}, headers=RESUMABLE
    ) as stream:
        await stream.next_event()
        await stream.next_event()
        run = only_run(app)
        cursor = {"last-event-id": stream.last_event_id}
    assert run.patience is not None
    grace_ends = run.patience.when()
    async with open_stream(app, "GET", f"/chain/runs/{run.id}/stream", headers=cursor) as stream:
        await reached(grace_ends)
        assert run.cancel_reason is None
        chain.gate.set()
        events = [event async for event in stream.events()]

    assert [event.event for event in events] == ["data", "end"]
    assert run.status == "success"
    assert not chain.cancelled.is_set()


async def test_each_leaving_begins_a_grace_of_its_own() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain, settings=Settings(resume_grace=60))
    graces = []
    for _ in range(3):
        async with open_stream(
            app, "POST", "/chain/stream", json={"input": 1}, headers={**RESUMABLE, **KEY}
        ) as stream:
            await stream.next_event()
            run = only_run(app)
        assert run.patience is not None
        graces.append(run.patience)

    assert [grace.cancelled() for grace in graces] == [True, True, False]
    assert chain.started == 1
    executor_of(app).cancel(run, "requested")
    await ended(run)
    assert graces[-1].cancelled()


async def test_a_run_that_ends_within_the_grace_has_succeeded_and_can_be_read() -> None:
    gate = asyncio.Event()
    async with scene(Tokens(["a", "b"], {1: gate}), resume_grace=GRACE * 20) as at:
        async with at.client() as client:
            await PATIENT["ids"].send(client)
            run, sent = await at.asked()
        await until(lambda: run.readers == 0)
        gate.set()
        await ended(run)
        assert run.patience is not None
        assert run.patience.cancelled()
        response = await request(at.app, "GET", f"/chain/runs/{run.id}/stream")

    assert text_of(response.headers["content-type"], response.body) == "ab"
    assert response.events()[-1].event == "end"
    assert run.status == "success"
    assert not sent.closed_by_client.is_set()


# Continue.


def continuing(way: Way) -> Way:
    """Return the request with the wish that its run goes on."""
    if way.json is None:
        return Way(f"{way.target}&on_disconnect=continue", way.headers)
    return Way(way.target, way.headers, {**way.json, "on_disconnect": "continue"})


EVERY_WISH = {
    name: continuing(way)
    for name, way in {**IMPATIENT, **PATIENT}.items()
    if way.target != "/plain"
}
wishes = pytest.mark.parametrize("way", EVERY_WISH.values(), ids=EVERY_WISH.keys())


@wishes
async def test_a_run_that_shall_continue_goes_on_to_its_end(way: Way) -> None:
    gate = asyncio.Event()
    async with scene(Tokens(["a", "b"], {1: gate}), resume_grace=0) as at:
        async with at.client() as client:
            await way.send(client)
            run, sent = await at.asked()
        await until(lambda: run.readers == 0)
        await anyio.lowlevel.checkpoint()
        assert run.cancel_reason is None
        gate.set()
        await ended(run)
        record = await executor_of(at.app).store.get(run.id)

    assert run.status == "success"
    assert sent.finished.is_set()
    assert not sent.closed_by_client.is_set()
    assert record is not None
    assert record.output == b'"ab"'


@pytest.mark.parametrize("verb", ["invoke", "batch", "stream"])
async def test_a_request_may_ask_for_cancel_where_the_chain_continues(verb: str) -> None:
    chain = CountingChain()
    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=chain, on_disconnect="continue"))
    body = {**post(verb).json, "on_disconnect": "cancel"}
    async with open_stream(app, "POST", f"/chain/{verb}", json=body, wait_for_start=False):
        await chain.until_in_flight(1)
        run = only_run(app)
    await ended(run)

    assert (run.status, run.cancel_reason) == ("cancelled", "client_disconnect")


async def test_a_chains_grace_does_not_end_a_run_that_continues() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain, settings=Settings(resume_grace=GRACE, on_disconnect="continue"))
    async with open_stream(
        app, "POST", "/chain/stream", json={"input": 1}, headers=RESUMABLE
    ) as stream:
        await stream.next_event()
        run = only_run(app)
    await patience_is_over(run)
    assert run.cancel_reason is None
    chain.gate.set()
    await ended(run)
    assert run.status == "success"


# Several readers.


@asynccontextmanager
async def reading(app: FastAPI, run: Run) -> AsyncIterator[None]:
    async with open_stream(app, "GET", f"/chain/runs/{run.id}/stream") as stream:
        await stream.next_event()
        yield


async def test_of_two_readers_one_may_leave() -> None:
    async with scene(Stall(after=1), resume_grace=GRACE) as at, at.client() as first:
        await PATIENT["ids"].send(first)
        run, sent = await at.asked()
        async with reading(at.app, run):
            assert run.readers == 2
            first.close()
            await until(lambda: run.readers == 1)
            await patience_is_over(run)
            assert run.cancel_reason is None
            assert not sent.closed_by_client.is_set()
            left = asyncio.get_running_loop().time()
        await closed_after(sent, left + GRACE)
        await ended(run)

    assert run.cancel_reason == "client_disconnect"


async def test_of_two_readers_the_second_may_leave_first() -> None:
    async with scene(Stall(after=1), resume_grace=GRACE) as at, at.client() as first:
        await PATIENT["ids"].send(first)
        run, sent = await at.asked()
        async with reading(at.app, run):
            assert run.readers == 2
        await patience_is_over(run)
        assert run.readers == 1
        assert run.cancel_reason is None
        left = asyncio.get_running_loop().time()
        first.close()
        await closed_after(sent, left + GRACE)


async def test_two_readers_that_leave_together_leave_one_grace() -> None:
    async with scene(Stall(after=1), resume_grace=GRACE) as at, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(at.client()) for _ in range(2)]
        for client in clients:
            await PATIENT["langserve with a key"].send(client)
        run, sent = await at.asked()
        await until(lambda: run.readers == 2)
        left = asyncio.get_running_loop().time()
        for client in clients:
            client.close()
        await closed_after(sent, left + GRACE)


@pytest.mark.parametrize("second", ["a cursor", "the run's own stream", "a look that waits"])
async def test_a_reader_who_can_come_back_makes_the_run_of_one_who_cannot_patient(
    second: str,
) -> None:
    async with scene(Stall(after=1), resume_grace=GRACE) as at, at.client() as first:
        await IMPATIENT["langserve"].send(first)
        run, sent = await at.asked()
        assert not run.resumable
        async with joining(at.app, run, second):
            await until(lambda: run.readers == 2)
        assert run.resumable
        left = asyncio.get_running_loop().time()
        first.close()
        await closed_after(sent, left + GRACE)


@asynccontextmanager
async def joining(app: FastAPI, run: Run, how: str) -> AsyncIterator[None]:
    """Read a run that goes on, in one of the ways there are."""
    if how == "a cursor":
        cursor = next(event for event in await ids_of(app, run))
        headers = {**RESUMABLE, "last-event-id": cursor}
        async with open_stream(app, "POST", "/chain/stream", json={"input": "hi"}, headers=headers):
            yield
    elif how == "the run's own stream":
        async with open_stream(app, "GET", f"/chain/runs/{run.id}/stream"):
            yield
    else:
        headers = {"prefer": "wait=5"}
        async with open_stream(
            app, "GET", f"/chain/runs/{run.id}", headers=headers, wait_for_start=False
        ):
            yield


async def ids_of(app: FastAPI, run: Run) -> list[str]:
    """Return the id of the run's first event, as a reader of the run learns it."""
    async with open_stream(app, "GET", f"/chain/runs/{run.id}/stream") as stream:
        event = await stream.next_event()
    assert event is not None
    return [event.id or ""]


async def test_the_first_to_leave_of_a_patient_run_may_be_the_one_on_langserves_wire() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain, settings=Settings(resume_grace=60))
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as first:
        await first.next_event()
        run = only_run(app)
        async with open_stream(app, "GET", f"/chain/runs/{run.id}/stream") as second:
            first.disconnect()
            await first.ended()
            assert run.readers == 1
            chain.gate.set()
            events = [event.event async for event in second.events()]

    assert events == ["metadata", "data", "data", "end"]
    assert run.status == "success"


# Runs that nobody reads.


async def test_a_background_run_goes_on_although_nobody_reads_it() -> None:
    gate = asyncio.Event()
    async with scene(Tokens(["a"], {0: gate}), resume_grace=0) as at:
        response = await request(at.app, "POST", "/chain/runs", json={"input": "hi"})
        sent = await at.upstream.received()
        run = only_run(at.app)
        assert run.continues
        gate.set()
        await ended(run)

    assert response.status == 202
    assert run.status == "success"
    assert not sent.closed_by_client.is_set()


@pytest.mark.parametrize("mode", ["stream", "invoke"])
async def test_a_background_run_that_nobody_ever_reads_is_cancelled_if_it_shall_be(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainserve.executor._JOIN_TIMEOUT", GRACE)
    body = {"input": "hi", "mode": mode, "on_disconnect": "cancel"}
    async with scene(Stall(after=1), resume_grace=0) as at:
        started = asyncio.get_running_loop().time()
        await request(at.app, "POST", "/chain/runs", json=body)
        sent = await at.upstream.received()
        run = only_run(at.app)
        await closed_after(sent, started + GRACE)
        await ended(run)
        shown = (await request(at.app, "GET", f"/chain/runs/{run.id}")).json()

    assert run.cancel_reason == "client_disconnect"
    assert (shown["status"], shown["error"]["status_code"]) == ("cancelled", 499)


async def test_a_background_run_waits_for_its_first_reader_as_long_as_for_one_to_come_back() -> (
    None
):
    chain = GatedChain(["a"], before=0)
    app = make_app(chain, settings=Settings(resume_grace=15))
    body = {"input": 1, "on_disconnect": "cancel"}
    started = asyncio.get_running_loop().time()
    await request(app, "POST", "/chain/runs", json=body)
    run = only_run(app)
    assert run.patience is not None
    assert 15 <= run.patience.when() - started < 16
    executor_of(app).cancel(run, "requested")
    await ended(run)


async def test_a_background_run_that_shall_be_cancelled_is_so_after_its_last_reader() -> None:
    body = {"input": "hi", "on_disconnect": "cancel"}
    async with scene(Stall(after=1), resume_grace=GRACE) as at:
        await request(at.app, "POST", "/chain/runs", json=body)
        sent = await at.upstream.received()
        run = only_run(at.app)
        async with reading(at.app, run):
            left = asyncio.get_running_loop().time()
        await closed_after(sent, left + GRACE)


async def test_a_client_that_leaves_while_it_waits_for_a_background_run_ends_nothing() -> None:
    chain = CountingChain()
    app = make_app(chain, settings=Settings(resume_grace=0))
    headers = {"prefer": "wait=5"}
    async with open_stream(
        app, "POST", "/chain/runs", json={"input": 1}, headers=headers, wait_for_start=False
    ):
        await chain.until_in_flight(1)
        run = only_run(app)
        await until(lambda: run.readers == 1)
    await anyio.lowlevel.checkpoint()
    assert run.cancel_reason is None
    chain.release.set()
    await ended(run)
    assert run.status == "success"


async def test_clients_that_leave_right_after_asking_leave_no_run_behind() -> None:
    chain = GatedChain(["a"], before=0)
    app = make_app(chain, settings=Settings(resume_grace=GRACE))
    add_stream_route(app, chain, "/plain")
    async with serve(app) as server:
        for way in (*IMPATIENT.values(), *PATIENT.values()):
            async with await RawConnection.open(server.port) as client:
                await way.send(client)
                client.reset()
        async with await RawConnection.open(server.port) as client:
            # What was sent before has been seen when this is answered.
            await client.send_request("GET", "/chain/input_schema")
            await client.read_head()
        await until(lambda: not executor_of(app).live)

    assert chain.cancellations == chain.started
    assert not chain.finished.is_set()
