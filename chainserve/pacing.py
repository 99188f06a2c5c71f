"""How fast a run may write: it shares the loop, and does not lose those who read its log."""

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Protocol

_TURN_BYTES = 65536
"""After so many bytes, a run lets others have the loop."""

_CHUNK_BYTES = 256
"""What a chunk counts beside its data, for it takes time, too."""

_TURN_SECONDS = 0.005
"""After so long, too: what is written is to be sent while the chain works on what comes next."""

_FIRST_TURN_SECONDS = 0.0025
"""How long a run may write after its first chunk before it waits for its turn."""

_POLL_INTERVAL = 0.01
"""Seconds between two looks at how far the followers are."""


class Follower(Protocol):
    """Who reads a log while it is written.

    Attributes:
        cursor: The number of the last event that it has.
    """

    cursor: int


class Turns:
    """Lets those who would keep the loop busy have it one after another.

    The loop does all that is due before it looks again for what has come. If every busy run had a
    turn in each such round, a new request would wait for all of them, several times until its first
    chunk is sent. So there is one turn in a round, and all other work goes on between two.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._are_given = False

    async def next(self, ended_at: float, *, waited: bool) -> float:
        """Let others have the loop until it is one's turn, and return when that ends.

        After the first chunk that is soon, and the turn short: many an answer is over then, and
        would wait for a turn in vain. It is after two rounds: in the first one all who read a first
        chunk send it, also those whose runs began together, before any of these goes on. A chain
        that has waited by itself need not do so again.

        Args:
            ended_at: When the last turn ended; 0 where this is the first.
            waited: Whether others have had the loop before what came last.

        Returns:
            The end by the loop's clock.
        """
        loop = asyncio.get_running_loop()
        if not ended_at:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return loop.time() + _FIRST_TURN_SECONDS
        if not waited:
            await self._take(loop)
        return loop.time() + _TURN_SECONDS

    async def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._are_given:
            self._are_given = True
            loop.call_soon(self._give, loop)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                loop.call_soon(self._give, loop)
                return
        self._are_given = False


class WriterPace:
    """Holds back a writer that never waits by itself, or that is too far ahead.

    A log has a bound, over which it loses its oldest events. A chain that is faster than a client's
    network waits for those who follow its log, instead of writing over what they have not read. A
    follower that reads nothing is cut off by its connection, and so waited for no longer.

    Args:
        followers: Who reads the log; they join and leave meanwhile.
        max_lead: How many bytes the writer may be ahead of them; a single chunk of more may be,
            once they have all that is before it.
    """

    def __init__(self, followers: Collection[Follower], max_lead: int) -> None:
        self._followers = followers
        self._max_lead = max_lead
        self._written = self._turn = self._last = 0
        self._marks = [(-1, 0)]  # Events, and the bytes of them.

    def is_due(self, size: int) -> bool:
        """Count the chunk that comes next, and tell whether to `give_way` before it is written."""
        self._last = size
        self._turn += size + _CHUNK_BYTES
        return self._turn >= _TURN_BYTES

    def ends_large(self) -> bool:
        """Tell whether to `give_way` before the end, which takes the place of a last large chunk.

        A log keeps a chunk that is over its bound only until the next event.
        """
        return self._last >= _TURN_BYTES

    async def give_way(self, seq: int, size: int) -> None:
        """Let others have the loop, and wait for followers that are too far behind.

        Args:
            seq: The number of the last event that is written.
            size: The size of the chunk that comes next.
        """
        self._written += self._turn
        self._turn, next_bytes = 0, size + _CHUNK_BYTES
        self._marks.append((seq, self._written - next_bytes))
        await asyncio.sleep(0)
        while True:
            if self._written - self._read() <= max(self._max_lead, next_bytes):
                return
            await asyncio.sleep(_POLL_INTERVAL)

    def _read(self) -> int:
        """Return how many bytes the slowest follower has, by the marks."""
        marks = self._marks
        slowest = min((one.cursor for one in self._followers), default=marks[-1][0])
        read = 0
        while read + 1 < len(marks) and marks[read + 1][0] <= slowest:
            read += 1
        del marks[:read]
        return marks[0][1] if self._followers else self._written
