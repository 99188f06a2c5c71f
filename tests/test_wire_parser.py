"""The parser of event streams, by the standard's rules, in pieces of every size."""

from collections.abc import Iterator

import pytest

from chainserve.wire.parser import EventParser, EventTooLargeError, ReceivedEvent
from tests._sse_corpus import CASES, Told, in_random_pieces, piecings
from tests._sse_readers import by_chainserve


def parse(pieces: Iterator[bytes] | list[bytes]) -> list[ReceivedEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES.keys())
def test_a_stream_is_read_alike_in_pieces_of_every_size(data: bytes, expected: list[Told]) -> None:
    for pieces in piecings(data):
        assert by_chainserve(pieces) == expected
    for cut in range(min(len(data), 500)):
        assert by_chainserve([data[:cut], data[cut:]]) == expected
    for seed in range(20):
        assert by_chainserve(list(in_random_pieces(data, seed))) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"event: end\n\n", [("end", None)]),
        (b"event: end\r\n\r\nevent: end\r\ndata\r\n\r\n", [("end", None), ("end", "")]),
        (b"event:\nid: 1\n\n", [("message", None)]),
        (b"id: 1\n\nretry: 1\n\n:\n\nx: y\n\n", []),
    ],
)
def test_an_event_without_data_is_told_too(
    data: bytes, expected: list[tuple[str, str | None]]
) -> None:
    assert [(event.event, event.data) for event in parse([data])] == expected


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
