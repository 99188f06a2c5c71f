"""What is to break in an HTTP/1.1 response, and where."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


@dataclass(eq=False)
class Fault:
    """Strikes one response: the next whose request has `path` in its target.

    It closes the connection, unless it says otherwise.

    Attributes:
        path: What to look for in the target.
        after_bytes: Let so many bytes of the response pass, its head among them.
        after_events: Let the head and so many events pass, each with the blank line that ends it.
        shift: Let so many bytes more of the body pass than those events have; fewer if negative,
            where the last of them comes in one piece.
        reset: Break with a TCP reset, which may take bytes with it that are under way.
        stalls: Hold the rest back, and break when `go` is set; leave it unset for a stall.
        delays: Hold the rest back, and let it pass when `go` is set. Nothing breaks.
        stays: Break without a word: the connection of this side, or of both, stays open and silent,
            and all that comes on it is thrown away, until that side closes it.
        reached: Set when the response has come to the place.
    """

    path: str
    after_bytes: int | None = None
    after_events: int = 0
    shift: int = 0
    reset: bool = False
    stalls: bool = False
    delays: bool = False
    stays: Literal["client", "server", "both"] | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def place(self, response: bytes) -> int | None:
        """Return how many bytes of a response pass; None if it has not come so far."""
        if self.after_bytes is not None:
            return self.after_bytes if self.after_bytes <= len(response) else None
        return _place_after_events(response, self.after_events, self.shift)


def _place_after_events(response: bytes, count: int, shift: int = 0) -> int | None:
    """Return how many bytes of a response its head and so many events take.

    With a shift it is so many bytes of the body more or, if negative, less. None if the response
    has not come so far.
    """
    head, blank_line, _ = response.partition(b"\r\n\r\n")
    if not blank_line:
        return None
    start = len(head) + len(blank_line)
    chunked = b"\r\ntransfer-encoding: chunked" in head.lower()
    places = list(_chunked(response, start) if chunked else range(start, len(response)))
    body = bytes(response[place] for place in places)
    borders = [0, *(found.end() for found in _BLANK_LINE.finditer(body))]
    if count >= len(borders) or borders[count] + shift > len(body):
        return None
    size = max(borders[count] + shift, 0)
    return places[size - 1] + 1 if size else start


def _chunked(response: bytes, start: int) -> Iterator[int]:
    """Yield the place of each byte of a chunked body, as far as it has come."""
    while (line_end := response.find(b"\r\n", start)) >= 0:
        size = int(response[start:line_end], 16)
        start = line_end + 2
        yield from range(start, min(start + size, len(response)))
        start += size + 2
