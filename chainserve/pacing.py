"""How fast a run may write: it shares the loop, and does not lose those who read its log."""

import asyncio
from collections import deque
from typing import Protocol

_TURN_BYTES = 65536
"""After so many bytes, a run lets others have the loop."""

_CHUNK_BYTES = 1024
"""What a chunk counts beside its data, for it takes time, too."""

_PARTS = 16
"""Into how many parts the lead of a writer is divided to know where it was."""

_POLL_INTERVAL = 0.01
"""Seconds between two looks at how far the followers are."""


class Follower(Protocol):
    """Who reads a log while it is written.

    Attributes:
        cursor: The number of the last event that it has.
    """

    cursor: int


class WriterPace:
    """Holds back a writer that never waits by itself, or that is too far ahead.

    A log has a bound, over which it loses its oldest events. A chain that is faster than a client's
    network waits for those who follow its log, instead of writing over what they have not read. One
    that is no nearer after the time-out is not waited for again: it will be told what it missed.

    Args:
        followers: Who reads the log; they join and leave meanwhile.
        max_lead: How many bytes the writer may be ahead.
        timeout: How many seconds it waits.
    """

    def __init__(self, followers: set[Follower], max_lead: int, timeout: float) -> None:
        self._followers = followers
        self._max_lead = max_lead
        self._timeout = timeout
        self._written = self._turn = 0
        self._marks: deque[tuple[int, int]] = deque(((0, -1),))  # Bytes and events written.

    def is_due(self, size: int) -> bool:
        """Count a chunk of some bytes, and tell whether the writer has to `give_way`."""
        self._turn += size + _CHUNK_BYTES
        return self._turn >= _TURN_BYTES

    async def give_way(self, seq: int) -> None:
        """Let others have the loop, and wait for followers; `seq` is the last event written."""
        self._written += self._turn
        self._turn = 0
        await asyncio.sleep(0)
        marks, behind = self._marks, self._written - self._max_lead
        if self._written - marks[-1][0] >= self._max_lead / _PARTS:
            marks.append((self._written, seq))
        while len(marks) > 1 and marks[1][0] <= behind:
            marks.popleft()
        if marks[0][0] <= behind:
            await self._wait_for_followers(marks[0][1])

    async def _wait_for_followers(self, seq: int) -> None:
        """Wait until all followers have an event; give up those that do not get there."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while behind := [one for one in self._followers if one.cursor < seq]:
            if loop.time() >= deadline:
                self._followers.difference_update(behind)
                return
            await asyncio.sleep(_POLL_INTERVAL)
