"""The wires beside LangServe's: server-sent events with ids, their text, plain text, and NDJSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings, strategies as st
from langserve.server_sent_events import EventSource

from chainserve.types import RunId
from chainserve.wire.cursors import Cursor
from chainserve.wire.events import Event, end_event, error_event, metadata_event
from chainserve.wire.projections import (
    IdWire,
    LangServeWire,
    NdjsonWire,
    TextEventWire,
    TextWire,
)
from chainserve.wire.sse import json_line
from tests._sse import EventDecoder, ReceivedEvent, decode_events

RUN_ID = RunId("6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11")
IDS = b"bxwvDo0aSleahkovbw8_EQ.k3J."
NOW = datetime(2026, 11, 23, 18, 2, 53, tzinfo=UTC)
ERROR = {"status_code": 499, "message": "The run was cancelled.", "code": "cancelled"}

Wire = LangServeWire | IdWire | TextEventWire | TextWire | NdjsonWire


def id_wire() -> IdWire:
    return IdWire(RUN_ID, "k3J", 1500)


def text_event_wire() -> TextEventWire:
    return TextEventWire(RUN_ID, "k3J", 1500)


def ndjson_wire() -> NdjsonWire:
    return NdjsonWire(RUN_ID, "k3J")


WIRES: list[Callable[[], Wire]] = [LangServeWire, id_wire, text_event_wire, TextWire, ndjson_wire]
EVENT_WIRES: list[Callable[[], IdWire]] = [id_wire, text_event_wire]


def log_of(*chunks: Any, error: dict[str, Any] | None = None) -> list[Event]:
    """A whole log: metadata, the chunks as JSON, and how it ended."""
    data = [
        Event(seq, "data", json_line(orjson.dumps(chunk))) for seq, chunk in enumerate(chunks, 1)
    ]
    last = len(chunks) + 1
    terminal = end_event(last) if error is None else error_event(last, error)
    return [metadata_event(RUN_ID), *data, terminal]


def test_events_have_their_name_data_and_id_and_chunks_share_a_piece() -> None:
    pieces = list(id_wire().project(log_of("a", {"b": 1})))

    assert pieces == [
        b'event: metadata\r\ndata: {"run_id": "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"}\r\n'
        b"id: " + IDS + b"0\r\nretry: 1500\r\n\r\n",
        b'event: data\r\ndata: "a"\r\nid: ' + IDS + b"1\r\n\r\n"
        b'event: data\r\ndata: {"b":1}\r\nid: ' + IDS + b"2\r\n\r\n",
        b'event: end\r\ndata: {"status": "success"}\r\nid: ' + IDS + b"3\r\n\r\n",
    ]


@pytest.mark.parametrize("make_wire", EVENT_WIRES)
def test_an_error_has_its_code_and_an_id(make_wire: Callable[[], IdWire]) -> None:
    *_, piece = make_wire().project(log_of("a", error=ERROR))

    [event] = decode_events(piece)
    assert (event.event, event.json(), event.id) == ("error", ERROR, f"{IDS.decode()}2")


@pytest.mark.parametrize("make_wire", EVENT_WIRES)
def test_metadata_does_not_wait_for_a_chunk(make_wire: Callable[[], IdWire]) -> None:
    [piece] = make_wire().project([metadata_event(RUN_ID)])

    [event] = decode_events(piece)
    assert (event.event, event.retry) == ("metadata", 1500)


def test_a_reader_may_start_anywhere() -> None:
    [piece, end] = id_wire().project(log_of("a", "b", "c")[3:])

    assert piece == b'event: data\r\ndata: "c"\r\nid: ' + IDS + b"3\r\n\r\n"
    assert decode_events(end)[0].event == "end"


@pytest.mark.parametrize("make_wire", EVENT_WIRES)
def test_a_gap_names_the_first_event_left_and_its_id_leads_there(
    make_wire: Callable[[], IdWire],
) -> None:
    gap = make_wire().gap(earliest=9, lost=7)

    assert gap == (
        b'event: gap\r\ndata: {"earliest": "' + IDS + b'9", "lost": 7}\r\nid: ' + IDS + b"8\r\n\r\n"
    )
    [event] = decode_events(gap)
    assert Cursor.parse(event.id or "") == (RUN_ID, "k3J", 8)
    assert Cursor.parse(event.json()["earliest"]).seq == 9


def test_text_events_are_unnamed_and_the_others_keep_their_name() -> None:
    pieces = list(text_event_wire().project(log_of("a b", " c\n\nd\n", "", {"e": "\r\n"})))

    assert pieces == [
        b'event: metadata\r\ndata: {"run_id": "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"}\r\n'
        b"id: " + IDS + b"0\r\nretry: 1500\r\n\r\n",
        b"data: a b\r\nid: " + IDS + b"1\r\n\r\n"
        b"data:  c\r\ndata: \r\ndata: d\r\ndata: \r\nid: " + IDS + b"2\r\n\r\n"
        b'data: {"e":"\\r\\n"}\r\nid: ' + IDS + b"4\r\n\r\n",
        b'event: end\r\ndata: {"status": "success"}\r\nid: ' + IDS + b"5\r\n\r\n",
    ]


def test_chunks_without_text_are_no_text_events() -> None:
    assert list(text_event_wire().project(log_of("", "")[1:3])) == []


def test_the_text_of_a_message_is_its_text_event() -> None:
    message = {"content": "a\rb", "type": "AIMessageChunk", "id": None}

    [piece] = text_event_wire().project(log_of(message)[1:2])

    assert piece == b"data: a\r\ndata: b\r\nid: " + IDS + b"1\r\n\r\n"


line_breaks = st.sampled_from(
    ["\r", "\n", "\r\n", "\n\r", "\u2028", "\u2029", "\u0085", "\x0b", "\x0c"]
)
texts = st.lists(
    st.text() | line_breaks | st.sampled_from([" ", ":", "data: ", "\0", "\ufeff", "id"])
).map("".join)


@settings(deadline=None)
@given(st.lists(texts, max_size=5))
def test_any_text_arrives_through_text_events_with_its_line_breaks_as_lf(chunks: list[str]) -> None:
    events = decode_events(b"".join(text_event_wire().project(log_of(*chunks))))

    messages = [event for event in events if event.event == "message"]
    assert [event.data for event in messages] == [
        chunk.replace("\r\n", "\n").replace("\r", "\n") for chunk in chunks if chunk
    ]
    assert [event.event for event in events if event not in messages] == ["metadata", "end"]


def test_characters_at_which_only_old_clients_end_a_line_stay_in_the_text() -> None:
    [piece] = text_event_wire().project(log_of("a\u2028b\u0085c")[1:2])

    assert piece.startswith("data: a\u2028b\u0085c\r\n".encode())


def test_plain_text_is_the_text_and_a_line_of_json_for_what_is_none() -> None:
    message = {"content": [{"type": "text", "text": "c\r\n"}], "type": "ai"}

    pieces = list(TextWire().project(log_of("a\n", "", "\u00e9\u2028", {"b": 1}, 2, message)))

    assert pieces == ['a\n\u00e9\u2028{"b":1}\n2\nc\r\n'.encode()]


@pytest.mark.parametrize("error", [None, ERROR])
def test_plain_text_says_nothing_of_beginning_end_and_failure(error: dict[str, Any] | None) -> None:
    assert list(TextWire().project(log_of(error=error))) == []


def test_plain_text_keeps_silent_on_an_idle_stream() -> None:
    assert TextWire().heartbeat(NOW) == b""


def test_a_line_of_ndjson_is_one_event_with_its_id() -> None:
    pieces = list(ndjson_wire().project(log_of("a\n", {"b": 1})))

    assert pieces == [
        b'{"event":"metadata","data":{"run_id": "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"},'
        b'"id":"' + IDS + b'0"}\n',
        b'{"event":"data","data":"a\\n","id":"' + IDS + b'1"}\n'
        b'{"event":"data","data":{"b":1},"id":"' + IDS + b'2"}\n',
        b'{"event":"end","data":{"status": "success"},"id":"' + IDS + b'3"}\n',
    ]


def test_a_gap_is_a_line_of_ndjson_too() -> None:
    line = ndjson_wire().gap(earliest=9, lost=7)

    assert line == (
        b'{"event":"gap","data":{"earliest":"' + IDS + b'9","lost":7},"id":"' + IDS + b'8"}\n'
    )
    assert orjson.loads(line)["id"] == f"{IDS.decode()}8"


@pytest.mark.parametrize("make_wire", [LangServeWire, TextWire])
def test_a_wire_without_ids_cannot_tell_of_a_gap(
    make_wire: Callable[[], LangServeWire | TextWire],
) -> None:
    wire = make_wire()

    assert not wire.resumable
    assert wire.gap(9, 7) is None


def test_what_the_responses_of_each_wire_carry() -> None:
    wires = [make_wire() for make_wire in WIRES]

    assert [(wire.media_type, wire.resumable, wire.cuts_on_error) for wire in wires] == [
        ("text/event-stream", False, False),
        ("text/event-stream", True, False),
        ("text/event-stream", True, False),
        ("text/plain; charset=utf-8", False, True),
        ("application/x-ndjson", True, False),
    ]
    langserve, *others = (wire.headers for wire in wires)
    assert langserve == {
        "cache-control": "no-cache",
        "connection": "keep-alive",
        "x-accel-buffering": "no",
    }
    own = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
    assert all(headers == own for headers in others)


def test_a_heartbeat_is_a_comment_without_a_blank_line() -> None:
    assert id_wire().heartbeat(NOW) == b":\r\n"


def stream_with_heartbeats(wire: IdWire | NdjsonWire) -> list[bytes]:
    """A stream that is idle before, between and after all its pieces."""
    beat = wire.heartbeat(NOW)
    log = log_of("a", "b", {"c": 1})
    batches = [log[:1], log[1:2], log[2:4], log[4:]]
    pieces = [piece for batch in batches for piece in wire.project(batch)]
    return [beat, beat, *(part for piece in pieces for part in (piece, beat)), beat]


def cut(pieces: Sequence[bytes], size: int | None) -> list[bytes]:
    """The same bytes, in other pieces."""
    if size is None:
        return list(pieces)
    stream = b"".join(pieces)
    return [stream[start : start + size] for start in range(0, len(stream), size)]


CUTS = pytest.mark.parametrize("size", [None, 1, 2, 7, 10_000])


@CUTS
def test_a_heartbeat_is_nothing_to_the_decoder_of_httpx_sse_and_langserve(
    size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    response = httpx.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=iter(cut(stream_with_heartbeats(id_wire()), size)),
        request=httpx.Request("GET", "http://test"),
    )

    with caplog.at_level(logging.WARNING):
        events = list(EventSource(response).iter_sse())

    assert [event["event"] for event in events] == ["metadata", "data", "data", "data", "end"]
    assert [event["id"] for event in events] == [f"{IDS.decode()}{seq}" for seq in range(5)]
    assert all(event["data"] for event in events)
    assert caplog.records == []


@CUTS
@pytest.mark.parametrize("make_wire", EVENT_WIRES)
def test_a_heartbeat_is_a_comment_of_the_next_event_to_a_standard_parser(
    make_wire: Callable[[], IdWire], size: int | None
) -> None:
    decoder = EventDecoder()
    pieces = cut(stream_with_heartbeats(make_wire()), size)
    events = [event for piece in pieces for event in decoder.feed(piece)]

    assert len(events) == 5
    assert all(event.data for event in events)
    assert events[0].comments == ("", "")
    assert decoder.last_event_id == f"{IDS.decode()}4"
    assert decoder.unfinished.replace(b":\r\n", b"") in (b"", b"\n")


@CUTS
def test_a_heartbeat_of_ndjson_is_an_empty_line_that_readers_skip(size: int | None) -> None:
    response = httpx.Response(200, content=iter(cut(stream_with_heartbeats(ndjson_wire()), size)))

    lines = [json.loads(line) for line in response.iter_lines() if line]

    assert [line["event"] for line in lines] == ["metadata", "data", "data", "data", "end"]


chunk_values = st.one_of(
    st.text(max_size=8),
    st.just(""),
    st.integers(-9, 9),
    st.builds(lambda text: {"type": "AIMessageChunk", "content": text}, st.text(max_size=8)),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)
logs = st.builds(
    lambda chunks, error: log_of(*chunks, error=error),
    st.lists(chunk_values, max_size=8),
    st.sampled_from([None, ERROR]),
)


@st.composite
def batched_logs(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    """A log, and the same log in batches, of which some may be empty."""
    log = draw(logs)
    places = sorted(draw(st.lists(st.integers(0, len(log)), max_size=4)))
    return log, [log[start:end] for start, end in pairwise([0, *places, len(log)])]


@pytest.mark.parametrize("make_wire", WIRES)
@settings(deadline=None)
@given(batched=batched_logs())
def test_how_a_log_is_split_into_batches_changes_no_byte(
    make_wire: Callable[[], Wire], batched: tuple[list[Event], list[list[Event]]]
) -> None:
    log, batches = batched
    wire = make_wire()

    pieces = [piece for batch in batches for piece in wire.project(batch)]

    assert b"".join(pieces) == b"".join(make_wire().project(log))
    assert all(pieces)


@pytest.mark.parametrize("make_wire", EVENT_WIRES)
@settings(deadline=None)
@given(log=logs, start=st.integers(0, 9))
def test_ids_rise_from_event_to_event_and_each_leads_to_what_follows(
    make_wire: Callable[[], IdWire], log: list[Event], start: int
) -> None:
    events = decode_events(b"".join(make_wire().project(log)))
    cursors = [Cursor.parse(event.id or "") for event in events]

    assert all(one.seq < next_.seq for one, next_ in pairwise(cursors))
    assert cursors[-1] == (RUN_ID, "k3J", log[-1].seq)
    came_back_at = min(start, len(events) - 1)
    missed = make_wire().project(log[cursors[came_back_at].seq + 1 :])
    assert _seen(decode_events(b"".join(missed))) == _seen(events[came_back_at + 1 :])


def _seen(events: Sequence[ReceivedEvent]) -> list[tuple[str, str | None, str | None]]:
    return [(event.event, event.data, event.id) for event in events]


@settings(deadline=None)
@given(logs)
def test_every_line_of_ndjson_is_the_event_of_the_log(log: list[Event]) -> None:
    stream = b"".join(ndjson_wire().project(log))

    assert stream.endswith(b"\n")
    lines = [orjson.loads(line) for line in stream[:-1].split(b"\n")]
    read = [(Cursor.parse(line["id"]).seq, line["event"], line["data"]) for line in lines]
    assert read == [(seq, name, orjson.loads(data)) for seq, name, data in log]
