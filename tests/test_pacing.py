"""How far a run writes ahead of those who read its log."""

import asyncio
from dataclasses import dataclass

import pytest

from chainserve.pacing import Follower, WriterPace

pytestmark = pytest.mark.anyio


@dataclass(eq=False)
class Reader:
    """A follower that is where a test puts it."""

    cursor: int = -1


async def write(pace: WriterPace, events: range) -> None:
    """Write events of 100,000 bytes."""
    for seq in events:
        assert pace.is_due(100_000)
        await pace.give_way(seq)


async def test_a_writer_that_nobody_follows_does_not_wait() -> None:
    async with asyncio.timeout(5):
        await write(WriterPace(set(), max_lead=300_000, timeout=100), range(1000))


async def test_a_writer_waits_until_its_slowest_follower_has_come_near() -> None:
    near, far = Reader(cursor=1000), Reader()
    pace = WriterPace({near, far}, max_lead=1_000_000, timeout=100)
    await write(pace, range(9))
    writer = asyncio.create_task(write(pace, range(9, 15)))
    done, _ = await asyncio.wait((writer,), timeout=0.1)
    assert not done

    far.cursor = 5
    async with asyncio.timeout(5):
        await writer


async def test_a_follower_that_leaves_is_not_waited_for() -> None:
    followers: set[Follower] = {Reader()}
    pace = WriterPace(followers, max_lead=1_000_000, timeout=100)
    writer = asyncio.create_task(write(pace, range(100)))
    done, _ = await asyncio.wait((writer,), timeout=0.1)
    assert not done

    followers.clear()
    async with asyncio.timeout(5):
        await writer


async def test_a_follower_that_comes_no_nearer_is_waited_for_once() -> None:
    loop = asyncio.get_running_loop()
    stuck, moving = Reader(), Reader(cursor=10_000)
    followers: set[Follower] = {stuck, moving}
    began = loop.time()
    await write(WriterPace(followers, max_lead=1_000_000, timeout=0.1), range(100))

    assert followers == {moving}
    assert loop.time() - began >= 0.1
