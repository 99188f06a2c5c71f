"""What every store promises; a new one is added to the fixture and to nothing else."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from chainserve.errors import RunIdInUseError
from chainserve.stores.base import (
    BEFORE_FIRST,
    LogNotFoundError,
    LogTruncatedError,
    RunRecord,
    Store,
)
from chainserve.stores.memory import EVENT_OVERHEAD_BYTES, MemoryStore
from chainserve.types import RunId
from chainserve.wire.events import Event, end_event

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_store(clock: Clock) -> Callable[..., Store]:
    def make(
        max_log_bytes: int = 10**6, max_run_log_bytes: int = 10**6, max_runs: int = 100
    ) -> Store:
        return MemoryStore(
            max_log_bytes=max_log_bytes,
            max_run_log_bytes=max_run_log_bytes,
            max_runs=max_runs,
            log_ttl=300,
            run_ttl=3600,
            clock=clock,
        )

    return make


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()


def record(name: str = "a") -> RunRecord:
    return RunRecord(
        run_id=RunId(name), path="/chat", mode="stream", status="running", created_at=0.0
    )


def chunk(seq: int, size: int = 1) -> Event:
    return Event(seq, "data", b"x" * size)


async def finish(store: Store, name: str, seq: int) -> bool:
    return await store.finish(replace(record(name), status="success"), end_event(seq))


async def read_all(store: Store, name: str = "a", after: int = BEFORE_FIRST) -> list[Event]:
    """Read to the end as a reader does: again and again from the last number."""
    events: list[Event] = []
    more = True
    while more:
        part, more = await store.read_after(RunId(name), after)
        events += part
        after = events[-1].seq if events else after
    return events


async def test_events_are_read_in_order_from_any_position(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(seq) for seq in range(10)])

    for after in range(BEFORE_FIRST, 10):
        assert [event.seq for event in await read_all(store, after=after)] == [
            *range(after + 1, 10)
        ]


async def test_a_cursor_at_or_past_the_end_reads_nothing(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(0)])

    assert await store.read_after(RunId("a"), 0) == ([], False)
    assert await store.read_after(RunId("a"), 99) == ([], False)


async def test_appending_again_changes_nothing(store: Store) -> None:
    await store.create(record(), log=True)
    for _ in range(2):
        await store.append(RunId("a"), [chunk(0), chunk(1)])

    assert await read_all(store) == [chunk(0), chunk(1)]


async def test_a_read_is_bounded_but_never_empty_before_the_end(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(seq, size=100) for seq in range(5)])

    assert await store.read_after(RunId("a"), BEFORE_FIRST, max_bytes=10) == (
        [chunk(0, size=100)],
        True,
    )
    events, more = await store.read_after(RunId("a"), BEFORE_FIRST, max_bytes=250)
    assert ([event.seq for event in events], more) == ([0, 1], True)
    events, more = await store.read_after(RunId("a"), 1, max_bytes=300)
    assert ([event.seq for event in events], more) == ([2, 3, 4], False)


async def test_the_final_state_and_the_terminal_event_are_written_once(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(0)])

    assert await finish(store, "a", 1)
    assert not await store.finish(replace(record(), status="cancelled"), end_event(1))
    await store.append(RunId("a"), [chunk(2)])

    found = await store.get(RunId("a"))
    assert found is not None
    assert found.status == "success"
    assert await read_all(store) == [chunk(0), end_event(1)]


async def test_a_watcher_is_woken_by_each_append_and_told_of_the_end(store: Store) -> None:
    await store.create(record(), log=True)
    woken: list[bool] = []
    unwatch = store.watch(RunId("a"), woken.append)

    await store.append(RunId("a"), [chunk(0)])
    await finish(store, "a", 1)
    unwatch()
    unwatch()
    await store.delete(RunId("a"))

    assert woken == [False, True]


async def test_the_id_of_a_run_that_has_not_ended_is_refused(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(0)])

    with pytest.raises(RunIdInUseError):
        await store.create(record(), log=False)
    assert await read_all(store) == [chunk(0)]


async def test_the_id_of_a_run_that_has_ended_begins_a_new_log(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(0, size=5)])
    await finish(store, "a", 1)

    await store.create(record(), log=True)

    assert await read_all(store) == []
    await store.append(RunId("a"), [chunk(0)])
    assert await finish(store, "a", 1)
    assert await read_all(store) == [chunk(0), end_event(1)]


async def test_an_unknown_run_has_no_record_and_no_log(store: Store) -> None:
    assert await store.get(RunId("b")) is None
    assert not await finish(store, "b", 0)
    await store.delete(RunId("b"))
    await store.append(RunId("b"), [chunk(0)])
    with pytest.raises(LogNotFoundError):
        await store.read_after(RunId("b"), BEFORE_FIRST)


async def test_a_log_over_its_bound_loses_its_oldest_events_and_says_so(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_run_log_bytes=10 * (EVENT_OVERHEAD_BYTES + 100))
    await store.create(record(), log=True)
    for seq in range(30):
        await store.append(RunId("a"), [chunk(seq, size=100)])

    with pytest.raises(LogTruncatedError) as caught:
        await store.read_after(RunId("a"), BEFORE_FIRST)
    earliest = caught.value.earliest
    assert 19 < earliest < 25
    assert [event.seq for event in await read_all(store, after=earliest - 1)] == [
        *range(earliest, 30)
    ]


async def test_one_event_over_the_bound_is_still_kept(make_store: Callable[..., Store]) -> None:
    store = make_store(max_run_log_bytes=50, max_log_bytes=50)
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(0, size=1000)])

    assert await read_all(store) == [chunk(0, size=1000)]


async def test_over_the_bound_of_all_logs_the_oldest_finished_one_goes_first(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=3 * (EVENT_OVERHEAD_BYTES + 1000) + 1000)
    for name in ("live", "old", "new"):
        await store.create(record(name), log=True)
        await store.append(RunId(name), [chunk(0, size=1000)])
    for name in ("old", "new"):
        await finish(store, name, 1)

    await store.append(RunId("live"), [chunk(1, size=1000)])

    with pytest.raises(LogNotFoundError):
        await store.read_after(RunId("old"), BEFORE_FIRST)
    assert len(await read_all(store, "new")) == 2
    assert len(await read_all(store, "live")) == 2
    assert await store.get(RunId("old")) is not None


async def test_where_only_live_runs_are_left_the_writer_loses_its_own_oldest(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=4 * (EVENT_OVERHEAD_BYTES + 1000))
    for name in ("quiet", "writer"):
        await store.create(record(name), log=True)
    await store.append(RunId("quiet"), [chunk(0, size=1000)])
    for seq in range(5):
        await store.append(RunId("writer"), [chunk(seq, size=1000)])

    assert await read_all(store, "quiet") == [chunk(0, size=1000)]
    with pytest.raises(LogTruncatedError):
        await store.read_after(RunId("writer"), BEFORE_FIRST)


async def test_a_finished_log_expires_before_its_record(store: Store, clock: Clock) -> None:
    await store.create(record(), log=True)
    await finish(store, "a", 0)

    clock.now = 301
    await store.create(record("b"), log=True)
    with pytest.raises(LogNotFoundError):
        await store.read_after(RunId("a"), BEFORE_FIRST)
    assert await store.get(RunId("a")) is not None

    clock.now = 3601
    await store.create(record("c"), log=True)
    assert await store.get(RunId("a")) is None
    assert await store.get(RunId("b")) is not None


async def test_a_log_that_is_being_read_does_not_expire(store: Store, clock: Clock) -> None:
    await store.create(record(), log=True)
    unwatch = store.watch(RunId("a"), lambda _: None)
    await finish(store, "a", 0)

    clock.now = 301
    await store.create(record("b"), log=True)
    assert await read_all(store) == [end_event(0)]
    unwatch()
    await store.create(record("c"), log=True)
    with pytest.raises(LogNotFoundError):
        await store.read_after(RunId("a"), BEFORE_FIRST)


async def test_over_the_bound_of_records_the_oldest_finished_run_is_forgotten(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_runs=3)
    for name in ("live", "old", "new"):
        await store.create(record(name), log=True)
    for name in ("old", "new"):
        await finish(store, name, 0)

    await store.create(record("next"), log=True)
    await finish(store, "next", 0)

    assert await store.get(RunId("old")) is None
    assert [await store.get(RunId(name)) is not None for name in ("live", "new", "next")] == [
        True
    ] * 3


async def test_a_run_whose_log_is_being_read_is_not_forgotten_for_others(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_runs=1)
    await store.create(record("read"), log=True)
    unwatch = store.watch(RunId("read"), lambda _: None)
    await finish(store, "read", 0)
    for name in ("b", "c"):
        await store.create(record(name), log=True)
        await finish(store, name, 0)

    assert await read_all(store, "read") == [end_event(0)]
    unwatch()
    await store.create(record("d"), log=True)
    await finish(store, "d", 0)
    assert await store.get(RunId("read")) is None


async def test_forgetting_a_run_gives_its_bytes_back_and_wakes_its_readers(
    clock: Clock,
) -> None:
    store = MemoryStore(
        max_log_bytes=10**6, max_run_log_bytes=10**6, max_runs=9, log_ttl=1, run_ttl=1, clock=clock
    )
    await store.create(record(), log=True)
    await store.append(RunId("a"), [chunk(0)])
    woken = asyncio.Event()
    store.watch(RunId("a"), lambda _: woken.set())

    await store.delete(RunId("a"))

    assert woken.is_set()
    assert store.log_bytes == 0
