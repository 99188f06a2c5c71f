"""The event reader, against the cases of the WHATWG standard."""

from __future__ import annotations

import pytest

from tests._sse import EventDecoder, ReceivedEvent, decode_events


def test_a_block_has_its_type_data_id_and_retry() -> None:
    block = b"event: data\r\nid: 7\r\nretry: 1500\r\ndata: 1\r\ndata: 2\r\n\r\n"
    assert decode_events(block) == [ReceivedEvent("data", "1\n2", "7", 1500, (), block)]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: x\n\n", "x"),
        (b"data:x\n\n", "x"),
        (b"data:  x\n\n", " x"),
        (b"data\n\n", ""),
        (b"data:\n\n", ""),
        (b"data: a\rdata: b\r\r", "a\nb"),
        (b"data: a\r\ndata\r\n\r\n", "a\n"),
        (b"\xef\xbb\xbfdata: x\n\n", "x"),
        ("data: a\u2028b\u0085c\x0bd\n\n".encode(), "a\u2028b\u0085c\x0bd"),
        (b"data: \xff\n\n", "\ufffd"),
        (b"Data: x\n\n", None),
        (b"event: end\n\n", None),
    ],
)
def test_data_is_read_as_the_standard_says(stream: bytes, data: str | None) -> None:
    assert [event.data for event in decode_events(stream)] == [data]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_how_the_bytes_are_cut_does_not_matter(size: int, line_end: bytes) -> None:
    lines = [b"id: 1", "data: ä".encode(), b"", b": ping", b"", b"", b"event: end", b"data: 2", b""]
    stream = line_end.join([*lines, b""])
    decoder = EventDecoder()
    cut = [stream[start : start + size] for start in range(0, len(stream), size)]
    events = [event for piece in cut for event in decoder.feed(piece)]
    assert [(event.event, event.data, event.comments) for event in events] == [
        ("message", "ä", ()),
        ("message", None, ("ping",)),
        ("end", "2", ()),
    ]
    assert b"".join(event.raw for event in events) + decoder.unfinished == stream


def test_a_comment_without_a_blank_line_belongs_to_the_next_block() -> None:
    events = decode_events(b": ping\n: ping\ndata: x\n\n")
    assert [(event.comments, event.data) for event in events] == [(("ping", "ping"), "x")]


def test_an_unfinished_block_is_no_event_but_its_bytes_are_there() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\n\ndata: b\n")[0].data == "a"
    assert decoder.unfinished == b"data: b\n"


def test_the_last_event_id_persists_until_changed_and_ignores_nul() -> None:
    decoder = EventDecoder()
    seen = []
    for block in (b"id: 1\n\n", b"data: x\n\n", b"id: 2\0\n\n", b"id\n\n"):
        (event,) = decoder.feed(block)
        seen.append((event.id, decoder.last_event_id))
    assert seen == [("1", "1"), (None, "1"), (None, "1"), ("", "")]


@pytest.mark.parametrize("value", [b"soon", b"-1", b"1.5", b"", "\u0661".encode()])
def test_a_retry_of_other_than_digits_is_ignored(value: bytes) -> None:
    assert decode_events(b"retry: " + value + b"\ndata: x\n\n")[0].retry is None


def test_the_data_decodes_as_json_and_a_block_without_data_says_so() -> None:
    with_data, without_data = decode_events(b'data: {"a": 1}\n\nevent: end\n\n')
    assert with_data.json() == {"a": 1}
    with pytest.raises(ValueError, match="no data line"):
        without_data.json()
