"""What every store promises; a new one is added to the fixture and to nothing else."""

import asyncio
from collections.abc import Callable

import pytest

from chainserve.errors import RunIdInUseError
from chainserve.stores.base import BEFORE_FIRST, LogNotFoundError, LogTruncatedError, Store
from chainserve.stores.memory import MemoryStore
from chainserve.types import RunId
from chainserve.wire.events import end_event, error_event
from tests.contract._stores import (
    LOG_TTL,
    RUN_TTL,
    Clock,
    LeavingWatcher,
    Watcher,
    chunk,
    finish,
    ignore,
    keyed,
    read_all,
    record,
)

pytestmark = pytest.mark.anyio

LARGE = 10_000
"""The data of a large event, beside which no store's overhead counts."""

A, B = RunId("a"), RunId("b")


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
            log_ttl=LOG_TTL,
            run_ttl=RUN_TTL,
            clock=clock,
        )

    return make


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()


async def names(store: Store, path: str = "/chat", limit: int = 100) -> list[str]:
    """List the ids of a chain's runs, of every owner."""
    listed = await store.list_runs(path, owner=None, every_owner=True, limit=limit)
    return [found.run_id for found in listed]


async def has_log(store: Store, name: str = "a") -> bool:
    try:
        await store.read_after(RunId(name), BEFORE_FIRST)
    except LogNotFoundError:
        return False
    return True


# Logs


async def test_events_are_read_in_order_from_any_position(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(seq) for seq in range(10)])

    for after in range(BEFORE_FIRST, 10):
        assert [event.seq for event in await read_all(store, after=after)] == [
            *range(after + 1, 10)
        ]


async def test_a_cursor_at_or_past_the_end_reads_nothing(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(0)])

    assert await store.read_after(A, 0) == ([], False)
    assert await store.read_after(A, 99) == ([], False)


async def test_appending_again_changes_nothing(store: Store) -> None:
    await store.create(record(), log=True)
    for _ in range(2):
        await store.append(A, [chunk(0), chunk(1)])

    assert await read_all(store) == [chunk(0), chunk(1)]


async def test_an_append_that_would_leave_a_gap_is_ignored(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(0), chunk(2)])

    assert await read_all(store) == [chunk(0)]
    await store.append(A, [chunk(1), chunk(2)])
    assert await read_all(store) == [chunk(0), chunk(1), chunk(2)]


async def test_a_read_is_bounded_but_never_empty_before_the_end(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(seq, size=100) for seq in range(5)])

    assert await store.read_after(A, BEFORE_FIRST, max_bytes=10) == ([chunk(0, size=100)], True)
    events, more = await store.read_after(A, BEFORE_FIRST, max_bytes=250)
    assert ([event.seq for event in events], more) == ([0, 1], True)
    events, more = await store.read_after(A, 1, max_bytes=300)
    assert ([event.seq for event in events], more) == ([2, 3, 4], False)


async def test_an_unknown_run_has_no_record_and_no_log(store: Store) -> None:
    assert await store.get(B) is None
    assert await finish(store, "b", 0) is None
    await store.delete(B)
    await store.append(B, [chunk(0)])
    assert not await has_log(store, "b")


async def test_a_run_without_a_log_has_a_record_alone(store: Store) -> None:
    await store.create(record(), log=False)
    await store.append(A, [chunk(0)])
    final = await finish(store, output=b"1")

    assert await store.get(A) == final
    assert not await has_log(store)


# The beginning and the end of a run


async def test_creating_a_run_returns_its_record(store: Store) -> None:
    assert await store.create(record(), log=True) == record()
    assert await store.get(A) == record()


async def test_the_final_state_and_the_terminal_event_are_written_once(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(0)])

    final = await finish(store, "a", 1, output=b"1", last_seq=1)
    assert final is not None
    cancelled = error_event(1, {"status_code": 499, "message": "", "code": "cancelled"})
    assert not await store.finish(record()._replace(status="cancelled"), cancelled)
    await store.append(A, [chunk(2)])

    assert await store.get(A) == final
    assert await read_all(store) == [chunk(0), end_event(1)]


async def test_the_id_of_a_run_that_has_not_ended_is_refused(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(0)])

    with pytest.raises(RunIdInUseError):
        await store.create(record(), log=False)
    assert await read_all(store) == [chunk(0)]


@pytest.mark.parametrize("log", [True, False])
async def test_the_id_of_an_ended_run_that_is_watched_is_refused(store: Store, log: bool) -> None:
    await store.create(record(), log=log)
    watcher = Watcher(store)
    final = await finish(store, "a", 0)

    with pytest.raises(RunIdInUseError):
        await store.create(record(), log=log)
    assert await store.get(A) == final
    watcher.leave()
    await store.create(record(), log=log)
    assert await store.get(A) == record()


async def test_the_id_of_a_run_that_has_ended_begins_a_new_log(store: Store) -> None:
    await store.create(record(), log=True)
    await store.append(A, [chunk(0, size=5)])
    await finish(store, "a", 1, output=b"1")

    await store.create(record(), log=True)

    assert await store.get(A) == record()
    assert await read_all(store) == []
    await store.append(A, [chunk(0)])
    assert await finish(store, "a", 1)
    assert await read_all(store) == [chunk(0), end_event(1)]


@pytest.mark.parametrize("other", [{"owner": "ann"}, {"path": "/other"}])
async def test_the_id_of_somebody_elses_run_is_refused_even_if_it_has_ended(
    store: Store, other: dict[str, str]
) -> None:
    await store.create(record(), log=True)
    await finish(store, "a", 0, output=b"1")
    before = await store.get(A)

    with pytest.raises(RunIdInUseError):
        await store.create(record(**other), log=True)

    assert await store.get(A) == before
    assert await read_all(store) == [end_event(0)]


async def test_a_forgotten_run_leaves_nothing(store: Store) -> None:
    await store.create(record(), log=True)
    await finish(store, "a", 0)

    await store.delete(A)
    await store.delete(A)

    assert await store.get(A) is None
    assert await names(store) == []
    assert not await has_log(store)


# Idempotency keys


@pytest.mark.parametrize("fingerprint", ["body", "another body"])
async def test_a_key_returns_the_run_that_it_started(store: Store, fingerprint: str) -> None:
    await store.create(keyed("a"), log=True)
    await store.append(A, [chunk(0)])

    assert await store.create(keyed("b", fingerprint=fingerprint), log=True) == keyed("a")
    assert await store.get(B) is None
    assert not await has_log(store, "b")
    assert await read_all(store) == [chunk(0)]

    final = await finish(store, "a", 1)
    assert await store.create(keyed("a", fingerprint=fingerprint), log=True) == final


async def test_of_many_simultaneous_creates_under_one_key_one_starts_a_run(store: Store) -> None:
    created = await asyncio.gather(
        *(store.create(keyed(f"run {number}"), log=True) for number in range(20))
    )

    assert {found.run_id for found in created} == set(await names(store))
    assert len(await names(store)) == 1


async def test_runs_without_a_key_or_with_other_keys_are_runs_of_their_own(store: Store) -> None:
    runs = [record("a"), record("b"), keyed("c", "one"), keyed("d", "two")]
    for run in runs:
        assert await store.create(run, log=True) == run

    assert set(await names(store)) == set("abcd")


async def test_the_key_of_a_live_run_holds(store: Store, clock: Clock) -> None:
    await store.create(keyed("a"), log=True)
    clock.now = 10 * RUN_TTL

    assert await store.create(keyed("b"), log=True) == keyed("a")


@pytest.mark.parametrize("log", [True, False])
async def test_a_key_is_forgotten_when_its_log_expires_or_would(
    store: Store, clock: Clock, log: bool
) -> None:
    await store.create(keyed("a"), log=log)
    clock.now = 100
    final = await finish(store, "a", 0)

    clock.now = 100 + LOG_TTL - 1
    assert await store.create(keyed("b"), log=log) == final
    clock.now = 100 + LOG_TTL
    assert await store.create(keyed("b"), log=log) == keyed("b")
    assert await store.get(A) == final


@pytest.mark.parametrize("log", [True, False])
async def test_the_key_of_a_run_that_is_watched_holds(
    store: Store, clock: Clock, log: bool
) -> None:
    await store.create(keyed("a"), log=log)
    watcher = Watcher(store)
    final = await finish(store, "a", 0)
    clock.now = LOG_TTL

    assert await store.create(keyed("b"), log=log) == final
    watcher.leave()
    assert await store.create(keyed("b"), log=log) == keyed("b")


async def test_a_run_is_found_by_the_scope_of_its_key(store: Store) -> None:
    run = keyed("a")
    assert run.idempotency_key is not None
    await store.create(run, log=True)

    assert await store.find(run.idempotency_key.scope) == run
    assert await store.find("another scope") is None
    await store.delete(run.run_id)
    assert await store.find(run.idempotency_key.scope) is None


async def test_a_key_is_forgotten_with_its_run(store: Store) -> None:
    await store.create(keyed("a"), log=True)
    await finish(store, "a", 0)
    await store.delete(A)

    assert await store.create(keyed("b"), log=True) == keyed("b")


async def test_a_key_is_forgotten_when_the_id_of_its_run_is_used_again(store: Store) -> None:
    await store.create(keyed("a"), log=True)
    await finish(store, "a", 0)
    await store.create(keyed("a", "another key"), log=True)

    assert await store.create(keyed("b"), log=True) == keyed("b")


async def test_a_key_is_forgotten_when_its_log_is_dropped_for_a_bound(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=3 * LARGE)
    await store.create(keyed("a"), log=True)
    await store.append(A, [chunk(0, size=LARGE)])
    await finish(store, "a", 1)
    await store.create(record("b"), log=True)
    await store.append(B, [chunk(seq, size=LARGE) for seq in range(2)])

    assert not await has_log(store, "a")
    assert await store.create(keyed("c"), log=True) == keyed("c")


async def test_a_key_sent_with_the_id_of_a_live_run_is_not_kept(store: Store) -> None:
    await store.create(record("a"), log=True)
    with pytest.raises(RunIdInUseError):
        await store.create(keyed("a"), log=True)

    assert await store.create(keyed("b"), log=True) == keyed("b")


# Lists


async def test_runs_are_listed_the_newest_first(store: Store, clock: Clock) -> None:
    for at, name in enumerate("abc"):
        clock.now = at
        await store.create(record(name, created_at=at), log=name == "b")
    await finish(store, "b", 0)

    assert await names(store) == ["c", "b", "a"]
    assert await names(store, limit=2) == ["c", "b"]
    assert await names(store, limit=0) == []
    listed = await store.list_runs("/chat", owner=None)
    assert [found.status for found in listed] == ["running", "success", "running"]


async def test_a_run_whose_id_was_used_before_is_listed_once_and_as_new(store: Store) -> None:
    for at, name in enumerate("ab"):
        await store.create(record(name, created_at=at), log=True)
    await finish(store, "a", 0)
    await store.create(record("a", created_at=2), log=True)

    assert await names(store) == ["a", "b"]


async def test_a_list_is_of_one_chain(store: Store) -> None:
    await store.create(record("a"), log=True)
    await store.create(record("b", path="/chat/other"), log=True)

    assert await names(store) == ["a"]
    assert await names(store, path="/chat/other") == ["b"]
    assert await names(store, path="/") == []


async def test_a_list_is_of_one_owner_or_of_every_one(store: Store) -> None:
    for at, (name, owner) in enumerate([("a", "ann"), ("b", "bob"), ("c", None)]):
        await store.create(record(name, owner=owner, created_at=at), log=True)

    anns = await store.list_runs("/chat", owner="ann")
    nobodys = await store.list_runs("/chat", owner=None)
    assert [found.run_id for found in anns] == ["a"]
    assert [found.run_id for found in nobodys] == ["c"]
    assert await names(store) == ["c", "b", "a"]


async def test_the_runs_of_a_batch_are_listed_like_others(store: Store) -> None:
    for at, name in enumerate("ab"):
        await store.create(record(name, mode="batch", batch=(A, B), created_at=at), log=False)

    assert await names(store) == ["b", "a"]


# Watching


async def test_a_watcher_is_woken_by_each_append_and_told_of_the_end(store: Store) -> None:
    await store.create(record(), log=True)
    watcher = Watcher(store)

    await store.append(A, [chunk(0)])
    await finish(store, "a", 1)
    watcher.leave()
    watcher.leave()
    await store.delete(A)

    assert watcher.woken == [False, True]


async def test_a_run_without_a_log_can_be_watched(store: Store) -> None:
    await store.create(record(), log=False)
    watcher = Watcher(store)
    await finish(store)

    assert watcher.woken == [True]


@pytest.mark.parametrize("log", [True, False])
async def test_a_watcher_is_told_when_its_run_is_forgotten(store: Store, log: bool) -> None:
    await store.create(record(), log=log)
    watcher = Watcher(store)
    await store.delete(A)

    assert watcher.woken == [True]


async def test_watching_an_unknown_run_does_nothing(store: Store) -> None:
    watcher = Watcher(store)
    await store.create(record(), log=True)
    await finish(store, "a", 0)
    watcher.leave()

    assert watcher.woken == []


async def test_a_watcher_of_a_forgotten_run_is_none_of_the_next_with_its_id(store: Store) -> None:
    await store.create(record(), log=True)
    first = Watcher(store)
    await store.delete(A)
    await store.create(record(), log=True)
    second = Watcher(store)
    await finish(store, "a", 0, retained=False)
    first.leave()

    assert await has_log(store)
    assert (first.woken, second.woken) == ([True], [True])
    second.leave()
    assert not await has_log(store)


async def test_two_watches_with_one_function_end_by_themselves(store: Store) -> None:
    await store.create(record(), log=True)
    woken: list[bool] = []
    leave_first = store.watch(A, woken.append)
    leave_second = store.watch(A, woken.append)

    leave_first()
    leave_first()
    await store.append(A, [chunk(0)])
    leave_second()
    await store.append(A, [chunk(1)])

    assert woken == [False]


async def test_a_watcher_may_leave_while_it_is_woken(store: Store) -> None:
    await store.create(record(), log=True)
    watchers = [LeavingWatcher(store), Watcher(store), LeavingWatcher(store)]
    await store.append(A, [chunk(0)])
    await finish(store, "a", 1)

    assert [watcher.woken for watcher in watchers] == [[False], [False, True], [False]]


# Runs that are not retained


@pytest.mark.parametrize("log", [True, False])
async def test_a_run_that_is_not_retained_is_forgotten_when_it_ends(
    store: Store, log: bool
) -> None:
    await store.create(keyed("a"), log=log)
    assert await finish(store, "a", 0, retained=False)

    assert await store.get(A) is None
    assert await names(store) == []
    assert not await has_log(store)
    assert await finish(store, "a", 0) is None
    assert await store.create(keyed("b"), log=log) == keyed("b")


async def test_a_run_that_is_not_retained_is_read_to_its_end_by_all_who_watch(
    store: Store,
) -> None:
    await store.create(keyed("a"), log=True)
    watchers = [Watcher(store), Watcher(store)]
    final = await finish(store, "a", 0, retained=False, output=b"1")

    for watcher in watchers:
        assert watcher.woken == [True]
        assert await store.get(A) == final
        assert await store.create(keyed("b"), log=True) == final
        assert await read_all(store) == [end_event(0)]
        watcher.leave()

    assert await store.get(A) is None
    assert not await has_log(store)
    assert await store.create(keyed("b"), log=True) == keyed("b")


async def test_a_watcher_that_leaves_when_told_of_the_end_forgets_what_is_not_retained(
    store: Store,
) -> None:
    await store.create(keyed("a"), log=True)
    watcher = LeavingWatcher(store)
    assert await finish(store, "a", 0, retained=False)

    assert watcher.woken == [True]
    assert await store.get(A) is None
    assert await store.create(keyed("a"), log=True) == keyed("a")


# Expiry


async def test_a_finished_log_expires_before_its_record(store: Store, clock: Clock) -> None:
    await store.create(record(), log=True)
    final = await finish(store, "a", 0, output=b"1")

    clock.now = LOG_TTL
    assert not await has_log(store)
    assert await store.get(A) == final

    clock.now = RUN_TTL
    assert await store.get(A) is None


@pytest.mark.parametrize("log", [True, False])
async def test_an_expired_run_is_not_listed(store: Store, clock: Clock, log: bool) -> None:
    await store.create(record("a"), log=log)
    await store.create(record("b"), log=log)
    await finish(store, "a", 0)
    clock.now = RUN_TTL - 1
    assert set(await names(store)) == set("ab")

    clock.now = RUN_TTL
    assert await names(store) == ["b"]


@pytest.mark.parametrize("log", [True, False])
async def test_what_is_watched_does_not_expire(store: Store, clock: Clock, log: bool) -> None:
    await store.create(record(), log=log)
    watcher = Watcher(store)
    final = await finish(store, "a", 0)

    clock.now = RUN_TTL
    assert await store.get(A) == final
    assert await names(store) == ["a"]
    assert await has_log(store) == log
    watcher.leave()
    assert await store.get(A) is None
    assert not await has_log(store)


async def test_what_was_watched_past_its_time_expires_with_its_last_watcher(
    store: Store, clock: Clock
) -> None:
    await store.create(record(), log=True)
    watchers = [Watcher(store), Watcher(store)]
    await finish(store, "a", 0)

    clock.now = LOG_TTL
    watchers[0].leave()
    assert await has_log(store)
    watchers[1].leave()
    assert not await has_log(store)
    assert await store.get(A) is not None
    clock.now = RUN_TTL
    assert await store.get(A) is None


async def test_a_late_reader_keeps_an_ended_log(store: Store, clock: Clock) -> None:
    await store.create(record(), log=True)
    await finish(store, "a", 0)
    clock.now = LOG_TTL - 1
    watcher = Watcher(store)

    clock.now = LOG_TTL
    assert await read_all(store) == [end_event(0)]
    assert watcher.woken == []
    watcher.leave()
    assert not await has_log(store)


async def test_watching_does_not_bring_back_what_is_past_its_time(
    store: Store, clock: Clock
) -> None:
    await store.create(record(), log=True)
    await finish(store, "a", 0)
    clock.now = LOG_TTL
    store.watch(A, ignore)

    assert not await has_log(store)


async def test_a_run_that_ends_later_expires_later(store: Store, clock: Clock) -> None:
    await store.create(record("a"), log=True)
    await store.create(record("b"), log=True)
    await finish(store, "b", 0)
    clock.now = 10
    await finish(store, "a", 0)

    clock.now = LOG_TTL
    assert [await has_log(store, name) for name in "ab"] == [True, False]
    clock.now = 10 + LOG_TTL
    assert not await has_log(store, "a")


# Bounds


async def test_a_log_over_its_bound_loses_its_oldest_events_and_says_so(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_run_log_bytes=10 * LARGE)
    await store.create(record(), log=True)
    for seq in range(30):
        await store.append(A, [chunk(seq, size=LARGE)])

    with pytest.raises(LogTruncatedError) as caught:
        await store.read_after(A, BEFORE_FIRST)
    earliest = caught.value.earliest
    assert 19 < earliest < 25
    assert [event.seq for event in await read_all(store, after=earliest - 1)] == [
        *range(earliest, 30)
    ]


async def test_one_event_over_the_bound_is_still_kept(make_store: Callable[..., Store]) -> None:
    store = make_store(max_run_log_bytes=50, max_log_bytes=50)
    await store.create(record(), log=True)
    await store.append(A, [chunk(0, size=1000)])

    assert await read_all(store) == [chunk(0, size=1000)]


async def test_over_the_bound_of_all_logs_the_oldest_finished_one_goes_first(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=3 * LARGE + LARGE // 2)
    for name in ("live", "old", "new"):
        await store.create(record(name), log=True)
        await store.append(RunId(name), [chunk(0, size=LARGE)])
    for name in ("old", "new"):
        await finish(store, name, 1)

    await store.append(RunId("live"), [chunk(1, size=LARGE)])

    assert not await has_log(store, "old")
    assert len(await read_all(store, "new")) == 2
    assert len(await read_all(store, "live")) == 2
    assert await store.get(RunId("old")) is not None


async def test_an_output_counts_like_a_log_and_goes_with_it(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=3 * LARGE + LARGE // 2)
    for name, log in (("old", True), ("new", False), ("live", True)):
        await store.create(record(name), log=log)
    await finish(store, "old", 0, output=b"x" * LARGE)
    kept = await finish(store, "new", output=b"x" * LARGE)
    await store.append(RunId("live"), [chunk(seq, size=LARGE) for seq in range(2)])

    old = await store.get(RunId("old"))
    assert old is not None
    assert (old.status, old.output) == ("success", None)
    assert not await has_log(store, "old")
    assert await store.get(RunId("new")) == kept
    assert len(await read_all(store, "live")) == 2


async def test_an_output_for_which_live_runs_leave_no_room_is_not_kept(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=3 * LARGE)
    for name in "ab":
        await store.create(record(name), log=True)
        await store.append(RunId(name), [chunk(0, size=LARGE)])
    assert await finish(store, "a", 1, output=b"x" * LARGE)

    found = await store.get(A)
    assert found is not None
    assert (found.status, found.output) == ("success", None)
    assert await read_all(store, "a") == [chunk(0, size=LARGE), end_event(1)]
    assert len(await read_all(store, "b")) == 1


async def test_a_log_that_is_watched_goes_only_where_all_are(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=3 * LARGE + LARGE // 2)
    watchers = {}
    for name in ("first", "second", "third"):
        await store.create(record(name), log=True)
        await store.append(RunId(name), [chunk(0, size=LARGE)])
        await finish(store, name, 1)
        watchers[name] = Watcher(store, name)
    watchers["second"].leave()
    await store.create(record("live"), log=True)

    await store.append(RunId("live"), [chunk(0, size=LARGE)])
    assert [await has_log(store, name) for name in watchers] == [True, False, True]
    await store.append(RunId("live"), [chunk(1, size=LARGE)])
    assert [await has_log(store, name) for name in watchers] == [False, False, True]
    assert {name: watcher.woken for name, watcher in watchers.items()} == {
        "first": [True],
        "second": [],
        "third": [],
    }


async def test_where_only_live_runs_are_left_the_writer_loses_its_own_oldest(
    make_store: Callable[..., Store],
) -> None:
    store = make_store(max_log_bytes=4 * LARGE + LARGE // 2)
    for name in ("quiet", "writer"):
        await store.create(record(name), log=True)
    await store.append(RunId("quiet"), [chunk(0, size=LARGE)])
    for seq in range(5):
        await store.append(RunId("writer"), [chunk(seq, size=LARGE)])

    assert await read_all(store, "quiet") == [chunk(0, size=LARGE)]
    with pytest.raises(LogTruncatedError):
        await store.read_after(RunId("writer"), BEFORE_FIRST)


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

    assert set(await names(store)) == {"live", "new", "next"}


async def test_live_runs_are_not_forgotten_for_others(make_store: Callable[..., Store]) -> None:
    store = make_store(max_runs=2)
    for name in ("a", "b", "c"):
        await store.create(record(name), log=True)

    assert set(await names(store)) == set("abc")


@pytest.mark.parametrize("log", [True, False])
async def test_a_run_that_is_being_watched_is_not_forgotten_for_others(
    make_store: Callable[..., Store], log: bool
) -> None:
    store = make_store(max_runs=1)
    await store.create(record("read"), log=log)
    watcher = Watcher(store, "read")
    await finish(store, "read", 0)
    for name in ("b", "c"):
        await store.create(record(name), log=True)
        await finish(store, name, 0)

    assert await names(store) == ["read"]
    watcher.leave()
    await store.create(record("d"), log=True)
    await finish(store, "d", 0)
    assert await store.get(RunId("read")) is None
