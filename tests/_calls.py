"""The ways in which runnables are called to be compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from copy import deepcopy
from typing import Any, cast

from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from tests._chains import WAIT_SECONDS
from tests._equivalence import Call, Verb, end
from tests._journal import INPUT, Journal, handler
from tests._shown import shown, unordered, without_ids


async def astream(call: Call) -> None:
    """Stream, without any handler."""
    await call.read(call.stream())


async def ainvoke(call: Call) -> None:
    """Invoke, without any handler."""
    call.journal.add(await call.runnable.ainvoke(call.input, call.config()))


def told(kind: str, **members: Any) -> Verb:
    """Return a stream with a handler of that kind."""

    async def verb(call: Call) -> None:
        await call.read(call.stream(kind, **deepcopy(members)))

    return verb


async def atransform(call: Call) -> None:
    """Stream an input that comes in chunks."""
    chunks = _given(call.journal, call.case.chunks)
    await call.read(call.runnable.atransform(chunks, call.config("inline")))


async def ainvoke_told(call: Call) -> None:
    """Invoke, with a handler."""
    call.journal.add(await call.runnable.ainvoke(call.input, call.config("inline")))


async def abatch(call: Call) -> None:
    """Invoke with a list; of one input, since an error leaves the others running for a while."""
    call.journal.add(await call.runnable.abatch([call.input], call.config("inline")))


async def abatch_returning(call: Call) -> None:
    """Invoke with several inputs, one after the other, and get the errors among the outputs.

    Where the first fails, its steps may be closed while the second runs.
    """
    call.journal.runs_apart = True
    config = call.config("inline", max_concurrency=1)
    several = [call.input, call.input]
    outputs = await call.runnable.abatch(several, config, return_exceptions=True)
    call.journal.add(outputs)


async def in_tasks(call: Call) -> None:
    """Stream, and ask for each chunk in another task."""
    chunks = call.stream("inline")

    async def ask() -> Any:
        return await anext(chunks)

    while True:
        try:
            chunk = await asyncio.create_task(ask())
        except StopAsyncIteration:
            return
        call.journal.chunk(chunk)


async def two_at_once(call: Call) -> None:
    """Run two streams of one runnable, a chunk of each in turn."""
    call.journal.runs_apart = True
    waiting = [call.stream("inline"), call.stream("inline")]
    while waiting:
        for chunks in list(waiting):
            if not await _reads_one(call.journal, chunks):
                waiting.remove(chunks)


async def _reads_one(journal: Journal, chunks: AsyncIterator[Any]) -> bool:
    try:
        journal.chunk(await anext(chunks))
    except StopAsyncIteration:
        return False
    except Exception as error:  # noqa: BLE001
        journal.add("raised", error)
        return False
    return True


async def twice(call: Call) -> None:
    """Stream, and stream again."""
    await astream(call)
    await astream(call)


async def _given(journal: Journal, chunks: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield chunks, and note when they are asked for and how it ends."""
    try:
        for chunk in chunks:
            journal.note(INPUT, "is asked for", chunk)
            yield chunk
        journal.note(INPUT, "has ended")
    except BaseException as error:
        journal.note(INPUT, "is left", type(error))
        raise


def left_after(count: int) -> Verb:
    """Return a stream that is closed after so many chunks."""

    async def verb(call: Call) -> None:
        chunks = call.stream("inline")
        async with aclosing(cast("Any", chunks)):
            await _read_some(call, chunks, count)
        call.journal.add("closed")

    return verb


def dropped_after(count: int) -> Verb:
    """Return a stream that is dropped without being closed after so many chunks."""

    async def verb(call: Call) -> None:
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
        await _until(waits, task)
        await _cancel(call.journal, task)

    return verb


async def _stalling(call: Call, count: int, waits: asyncio.Event) -> AsyncIterator[Any]:
    async for chunk in _given(call.journal, call.case.chunks[:count]):
        yield chunk
    waits.set()
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        call.journal.note(INPUT, "is left while it waits", type(error))
        raise


async def _cancel(journal: Journal, task: asyncio.Task[Any]) -> None:
    journal.add("cancel")
    if await end([task]):
        journal.add(await task)
    else:
        journal.add("it goes on")


async def _until(event: asyncio.Event, task: asyncio.Task[Any]) -> None:
    """Wait for an event, or for the end of a task that never comes to it."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, task], timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


# What LangChain tells of a run in other forms.


def events(**options: Any) -> Verb:
    """Return `astream_events` with these options."""

    async def verb(call: Call) -> None:
        async for event in call.runnable.astream_events(call.input, call.config(), **options):
            call.journal.event(event)

    return verb


def events_and_handler(kind: str) -> Verb:
    """Return `astream_events` with a handler of that kind beside."""

    async def verb(call: Call) -> None:
        config = call.config(kind)
        async for event in call.runnable.astream_events(call.input, config, version="v2"):
            call.journal.event(event)

    return verb


def left_events(count: int) -> Verb:
    """Return `astream_events` that is closed after so many events."""

    async def verb(call: Call) -> None:
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


async def log(call: Call) -> None:
    """Stream the patches of a log."""
    patches = [patch async for patch in call.runnable.astream_log(call.input, call.config())]
    if not call.case.concurrent:
        for patch in patches:
            call.journal.add("patch", patch.ops)
        return
    total = patches[0]
    for patch in patches[1:]:
        total += patch
    state = cast("Any", total).state
    logs = [unordered(without_ids(shown(each))) for each in state.pop("logs").values()]
    state["streamed_output"].sort(key=repr)
    call.journal.add(state, *sorted(logs, key=repr))


async def traced(call: Call) -> None:
    """Stream with a tracer."""
    tracer = RunCollectorCallbackHandler()
    try:
        await call.read(call.stream(callbacks=[tracer]))
    finally:
        for run in tracer.traced_runs:
            view = shown(run)
            call.journal.add(unordered(without_ids(view)) if call.case.concurrent else view)


async def traced_invocation(call: Call) -> None:
    """Invoke with a tracer."""
    tracer = RunCollectorCallbackHandler()
    try:
        await call.runnable.ainvoke(call.input, call.config(callbacks=[tracer]))
    finally:
        for run in tracer.traced_runs:
            view = shown(run)
            call.journal.add(unordered(without_ids(view)) if call.case.concurrent else view)


# What LangChain does without a loop.


async def invoke(call: Call) -> None:
    """Invoke in a thread."""
    config = call.config("sync")
    call.journal.add(await asyncio.to_thread(call.runnable.invoke, call.input, config))


async def stream(call: Call) -> None:
    """Stream in a thread."""

    def read() -> None:
        for chunk in call.runnable.stream(call.input, call.config("sync")):
            call.journal.chunk(chunk)

    await asyncio.to_thread(read)


async def batch(call: Call) -> None:
    """Invoke with a list in a thread."""
    config = call.config("sync")
    outputs = await asyncio.to_thread(
        call.runnable.batch, [call.input], config, return_exceptions=True
    )
    call.journal.add(outputs)


def failing_handler(kind: str, method: str, *, raises: bool) -> Verb:
    """Return a stream with a handler that fails."""

    async def verb(call: Call) -> None:
        own = handler(call.journal, kind, fails=method, raises=raises)
        await call.read(call.stream(callbacks=[own]))

    return verb


async def cancelled_in_a_stall(call: Call) -> None:
    """Cancel a stream while a step of it waits."""
    task = asyncio.create_task(call.read(call.stream("inline")))
    await _until(call.journal.stalls, task)
    await _cancel(call.journal, task)


async def cancelled_invocation(call: Call) -> None:
    """Cancel an invocation while a step of it waits."""
    task = asyncio.create_task(call.runnable.ainvoke(call.input, call.config("inline")))
    await _until(call.journal.stalls, task)
    await _cancel(call.journal, task)


async def cancelled_events(call: Call) -> None:
    """Cancel `astream_events` while a step waits."""

    async def read() -> None:
        async for event in call.runnable.astream_events(call.input, call.config(), version="v2"):
            call.journal.event(event)

    task = asyncio.create_task(read())
    await _until(call.journal.stalls, task)
    await asyncio.sleep(0)
    await _cancel(call.journal, task)
