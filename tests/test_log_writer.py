"""When a run's chunks come into its log."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from chainserve.log_writer import LogWriter
from chainserve.types import RunId
from chainserve.wire.events import Event

pytestmark = pytest.mark.anyio


class Log:
    """Notes what is appended, in one step each; fails, or waits, if told so."""

    def __init__(self) -> None:
        self.appended: list[list[Event]] = []
        self.failure: Exception | None = None
        self.waits = False

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        if self.waits:
            await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.appended.append([*events])


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def run() -> Any:
    return SimpleNamespace(id=RunId("a"), next_seq=1, status="running")


def chunk(seq: int, data: bytes) -> Event:
    return Event(seq, "data", data)


async def write(writer: LogWriter, *chunks: bytes) -> None:
    for data in chunks:
        if writer.add(data):
            await writer.flush()


async def test_the_first_chunk_is_appended_at_once_and_the_others_when_the_loop_goes_on(
    log: Log, run: Any
) -> None:
    writer = LogWriter(run, log.append)

    await write(writer, b"1", b"2", b"3")
    assert log.appended == [[chunk(1, b"1")]]
    assert run.next_seq == 2

    await asyncio.sleep(0)
    assert log.appended[1:] == [[chunk(2, b"2"), chunk(3, b"3")]]
    assert run.next_seq == 4

    await write(writer, b"4")
    assert log.appended[2:] == [[chunk(4, b"4")]]


async def test_what_is_kept_is_appended_before_the_writer_goes_on(log: Log, run: Any) -> None:
    writer = LogWriter(run, log.append)
    await write(writer, b"1", b"2")

    await writer.flush()
    await writer.flush()

    assert log.appended == [[chunk(1, b"1")], [chunk(2, b"2")]]


async def test_what_comes_after_a_pause_of_the_writer_follows_unless_the_chain_waits_too(
    log: Log, run: Any
) -> None:
    writer = LogWriter(run, log.append)
    await write(writer, b"1")
    await asyncio.sleep(0)

    writer.go_on()
    assert not writer.add(b"2")
    await asyncio.sleep(0)
    assert writer.add(b"3")


async def test_what_a_chain_has_said_before_it_fails_is_appended(log: Log, run: Any) -> None:
    async def fail() -> None:
        async with LogWriter(run, log.append) as writer:
            await write(writer, b"1", b"2")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await fail()

    assert log.appended == [[chunk(1, b"1")], [chunk(2, b"2")]]


async def test_a_store_that_may_wait_gets_each_chunk_that_is_flushed(log: Log, run: Any) -> None:
    log.waits = True
    writer = LogWriter(run, log.append)

    for data in (b"1", b"2"):
        writer.add(data)
        await writer.flush()

    assert log.appended == [[chunk(1, b"1")], [chunk(2, b"2")]]


async def test_a_run_that_was_ended_gets_no_more_chunks_though_some_are_kept(
    log: Log, run: Any
) -> None:
    writer = LogWriter(run, log.append)
    await write(writer, b"1", b"2")

    run.status = "cancelled"
    await asyncio.sleep(0)
    await writer.flush()

    assert log.appended == [[chunk(1, b"1")]]
    assert run.next_seq == 2  # The terminal event comes next.


async def test_a_store_that_fails_while_the_chain_waits_is_told_to_the_writer(
    log: Log, run: Any
) -> None:
    writer = LogWriter(run, log.append)
    await write(writer, b"1", b"2")
    log.failure = OSError("full")
    await asyncio.sleep(0)

    with pytest.raises(OSError, match="full"):
        await write(writer, b"3")


async def test_a_store_that_waits_and_said_it_does_not_is_told_to_the_writer(
    log: Log, run: Any
) -> None:
    writer = LogWriter(run, log.append)
    await write(writer, b"1", b"2")
    log.waits = True
    await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="does not suspend"):
        await writer.flush()
