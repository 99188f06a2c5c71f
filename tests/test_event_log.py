"""What a run's events are kept in, and what they are read as."""

import tracemalloc

import pytest

from chainserve.stores.base import LogTruncatedError
from chainserve.stores.log import EVENT_OVERHEAD_BYTES, EventLog
from chainserve.types import RunId
from chainserve.wire.events import Event, EventRange, end_event, metadata_event

METADATA = metadata_event(RunId("6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"))


def token(seq: int) -> Event:
    return Event(seq, "data", b'"token %d"' % seq)


def log_of(*events: Event) -> EventLog:
    log = EventLog()
    log.append(events)
    return log


def test_a_log_takes_no_more_memory_than_it_counts() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        log = EventLog()
        for seq in range(1000):
            log.append((token(seq),))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert taken < log.size


def test_events_come_back_as_they_were_appended_alone_or_together() -> None:
    events = [METADATA, *map(token, range(1, 9)), end_event(9)]
    alone, ranges = EventLog(), EventLog()
    for event in events:
        alone.append((event,))
    for start, stop in ((0, 1), (1, 5), (5, 10)):
        ranges.append(EventRange.of(events[start:stop]))

    for log in (log_of(*events), alone, ranges):
        assert [*log.read_after(-1, 1000)[0]] == events
        assert log.size == sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in events)


def test_a_range_that_is_partly_there_is_appended_from_what_is_missing() -> None:
    log = log_of(token(0), token(1))

    log.append(EventRange.of([token(1), token(2)]))
    log.append(EventRange.of([token(4)]))

    assert [*log.read_after(-1, 1000)[0]] == [token(0), token(1), token(2)]


def test_a_trimmed_log_is_read_and_written_on_from_where_it_is() -> None:
    log = log_of(METADATA, *map(token, range(1, 100)))
    before = log.size

    freed = log.trim(1000)
    log.append((token(100), end_event(101)))

    assert log.size < 1000 + EVENT_OVERHEAD_BYTES * 2 + len(token(100).data + end_event(101).data)
    assert freed == before - sum(
        len(token(seq).data) + EVENT_OVERHEAD_BYTES for seq in range(log.first, 100)
    )
    with pytest.raises(LogTruncatedError):
        log.read_after(log.first - 2, 1000)
    events, more = log.read_after(log.first - 1, 10_000)
    assert [*events] == [*map(token, range(log.first, 101)), end_event(101)]
    assert not more


def test_a_range_is_a_sequence_of_events() -> None:
    events = [METADATA, token(1), token(2), end_event(3)]
    packed = EventRange.of(events)

    assert packed == events
    assert packed != events[1:]
    assert packed != 4
    assert len(packed) == 4
    assert [*packed] == events
    assert (packed[0], packed[-1], packed[1:3]) == (METADATA, end_event(3), [token(1), token(2)])
    assert token(2) in packed
    with pytest.raises(IndexError):
        packed[4]
    assert EventRange.of(packed) is packed
    assert [*EventRange.of([])] == []


def test_what_was_read_stays_when_its_log_is_trimmed() -> None:
    log = log_of(METADATA, *map(token, range(1, 100)))
    events, _ = log.read_after(-1, 100)
    was = [*events]

    log.trim(200)

    assert [*events] == was
