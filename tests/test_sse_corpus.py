"""Parsers of event streams, one table of the standard's cases, and what sets each apart."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, strategies as st
from playwright.async_api import Browser

from tests._browser import opened
from tests._sse_corpus import CASES, NAMES, Told, hostile_stream, piecings
from tests._sse_readers import (
    Pieces,
    by_chainserve,
    by_chromium,
    by_httpx_sse,
    by_langserve,
    by_the_standard,
    in_node,
)

_NO_DATA_IS_TOLD = {
    "a name without data": "tells of an event without data, as if its data were empty",
    "LangServe's bytes": "tells of an event without data, so of LangServe's end",
    "an id without data": "tells of a block that only has an id",
    "a reconnection time alone": "tells of a block that only has a reconnection time",
}
_MARK_IS_TEXT = {"a byte order mark": "takes the mark for a part of the first line, which is lost"}
_OTHER_LINE_ENDS = {
    "line separators": "ends lines where str.splitlines does, at U+0085, U+2028 and U+2029 too",
    "control characters": "ends lines where str.splitlines does, at VT, FF, FS, GS and RS too",
}

DEFECTS: dict[str, dict[str, str]] = {
    "chainserve": {},
    "chainserve.js": {},
    "the tests' parser": {},
    "httpx-sse": {**_NO_DATA_IS_TOLD, **_MARK_IS_TEXT},
    "langserve": {**_NO_DATA_IS_TOLD, **_MARK_IS_TEXT, **_OTHER_LINE_ENDS},
    "eventsource-parser": {
        "CR at the end": "waits for what follows a CR, also where nothing does",
        "CRLF without its last LF": "waits for what follows a CR, also where nothing does",
        "an id without data": "forgets the id of a block that has no data",
    },
    "fetch-event-source": {
        "a mark in the middle": "takes a byte order mark away from each line, not from the first",
        "a mark in the data": "takes a byte order mark away from each value",
        "empty data": "cannot tell empty data from none",
        "a space and nothing": "cannot tell empty data from none",
        "data of line ends": "forgets the line end behind empty data, and fields without a colon",
        "unknown fields": "ignores a field without a colon, though it is data",
        "a name without a colon": "ignores a field without a colon, though it is a name",
        "an id that is taken back": "ignores a field without a colon, though it is an id",
        "an id with a NUL": "takes an id that has a NUL",
    },
    "Chromium": {
        "a byte order mark and a line end": "does not end a line that only has the mark",
    },
}
"""Cases that a parser reads in another way than the standard says, and in which."""

READERS: dict[str, Callable[[Pieces], list[Told]]] = {
    "chainserve": by_chainserve,
    "the tests' parser": by_the_standard,
    "httpx-sse": by_httpx_sse,
    "langserve": by_langserve,
}

STREAMS = [(name, pieces) for name, (data, _) in CASES.items() for pieces in piecings(data)]


def assert_reads_all_but_its_defects(reader: str, read: list[list[Told]]) -> None:
    """Assert that a parser differs in the cases that are listed and no others, in any pieces."""
    right = [events == CASES[name][1] for (name, _), events in zip(STREAMS, read, strict=True)]
    wrong = {name for (name, _), is_right in zip(STREAMS, right, strict=True) if not is_right}
    assert wrong == set(DEFECTS[reader])
    # It is the case that counts, and not how its bytes come.
    assert (
        not {name for (name, _), is_right in zip(STREAMS, right, strict=True) if is_right} & wrong
    )


@pytest.mark.parametrize("reader", READERS)
def test_a_parser_in_python_differs_from_the_standard_where_it_is_known_to(reader: str) -> None:
    assert_reads_all_but_its_defects(reader, [READERS[reader](pieces) for _, pieces in STREAMS])


@pytest.mark.network
@pytest.mark.parametrize("parser", ["chainserve.js", "eventsource-parser", "fetch-event-source"])
def test_a_parser_in_node_differs_from_the_standard_where_it_is_known_to(
    node: str, parser: str
) -> None:
    read = in_node(node, parser, [pieces for _, pieces in STREAMS])

    assert_reads_all_but_its_defects(parser, read)


@pytest.mark.anyio
async def test_chromium_differs_from_the_standard_where_it_is_known_to(browser: Browser) -> None:
    names = {event.event for _, events in CASES.values() for event in events} | {"end", "x"}
    async with opened(browser) as tab:
        read = await by_chromium(tab.page, [pieces for _, pieces in STREAMS], names)

    assert_reads_all_but_its_defects("Chromium", read)


@given(st.randoms(use_true_random=False))
def test_two_parsers_written_apart_read_hostile_streams_alike(source: Random) -> None:
    stream = hostile_stream(source)
    expected = by_the_standard([stream])

    for pieces in piecings(stream):
        assert by_chainserve(pieces) == by_the_standard(pieces) == expected


HOSTILE = [hostile_stream(Random(seed)) for seed in range(300)]
HOSTILE_PIECES = [list(piecings(stream))[seed % 4] for seed, stream in enumerate(HOSTILE)]


@pytest.mark.network
@pytest.mark.parametrize("parser", ["chainserve.js", "eventsource-parser"])
def test_a_parser_in_node_reads_hostile_streams_as_ours_does(node: str, parser: str) -> None:
    read = in_node(node, parser, HOSTILE_PIECES)

    assert read == [by_chainserve([stream]) for stream in HOSTILE]


@pytest.mark.anyio
async def test_chromium_reads_hostile_streams_as_ours_does(browser: Browser) -> None:
    async with opened(browser) as tab:
        read = await by_chromium(tab.page, HOSTILE_PIECES, set(NAMES))

    assert read == [by_chainserve([stream]) for stream in HOSTILE]
