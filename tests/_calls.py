"""The ways in which runnables are called to be compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from copy import deepcopy
from typing import Any, cast

from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from chainserve.fast_paths import stream_events
from tests._equivalence import Call, Verb
from tests._handlers import handler
from tests._journal import INPUT, Journal
from tests._shown import shown, unordered, without_ids

_TURNS = 50


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
    chunks = given(call.journal, call.case.chunks)
    await call.read(call.runnable.atransform(chunks, call.config("inline")))


async def ainvoke_told(call: Call) -> None:
    """Invoke, with a handler."""
    call.journal.add(await call.runnable.ainvoke(call.input, call.config("inline")))


async def ainvoke_told_in_coroutines(call: Call) -> None:
    """Invoke, with a handler of coroutines."""
    call.journal.add(await call.runnable.ainvoke(call.input, call.config("async")))


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


async def given(journal: Journal, chunks: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield chunks, and note when they are asked for and how it ends."""
    try:
        for chunk in chunks:
            journal.note(INPUT, "is asked for", chunk)
            yield chunk
        journal.note(INPUT, "has ended")
    except BaseException as error:
        journal.note(INPUT, "is left", type(error))
        raise


# What LangChain tells of a run in other forms.


def events(**options: Any) -> Verb:
    """Return `astream_events` with these options."""

    async def verb(call: Call) -> None:
        async for event in call.runnable.astream_events(call.input, call.config(), **options):
            call.journal.event(event)

    return verb


def own_events(kind: str = "", **options: Any) -> Verb:
    """Return the events as this package makes them, maybe with a handler of that kind beside."""

    async def verb(call: Call) -> None:
        config = ensure_config(call.config(kind))
        async for event in stream_events(call.runnable, call.input, config, **options):
            call.journal.event(event)

    return verb


def events_and_handler(kind: str) -> Verb:
    """Return `astream_events` with a handler of that kind beside."""

    async def verb(call: Call) -> None:
        config = call.config(kind)
        async for event in call.runnable.astream_events(call.input, config, version="v2"):
            call.journal.event(event)

    return verb


async def log(call: Call) -> None:
    """Stream the patches of a log."""
    call.journal.events_alone = True
    patches = [patch async for patch in call.runnable.astream_log(call.input, call.config())]
    if not call.case.concurrent:
        for patch in patches:
            call.journal.patch(shown(patch.ops))
        return
    total = patches[0]
    for patch in patches[1:]:
        total += patch
    state = cast("Any", total).state
    for each in (state, *state["logs"].values()):
        each["streamed_output"].sort(key=repr)
    logs = [unordered(without_ids(shown(each))) for each in state.pop("logs").values()]
    call.journal.patch(unordered(without_ids(shown(state))), *sorted(logs, key=repr))


async def traced(call: Call) -> None:
    """Stream with a tracer."""
    await call.read(call.stream(callbacks=[_tracer(call)]))


async def traced_invocation(call: Call) -> None:
    """Invoke with a tracer."""
    config = call.config(callbacks=[_tracer(call)])
    await call.runnable.ainvoke(call.input, config)


class _Tracer(RunCollectorCallbackHandler):
    """Is told in the loop: in a thread it may be told of a run's end after that of its parent."""

    run_inline = True


def _tracer(call: Call) -> _Tracer:
    """Return a tracer whose runs are shown when all of them have ended."""
    tracer = _Tracer()

    def add() -> None:
        for view in map(shown, tracer.traced_runs):
            call.journal.patch(unordered(without_ids(view)) if call.case.concurrent else view)

    call.journal.later.append(add)
    return tracer


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


def failing_handler(kind: str, method: str, *, raises: bool) -> Verb:
    """Return a stream with a handler that fails."""

    async def verb(call: Call) -> None:
        own = handler(call.journal, kind, fails=method, raises=raises)
        await call.read(call.stream(callbacks=[own]))

    return verb
