"""Resuming: at every position, in every way and on every wire, nothing is lost or doubled."""

# No `from __future__ import annotations`: RunnableGenerator reads its types from the annotations.

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from langchain_core.runnables import RunnableGenerator

from chainserve.lzstring import compress
from chainserve.settings import Settings
from chainserve.stores.base import RunRecord
from chainserve.stores.memory import MemoryStore
from chainserve.types import RunId
from chainserve.wire.events import Event
from tests._apps import executor_of, only_run
from tests._bridge import IncompleteBodyError, StreamedResponse, open_stream, request
from tests._chains import GatedChain, failing, streaming
from tests._runs import (
    ACCEPT,
    LAST_EVENT_ID,
    PLAIN,
    WAYS,
    Asked,
    LogEvent,
    Started,
    Way,
    Wire,
    app_with_every_way,
    ask,
    decode,
    options_of,
    read_log,
    start,
    start_run,
    use_store,
)
from tests._server import RawConnection, serve

pytestmark = pytest.mark.anyio

TOKENS = ("a", "", "two\nlines", "ü \u2028 \U0001f600\r", "z")
LAST = len(TOKENS) + 1
WIRES: tuple[Wire, ...] = ("id", "ndjson", "text events")

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def _shown(token: str) -> str:
    """Return a token as the data of an unnamed event."""
    return token.replace("\r\n", "\n").replace("\r", "\n")


def expected_log(run: Started, wire: Wire, tokens: Sequence[str] = TOKENS) -> list[LogEvent]:
    """Return what a reader of the whole run has on a wire."""
    log = [LogEvent(run.cursor(0), "metadata", {"run_id": run.run_id})]
    for seq, token in enumerate(tokens, start=1):
        if wire != "text events":
            log.append(LogEvent(run.cursor(seq), "data", token))
        elif token:
            log.append(LogEvent(run.cursor(seq), "message", _shown(token)))
    return [*log, LogEvent(run.cursor(len(tokens) + 1), "end", {"status": "success"})]


def after(log: Sequence[LogEvent], seq: int) -> list[LogEvent]:
    return [event for event in log if event.seq > seq]


async def started_up_to(chain: GatedChain, app: FastAPI, way: Way) -> Started:
    """Start a run that waits at its gate."""
    run = await start(app, way.start)
    async with asyncio.timeout(20):
        await chain.reached[chain.before].wait()
    return run


async def enter(stack: AsyncExitStack, app: FastAPI, asked: Asked) -> StreamedResponse:
    """Send a request whose response is read until the stack is left."""
    stream = await stack.enter_async_context(
        open_stream(app, asked.method, asked.target, **options_of(asked))
    )
    assert stream.status == 200
    assert stream.headers["content-type"].split(";")[0] == asked.headers["accept"]
    return stream


@every_way
@pytest.mark.parametrize("gate", range(len(TOKENS) + 1))
async def test_readers_that_join_at_any_event_have_what_follows(way: Way, gate: int) -> None:
    """The writer stops before an event; readers join at every position; it goes on."""
    chain = GatedChain(TOKENS, before=gate)
    app = app_with_every_way(chain)
    run = await started_up_to(chain, app, way)
    async with AsyncExitStack() as stack:
        readers = {
            (wire, seq): await enter(stack, app, way.ask(run, run.cursor(seq), wire))
            for wire in way.wires
            for seq in range(-1, gate + 1)
        }
        chain.gate.set()
        read = {key: decode(key[0], await reader.read()) for key, reader in readers.items()}

    assert read == {(wire, seq): after(expected_log(run, wire), seq) for wire, seq in readers}
    assert chain.started == 1


@every_way
async def test_a_run_that_has_ended_is_resumed_at_every_position(way: Way) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app, way.start)
    await _until_no_run_is_live(app)
    for wire in way.wires:
        for seq in range(-1, LAST):
            response = await ask(app, way.ask(run, run.cursor(seq), wire))
            assert response.status == 200
            assert decode(wire, response.body) == after(expected_log(run, wire), seq), seq


async def _until_no_run_is_live(app: FastAPI) -> None:
    async with asyncio.timeout(20):
        for run in executor_of(app).live:
            await run.ended.wait()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("gate", range(len(TOKENS) + 1))
async def test_a_reader_without_a_cursor_has_all_of_a_run_that_is_there(
    wire: Wire, gate: int
) -> None:
    chain = GatedChain(TOKENS, before=gate)
    app = app_with_every_way(chain)
    way = WAYS["the run by header"]
    run = await started_up_to(chain, app, way)
    async with AsyncExitStack() as stack:
        reader = await enter(stack, app, way.ask(run, None, wire))
        chain.gate.set()
        assert decode(wire, await reader.read()) == expected_log(run, wire)

    assert await read_log(app, run.run_id, wire) == expected_log(run, wire)


@every_way
async def test_behind_the_terminal_event_there_is_no_content(way: Way) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app, way.start)
    await _until_no_run_is_live(app)
    for wire in way.wires:
        response = await ask(app, way.ask(run, run.cursor(LAST), wire))
        assert (response.status, response.body) == (204, b"")


@every_way
async def test_a_run_that_failed_is_resumed_up_to_its_error(way: Way) -> None:
    app = app_with_every_way(failing(after=2))
    run = await start(app, way.start)
    await _until_no_run_is_live(app)
    for seq in range(3):
        response = await ask(app, way.ask(run, run.cursor(seq)))
        *chunks, error = decode(way.wires[0], response.body)
        assert [chunk.seq for chunk in chunks] == list(range(seq + 1, 3))
        assert error == LogEvent(
            run.cursor(3),
            "error",
            {"status_code": 500, "message": "Internal Server Error", "code": "internal_error"},
        )
    assert (await ask(app, way.ask(run, run.cursor(3)))).status == 204


@every_way
async def test_a_run_that_was_cancelled_is_resumed_up_to_its_error(way: Way) -> None:
    chain = GatedChain(TOKENS, before=1)
    app = app_with_every_way(chain)
    run = await started_up_to(chain, app, way)
    executor_of(app).cancel(only_run(app), "requested")
    await _until_no_run_is_live(app)
    response = await ask(app, way.ask(run, run.cursor(0)))

    [chunk, error] = decode(way.wires[0], response.body)
    assert (chunk.data, error.event, error.data["status_code"]) == ("a", "error", 499)
    assert (await ask(app, way.ask(run, error.id))).status == 204


@pytest.mark.parametrize("sends", ["header", "parameter"])
async def test_text_is_resumed_too_by_a_reader_that_knows_a_cursor(
    sends: Literal["header", "parameter"],
) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app)
    await _until_no_run_is_live(app)
    way = WAYS[f"the run by {sends}"]
    for seq in range(-1, LAST):
        asked = way.ask(run, run.cursor(seq))
        asked.headers["accept"] = "text/plain"
        response = await ask(app, asked)
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.text == "".join(TOKENS[max(seq, 0) :])
    asked = way.ask(run, run.cursor(LAST))
    asked.headers["accept"] = "text/plain"
    assert (await ask(app, asked)).status == 204


async def test_the_text_of_a_run_that_failed_is_cut_for_each_of_its_readers() -> None:
    app = app_with_every_way(failing(after=1))
    run = await start(app)
    await _until_no_run_is_live(app)
    target = f"/chain/runs/{run.run_id}/stream"
    for seq in range(2):
        headers = {"accept": "text/plain", LAST_EVENT_ID: run.cursor(seq)}
        async with open_stream(app, "GET", target, headers=headers) as stream:
            with pytest.raises(IncompleteBodyError):
                await stream.read()
            assert b"".join(stream.sends) == (b"t0 " if seq == 0 else b"")


@pytest.mark.parametrize("path", ["/chain/runs/{}/stream", "/chain/stream"])
async def test_a_cursor_holds_for_each_form_of_a_path(path: str) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app)
    await _until_no_run_is_live(app)
    hashed = f"/chain/c/{compress('{}')}"
    for form in (path, f"{path}/", path.replace("/chain", hashed)):
        for run_id in (run.run_id, run.run_id.upper()):
            headers = {LAST_EVENT_ID: run.cursor(2)}
            response = await request(app, "GET", form.format(run_id), headers=headers)
            assert decode("id", response.body) == after(expected_log(run, "id"), 2)


async def test_a_run_of_another_mode_has_a_log_of_its_output() -> None:
    app = app_with_every_way(streaming("a", "b"))
    run_id = await start_run(app, mode="invoke")
    await _until_no_run_is_live(app)
    log = await read_log(app, run_id)

    assert [(event.event, event.seq) for event in log] == [("metadata", 0), ("data", 1), ("end", 2)]
    assert log[1].data == "ab"
    for wire in WIRES:
        assert [e.id for e in await read_log(app, run_id, wire, after=log[0].id)] == [
            event.id for event in log[1:]
        ]


async def test_readers_on_different_wires_are_not_disturbed_by_one_that_leaves() -> None:
    """The run would be cancelled at once if all of them left."""
    chain = GatedChain(TOKENS, before=3)
    app = app_with_every_way(chain, Settings(resume_grace=0, on_disconnect="cancel"))
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_stream(app, "GET", "/chain/stream?input=1"))
        metadata = await first.next_event()
        assert metadata is not None
        run = Started(metadata.json()["run_id"], str(metadata.id).rpartition(".")[0])
        await chain.reached[3].wait()
        readers = {
            (name, wire, seq): await enter(stack, app, WAYS[name].ask(run, run.cursor(seq), wire))
            for name in WAYS
            if WAYS[name].start != PLAIN
            for wire in WAYS[name].wires
            for seq in (-1, 1, 3)
        }
        leaving = [key for index, key in enumerate(readers) if index % 3 == 1]
        await first.aclose()
        for key in leaving:
            await readers[key].aclose()
        staying = readers.keys() - leaving
        chain.gate.set()
        read = {key: decode(key[1], await readers[key].read()) for key in staying}

    assert read == {key: after(expected_log(run, key[1]), key[2]) for key in staying}
    assert chain.cancellations == 0


async def test_the_last_reader_to_leave_is_any_of_them() -> None:
    chain = GatedChain(TOKENS, before=1)
    app = app_with_every_way(chain, Settings(resume_grace=0))
    async with open_stream(app, "GET", "/chain/stream?input=1") as first:
        metadata = await first.next_event()
        assert metadata is not None
        target = f"/chain/runs/{metadata.json()['run_id']}/stream"
        async with open_stream(app, "GET", target):
            await first.aclose()
            await anyio.lowlevel.checkpoint()
            assert not chain.cancelled.is_set()
    async with asyncio.timeout(20):
        await chain.cancelled.wait()


@pytest.mark.parametrize("wire", WIRES)
async def test_a_reader_that_stops_reading_has_all_of_it_in_the_end(wire: Wire) -> None:
    chain = GatedChain(TOKENS, before=1)
    app = app_with_every_way(chain)
    way = WAYS["the run by header"]
    run = await started_up_to(chain, app, way)
    async with AsyncExitStack() as stack:
        reader = await enter(stack, app, way.ask(run, run.cursor(0), wire))
        reader.pause_reading()
        chain.gate.set()
        await _until_no_run_is_live(app)
        await reader.send_blocked.wait()
        reader.resume_reading()
        assert decode(wire, await reader.read()) == after(expected_log(run, wire), 0)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_reader_slower_than_the_writer_is_cut_and_goes_on(wire: Wire) -> None:
    tokens = [f"{index} ".ljust(50_000, "x") for index in range(200)]
    app = app_with_every_way(streaming(*tokens))
    async with serve(app) as server:
        run = Started(await start_run(app), "")
        way = WAYS["the run by header"]
        async with await RawConnection.open(server.port, receive_buffer=4096) as client:
            await _send(client, way.ask(run, None, wire))
            await server.until_write_paused()
            await _until_no_run_is_live(app)
            await client.read_head()
            begun = decode(wire, await _read_bytes(client, 1_000_000))
            client.reset()
        async with await RawConnection.open(server.port, receive_buffer=4096) as client:
            await _send(client, way.ask(run, begun[-1].id, wire))
            await client.read_head()
            rest = decode(wire, await client.read_body())

    whole = [*begun, *rest]
    assert len(begun) > 10
    assert [event.seq for event in whole] == list(range(202))
    assert [event.data for event in whole[1:-1]] == tokens


async def _send(client: RawConnection, asked: Asked) -> None:
    await client.send_request(asked.method, asked.target, headers=asked.headers, json=asked.json)


async def _read_bytes(client: RawConnection, size: int) -> bytes:
    """Read so many bytes of a body, or less at its end."""
    read = b""
    while len(read) < size and (chunk := await client.next_chunk()) is not None:
        read += chunk
    return read[:size]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_stream_that_is_cut_after_any_byte_goes_on_without_loss(wire: Wire) -> None:
    """The cursor is the last complete block's, as a browser takes it."""
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app)
    await _until_no_run_is_live(app)
    way = WAYS["the run by header"]
    body = (await ask(app, way.ask(run, None, wire))).body
    rests: dict[str | None, list[LogEvent]] = {}
    for cut in range(len(body) + 1):
        begun = decode(wire, body[:cut])
        cursor = begun[-1].id if begun else None
        if cursor not in rests:
            rests[cursor] = decode(wire, (await ask(app, way.ask(run, cursor, wire))).body)
        assert [*begun, *rests[cursor]] == expected_log(run, wire), cut

    assert len(rests) == len(expected_log(run, wire)) + 1


class SteppedChain(RunnableGenerator[Any, str]):
    """Streams a token for each step that the test lets it take."""

    def __init__(self, tokens: Sequence[str]) -> None:
        super().__init__(self._stream, name="stepped")
        self.tokens = tokens
        self.steps = asyncio.Semaphore(0)
        self.started = 0

    def let(self, steps: int) -> None:
        for _ in range(steps):
            self.steps.release()

    async def _stream(self, inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        self.started += 1
        async for _ in inputs:
            pass
        for token in self.tokens:
            async with asyncio.timeout(20):
                await self.steps.acquire()
            yield token


class CutReader:
    """A client on a real socket that is cut again and again, and goes on like a browser."""

    def __init__(self, port: int, way: Way, wire: Wire, run: Started, key: str) -> None:
        self.read: list[LogEvent] = []
        self.statuses: list[int] = []
        self._port = port
        self._way = way
        self._wire = wire
        self._run = run
        self._key = key

    async def read_on(self, *, size: int = 2**20, up_to: int = 2**20) -> None:
        """Connect, read so many bytes or up to an event, whichever is less, and reset."""
        async with await RawConnection.open(self._port) as client:
            await _send(client, self._asked())
            status, _ = await client.read_head()
            self.statuses.append(status)
            body = b""
            begun: list[LogEvent] = []
            seen = self.read[-1].seq if self.read else -1
            while len(body) < size and seen < up_to:
                if (chunk := await client.next_chunk()) is None:
                    break
                body += chunk
                begun = decode(self._wire, body[:size])
                seen = begun[-1].seq if begun else seen
            client.reset()
        self.read += begun

    def _asked(self) -> Asked:
        """Ask as a browser does; the key makes a cut before the first event safe."""
        cursor = self.read[-1].id if self.read else None
        asked = self._way.ask(self._run, cursor, self._wire)
        asked.headers["idempotency-key"] = self._key
        asked.headers["prefer"] = "resumable"
        if asked.method == "POST" or self._run.run_id:
            return asked
        separator = "&" if "?" in asked.target else "?"
        return Asked(asked.method, f"{asked.target}{separator}input=1", asked.headers)


WORDS = [f"word {index}" for index in range(12)]


@pytest.mark.parametrize("http", ["h11", "httptools"])
@every_way
async def test_a_run_that_is_read_over_a_broken_network_is_whole(
    way: Way, http: Literal["h11", "httptools"]
) -> None:
    """Between cuts the chain goes on; some cuts come before anything was read."""
    random = Random(f"{way}{http}")
    chain = SteppedChain(WORDS)
    app = app_with_every_way(chain)
    async with serve(app, http=http) as server:
        for scenario in range(10):
            wire = random.choice(way.wires)
            run_id = await start_run(app) if "/runs/" in way.path else ""
            reader = CutReader(server.port, way, wire, Started(run_id, ""), f"key {scenario}")
            cuts = random.randrange(6)
            taken = 0
            for _ in range(cuts):
                steps = random.randint(0, min(5, len(WORDS) - taken))
                chain.let(steps)
                taken += steps
                await reader.read_on(size=random.randint(0, 600), up_to=taken)
            chain.let(len(WORDS) - taken)
            await reader.read_on()
            await reader.read_on()

            metadata = reader.read[0]
            run = Started(metadata.data["run_id"], metadata.id.rpartition(".")[0])
            assert reader.read == expected_log(run, wire, WORDS), scenario
            assert reader.statuses == [200] * (cuts + 1) + [204]
            assert chain.started == scenario + 1


async def test_a_reset_socket_disturbs_no_other_reader() -> None:
    chain = GatedChain(TOKENS, before=2)
    app = app_with_every_way(chain)
    way = WAYS["the run by header"]
    async with serve(app) as server, AsyncExitStack() as stack:
        run = await started_up_to(chain, app, way)
        clients = []
        for wire in (*WIRES, *WIRES):
            client = await stack.enter_async_context(await RawConnection.open(server.port))
            await _send(client, way.ask(run, run.cursor(0), wire))
            assert (await client.read_head())[0] == 200
            await client.next_chunk()
            clients.append((wire, client))
        for _, client in clients[:3]:
            client.reset()
        chain.gate.set()
        for wire, client in clients[3:]:
            seen = {event.seq for event in decode(wire, await client.read_body())}
            assert LAST in seen
        log = [await read_log(app, run.run_id, wire, after=run.cursor(0)) for wire in WIRES]

    assert log == [after(expected_log(run, wire), 0) for wire in WIRES]


class SuspendingStore(MemoryStore):
    """Lets others run before and after each step, as a store on a network does."""

    def __init__(self, turns: int) -> None:
        super().__init__(
            max_log_bytes=2**20, max_run_log_bytes=2**20, max_runs=100, log_ttl=300, run_ttl=3600
        )
        self._turns = turns

    async def _suspend(self) -> None:
        for _ in range(self._turns):
            await anyio.lowlevel.checkpoint()

    async def create(self, record: RunRecord, *, log: bool) -> RunRecord:
        await self._suspend()
        created = await super().create(record, log=log)
        await self._suspend()
        return created

    async def get(self, run_id: RunId) -> RunRecord | None:
        await self._suspend()
        record = await super().get(run_id)
        await self._suspend()
        return record

    async def finish(self, record: RunRecord, terminal: Event | None = None) -> bool:
        await self._suspend()
        finished = await super().finish(record, terminal)
        await self._suspend()
        return finished

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        await self._suspend()
        await super().append(run_id, events)
        await self._suspend()

    async def read_after(
        self, run_id: RunId, after: int, *, epoch: str | None = None, max_bytes: int = 65536
    ) -> tuple[Sequence[Event], bool]:
        await self._suspend()
        read = await super().read_after(run_id, after, epoch=epoch, max_bytes=max_bytes)
        await self._suspend()
        return read


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_reader_that_joins_at_any_turn_of_the_loop_misses_nothing(
    wire: Wire, turns: int
) -> None:
    """Also where the run goes on between any two steps of the reader."""
    chain = SteppedChain(WORDS)
    chain.let(10_000)
    app = app_with_every_way(chain, Settings(flush_interval_ms=0))
    use_store(app, SuspendingStore(turns))
    for late in range(40):
        run_id = await start_run(app)
        for _ in range(late):
            await anyio.lowlevel.checkpoint()
        log = await read_log(app, run_id, wire)
        assert [event.seq for event in log] == list(range(len(WORDS) + 2)), late
        await _until_no_run_is_live(app)


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_reader_that_has_all_is_told_so_at_any_turn_of_the_loop(turns: int) -> None:
    """Also where the run ends between any two steps of the reader: it never waits for more."""
    chain = SteppedChain(WORDS)
    app = app_with_every_way(chain, Settings(flush_interval_ms=0))
    use_store(app, SuspendingStore(turns))
    end = len(WORDS) + 1
    statuses = set()
    for late in range(0, 40 * (turns + 1), turns + 1):
        run = await start(app)
        chain.let(len(WORDS))
        for _ in range(late):
            await anyio.lowlevel.checkpoint()
        for seq, at_the_end in ((end, 204), (end + 1, 400)):
            response = await ask(app, WAYS["the run by header"].ask(run, run.cursor(seq)))
            assert response.status in (200, at_the_end)
            assert response.status != 200 or response.body == b""
            statuses.add(response.status)
        await _until_no_run_is_live(app)

    assert statuses == {200, 204, 400}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def store_with_clock(app: FastAPI, *, log_ttl: float, run_ttl: float) -> Clock:
    """Let an application's runs expire by a clock of the test's own."""
    clock = Clock()
    store = MemoryStore(
        max_log_bytes=2**20,
        max_run_log_bytes=2**20,
        max_runs=100,
        log_ttl=log_ttl,
        run_ttl=run_ttl,
        clock=clock,
    )
    use_store(app, store)
    return clock


@every_way
async def test_a_log_can_be_resumed_until_it_expires_and_a_run_until_it_is_forgotten(
    way: Way,
) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    clock = store_with_clock(app, log_ttl=10, run_ttl=20)
    run = await start(app, way.start)
    await _until_no_run_is_live(app)

    clock.now += 9.9
    assert (await ask(app, way.ask(run, run.cursor(0)))).status == 200
    clock.now += 0.1
    for seq in range(-1, LAST):
        response = await ask(app, way.ask(run, run.cursor(seq)))
        assert (response.status, response.json()["code"]) == (410, "log_expired")
    assert (await ask(app, way.ask(run, run.cursor(LAST)))).status == 204
    clock.now += 10
    for seq in range(-1, LAST + 1):
        response = await ask(app, way.ask(run, run.cursor(seq)))
        assert (response.status, response.json()["code"]) == (404, "run_not_found")


@pytest.mark.parametrize("wire", WIRES)
async def test_a_log_does_not_expire_under_a_reader(wire: Wire) -> None:
    chain = GatedChain(TOKENS, before=1)
    app = app_with_every_way(chain)
    clock = store_with_clock(app, log_ttl=10, run_ttl=20)
    way = WAYS["the run by header"]
    run = await started_up_to(chain, app, way)
    async with AsyncExitStack() as stack:
        reader = await enter(stack, app, way.ask(run, run.cursor(0), wire))
        reader.pause_reading()
        chain.gate.set()
        await _until_no_run_is_live(app)
        await reader.send_blocked.wait()
        clock.now += 15
        late = await ask(app, way.ask(run, run.cursor(1), wire))
        reader.resume_reading()
        assert decode(wire, await reader.read()) == after(expected_log(run, wire), 0)

    assert decode(wire, late.body) == after(expected_log(run, wire), 1)
    assert (await ask(app, way.ask(run, run.cursor(1), wire))).status == 410


async def test_a_log_that_is_not_kept_is_there_for_who_reads_it_alone() -> None:
    chain = GatedChain(TOKENS, before=2)
    app = app_with_every_way(chain, Settings(log_ttl=0))
    way = WAYS["the run by header"]
    run = await started_up_to(chain, app, way)
    async with AsyncExitStack() as stack:
        reader = await enter(stack, app, way.ask(run, run.cursor(0)))
        chain.gate.set()
        assert decode("id", await reader.read()) == after(expected_log(run, "id"), 0)

    assert (await ask(app, way.ask(run, run.cursor(0)))).status == 410
    assert (await ask(app, way.ask(run, run.cursor(LAST)))).status == 204


@every_way
async def test_a_run_that_was_deleted_cannot_be_resumed(way: Way) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app, way.start)
    await _until_no_run_is_live(app)
    if way.start == PLAIN:
        await executor_of(app).store.delete(RunId(run.run_id))
    else:
        deleted = await request(app, "DELETE", f"/chain/runs/{run.run_id}")
        assert deleted.status == 204
    for seq in range(-1, LAST + 1):
        response = await ask(app, way.ask(run, run.cursor(seq)))
        assert (response.status, response.json()["code"]) == (404, "run_not_found")


@every_way
async def test_a_run_that_is_not_retained_can_be_resumed_until_its_end(way: Way) -> None:
    chain = GatedChain(TOKENS, before=2)
    app = app_with_every_way(chain, Settings(retention=False))
    run = await started_up_to(chain, app, way)
    async with AsyncExitStack() as stack:
        readers = {
            (wire, seq): await enter(stack, app, way.ask(run, run.cursor(seq), wire))
            for wire in way.wires
            for seq in range(-1, 3)
        }
        chain.gate.set()
        for (wire, seq), reader in readers.items():
            assert decode(wire, await reader.read()) == after(expected_log(run, wire), seq)
    for seq in range(-1, LAST + 1):
        response = await ask(app, way.ask(run, run.cursor(seq)))
        assert (response.status, response.json()["code"]) == (404, "run_not_found")


async def test_a_run_that_is_not_retained_stays_while_somebody_still_reads_it() -> None:
    chain = GatedChain(TOKENS, before=2)
    app = app_with_every_way(chain, Settings(retention=False))
    way = WAYS["the run by header"]
    run = await started_up_to(chain, app, way)
    async with AsyncExitStack() as stack:
        slow = await enter(stack, app, way.ask(run, run.cursor(0)))
        slow.pause_reading()
        chain.gate.set()
        await _until_no_run_is_live(app)
        await slow.send_blocked.wait()
        other = await ask(app, way.ask(run, run.cursor(1)))
        slow.resume_reading()
        assert decode("id", await slow.read()) == after(expected_log(run, "id"), 0)

    assert decode("id", other.body) == after(expected_log(run, "id"), 1)
    assert (await ask(app, way.ask(run, run.cursor(1)))).status == 404


async def test_resuming_says_how_it_may_be_cached_and_buffered() -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app)
    await _until_no_run_is_live(app)
    for way in WAYS.values():
        if way.start == PLAIN:
            continue
        response = await ask(app, way.ask(run, run.cursor(0)))
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["content-type"].startswith(ACCEPT[way.wires[0]])
