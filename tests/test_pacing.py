"""How far a run writes ahead of those who read its log, and when it lets others have the loop."""

import asyncio
from dataclasses import dataclass

import pytest

from chainserve.pacing import Follower, Turns, WriterPace

pytestmark = pytest.mark.anyio

LEAD = 1_000_000


@dataclass(eq=False)
class Reader:
    """A follower that is where a test puts it."""

    cursor: int = -1


def pace_of(*followers: Follower) -> WriterPace:
    return WriterPace({*followers}, LEAD)


async def write(pace: WriterPace, events: range, size: int = 100_000) -> None:
    for seq in events:
        assert pace.is_due(size)
        await pace.give_way(seq - 1, size)


async def is_held(writer: asyncio.Task[None]) -> bool:
    """Tell whether a writer waits, and not only for the others' turn."""
    done, _ = await asyncio.wait((writer,), timeout=0.1)
    return not done


@pytest.mark.parametrize("ended_at", [0.0, 1.0])
async def test_others_have_the_loop_before_a_turn(ended_at: float) -> None:
    ran: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(ran.append, "others")

    ends = await Turns().next(ended_at, waited=False)

    assert ran == ["others"]
    assert loop.time() < ends < loop.time() + 1


async def test_a_chain_that_has_waited_by_itself_has_its_turn_at_once() -> None:
    ran: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(ran.append, "others")

    ends = await Turns().next(1.0, waited=True)

    assert ran == []
    assert ends > loop.time()


async def test_the_first_chunks_of_those_who_begin_together_are_sent_before_any_goes_on() -> None:
    turns, happened = Turns(), list[str]()
    loop = asyncio.get_running_loop()

    async def write(name: str) -> None:
        loop.call_soon(happened.append, f"{name} is sent")
        await turns.next(0.0, waited=False)
        happened.append(f"{name} goes on")

    await asyncio.gather(*(write(name) for name in "abc"))

    sent, went_on = happened[:3], happened[3:]
    assert sent == ["a is sent", "b is sent", "c is sent"]
    assert went_on == ["a goes on", "b goes on", "c goes on"]


async def test_those_who_keep_the_loop_busy_have_it_one_after_another() -> None:
    turns, happened = Turns(), list[str]()

    async def write(name: str) -> None:
        for _ in range(3):
            await turns.next(1.0, waited=False)
            happened.append(name)

    async def go_round() -> None:
        while len(writers) > sum(writer.done() for writer in writers):
            happened.append("-")
            await asyncio.sleep(0)

    writers = [asyncio.create_task(write(name)) for name in "abc"]
    await go_round()

    between = "".join(happened).split("-")
    assert "".join(between) == "abcabcabc"
    assert {len(names) for names in between} == {0, 1}


async def test_a_writer_that_is_cancelled_while_it_waits_for_its_turn_keeps_nobody_waiting() -> (
    None
):
    turns = Turns()
    waiting = [asyncio.create_task(turns.next(1.0, waited=False)) for _ in range(3)]
    await asyncio.sleep(0)

    waiting[0].cancel()
    waiting[1].cancel()

    async with asyncio.timeout(20):
        await waiting[2]
        await turns.next(1.0, waited=False)


async def test_a_writer_that_nobody_follows_does_not_wait() -> None:
    async with asyncio.timeout(20):
        await write(pace_of(), range(1000))


async def test_a_writer_waits_until_its_slowest_follower_has_come_near() -> None:
    near, far = Reader(cursor=1000), Reader()
    pace = pace_of(near, far)
    await write(pace, range(9))
    writer = asyncio.create_task(write(pace, range(9, 15)))
    assert await is_held(writer)

    far.cursor = 5
    async with asyncio.timeout(20):
        await writer


async def test_a_follower_that_leaves_is_not_waited_for() -> None:
    followers: set[Follower] = {Reader()}
    writer = asyncio.create_task(write(WriterPace(followers, LEAD), range(100)))
    assert await is_held(writer)

    followers.clear()
    async with asyncio.timeout(20):
        await writer


@pytest.mark.parametrize("size", [LEAD - 2000, LEAD, 10 * LEAD])
async def test_large_chunks_are_written_one_after_another(size: int) -> None:
    reader = Reader()
    writer = asyncio.create_task(write(pace_of(reader), range(4), size))
    for cursor in range(3):
        assert await is_held(writer)
        reader.cursor = cursor
    async with asyncio.timeout(20):
        await writer


async def test_one_that_joins_late_is_waited_for_from_where_the_writer_was() -> None:
    followers: set[Follower] = set()
    pace = WriterPace(followers, LEAD)
    await write(pace, range(100))
    late = Reader()
    followers.add(late)
    writer = asyncio.create_task(write(pace, range(100, 120)))
    assert await is_held(writer)

    late.cursor = 115
    async with asyncio.timeout(20):
        await writer
