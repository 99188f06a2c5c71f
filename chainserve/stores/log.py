"""One run's events in memory: a list, cut at its beginning when it grows over a bound."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from chainserve.stores.base import LogTruncatedError
from chainserve.wire.events import Event

EVENT_OVERHEAD_BYTES = 160
"""What an event costs beside its data: a tuple, an int, the header of a bytes object."""


@dataclass(slots=True, eq=False)
class EventLog:
    """The events of one run that are left.

    Attributes:
        events: The events, in order and without gaps.
        next_seq: The number of the event that comes next.
        size: What they cost, as the bounds count it.
    """

    events: list[Event] = field(default_factory=list)
    next_seq: int = 0
    size: int = 0

    @property
    def first(self) -> int:
        """The number of the oldest event that is left."""
        return self.next_seq - len(self.events)

    def append(self, events: Sequence[Event]) -> int:
        """Append each event that comes next, ignore any other, and return the bytes that takes."""
        # Called for each token of each run, so it calls nothing for an event.
        size, next_seq = 0, self.next_seq
        for event in events:
            seq, _, data = event
            if seq == next_seq:
                self.events.append(event)
                next_seq += 1
                size += len(data) + EVENT_OVERHEAD_BYTES
        self.next_seq = next_seq
        self.size += size
        return size

    def trim(self, max_bytes: int) -> int:
        """Drop the oldest events, all but one if need be, and return the bytes that frees.

        A little more goes than must, so that a log at its bound is not trimmed for each event.
        """
        target = max_bytes - max_bytes // 16
        freed = dropped = 0
        while self.size - freed > target and dropped < len(self.events) - 1:
            freed += len(self.events[dropped].data) + EVENT_OVERHEAD_BYTES
            dropped += 1
        del self.events[:dropped]
        self.size -= freed
        return freed

    def read_after(self, after: int, max_bytes: int) -> tuple[list[Event], bool]:
        """Return the events after a cursor, up to a size of data but at least one, and if any wait.

        Raises:
            LogTruncatedError: The event after the cursor is gone.
        """
        events, first = self.events, self.first
        start = after + 1 - first
        if start < 0:
            raise LogTruncatedError(first)
        if self.size <= max_bytes:  # Then so is each part of it, and nothing needs to be counted.
            return events[start:], False
        size = 0
        for stop in range(start, len(events)):
            size += len(events[stop].data)
            if size > max_bytes and stop > start:
                return events[start:stop], True
        return events[start:], False
