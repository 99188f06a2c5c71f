"""The parser of event streams, by the standard's rules, in pieces of every size."""

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from chainserve.types import RunId
from chainserve.wire.events import Event, end_event, metadata_event
from chainserve.wire.parser import EventParser, EventTooLargeError, ReceivedEvent
from chainserve.wire.projections import IdWire, LangServeWire
from chainserve.wire.sse import HEARTBEAT, json_line
from tests._sse import decode_events

Told = list[tuple[str, str | None]]

CASES: dict[str, tuple[bytes, Told]] = {
    "LF": (b"data: a\n\ndata: b\n\n", [("message", "a"), ("message", "b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [("message", "a"), ("message", "b")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [("message", "a"), ("message", "b")]),
    "line ends that are mixed": (b"data: a\r\ndata: b\r\ndata: c\n\r\n", [("message", "a\nb\nc")]),
    "CR and then LF": (b"data: a\r\n\rdata: b\n\n", [("message", "a"), ("message", "b")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a")]),
    "a second byte order mark": (
        b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
        [("message", "b")],
    ),
    "a mark in the middle": (
        b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n",
        [("message", "a"), ("message", "c")],
    ),
    "comments": (b": x\n:\n:y\ndata: a\n: z\n\n: w\n\n", [("message", "a")]),
    "a name": (b"event: data\ndata: a\n\n", [("data", "a")]),
    "an empty name": (b"event: x\nevent:\ndata: a\n\n", [("message", "a")]),
    "no data": (b"event: end\n\n", [("end", None)]),
    "empty data": (
        b"data\n\ndata:\n\ndata\ndata\n\n",
        [("message", ""), ("message", ""), ("message", "\n")],
    ),
    "one space is left out": (b"data:a\ndata: b\ndata:  c\n\n", [("message", "a\nb\n c")]),
    "colons in the data": (b"data: a: b:\n\n", [("message", "a: b:")]),
    "unknown fields": (b"data: a\nfoo: b\ndata\n data: c\nDATA: d\n\n", [("message", "a\n")]),
    "a stream that is cut": (b"data: a\n\ndata: b\n", [("message", "a")]),
    "a line separator": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0c\n\n".encode(),
        [("message", "a\u2028b\u2029c\u0085d\x0be\x0c")],
    ),
    "a NUL": (b"data: a\0b\n\n", [("message", "a\0b")]),
    "no UTF-8": (b"data: a\xffb\n\n", [("message", "a\ufffdb")]),
    "blank lines": (b"\n\r\r\n\n\ndata: a\n\n\n\n", [("message", "a")]),
    "LangServe's bytes": (
        b'event: metadata\r\ndata: {"run_id": "x"}\r\n\r\n: ping - 2024\r\n\r\nevent: end\r\n\r\n',
        [("metadata", '{"run_id": "x"}'), ("end", None)],
    ),
}  # fmt: skip


def parse(pieces: Iterator[bytes] | list[bytes]) -> list[ReceivedEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def told(events: list[ReceivedEvent]) -> Told:
    return [(event.event, event.data) for event in events]


def in_random_pieces(data: bytes, seed: int) -> Iterator[bytes]:
    source = random.Random(seed)
    position = 0
    while position < len(data):
        size = source.choice([0, 1, 1, 2, 3, 7])
        yield data[position : position + size]
        position += size


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES.keys())
def test_a_stream_is_read_alike_in_pieces_of_every_size(data: bytes, expected: Told) -> None:
    assert told(parse([data])) == expected
    assert told(parse([data[i : i + 1] for i in range(len(data))])) == expected
    for cut in range(len(data)):
        assert told(parse([data[:cut], data[cut:]])) == expected
    for seed in range(20):
        assert told(parse(in_random_pieces(data, seed))) == expected


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (b"id: 1\ndata: a\n\ndata: b\n\n", ["1", "1"]),
        (b"id: 1\ndata: a\n\nid:\ndata: b\n\n", ["1", ""]),
        (b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", ["1", "1"]),
        (b"id: 1\n\ndata: a\n\n", ["1"]),
        (b"id: 1\ndata: a\n", []),
    ],
)
def test_an_id_holds_until_another_comes(data: bytes, ids: list[str]) -> None:
    assert [event.last_event_id for event in parse([data])] == ids


@pytest.mark.parametrize(
    ("line", "expected"),
    [(b"12", 12), (b"0", 0), (b"-1", None), (b"1.5", None), (b"", None), (b"1e3", None)],
)
def test_a_reconnection_time_is_digits(line: bytes, expected: int | None) -> None:
    parser = EventParser()
    parser.feed(b"retry: " + line + b"\n\n")

    assert parser.retry_ms == expected


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_an_event_over_the_bound_is_refused_however_it_comes(size: int) -> None:
    parser = EventParser(max_event_bytes=1000)
    line = b"data: " + b"x" * 60 + b"\n"
    stream = line * 30
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    with pytest.raises(EventTooLargeError, match="1000"):
        [parser.feed(piece) for piece in pieces]

    parser = EventParser(max_event_bytes=1000)
    assert len(parser.feed((line * 10 + b"\n") * 50)) == 50


RUN = RunId("6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values=st.lists(json_values, max_size=6), seed=st.integers(0, 1000), ids=st.booleans())
def test_what_the_wires_write_is_read_back(values: list[Any], seed: int, ids: bool) -> None:
    events = [metadata_event(RUN)]
    events += [
        Event(seq, "data", json_line(orjson.dumps(value))) for seq, value in enumerate(values, 1)
    ]
    events.append(end_event(len(events)))
    wire = IdWire(RUN, "abc", 1000) if ids else LangServeWire()
    written = HEARTBEAT.join(wire.project(events))

    read = parse(in_random_pieces(written, seed))

    assert [orjson.loads(event.data or "") for event in read if event.event == "data"] == values
    assert read[-1].event == "end"
    assert told(read) == [
        (event.event, event.data)
        for event in decode_events(written)
        if event.data is not None or event.event == "end"
    ]
