"""One run's events in memory: their data in one piece, cut at its beginning over a bound."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise

from chainserve.stores.base import LogTruncatedError
from chainserve.types import EventName
from chainserve.wire.events import Event, EventRange

EVENT_OVERHEAD_BYTES = 16
"""What an event costs beside its data: where it ends, and room to grow."""


@dataclass(slots=True, eq=False)
class EventLog:
    """The events of one run that are left.

    An object for each event would take ten times the memory of a token. Worse, what is kept of
    each lies between the objects that the chain makes for the next, and drives them through ever
    more memory: a chain by itself took a fifth longer when the events of its runs were kept so.

    Attributes:
        next_seq: The number of the event that comes next.
        size: What the events cost, as the bounds count it.
    """

    next_seq: int = 0
    size: int = 0
    _data: bytearray = field(default_factory=bytearray)
    _start: int = 0
    _ends: "array[int]" = field(default_factory=lambda: array("Q"))
    _others: dict[int, EventName] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The number of the oldest event that is left."""
        return self.next_seq - len(self._ends)

    def append(self, events: Sequence[Event]) -> int:
        """Append each event that comes next, ignore any other, and return the bytes that takes."""
        fitting = self._fitting(events)
        data = fitting.data
        joined, end = b"".join(data), self._start + len(self._data)
        self._data += joined
        self._ends.extend(islice(accumulate(map(len, data), initial=end), 1, None))
        self._others |= fitting.others
        self.next_seq += len(data)
        size = len(joined) + len(data) * EVENT_OVERHEAD_BYTES
        self.size += size
        return size

    def trim(self, max_bytes: int) -> int:
        """Drop the oldest events, all but one if need be, and return the bytes that frees.

        A little more goes than must, so that a log at its bound is not trimmed for each event.
        """
        target = max_bytes - max_bytes // 16
        freed = dropped = 0
        while self.size - freed > target and dropped < len(self._ends) - 1:
            dropped += 1
            freed = self._ends[dropped - 1] - self._start + dropped * EVENT_OVERHEAD_BYTES
        if dropped:
            start, self._start = self._start, self._ends[dropped - 1]
            del self._data[: self._start - start], self._ends[:dropped]
            self.size -= freed
        return freed

    def read_after(self, after: int, max_bytes: int) -> tuple[Sequence[Event], bool]:
        """Return the events after a cursor, up to a size of data but at least one, and if any wait.

        Raises:
            LogTruncatedError: The event after the cursor is gone.
        """
        ends, first = self._ends, self.first
        begin = after + 1 - first
        if begin < 0:
            raise LogTruncatedError(first)
        if begin >= len(ends):
            return [], False
        start = ends[begin - 1] if begin else self._start
        stop = max(begin + 1, bisect_right(ends, start + max_bytes, begin))
        whole = bytes(self._data[start - self._start : ends[stop - 1] - self._start])
        places = [0, *(end - start for end in ends[begin:stop])]
        data = [whole[one:other] for one, other in pairwise(places)]
        return EventRange(after + 1, data, self._others), stop < len(ends)

    def _fitting(self, events: Sequence[Event]) -> EventRange:
        """Return those of some events that come next."""
        if isinstance(events, EventRange) and events.first == self.next_seq:
            return events
        fitting: list[Event] = []
        for event in events:
            if event.seq == self.next_seq + len(fitting):
                fitting.append(event)
        return EventRange.of(fitting)
