"""Event streams that tell parsers apart: the standard's rules by example, and hostile bytes."""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple


class Told(NamedTuple):
    """An event that the standard has a reader tell of: one that has data."""

    event: str
    data: str
    last_event_id: str


def _events(*data: str) -> list[Told]:
    return [Told("message", text, "") for text in data]


def _with_ids(*events: tuple[str, str]) -> list[Told]:
    return [Told("message", data, last_event_id) for data, last_event_id in events]


CASES: dict[str, tuple[bytes, list[Told]]] = {
    "LF": (b"data: a\n\ndata: b\n\n", _events("a", "b")),
    "CR": (b"data: a\r\rdata: b\r\r:\n", _events("a", "b")),
    "CR at the end": (b"data: a\r\rdata: b\r\r", _events("a", "b")),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", _events("a", "b")),
    "CRLF without its last LF": (b"data: a\r\n\r\ndata: b\r\n\r", _events("a", "b")),
    "line ends that are mixed": (b"data: a\r\ndata: b\rdata: c\n\r\n", _events("a\nb\nc")),
    "CR and then LF": (b"data: a\r\n\rdata: b\n\n", _events("a", "b")),
    "LF and then CR": (b"data: a\n\rdata: b\n\n", _events("a", "b")),
    "one line": (b"data: a", []),
    "nothing": (b"", []),
    "only line ends": (b"\n\r\r\n\n\n", []),
    "blank lines": (b"\n\r\r\n\n\ndata: a\n\n\n\n", _events("a")),
    "a stream that is cut": (b"data: a\n\ndata: b\n", _events("a")),
    "a stream that is cut in a line": (b"data: a\n\ndata: b", _events("a")),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", _events("a")),
    "a byte order mark alone": (b"\xef\xbb\xbf\n\ndata: a\n\n", _events("a")),
    "a byte order mark and a line end": (b"\xef\xbb\xbf\ndata: a\n\n", _events("a")),
    "a second byte order mark": (
        b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
        _events("b"),
    ),
    "a mark in the middle": (
        b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n",
        _events("a", "c"),
    ),
    "a mark in the data": (
        b"data: \xef\xbb\xbfa\n\ndata:\xef\xbb\xbf\n\n",
        _events("\ufeffa", "\ufeff"),
    ),
    "comments": (b": x\n:\n:y\ndata: a\n: z\n\n: w\n\n", _events("a")),
    "a comment that looks like data": (b":data: a\n\n: data: b\n\ndata: c\n\n", _events("c")),
    "a name": (b"event: data\ndata: a\n\ndata: b\n\n", [Told("data", "a", ""), *_events("b")]),
    "the last name counts": (b"event: x\nevent: data\ndata: a\n\n", [Told("data", "a", "")]),
    "an empty name": (b"event: x\nevent:\ndata: a\n\n", _events("a")),
    "a name without a colon": (b"event: x\nevent\ndata: b\n\n", _events("b")),
    "a name without data": (b"event: end\n\ndata: a\n\n", _events("a")),
    "a name with spaces": (b"event:  data \ndata: a\n\n", [Told(" data ", "a", "")]),
    "empty data": (b"data\n\ndata:\n\ndata\ndata\n\n", _events("", "", "\n")),
    "data of line ends": (b"data:\ndata: a\ndata:\ndata\n\n", _events("\na\n\n")),
    "one space is left out": (b"data:a\ndata: b\ndata:  c\ndata:\td\n\n", _events("a\nb\n c\n\td")),
    "a space and nothing": (b"data: \n\ndata:  \n\n", _events("", " ")),
    "colons in the data": (b"data: a: b:\n\ndata::\n\n", _events("a: b:", ":")),
    "unknown fields": (b"data: a\nfoo: b\ndata\n data: c\nDATA: d\n\n", _events("a\n")),
    "fields that almost are": (b"data : a\n\ndatas: b\n\ndat: c\n\ndata: d\n\n", _events("d")),
    "an id": (b"id: 1\ndata: a\n\ndata: b\n\n", _with_ids(("a", "1"), ("b", "1"))),
    "an id that is taken back": (
        b"id: 1\ndata: a\n\nid:\ndata: b\n\nid: 2\ndata: c\n\nid\ndata: d\n\n",
        _with_ids(("a", "1"), ("b", ""), ("c", "2"), ("d", "")),
    ),
    "an id with a NUL": (
        b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n",
        _with_ids(("a", "1"), ("b", "1")),
    ),
    "an id without data": (b"id: 1\n\ndata: a\n\n", _with_ids(("a", "1"))),
    "an id of spaces": (b"id:  1 \ndata: a\n\n", _with_ids(("a", " 1 "))),
    "a reconnection time": (b"retry: 10\ndata: a\n\n", _events("a")),
    "a reconnection time alone": (b"retry: 10\n\ndata: a\n\n", _events("a")),
    "no reconnection time": (b"retry: -1\nretry: 1x\nretry\ndata: a\n\n", _events("a")),
    "line separators": (
        "data: a\u2028b\u2029c\u0085d\n\n".encode(),
        _events("a\u2028b\u2029c\u0085d"),
    ),
    "control characters": (
        b"data: a\x0bb\x0cc\x1cd\x1de\x1ef\n\n",
        _events("a\x0bb\x0cc\x1cd\x1de\x1ef"),
    ),
    "a NUL": (b"data: a\0b\n\n\0data: c\n\ndata: \0\n\n", _events("a\0b", "\0")),
    "no UTF-8": (b"data: a\xffb\xc0\x80\n\n", _events("a\ufffdb\ufffd\ufffd")),
    "UTF-8 that a line ends": (
        b"data: a\xe2\x80\ndata: \xf0\x9f\x98\n\n",
        _events("a\ufffd\n\ufffd"),
    ),
    "a surrogate": (b"data: \xed\xa0\x80\n\n", _events("\ufffd\ufffd\ufffd")),
    "far characters": ("data: é\U0001f600\n\n".encode(), _events("é\U0001f600")),
    "a long line": (b"data: " + b"x" * 70_000 + b"\n\n", _events("x" * 70_000)),
    "LangServe's bytes": (
        b'event: metadata\r\ndata: {"run_id": "x"}\r\n\r\n: ping - 2024\r\n\r\nevent: data\r\n'
        b'data: "a"\r\n\r\nevent: end\r\n\r\n',
        [Told("metadata", '{"run_id": "x"}', ""), Told("data", '"a"', "")],
    ),
    "chainserve's bytes": (
        b"event: data\r\ndata: 1\r\nid: x.1\r\nretry: 10\r\n\r\n:\r\n:\r\nevent: end\r\n"
        b'data: {"status":"success"}\r\nid: x.2\r\n\r\n',
        [Told("data", "1", "x.1"), Told("end", '{"status":"success"}', "x.2")],
    ),
}  # fmt: skip

NAMES = ("data", "end", "x", "é", "message")

_FIELDS = (
    b"data",
    b"data",
    b"data",
    b"event",
    b"id",
    b"retry",
    b"",
    b"x",
    b" data",
    b"\xef\xbb\xbf",
)
_COLONS = (b":", b": ", b":  ", b"")
_LINE_ENDS = (b"\n", b"\r", b"\r\n")
_PIECES = (
    *(text.encode() for text in ("a", "é", "\U0001f600", ":", " ", "\t", "data: b", "\ufeff")),
    *(text.encode() for text in ("\u0085", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1e")),
    *(b"\0", b"\x80", b"\xff", b"\xe2\x80", b"\xf0\x9f\x98", b"\xc0\x80", b"\xed\xa0\x80", b"\x85"),
)  # fmt: skip


def hostile_stream(source: Random) -> bytes:
    """Return blocks of all that the standard knows, with what a parser may stumble over.

    It leaves out what the table has of the parsers' defects: a line end behind a byte order mark,
    an id in a block without data, a CR at the end.
    """
    stream = source.choice([b"", b"", b"\xef\xbb\xbf:\n", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n"])
    for _ in range(source.randrange(6)):
        lines = [_hostile_line(source) for _ in range(source.randrange(6))]
        if any(line.startswith(b"id") for line in lines):
            lines.insert(source.randrange(1, len(lines) + 1), b"data: with an id")
        stream += b"".join(line + source.choice(_LINE_ENDS) for line in [*lines, b""])
    return stream + b":\n"


def _hostile_line(source: Random) -> bytes:
    field, colon = source.choice(_FIELDS), source.choice(_COLONS)
    if field == b"event":
        return field + colon.rstrip() + (source.choice(NAMES).encode() if colon else b"")
    return field + colon + b"".join(source.choices(_PIECES, k=source.randrange(5)))


def piecings(data: bytes) -> Iterator[list[bytes]]:
    """Yield a stream whole, byte by byte, and twice in random pieces."""
    yield [data]
    yield [data[start : start + 1] for start in range(min(len(data), 500))] + [data[500:]]
    for seed in range(2):
        yield list(in_random_pieces(data, seed))


def in_random_pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """Yield a stream in small pieces, empty ones among them; long streams in larger ones."""
    source = Random(seed)
    most = max(7, len(data) // 100)
    position = 0
    while position < len(data):
        size = source.choice([0, 1, 1, 2, 3, most])
        yield data[position : position + size]
        position += size
