"""Cursors over HTTP: bad ones are refused in every way, and gaps in a log are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Literal
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI

from chainserve import add_routes, add_stream_route
from chainserve.settings import Settings
from chainserve.types import RunId
from chainserve.wire.cursors import MAX_SEQ, Cursor
from tests._apps import assert_problem, executor_of
from tests._bridge import IncompleteBodyError, Response, StreamedResponse, open_stream, request
from tests._chains import GatedChain, streaming
from tests._runs import (
    LAST_EVENT_ID,
    PLAIN,
    UNKNOWN_RUN,
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
)
from tests._server import RawConnection, serve

pytestmark = pytest.mark.anyio

TOKENS = ("a", "b", "c")
LAST = len(TOKENS) + 1
WIRES: tuple[Wire, ...] = ("id", "ndjson", "text events")

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def ways(chosen: Callable[[Way], bool]) -> pytest.MarkDecorator:
    """Run a test for some of the ways."""
    names = [name for name, way in WAYS.items() if chosen(way)]
    return pytest.mark.parametrize("way", [WAYS[name] for name in names], ids=names)


every_way_of_a_chain = ways(lambda way: way.start != PLAIN)
every_way_by_header = ways(lambda way: way.sends == "header")
every_way_by_parameter = ways(lambda way: way.sends == "parameter")


def malformed(run: Started) -> dict[str, str]:
    """Return texts that no event has as its id; many are cursors elsewhere, or nearly ours."""
    cursor = run.cursor(1)
    encoded, epoch, _ = cursor.split(".")
    texts = [
        *("-1", "0", "1", "$", "+", ">", "*", "0-0", "99999999999999-0", "a b", "null", "{}"),
        *(" ", "\t", ".", "..", "\0", "\u00e9" * 22, "\u00ff", "%00", "../../invoke", "'; --"),
        *("\u00fc".encode().decode("latin-1"), "\u20ac".encode().decode("latin-1")),
        *(f"{encoded}.{epoch}.{seq}" for seq in ("", "01", "00", "-01", "-0", "+1", "-2", "1.0")),
        *(f"{encoded}.{epoch}.{seq}" for seq in (MAX_SEQ + 1, -MAX_SEQ, "9" * 17, "9" * 5000)),
        *(
            f"{cursor}{end}"
            for end in (" ", "\0", "\u00e9", "=", ".1", f", {cursor}", f",{cursor}")
        ),
        *(f"{start}{cursor}" for start in (" ", "id: ", '"', "\u00ef\u00bb\u00bf", "A")),
        *(f'"{cursor}"', cursor.replace(".", "%2E"), quote(cursor).replace(".", "%252E")),
        *(encoded, epoch, f"{encoded}.{epoch}", f"{encoded}..1", f".{epoch}.1"),
        *(f"{run.run_id}.{epoch}.1", f"{encoded}=={epoch}.1", f"{encoded}.{epoch * 3}.1"),
        *("x" * 10_000, "x" * 100_000, "." * 10_000, f"{encoded}.{epoch}.1" * 500),
    ]
    return {ascii(text)[:60] + f" ({len(text)})": text for text in texts}


def code_of(response: Response) -> tuple[int, str]:
    """Return how a request was refused; nothing of a log is in such an answer."""
    assert response.headers["content-type"] == "application/problem+json", response.body[:200]
    return response.status, assert_problem(response, response.status, response.json()["code"])[
        "code"
    ]


async def until_no_run_is_live(app: FastAPI) -> None:
    async with asyncio.timeout(20):
        for run in executor_of(app).live:
            await run.ended.wait()


async def ended_run(app: FastAPI, way: Way) -> Started:
    run = await start(app, way.start)
    await until_no_run_is_live(app)
    return run


@every_way
@pytest.mark.parametrize("state", ["live", "ended"])
async def test_what_is_no_cursor_is_refused_and_starts_nothing(
    way: Way, state: Literal["live", "ended"]
) -> None:
    chain = GatedChain(TOKENS, before=1)
    app = app_with_every_way(chain)
    run = await start(app, way.start)
    if state == "ended":
        chain.gate.set()
        await until_no_run_is_live(app)
    texts = malformed(run)
    if way.sends == "header":  # Where HTTP ends a value, white space is no part of it.
        texts = {name: text for name, text in texts.items() if text == text.strip(" \t")}
    refused = {name: code_of(await ask(app, way.ask(run, text))) for name, text in texts.items()}

    assert len(texts) > 50
    assert refused == dict.fromkeys(texts, (400, "invalid_cursor"))
    assert chain.started == 1


@every_way_by_parameter
async def test_bytes_that_are_no_text_in_a_parameter_are_refused(way: Way) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await ended_run(app, way)
    path = way.path.format(run_id=run.run_id)
    for value in (
        "%ff",
        "%c3",
        "%ed%a0%80",
        "%00",
        "%0d%0aid:%201",
        "+",
        "%u0061",
        f"{'%41' * 5000}",
    ):
        response = await request(app, "GET", f"{path}?last_event_id={value}")
        assert code_of(response) == (400, "invalid_cursor"), value


@every_way_by_parameter
async def test_an_escaped_cursor_in_a_parameter_is_that_cursor(way: Way) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await ended_run(app, way)
    path = way.path.format(run_id=run.run_id)
    escaped = "".join(f"%{ord(character):02x}" for character in run.cursor(2))
    response = await request(app, "GET", f"{path}?last_event_id={escaped}")

    assert [event.id for event in response.events()] == [run.cursor(3), run.cursor(4)]


@every_way
async def test_cursors_of_what_there_is_not_are_refused_alike(way: Way) -> None:
    """A run's own route knows which run is meant; elsewhere the cursor alone says it."""
    chain = streaming(*TOKENS)
    app = app_with_every_way(chain, principal=lambda request: request.headers.get("x-user"))
    add_routes(app, chain, path="/other")
    add_stream_route(app, chain, "/other_plain")
    elsewhere = "/other_plain" if way.start == PLAIN else "/other/stream"
    run = await ended_run(app, way)
    of_another_chain = await start(app, elsewhere)
    of_another_owner = await start(app, way.start, headers={"x-user": "bob"})
    of_the_other_kind = await start(app, "/chain/stream" if way.start == PLAIN else PLAIN)
    forgotten = await start(app, way.start)
    invoked = await request(app, "POST", "/other/invoke", json={"input": 1})
    await until_no_run_is_live(app)
    await executor_of(app).store.delete(RunId(forgotten.run_id))
    epoch = run.prefix.rpartition(".")[2]
    cursors = {
        "another chain's": of_another_chain.cursor(1),
        "another owner's": of_another_owner.cursor(1),
        "another owner's end": of_another_owner.cursor(LAST),
        "another kind of route's": of_the_other_kind.cursor(1),
        "forgotten": forgotten.cursor(1),
        "forgotten end": forgotten.cursor(LAST),
        "unknown": _cursor(str(uuid4()), epoch),
        "nil": _cursor(str(UUID(int=0)), epoch),
        "another chain's without a log": _cursor(invoked.json()["metadata"]["run_id"], epoch),
        "another epoch": f"{run.prefix[:-1]}{'A' if epoch[-1] != 'A' else 'B'}.1",
        "a longer epoch": f"{run.prefix}A.1",
        "another epoch's end": _cursor(run.run_id, "A", LAST),
        "another epoch's future": _cursor(run.run_id, "A", MAX_SEQ),
    }
    refused = {
        name: code_of(await ask(app, way.ask(run, cursor))) for name, cursor in cursors.items()
    }

    own_route = "/runs/" in way.path
    expected = (400, "invalid_cursor") if own_route else (404, "run_not_found")
    assert refused == dict.fromkeys(cursors, expected)


def _cursor(run_id: str, epoch: str, seq: int = 1) -> str:
    return Cursor(RunId(run_id), epoch, seq).encode().decode()


@every_way
async def test_only_its_owner_resumes_a_run(way: Way) -> None:
    app = app_with_every_way(
        streaming(*TOKENS), principal=lambda request: request.headers.get("x-user")
    )
    run = await start(app, way.start, headers={"x-user": "bob"})
    await until_no_run_is_live(app)
    for seq in (-1, 1, LAST, LAST + 1):
        asked = way.ask(run, run.cursor(seq))
        for user in ({}, {"x-user": "ann"}, {"x-user": ""}, {"x-user": "Bob"}):
            answer = await ask(app, replace(asked, headers={**asked.headers, **user}))
            assert code_of(answer) == (404, "run_not_found")
    asked = way.ask(run, run.cursor(2))
    bobs = await ask(app, replace(asked, headers={**asked.headers, "x-user": "bob"}))
    assert [event.seq for event in decode(way.wires[0], bobs.body)] == [3, 4]


@every_way
async def test_a_cursor_of_another_run_of_the_chain_never_reads_this_one(way: Way) -> None:
    """Where the cursor alone says which run is meant, it is the cursor's."""
    app = app_with_every_way(streaming(*TOKENS))
    run, other = await ended_run(app, way), await ended_run(app, way)
    response = await ask(app, way.ask(run, other.cursor(2)))

    if "/runs/" in way.path:
        assert code_of(response) == (400, "invalid_cursor")
        return
    events = decode(way.wires[0], response.body)
    assert [event.id for event in events] == [other.cursor(3), other.cursor(4)]


@pytest.mark.parametrize("run_id", ["x", "..%2f..", "0", UNKNOWN_RUN, "%00", "a" * 10_000])
async def test_there_is_no_stream_of_an_unknown_run_whatever_the_cursor(run_id: str) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await ended_run(app, WAYS["the run by header"])
    for cursor in ("", "garbage", run.cursor(1)):
        target = f"/chain/runs/{run_id}/stream"
        response = await request(app, "GET", target, headers={LAST_EVENT_ID: cursor})
        assert response.status == 404


@every_way_of_a_chain
async def test_a_run_id_that_is_used_again_leaves_the_cursors_of_the_first_run_behind(
    way: Way,
) -> None:
    app = FastAPI()
    add_routes(app, streaming(*TOKENS), path="/chain", config_keys=["run_id"])
    run_id = str(uuid4())
    runs: list[Started] = []
    for _ in range(2):
        assert await start_run(app, config={"run_id": run_id}) == run_id
        await until_no_run_is_live(app)
        first = (await read_log(app, run_id))[0]
        runs.append(Started(run_id, first.id.rpartition(".")[0]))
    old, new = runs
    expected = (400, "invalid_cursor") if "/runs/" in way.path else (404, "run_not_found")
    for seq in range(-1, LAST + 1):
        assert code_of(await ask(app, way.ask(new, old.cursor(seq)))) == expected
    response = await ask(app, way.ask(new, new.cursor(2)))
    assert [event.seq for event in decode(way.wires[0], response.body)] == [3, 4]


@every_way
async def test_a_position_past_the_end_of_a_run_is_refused(way: Way) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await ended_run(app, way)
    for seq in (LAST + 1, LAST + 2, 1000, 2**31, 2**32, MAX_SEQ):
        response = await ask(app, way.ask(run, run.cursor(seq)))
        assert code_of(response) == (400, "invalid_cursor"), seq


@every_way
async def test_a_position_that_a_live_run_has_not_reached_waits_and_ends_with_the_run(
    way: Way,
) -> None:
    chain = GatedChain(TOKENS, before=1)
    app = app_with_every_way(chain)
    run = await start(app, way.start)
    async with AsyncExitStack() as stack:
        streams = {
            (wire, seq): await _enter(stack, app, way.ask(run, run.cursor(seq), wire))
            for wire in way.wires
            for seq in (2, 3, LAST, LAST + 1, 2**31, MAX_SEQ)
        }
        assert [stream.sends for stream in streams.values()] == [[]] * len(streams)
        chain.gate.set()
        read = {key: decode(key[0], await stream.read()) for key, stream in streams.items()}

    assert {key: [event.seq for event in events] for key, events in read.items()} == {
        (wire, seq): list(range(seq + 1, LAST + 1)) for wire, seq in streams
    }


async def _enter(stack: AsyncExitStack, app: FastAPI, asked: Asked) -> StreamedResponse:
    stream = await stack.enter_async_context(
        open_stream(app, asked.method, asked.target, **options_of(asked))
    )
    assert stream.status == 200
    return stream


@pytest.mark.parametrize("path", ["/chain/runs/{}/stream", "/chain/stream", PLAIN])
async def test_the_header_goes_before_the_parameter(path: str) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await start(app, PLAIN if path == PLAIN else "/chain/stream")
    await until_no_run_is_live(app)
    wire: Wire = "text events" if path == PLAIN else "id"

    async def seqs(header: str, parameter: str) -> list[int] | tuple[int, str]:
        response = await request(
            app,
            "GET",
            path.format(run.run_id),
            headers={LAST_EVENT_ID: header},
            query={"last_event_id": parameter},
        )
        if response.status != 200:
            return code_of(response)
        return [event.seq for event in decode(wire, response.body)]

    assert await seqs(run.cursor(2), run.cursor(0)) == [3, 4]
    assert await seqs(run.cursor(0), run.cursor(2)) == [1, 2, 3, 4]
    assert await seqs(run.cursor(2), "garbage") == [3, 4]
    assert await seqs("garbage", run.cursor(2)) == (400, "invalid_cursor")
    assert await seqs("", run.cursor(2)) == [3, 4]


@every_way_by_header
async def test_of_two_headers_none_makes_a_replay_from_the_start(way: Way) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await ended_run(app, way)
    path = way.path.format(run_id=run.run_id)

    async def answer(*cursors: str) -> list[str | None] | tuple[int, str]:
        headers = [(LAST_EVENT_ID, cursor) for cursor in cursors]
        if way.method == "POST":
            response = await request(app, "POST", path, headers=headers, json={"input": 1})
        else:
            response = await request(app, "GET", path, headers=headers)
        if response.status != 200:
            return code_of(response)
        return [event.id for event in response.events()]

    behind_2 = [run.cursor(3), run.cursor(4)]
    assert await answer(run.cursor(2), run.cursor(2)) in (behind_2, (400, "invalid_cursor"))
    assert await answer(run.cursor(2), run.cursor(3)) in (behind_2, (400, "invalid_cursor"))
    assert await answer("garbage", run.cursor(2)) == (400, "invalid_cursor")
    assert await answer(run.cursor(2), "garbage") in (behind_2, (400, "invalid_cursor"))


@pytest.mark.parametrize("way", ["the run by header", "the run by parameter"])
async def test_an_empty_cursor_is_none(way: str) -> None:
    """A browser that has no id yet leaves the header out; others send it empty."""
    app = app_with_every_way(streaming(*TOKENS))
    run = await ended_run(app, WAYS[way])
    response = await ask(app, WAYS[way].ask(run, ""))

    assert [event.seq for event in decode("id", response.body)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_real_server_holds_against_bad_cursors(http: Literal["h11", "httptools"]) -> None:
    """What HTTP itself forbids is refused by the server before it comes to us."""
    chain = GatedChain(TOKENS, before=1)
    app = app_with_every_way(chain)
    run = await start(app)
    path = f"/chain/runs/{run.run_id}/stream"
    cursors = {
        "NUL": b"a\0b",
        "latin-1": "é".encode("latin-1") * 22,
        "UTF-8": "ü€".encode(),
        "not UTF-8": b"\xff\xfe",
        "10 kB": b"x" * 10_000,
        "60 kB": b"x" * 60_000,
        "a line break": b"a\rb",
        "dots": b".." * 30,
    }
    statuses: dict[str, int] = {}
    async with serve(app, http=http) as server:
        for method, target in (("GET", path), ("GET", "/chain/stream"), ("POST", "/chain/stream")):
            for name, cursor in cursors.items():
                body = b'{"input": 1}' if method == "POST" else b""
                statuses[f"{name}: {method} {target}"] = await _status(
                    server.port, method, target, cursor, body
                )
        for name, value in (("spaces", b" \t  "), ("empty", b"")):
            async with await RawConnection.open(server.port) as client:
                await client.send(_request("GET", path, value))
                assert (await client.read_head())[0] == 200, name
                first = await client.next_event()
                assert first is not None
                assert first.event == "metadata"
        async with await RawConnection.open(server.port) as client:
            await client.send(_request("GET", path, b"  " + run.cursor(0).encode() + b" \t"))
            assert (await client.read_head())[0] == 200
            chain.gate.set()
            assert len(decode("id", await client.read_body())) == LAST

    assert statuses == dict.fromkeys(statuses, 400)
    assert chain.started == 1


def _request(method: str, target: str, cursor: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(
        [
            f"{method} {target} HTTP/1.1\r\nhost: localhost".encode(),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"last-event-id: " + cursor,
            b"\r\n" + body,
        ]
    )


async def _status(port: int, method: str, target: str, cursor: bytes, body: bytes) -> int:
    async with await RawConnection.open(port) as client:
        await client.send(_request(method, target, cursor, body))
        return (await client.read_head())[0]


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_cursor_of_100_kb_leaves_a_real_server_serving(
    http: Literal["h11", "httptools"],
) -> None:
    app = app_with_every_way(streaming(*TOKENS))
    run = await ended_run(app, WAYS["the run by header"])
    path = f"/chain/runs/{run.run_id}/stream"
    statuses: list[int] = []
    async with serve(app, http=http) as server:
        for target, cursor in (
            (path, b"x" * 100_000),
            (f"{path}?last_event_id={'x' * 100_000}", b""),
        ):
            # A server that stops reading may reset the connection before its answer is read.
            with suppress(OSError, IncompleteBodyError):
                statuses.append(await _status(server.port, "GET", target, cursor, b""))
            async with await RawConnection.open(server.port) as client:
                await client.send(_request("GET", path, run.cursor(2).encode()))
                assert (await client.read_head())[0] == 200
                assert len(decode("id", await client.read_body())) == 2

    assert all(400 <= status < 500 for status in statuses)


# Gaps: logs that outgrow their bound.

MANY = [f"token {index}".ljust(150) for index in range(60)]
MANY_LAST = len(MANY) + 1
BOUNDED = Settings(max_run_log_bytes=4000, flush_interval_ms=0)


async def run_with_a_gap(
    way: Way, state: Literal["live", "ended"]
) -> tuple[FastAPI, GatedChain, Started]:
    """Start a run whose log has lost its beginning; a live one waits before its last token."""
    chain = GatedChain(MANY, before=len(MANY) - 1)
    app = app_with_every_way(chain, BOUNDED)
    if state == "ended":
        chain.gate.set()
    run = await start(app, way.start)
    await chain.reached[chain.before].wait()
    if state == "ended":
        await until_no_run_is_live(app)
    return app, chain, run


async def log_behind(app: FastAPI, chain: GatedChain, asked: Asked, wire: Wire) -> list[LogEvent]:
    async with open_stream(app, asked.method, asked.target, **options_of(asked)) as stream:
        assert stream.status == 200
        chain.gate.set()
        return decode(wire, await stream.read())


@every_way
@pytest.mark.parametrize("state", ["live", "ended"])
async def test_a_position_that_was_evicted_is_told_as_a_gap_and_read_on_from_there(
    way: Way, state: Literal["live", "ended"]
) -> None:
    app, chain, run = await run_with_a_gap(way, state)
    async with AsyncExitStack() as stack:
        readers = {
            (wire, seq): await _enter(stack, app, way.ask(run, run.cursor(seq), wire))
            for wire in way.wires
            for seq in (-1, 0, 1, 20)
        }
        chain.gate.set()
        read = {key: decode(key[0], await reader.read()) for key, reader in readers.items()}

    for (_, seq), (gap, *rest) in read.items():
        earliest = rest[0].seq
        assert earliest > 21
        assert gap.event == "gap"
        assert gap.data == {"earliest": run.cursor(earliest), "lost": earliest - seq - 1}
        assert gap.id == run.cursor(earliest - 1)
        assert [event.seq for event in rest] == list(range(earliest, MANY_LAST + 1))
        assert [event.data for event in rest[:-1]] == MANY[earliest - 1 :]
        assert rest[-1].event == "end"


@every_way
async def test_the_id_of_a_gap_resumes_right_behind_it(way: Way) -> None:
    app, chain, run = await run_with_a_gap(way, "live")
    wire = way.wires[0]
    asked = way.ask(run, run.cursor(3), wire)
    async with open_stream(app, asked.method, asked.target, **options_of(asked)) as stream:
        begun: list[LogEvent] = []
        while not begun:
            begun = decode(wire, await stream.next_chunk() or b"")
    [gap] = begun
    rest = await log_behind(app, chain, way.ask(run, gap.id, wire), wire)

    assert gap.event == "gap"
    assert rest[0].id == gap.data["earliest"]
    assert [event.seq for event in rest] == list(range(gap.seq + 1, MANY_LAST + 1))


@pytest.mark.parametrize("wire", WIRES)
async def test_a_reader_that_falls_behind_learns_how_much_it_missed(wire: Wire) -> None:
    chain = GatedChain(MANY, before=2)
    app = app_with_every_way(chain, BOUNDED)
    way = WAYS["the run by header"]
    run = await start(app)
    await chain.reached[2].wait()
    async with AsyncExitStack() as stack:
        reader = await _enter(stack, app, way.ask(run, None, wire))
        begun: list[LogEvent] = []
        while not begun or begun[-1].seq < 2:
            begun += decode(wire, await reader.next_chunk() or b"")
        reader.pause_reading()
        chain.gate.set()
        await until_no_run_is_live(app)
        reader.resume_reading()
        events = [*begun, *decode(wire, await reader.read())]

    [gap] = [event for event in events if event.event == "gap"]
    read = [event.seq for event in events if event is not gap]
    assert read == sorted(set(read))
    assert gap.data["lost"] == MANY_LAST + 1 - len(read)
    assert read[-1] == MANY_LAST


@pytest.mark.parametrize("wire", WIRES)
async def test_a_reader_whose_log_is_deleted_is_told_that_it_ends_early(wire: Wire) -> None:
    tokens = [f"{index} ".ljust(20_000, "x") for index in range(20)]
    app = app_with_every_way(streaming(*tokens))
    way = WAYS["the run by header"]
    run = await ended_run(app, way)
    async with AsyncExitStack() as stack:
        reader = await _enter(stack, app, way.ask(run, None, wire))
        begun = await reader.next_chunk() or b""
        reader.pause_reading()
        await reader.send_blocked.wait()
        deleted = await request(app, "DELETE", f"/chain/runs/{run.run_id}")
        reader.resume_reading()
        *events, last = decode(wire, begun + await reader.read())

    assert deleted.status == 204
    assert (last.event, last.data["code"]) == ("error", "log_expired")
    assert [event.seq for event in events] == list(range(len(events)))
    assert len(events) < 22
    assert code_of(await ask(app, way.ask(run, last.id, wire))) == (404, "run_not_found")


@pytest.mark.parametrize("state", ["live", "ended"])
async def test_text_that_has_a_gap_is_cut(state: Literal["live", "ended"]) -> None:
    app, _, run = await run_with_a_gap(WAYS["the run by header"], state)
    for headers in ({}, {LAST_EVENT_ID: run.cursor(2)}):
        target, accept = f"/chain/runs/{run.run_id}/stream", {"accept": "text/plain"}
        async with open_stream(app, "GET", target, headers={**accept, **headers}) as stream:
            assert stream.status == 200
            with pytest.raises(IncompleteBodyError):
                await stream.read()
            assert b"".join(stream.sends) == b""


async def test_text_that_has_a_gap_is_cut_on_the_wire() -> None:
    app, _, run = await run_with_a_gap(WAYS["the run by header"], "ended")
    async with serve(app) as server, await RawConnection.open(server.port) as client:
        target = f"/chain/runs/{run.run_id}/stream"
        await client.send_request("GET", target, headers={"accept": "text/plain"})
        assert (await client.read_head())[0] == 200
        with pytest.raises(IncompleteBodyError):
            await client.read_body()


async def test_text_behind_a_gap_is_whole() -> None:
    app, _, run = await run_with_a_gap(WAYS["the run by header"], "ended")
    headers = {"accept": "text/plain", LAST_EVENT_ID: run.cursor(MANY_LAST - 3)}
    response = await request(app, "GET", f"/chain/runs/{run.run_id}/stream", headers=headers)

    assert response.text == "".join(MANY[-2:])


async def test_a_reader_of_langserves_wire_that_falls_behind_has_an_error_of_its_shape() -> None:
    chain = GatedChain(MANY, before=2)
    app = app_with_every_way(chain, BOUNDED)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        events = [await stream.next_event() for _ in range(3)]
        stream.pause_reading()
        chain.gate.set()
        await until_no_run_is_live(app)
        stream.resume_reading()
        events += [event async for event in stream.events()]

    last = events[-1]
    assert last is not None
    assert last.event == "error"
    assert last.id is None
    assert last.json().keys() == {"status_code", "message"}
    assert "end" not in {event.event for event in events if event is not None}


async def test_of_a_thousand_runs_the_newest_logs_are_whole_and_the_others_gone() -> None:
    """Never a part of a log, and never an answer that says less than that it is gone."""
    app = app_with_every_way(streaming("x" * 1000), Settings(max_log_bytes=200_000))
    runs: list[Started] = []
    for _ in range(20):
        runs += await asyncio.gather(*(start(app) for _ in range(50)))
    await until_no_run_is_live(app)
    way = WAYS["the run by header"]
    kept: list[bool] = []
    for run in runs:
        response = await ask(app, way.ask(run, None))
        kept.append(response.status == 200)
        if response.status == 200:
            events = decode("id", response.body)
            assert [event.id for event in events] == [run.cursor(seq) for seq in range(3)]
            assert events[1].data == "x" * 1000
        else:
            assert code_of(response) == (410, "log_expired")
    assert (await ask(app, way.ask(runs[0], runs[0].cursor(2)))).status == 204
    shown = await request(app, "GET", f"/chain/runs/{runs[0].run_id}")

    assert (shown.status, shown.json()["status"]) == (200, "success")
    assert 50 < sum(kept) < 150
    assert kept[-20:] == [True] * 20
    assert not any(kept[:500])


@every_way
async def test_a_log_that_was_evicted_is_gone_in_every_way(way: Way) -> None:
    chain = streaming("x" * 1000)
    app = app_with_every_way(chain, Settings(max_log_bytes=10_000))
    run = await ended_run(app, way)
    for _ in range(10):
        await ended_run(app, way)
    for wire in way.wires:
        for seq in (-1, 0, 1):
            response = await ask(app, way.ask(run, run.cursor(seq), wire))
            assert code_of(response) == (410, "log_expired")
        assert code_of(await ask(app, way.ask(run, run.cursor(3), wire))) == (400, "invalid_cursor")
        assert (await ask(app, way.ask(run, run.cursor(2), wire))).status == 204


async def test_a_run_that_never_had_a_log_has_none_to_resume() -> None:
    app = app_with_every_way(streaming("a"))
    invoked = await request(app, "POST", "/chain/invoke", json={"input": 1})
    run_id = invoked.json()["metadata"]["run_id"]
    record = await executor_of(app).store.get(RunId(run_id))
    assert record is not None
    for way in (WAYS["the run by header"], WAYS["GET stream by header"]):
        for seq in (-1, 0, 5):
            asked = way.ask(Started(run_id, ""), _cursor(run_id, record.epoch, seq))
            assert code_of(await ask(app, asked)) == (410, "log_expired")
    assert code_of(await request(app, "GET", f"/chain/runs/{run_id}/stream")) == (
        410,
        "log_expired",
    )
