"""The ways in which a run is ended from outside, to be compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from tests._calls import given
from tests._chains import WAIT_SECONDS
from tests._equivalence import IT_GOES_ON, Call, Verb, end
from tests._journal import INPUT, Journal

_TURNS = 50


def left_after(count: int) -> Verb:
    """Return a stream that is closed after so many chunks."""

    async def verb(call: Call) -> None:
        chunks = call.stream("inline")
        async with aclosing(cast("Any", chunks)):
            await _read_some(call, chunks, count)
            call.journal.leave()
        call.journal.add("closed")

    return verb


def dropped_after(count: int) -> Verb:
    """Return a stream that is dropped without being closed after so many chunks."""

    async def verb(call: Call) -> None:
        call.journal.leave()
        await _read_some(call, call.stream("inline"), count)
        call.journal.add("dropped")

    return verb


async def _read_some(call: Call, chunks: AsyncIterator[Any], count: int) -> None:
    if not count:
        return
    async for chunk in chunks:
        call.journal.chunk(chunk)
        count -= 1
        if not count:
            return


def cancelled_after(count: int) -> Verb:
    """Return a stream that is cancelled while it waits behind so many chunks of its input."""

    async def verb(call: Call) -> None:
        waits = asyncio.Event()
        chunks = _stalling(call, count, waits)
        stream = call.read(call.runnable.atransform(chunks, call.config("inline")))
        task = asyncio.create_task(stream)
        await until(waits, task)
        await cancel(call.journal, task)

    return verb


async def _stalling(call: Call, count: int, waits: asyncio.Event) -> AsyncIterator[Any]:
    async for chunk in given(call.journal, call.case.chunks[:count]):
        yield chunk
    waits.set()
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        call.journal.note(INPUT, "is left while it waits", type(error))
        raise


async def cancel(journal: Journal, task: asyncio.Task[Any]) -> None:
    """Cancel a task, and add how it ends."""
    journal.leave()
    journal.add("cancel")
    if await end(journal, [task]):
        journal.add(await task)
    else:
        journal.add(IT_GOES_ON)


async def until(event: asyncio.Event, task: asyncio.Task[Any]) -> None:
    """Wait for an event, or for the end of a task that never comes to it."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, task], timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    # What can go on does, so that all wait.
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def left_events(count: int) -> Verb:
    """Return `astream_events` that is closed after so many events."""

    async def verb(call: Call) -> None:
        call.journal.events_alone = True
        events = call.runnable.astream_events(call.input, call.config(), version="v2")
        left = count
        async with aclosing(cast("Any", events)):
            async for event in events:
                call.journal.event(event)
                left -= 1
                if not left:
                    break
        call.journal.add("closed")

    return verb


async def cancelled_in_a_stall(call: Call) -> None:
    """Cancel a stream while a step of it waits."""
    task = asyncio.create_task(call.read(call.stream("inline")))
    await until(call.journal.stalls, task)
    await cancel(call.journal, task)


async def cancelled_invocation(call: Call) -> None:
    """Cancel an invocation while a step of it waits."""
    task = asyncio.create_task(call.runnable.ainvoke(call.input, call.config("inline")))
    await until(call.journal.stalls, task)
    await cancel(call.journal, task)


async def cancelled_alone(call: Call) -> None:
    """Cancel an invocation that nobody is told of."""
    task = asyncio.create_task(call.runnable.ainvoke(call.input, call.config()))
    await until(call.journal.stalls, task)
    await cancel(call.journal, task)


async def cancelled_events(call: Call) -> None:
    """Cancel `astream_events` while a step waits."""

    async def read() -> None:
        async for event in call.runnable.astream_events(call.input, call.config(), version="v2"):
            call.journal.event(event)

    task = asyncio.create_task(read())
    await until(call.journal.stalls, task)
    await cancel(call.journal, task)
