"""The wire: exact bytes from events, without a socket."""

from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import pytest
from langchain_core.messages.base import TextAccessor

from chainserve.serialization import WellKnownLCSerializer
from chainserve.types import RunId
from chainserve.wire.events import Event, end_event, error_event, metadata_event
from chainserve.wire.projections import LangServeWire
from chainserve.wire.sse import json_line, text_line
from tests._sse import decode_events

RUN_ID = RunId("6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11")
METADATA = b'event: metadata\r\ndata: {"run_id": "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"}\r\n\r\n'


def test_a_stream_has_langserves_bytes_with_metadata_and_end_in_writes_of_their_own() -> None:
    events = [metadata_event(RUN_ID), Event(1, "data", b'"a"'), Event(2, "data", b'"b"')]

    pieces = list(LangServeWire().project([*events, end_event(3)]))

    assert pieces == [
        METADATA,
        b'event: data\r\ndata: "a"\r\n\r\nevent: data\r\ndata: "b"\r\n\r\n',
        b"event: end\r\n\r\n",
    ]


def test_metadata_is_held_back_until_the_first_chunk() -> None:
    wire = LangServeWire()

    assert list(wire.project([metadata_event(RUN_ID)])) == []
    assert list(wire.project([Event(1, "data", b"1")])) == [
        METADATA,
        b"event: data\r\ndata: 1\r\n\r\n",
    ]


def test_an_empty_stream_has_no_metadata() -> None:
    pieces = list(LangServeWire().project([metadata_event(RUN_ID), end_event(1)]))

    assert pieces == [b"event: end\r\n\r\n"]


def test_an_error_event_has_langserves_two_members() -> None:
    error = {"status_code": 500, "message": "Internal Server Error", "code": "internal_error"}

    pieces = list(LangServeWire().project([metadata_event(RUN_ID), error_event(1, error)]))

    assert pieces == [
        b'event: error\r\ndata: {"status_code": 500, "message": "Internal Server Error"}\r\n\r\n'
    ]


def test_a_heartbeat_is_langserves_ping_in_naive_utc() -> None:
    now = datetime(2026, 11, 23, 18, 2, 53, 256886, tzinfo=UTC)

    assert LangServeWire().heartbeat(now) == b": ping - 2026-11-23 18:02:53.256886\r\n\r\n"


@pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029"])
def test_what_other_clients_take_for_a_line_break_is_escaped(character: str) -> None:
    line = json_line(orjson.dumps(f"a{character}b"))

    assert line == f'"a\\u{ord(character):04x}b"'.encode()
    assert orjson.loads(line) == f"a{character}b"


def every_text() -> Iterator[str]:
    """Yield characters of all kinds, lone surrogates among them, with others around."""
    for code in (*range(0x10000), *range(0x10000, 0x110000, 97)):
        yield f'a{chr(code)}"b'


def test_a_text_is_written_as_any_object_is() -> None:
    dumps = WellKnownLCSerializer().dumps
    odd = ["", "\\", "\ud83d\ude00", "é\udcff\u2028", TextAccessor("of a message"), "long" * 10_000]

    for text in [*odd, *every_text()]:
        assert text_line(text) == json_line(dumps(text))


@pytest.mark.parametrize("data", [b'{"a":\n1}', b'{"a":\r\n 1}', b"[1,\r2]"])
def test_the_line_breaks_of_a_custom_serializer_do_not_end_the_event(data: bytes) -> None:
    [piece] = LangServeWire().project([Event(1, "data", json_line(data))])

    [event] = decode_events(piece)
    assert orjson.loads(event.data or "") == orjson.loads(data)


@pytest.mark.parametrize("text", ["\r\n\r\nevent: end\r\n\r\n", "\x00", "\ufeff", "\u2028", ": x"])
def test_no_text_can_end_its_event_or_begin_another(text: str) -> None:
    [piece] = LangServeWire().project([Event(1, "data", json_line(orjson.dumps(text)))])

    [event] = decode_events(piece)
    assert event.event == "data"
    assert orjson.loads(event.data or "") == text
