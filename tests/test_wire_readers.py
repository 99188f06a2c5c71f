"""What the wires write, read back by every parser that reads it: whatever text the chunks have."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st
from playwright.async_api import Browser

from chainserve.serialization import WellKnownLCSerializer
from chainserve.types import RunId
from chainserve.wire.events import Event, end_event, metadata_event
from chainserve.wire.projections import IdWire, LangServeWire, NdjsonWire, TextEventWire, TextWire
from chainserve.wire.sse import HEARTBEAT, json_line
from tests._browser import opened
from tests._sse_corpus import Told, in_random_pieces
from tests._sse_readers import (
    by_chainserve,
    by_chromium,
    by_httpx_sse,
    by_langserve,
    by_the_standard,
    in_node,
)

RUN = RunId("6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11")
SERIALIZER = WellKnownLCSerializer()
READERS = (by_chainserve, by_the_standard, by_httpx_sse, by_langserve)

HOSTILE_TEXT = (
    *("", " ", "\n", "\r", "\r\n", "\n\n", "\0", "\t", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"),
    *("\x7f", "\x85", "\xa0", "\u2028", "\u2029", "\ufeff", "\ufffd", "\ud83d", "\ude00", "\udfff"),
    *("é", "\U0001f600", ":", "data: x", "\n\ndata: x\n\n", "\r\n\r\nevent: end\r\n\r\n"),
    *('"', "\\", "\\u2028", "id: 1", "\nid: \0", "</script>", "x" * 20_000),
)  # fmt: skip

texts = st.text(
    st.one_of(st.characters(codec=None, exclude_categories=()), st.sampled_from("\r\n\u2028\0:")),
) | st.lists(st.sampled_from(HOSTILE_TEXT), max_size=4).map("".join)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def log_of(values: Sequence[Any]) -> list[Event]:
    """Return the events of a run that has these chunks."""
    chunks = [json_line(SERIALIZER.dumps(value)) for value in values]
    data = [Event(seq, "data", chunk) for seq, chunk in enumerate(chunks, 1)]
    return [metadata_event(RUN), *data, end_event(len(chunks) + 1)]


def written(wire: Any, values: Sequence[Any]) -> bytes:
    return HEARTBEAT.join(wire.project(log_of(values)))


def id_wire() -> IdWire:
    return IdWire(RUN, "abc", 1000)


def values_of(events: Sequence[Told]) -> list[Any]:
    """Return what the chunks' JSON stands for; surrogates in pairs are characters in it."""
    return [json.loads(event.data) for event in events if event.event == "data"]


def in_json(values: Sequence[Any]) -> Any:
    """Return values as their JSON means them: two surrogates in a row are one character."""
    return json.loads(json.dumps(values))


@given(values=st.lists(json_values, max_size=5), seed=st.integers(0, 1000), ids=st.booleans())
def test_every_value_is_read_back_by_every_parser(values: list[Any], seed: int, ids: bool) -> None:
    stream = written(id_wire() if ids else LangServeWire(), values)
    pieces = list(in_random_pieces(stream, seed))

    for reader in READERS:
        read = reader(pieces)
        assert values_of(read) == in_json(values)
        names = [one.event for one in read if one.event not in ("data", "end")]
        assert names == (["metadata"] if ids or values else [])
        if ids:
            assert read[-1].event == "end"
            assert [one.last_event_id[-2:] for one in read] == [
                f".{seq}" for seq in range(len(values) + 2)
            ]


@given(chunks=st.lists(texts, max_size=5), seed=st.integers(0, 1000))
def test_every_text_is_read_back_from_the_wires_that_carry_text(
    chunks: list[str], seed: int
) -> None:
    shown = [_with_characters(chunk) for chunk in chunks]
    stream = written(TextEventWire(RUN, "abc", 1000), chunks)
    read = by_chainserve(list(in_random_pieces(stream, seed)))

    assert [one.data for one in read if one.event == "message"] == [
        text.replace("\r\n", "\n").replace("\r", "\n") for text in shown if text
    ]
    assert b"".join(TextWire().project(log_of(chunks))) == "".join(shown).encode()


def _with_characters(text: str) -> str:
    """Return a text as it can be written in UTF-8: U+FFFD for each lone surrogate."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(values=st.lists(json_values, max_size=5))
def test_every_value_is_one_line_of_ndjson(values: list[Any]) -> None:
    stream = b"".join(NdjsonWire(RUN, "abc").project(log_of(values)))
    lines = [json.loads(line) for line in stream.decode().splitlines()]

    assert [line["data"] for line in lines if line["event"] == "data"] == in_json(values)
    assert len(lines) == len(values) + 2


def hostile_values(seed: int) -> list[Any]:
    source = Random(seed)
    return ["".join(source.choices(HOSTILE_TEXT, k=source.randrange(4))) for _ in range(10)]


VALUES = [[text] for text in HOSTILE_TEXT] + [hostile_values(seed) for seed in range(60)]
STREAMS = [
    list(in_random_pieces(written(wire, values), seed))
    for seed, values in enumerate(VALUES)
    for wire in (id_wire(), LangServeWire())
]


@pytest.mark.network
@pytest.mark.parametrize("parser", ["eventsource-parser", "fetch-event-source"])
def test_hostile_text_is_read_back_in_node(node: str, parser: str) -> None:
    read = in_node(node, parser, STREAMS)

    assert [values_of(events) for events in read[::2]] == in_json(VALUES)
    assert [values_of(events) for events in read[1::2]] == in_json(VALUES)


@pytest.mark.anyio
async def test_hostile_text_is_read_back_by_chromium(browser: Browser) -> None:
    async with opened(browser) as tab:
        read = await by_chromium(tab.page, STREAMS, {"metadata", "data", "end"})

    assert [values_of(events) for events in read[::2]] == in_json(VALUES)
    assert [values_of(events) for events in read[1::2]] == in_json(VALUES)
    ids = [event.last_event_id for events in read[::2] for event in events]
    assert ids == [
        event.last_event_id for pieces in STREAMS[::2] for event in by_chainserve(pieces)
    ]
