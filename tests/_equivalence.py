"""Compares LangChain's own way to run a runnable with the fast one, in all that can be seen."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from copy import deepcopy
from dataclasses import dataclass
from difflib import unified_diff
from pprint import pformat
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

from chainserve.fast_paths import faster
from tests._chains import WAIT_SECONDS
from tests._journal import CALLERS, INPUT, Journal, handler
from tests._shown import Shown

AnyRunnable = Runnable[Any, Any]
_TURNS = 100


@dataclass(frozen=True)
class Case:
    """A runnable to compare, and how it is called.

    Attributes:
        build: Makes a new one, whose steps write what they see into the journal.
        input: What it is called with.
        inputs: The chunks of an input that is streamed; without any, the input alone.
        config: Makes the config of the call.
        concurrent: Whether parts of it run at the same time, in no defined order.
    """

    build: Callable[[Journal], AnyRunnable]
    input: Any = "hi"
    inputs: tuple[Any, ...] = ()
    config: Callable[[], RunnableConfig] = RunnableConfig
    concurrent: bool = False

    @property
    def chunks(self) -> tuple[Any, ...]:
        """The chunks of an input that is streamed."""
        return deepcopy(self.inputs or (self.input,))

    def configured(self, *configs: RunnableConfig) -> RunnableConfig:
        """Return the config of the call with others."""
        return merge_configs(self.config(), *configs)


@dataclass(frozen=True)
class Call:
    """One call of a runnable, to be watched.

    Attributes:
        case: What is called.
        runnable: The runnable itself.
        journal: Where to write what is seen.
    """

    case: Case
    runnable: AnyRunnable
    journal: Journal

    @property
    def input(self) -> Any:
        """The input, for this call alone."""
        return deepcopy(self.case.input)

    def config(self, kind: str = "", **members: Any) -> RunnableConfig:
        """Return the config of the call, maybe with a handler of that kind."""
        own = cast("RunnableConfig", members)
        if not kind:
            return self.case.configured(own)
        return self.case.configured({"callbacks": [handler(self.journal, kind)]}, own)

    def stream(self, kind: str = "", **members: Any) -> AsyncIterator[Any]:
        """Start a stream."""
        return self.runnable.astream(self.input, self.config(kind, **members))

    async def read(self, chunks: AsyncIterator[Any]) -> None:
        """Read all chunks into the journal."""
        async for chunk in chunks:
            self.journal.chunk(chunk)


Verb = Callable[[Call], Awaitable[None]]


def as_it_is(runnable: AnyRunnable) -> AnyRunnable:
    """LangChain's own way."""
    return runnable


async def assert_same(case: Case, verb: Verb) -> None:
    """Assert that nobody can tell the fast way from LangChain's own."""
    slow = await seen(case, as_it_is, verb)
    assert slow, "nothing was seen"
    assert_equal(slow, await seen(case, faster, verb))


def assert_equal(slow: Shown, fast: Shown) -> None:
    """Assert that two views are the same, and say where they are not."""
    if slow == fast:
        return
    own, other = (pformat(view, width=160).splitlines() for view in (slow, fast))
    difference = list(unified_diff(own, other, "LangChain", "faster", lineterm="", n=3))
    raise AssertionError("\n".join(["seen differently", *difference[:80]]))


async def seen(case: Case, way: Callable[[AnyRunnable], AnyRunnable], verb: Verb) -> Shown:
    """Return all that is seen of one call, and of what it leaves behind."""
    journal = Journal()
    own = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    threads = _Threads()
    loop.set_default_executor(threads)
    loop.set_exception_handler(lambda _, context: _add_loop_error(journal, context))
    records = _Records(journal)
    logging.getLogger().addHandler(records)
    token = CALLERS.set("set by the caller")
    gc.disable()
    try:
        # The runnable is held by nothing but the call.
        await _tried(journal, verb, Call(case, way(case.build(journal)), journal))
        await _settle(journal, own, threads)
    finally:
        threads.shutdown(wait=False)
        gc.enable()
        CALLERS.reset(token)
        logging.getLogger().removeHandler(records)
        loop.set_exception_handler(None)
    return journal.view(concurrent=case.concurrent)


async def _tried(journal: Journal, verb: Verb, call: Call) -> None:
    try:
        await verb(call)
    # Whatever comes out is what is compared.
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
        journal.add("raised", error)


async def _settle(journal: Journal, own: Iterable[asyncio.Task[Any]], threads: _Threads) -> None:
    """Wait for what the call has left running; note and cancel what waits for what never comes."""
    for collects in (False, True):
        # What is in a cycle is found by the collector alone.
        if collects:
            gc.collect()
        quiet = 0
        for _ in range(_TURNS):
            await threads.done()
            await asyncio.sleep(0)
            # The end of a generator may start the closing of another in the next turn.
            quiet = 0 if asyncio.all_tasks().difference(own) else quiet + 1
            if quiet == 3:
                break
    others = asyncio.all_tasks().difference(own)
    journal.add("is anything left running", bool(others))
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=WAIT_SECONDS)
        gc.collect()


class _Threads(ThreadPoolExecutor):
    """Knows what runs in it."""

    def __init__(self) -> None:
        super().__init__(4)
        self._running: set[Future[Any]] = set()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def done(self) -> None:
        """Wait until nothing runs."""
        if running := [asyncio.wrap_future(future) for future in set(self._running)]:
            await asyncio.wait(running, timeout=WAIT_SECONDS)


def _add_loop_error(journal: Journal, context: dict[str, Any]) -> None:
    message = context["message"].partition("<")[0]
    journal.add("the loop was told", message, context.get("exception"))


class _Records(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        self._journal.add("logged", record.levelname, record.getMessage())


# The verbs.


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
        call.journal.add("cancel")
        task.cancel()
        await task

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


async def _until(event: asyncio.Event, task: asyncio.Task[Any]) -> None:
    """Wait for an event, or for the end of a task that never comes to it."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, task], timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
