"""As much HTTP as it takes to ask, and to see where an answer ends without reading it."""

import re
from collections.abc import Mapping
from uuid import uuid4

from benchmarks.processes import HOST

KEY = b"{key}"
"""Stands in a request where each one has a name of its own."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_TAIL_BYTES = 512


def encode_request(
    method: str, target: str, headers: Mapping[str, str], content: bytes = b""
) -> bytes:
    """Return the bytes of a request on a connection that stays open."""
    fields = {"host": HOST, "content-length": str(len(content)), **headers}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
    return "\r\n".join([*lines, "", ""]).encode() + content


def with_a_key(request: bytes) -> bytes:
    """Return the request with a fresh key where it has a place for one."""
    return request.replace(KEY, uuid4().hex.encode())


class Answer:
    """One answer as it comes in: its status, its last bytes, and whether it is complete.

    A chunked body is complete when the bytes that came last are those of a last chunk. No chain
    that is measured says such bytes itself.
    """

    def __init__(self) -> None:
        self.status = 0
        self.size = 0
        self.complete = False
        self.tail = b""
        self._head = b""
        self._length: int | None = None

    def feed(self, data: bytes) -> None:
        """Take what came next."""
        if not self.status:
            data = self._read_head(data)
            if not self.status:
                return
        self.size += len(data)
        self.tail = data[-_TAIL_BYTES:] if len(data) >= _TAIL_BYTES else self._longer_tail(data)
        if self._length is None:
            self.complete = self.tail.endswith(_LAST_CHUNK)
        else:
            self.complete = self.size >= self._length

    def _longer_tail(self, data: bytes) -> bytes:
        return (self.tail + data)[-_TAIL_BYTES:]

    def _read_head(self, data: bytes) -> bytes:
        """Read on in the head, and return what follows it."""
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        self.status = int(head.split(b" ", 2)[1])
        length = _LENGTH.search(head)
        if length is not None:
            self._length = int(length[1])
        elif not _CHUNKED.search(head):
            raise ValueError(f"an answer without an end: {head!r}")
        return rest


def joined_chunks(body: bytes) -> bytes:
    """Return the content of a chunked body."""
    pieces = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(body[:length])
        body = body[length + 2 :]
    return b"".join(pieces)
