"""lz-string's compression, with LangServe's copy of it as the oracle, and with hostile texts."""

import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from langserve.lzstring import LZString

from chainserve.lzstring import compress, decompress

ORACLE: Any = LZString

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
UNBOUNDED = 1_000_000

# Few different characters repeat, so that phrases do; any Unicode text comes at times.
TEXTS = st.one_of(
    st.text(alphabet="ab", max_size=200),
    st.text(alphabet='{"configurable": é世😀\x00\uffff}', max_size=200),
    st.text(max_size=100),
)
checked = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def units_of(text: str) -> str:
    """Return a text as JavaScript has it: one character for each UTF-16 code unit."""
    data = text.encode("utf-16-le")
    return "".join(chr(low | high << 8) for low, high in zip(data[::2], data[1::2], strict=True))


def text_of(units: str) -> str:
    """Return the text that UTF-16 code units stand for."""
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def asked_of_the_oracle(sent: str) -> str:
    """Return what LangServe decompresses; its copy cannot read a text that ends without padding."""
    return text_of(ORACLE.decompressFromEncodedURIComponent(sent + "A"))


def written(*tokens: int | str) -> str:
    """Return a stream of codes, and of units as literals; nothing ends it but a 2."""
    bits, known = "", 3
    for index, token in enumerate(tokens):
        code = token if isinstance(token, int) else int(ord(token) > 255)
        bits += f"{code:0{known.bit_length()}b}"[::-1]
        if isinstance(token, str):
            bits += f"{ord(token):0{8 << code}b}"[::-1]
            known += 1
        known += index > 0
    bits += "0" * (6 - len(bits) % 6)
    return "".join(ALPHABET[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def bomb(size: int) -> str:
    """Return a short text that stands for `size` code units or more, each phrase a longer one."""
    count = int((2 * size) ** 0.5) + 1
    return written("a", *range(4, 4 + count), 2)


# As lz-string does it.


@checked
@given(TEXTS)
def test_a_text_is_compressed_as_lz_string_compresses_it(text: str) -> None:
    assert compress(text) == ORACLE.compressToEncodedURIComponent(units_of(text))


@checked
@given(TEXTS)
def test_what_lz_string_compressed_is_decompressed(text: str) -> None:
    sent = ORACLE.compressToEncodedURIComponent(units_of(text))

    assert decompress(sent, max_bytes=UNBOUNDED) == text


@checked
@given(TEXTS.filter(bool))
def test_what_was_compressed_here_lz_string_decompresses(text: str) -> None:
    assert asked_of_the_oracle(compress(text)) == text


@pytest.mark.parametrize(
    ("text", "compressed"),
    [
        ("", "Q"),
        ("a", "IZA"),
        ("aaaa", "IY5A"),
        ("é", "JdA"),
        ("世", "mhyQ"),
        ("😀", "rwbgA9o"),
        ('{"tags":["a"]}', "N4IgLghg5gziBcBtEEQF0C+Q"),
    ],
)
def test_the_format_stays_as_it_is(text: str, compressed: str) -> None:
    assert compress(text) == compressed
    assert decompress(compressed, max_bytes=UNBOUNDED) == text


def test_a_long_text_comes_back() -> None:
    text = "".join(random.Random(1).choices("abcdefgh😀", k=50_000))

    assert decompress(compress(text), max_bytes=4 * len(text)) == text


def test_a_plus_that_became_a_space_is_read() -> None:
    text = "".join(random.Random(1).choices("abcdefgh", k=500))
    assert "+" in compress(text)

    assert decompress(compress(text).replace("+", " "), max_bytes=UNBOUNDED) == text


def test_a_dollar_is_read_as_lz_string_reads_it() -> None:
    sent = compress("世界".join("abcdefgh")).replace("A", "$")
    assert "$" in sent[:-1]

    assert decompress(sent, max_bytes=UNBOUNDED) == asked_of_the_oracle(sent)


@checked
@given(TEXTS, st.text(max_size=20))
def test_what_follows_the_end_is_not_looked_at(text: str, tail: str) -> None:
    assert decompress(compress(text) + tail, max_bytes=UNBOUNDED) == text


def test_longer_ways_to_write_a_text_are_read_as_lz_string_reads_them() -> None:
    streams: list[list[int | str]] = [["a", "a", 2], ["a", "a", 3, "b", 5, 2], ["世", "世", 2]]
    for tokens in streams:
        sent = written(*tokens)
        assert decompress(sent, max_bytes=UNBOUNDED) == asked_of_the_oracle(sent)


# Bounds.


@checked
@given(TEXTS.filter(bool))
def test_the_bound_is_on_the_bytes_of_the_text_in_utf_8(text: str) -> None:
    size = len(text.encode())

    assert decompress(compress(text), max_bytes=size) == text
    with pytest.raises(ValueError, match=f"larger than {size - 1} bytes"):
        decompress(compress(text), max_bytes=size - 1)


def test_a_bomb_is_what_it_says() -> None:
    text = decompress(bomb(10_000), max_bytes=11_000)

    assert set(text) == {"a"}
    assert len(text) >= 10_000
    assert asked_of_the_oracle(bomb(10_000)) == text


@pytest.mark.parametrize("size", [100_000, 30_000_000])
def test_a_bomb_takes_little_memory_whatever_it_holds(size: int) -> None:
    sent = bomb(size)
    assert len(sent) < 25_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than 65536 bytes"):
            decompress(sent, max_bytes=65_536)
        assert tracemalloc.get_traced_memory()[1] < 10 * 65_536
    finally:
        tracemalloc.stop()


def test_a_text_of_new_units_alone_takes_memory_in_proportion_to_the_bound() -> None:
    sent = written(*["世"] * 10_000, 2)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than 8192 bytes"):
            decompress(sent, max_bytes=8192)
        assert tracemalloc.get_traced_memory()[1] < 100 * 8192
    finally:
        tracemalloc.stop()


# What is refused.


@pytest.mark.parametrize(
    "text", ["", "*", "é", "\x00", "\ud800", "=", "/", "IZ/A", "{}", "IZ\nA", "世"]
)
def test_what_is_not_compressed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no|cut off"):
        decompress(text, max_bytes=UNBOUNDED)


@pytest.mark.parametrize("text", ["a", "abcabcabc", "x" * 100, "世界😀"])
def test_a_text_that_is_cut_off_is_refused(text: str) -> None:
    whole = compress(text)
    # The last character may be padding alone.
    for size in range(len(whole) - 1):
        with pytest.raises(ValueError, match=r"cut off"):
            decompress(whole[:size], max_bytes=UNBOUNDED)


@pytest.mark.parametrize("tokens", [[3, 2], ["a", 5, 2], ["a", "b", 3, 3, 9, 2]])
def test_a_code_that_stands_for_nothing_is_refused(tokens: list[int | str]) -> None:
    with pytest.raises(ValueError, match="stands for nothing"):
        decompress(written(*tokens), max_bytes=UNBOUNDED)


LONE_SURROGATES = [chr(0xD83D), chr(0xDE00), "a\ud83db", "\ude00\ud83d", chr(0xD83D) * 2]


@pytest.mark.parametrize("units", LONE_SURROGATES)
def test_lone_surrogates_are_refused_in_both_directions(units: str) -> None:
    sent = ORACLE.compressToEncodedURIComponent(units)

    with pytest.raises(ValueError, match="lone surrogates"):
        decompress(sent, max_bytes=UNBOUNDED)
    with pytest.raises(ValueError, match="surrogates"):
        compress(units)


def decompressed_or_none(sent: str, max_bytes: int) -> str | None:
    try:
        return decompress(sent, max_bytes=max_bytes)
    except ValueError:
        return None


@pytest.mark.parametrize("seed", range(4))
def test_random_characters_are_read_as_lz_string_reads_them_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    read = 0
    for _ in range(2500):
        sent = "".join(chance.choices(ALPHABET, k=chance.randrange(1, 60)))
        text = decompressed_or_none(sent, UNBOUNDED)
        if text:
            read += 1
            assert asked_of_the_oracle(sent) == text
    assert read > 100


@pytest.mark.parametrize("seed", range(4))
def test_damaged_texts_are_read_as_lz_string_reads_them_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(1000):
        whole = compress("".join(chance.choices('{}":,abé😀', k=chance.randrange(1, 100))))
        at = chance.randrange(len(whole))
        sent = whole[:at] + chance.choice(ALPHABET) + whole[at + chance.randrange(3) :]
        text = decompressed_or_none(sent, UNBOUNDED)
        if text:
            assert asked_of_the_oracle(sent) == text


@checked
@given(st.text(max_size=300), st.integers(0, 500))
def test_any_text_is_decompressed_within_the_bound_or_refused(sent: str, max_bytes: int) -> None:
    text = decompressed_or_none(sent, max_bytes)

    assert text is None or len(text.encode()) <= max_bytes
