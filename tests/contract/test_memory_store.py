"""What the store in memory promises beyond every store: its accounting and its expiry."""

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from chainserve.stores.log import EVENT_OVERHEAD_BYTES
from chainserve.stores.memory import MemoryStore
from chainserve.types import RunId
from chainserve.wire.events import Event, end_event
from tests.contract._stores import LOG_TTL, RUN_TTL, Clock, Watcher, chunk, finish, keyed, record

pytestmark = pytest.mark.anyio

A = RunId("a")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(
        max_log_bytes=10**6,
        max_run_log_bytes=10**6,
        max_runs=100,
        log_ttl=LOG_TTL,
        run_ttl=RUN_TTL,
        clock=clock,
    )


def size(*events: Event) -> int:
    return sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in events)


async def test_logs_and_outputs_are_counted(store: MemoryStore) -> None:
    await store.create(record(), log=True)
    for _ in range(2):
        await store.append(A, [chunk(0, size=10), chunk(1, size=20)])
    assert store.log_bytes == size(chunk(0, size=10), chunk(1, size=20))

    await finish(store, "a", 2, output=b"12345")
    assert store.log_bytes == size(chunk(0, size=10), chunk(1, size=20), end_event(2)) + 5


async def test_forgetting_a_run_gives_its_bytes_back(store: MemoryStore) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(0)])
    await finish(store, "a", 1, output=b"12345")

    await store.delete(A)

    assert store.log_bytes == 0


async def test_using_an_id_again_gives_the_bytes_of_the_former_run_back(
    store: MemoryStore,
) -> None:
    await store.create(record(), log=True)
    await finish(store, "a", 0, output=b"12345")
    await store.create(record(), log=True)

    assert store.log_bytes == 0


async def test_expiring_drops_without_a_reader_what_is_past_its_time(
    store: MemoryStore, clock: Clock
) -> None:
    await store.create(keyed("a"), log=True)
    await finish(store, "a", 0, output=b"12345")

    clock.now = LOG_TTL
    assert store.log_bytes == size(end_event(0)) + 5
    store.expire()
    assert store.log_bytes == 5
    clock.now = RUN_TTL
    store.expire()
    assert store.log_bytes == 0


async def test_creating_or_ending_a_run_drops_what_is_past_its_time(
    store: MemoryStore, clock: Clock
) -> None:
    for name in "ab":
        await store.create(record(name), log=True)
    await finish(store, "a", 0, output=b"12345")
    clock.now = LOG_TTL
    await store.create(record("c"), log=True)
    assert store.log_bytes == 5

    clock.now = RUN_TTL
    await store.finish(record("b", status="success"))
    assert store.log_bytes == 0


async def test_what_is_past_its_time_goes_before_a_bound_takes_anything(clock: Clock) -> None:
    store = MemoryStore(
        max_log_bytes=size(*[chunk(0)] * 3),
        max_run_log_bytes=10**6,
        max_runs=9,
        log_ttl=LOG_TTL,
        run_ttl=RUN_TTL,
        clock=clock,
    )
    await store.create(record("a"), log=True)
    await store.append(A, [chunk(0), chunk(1)])
    final = await finish(store, "a", output=b"12345")
    await store.create(record("b"), log=True)

    clock.now = LOG_TTL
    await store.append(RunId("b"), [chunk(0), chunk(1)])

    assert await store.get(A) == final
    assert store.log_bytes == size(chunk(0), chunk(1)) + 5


async def test_a_record_may_expire_before_its_log_would(clock: Clock) -> None:
    store = MemoryStore(
        max_log_bytes=10**6,
        max_run_log_bytes=10**6,
        max_runs=9,
        log_ttl=RUN_TTL,
        run_ttl=LOG_TTL,
        clock=clock,
    )
    await store.create(keyed("a"), log=True)
    await finish(store, "a", 0)
    clock.now = LOG_TTL

    assert await store.get(A) is None
    assert store.log_bytes == 0
    assert await store.create(keyed("b"), log=True) == keyed("b")


async def test_expiring_costs_the_same_however_many_runs_are_kept(
    store: MemoryStore, clock: Clock
) -> None:
    idle = calls_of(store.expire)
    watchers = []
    for number in range(50):
        await store.create(record(f"past its time {number}"), log=True)
        watchers.append(Watcher(store, f"past its time {number}"))
        await finish(store, f"past its time {number}", 0)
    clock.now = RUN_TTL
    await store.create(record("recent"), log=True)
    await finish(store, "recent", 0)

    assert calls_of(store.expire) == idle
    assert len(await store.list_runs("/chat", owner=None)) == 51
    for watcher in watchers:
        watcher.leave()
    assert store.log_bytes == size(end_event(0))


def calls_of(function: Callable[[], None]) -> int:
    """Count the calls that a call makes, in Python and in C."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    function()
    sys.setprofile(None)
    return calls
