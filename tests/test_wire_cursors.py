"""Cursors: what `encode` writes is read back, and nothing else is."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import example, given, settings, strategies as st

from chainserve.errors import InvalidCursorError
from chainserve.types import RunId
from chainserve.wire.cursors import MAX_SEQ, Cursor

RUN_ID = RunId("6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11")
CURSOR = "bxwvDo0aSleahkovbw8_EQ.k3J_-9.41"

run_ids = st.uuids().map(lambda uuid: RunId(str(uuid)))
epochs = st.text("ABCxyz019_-", min_size=1, max_size=12)
positions = st.integers(-1, MAX_SEQ)


def test_a_cursor_is_the_run_the_epoch_and_the_position() -> None:
    assert Cursor(RUN_ID, "k3J_-9", 41).encode() == CURSOR.encode()
    assert Cursor.parse(CURSOR) == (RUN_ID, "k3J_-9", 41)


def test_the_position_before_the_first_event_is_minus_one() -> None:
    before = Cursor(RUN_ID, "e", -1)

    assert before.encode() == b"bxwvDo0aSleahkovbw8_EQ.e.-1"
    assert Cursor.parse("bxwvDo0aSleahkovbw8_EQ.e.-1") == before


@settings(deadline=None)
@given(run_ids, epochs, positions)
def test_every_cursor_reads_back_and_needs_no_escaping_anywhere(
    run_id: RunId, epoch: str, seq: int
) -> None:
    encoded = Cursor(run_id, epoch, seq).encode()

    assert re.fullmatch(b"[A-Za-z0-9._-]{1,64}", encoded)
    assert encoded == Cursor.prefix(run_id, epoch) + b"%d" % seq
    assert Cursor.parse(encoded.decode()) == (run_id, epoch, seq)


def test_the_longest_cursor_is_52_bytes() -> None:
    longest = Cursor(RunId(str(UUID(int=2**128 - 1))), "e" * 12, MAX_SEQ)

    assert len(longest.encode()) == 52
    assert Cursor.parse(longest.encode().decode()) == longest


@pytest.mark.parametrize("epoch", ["", "e" * 13, "a.b", "a b", "a\n", "a%d", "\u00e9"])
def test_an_epoch_that_no_cursor_could_hold_is_refused_when_it_is_written(epoch: str) -> None:
    with pytest.raises(ValueError, match="epoch"):
        Cursor.prefix(RUN_ID, epoch)


RUN, EPOCH = "bxwvDo0aSleahkovbw8_EQ", "k3J_-9"
GARBAGE = [
    *("", "-1", "$", "0", ">", "+", "*", "0-0", "99999999999999-0", "a b", "\0", "null", "..", "."),
    *(f"{RUN}.{EPOCH}", f"{RUN}.{EPOCH}.", f".{EPOCH}.1", f"{RUN}..1", RUN),
    *(f"{RUN}.{EPOCH}.{seq}" for seq in ("01", "00", "+1", "-0", "-2", "-01", "--1", "1.0", "1e3")),
    *(f"{RUN}.{EPOCH}.{seq}" for seq in ("1_0", "0x1", "\u0661", "\uff11", "\u00b2", " 1", "1 ")),
    *(f"{RUN}.{EPOCH}.{seq}" for seq in (MAX_SEQ + 1, 10**16, 10**17, "9" * 10_000)),
    *(f"{CURSOR}{end}" for end in ("\n", "\r\n", "\0", " ", "=", ".1", ",", "\ud800")),
    *(f"{start}{CURSOR}" for start in ("\n", " ", "\ufeff", "id: ", '"', "A")),
    *(f"{run}.{EPOCH}.1" for run in (RUN[1:], f"{RUN}==", f"{RUN[:-1]}R", f"{RUN[:-1]}_")),
    *(f"{run}.{EPOCH}.1" for run in (RUN.replace("_", "/"), RUN_ID, "\u00e9" * 22, "A" * 10_000)),
    *(f"{RUN}.{epoch}.1" for epoch in ("e" * 13, "a b", "\u00e9", "a+b", "e" * 10_000)),
    *("x" * 10_000, "\u00e9" * 10_000, "." * 10_000, "\x80\xff"),
]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: ascii(text)[:40])
def test_what_encode_cannot_have_written_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursorError):
        Cursor.parse(text)


near_misses = st.tuples(
    st.text("AZaz09_-QR=", min_size=20, max_size=24),
    st.text("az-_. ", max_size=14),
    st.sampled_from(["", "+", "-"]),
    st.text("0129\u0661", max_size=18),
).map(lambda parts: "{}.{}.{}{}".format(*parts))


@settings(deadline=None, max_examples=300)
@given(st.text() | near_misses)
@example(CURSOR)
def test_any_text_is_a_cursor_that_encodes_to_it_or_is_refused(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except InvalidCursorError:
        return
    assert cursor.encode().decode() == text


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(CURSOR) - 1), st.characters())
def test_a_changed_character_never_gives_the_same_cursor(place: int, character: str) -> None:
    changed = CURSOR[:place] + character + CURSOR[place + 1 :]

    try:
        cursor = Cursor.parse(changed)
    except InvalidCursorError:
        return
    assert (cursor == Cursor.parse(CURSOR)) == (changed == CURSOR)
