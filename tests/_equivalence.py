"""Compares LangChain's own way to run a runnable with the fast one, in all that can be seen."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from difflib import unified_diff
from pprint import pformat
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

from chainserve.fast_paths import faster
from tests._handlers import handler
from tests._journal import CALLERS, Journal, Threads
from tests._shown import Shown

AnyRunnable = Runnable[Any, Any]
OUR_NAMES = {"_EventHandler": "_AstreamEventsCallbackHandler"}
"""A handler that fails is named in LangChain's log, and ours is to be known there as ours."""
IT_GOES_ON = "it goes on"
"""What is seen of a run that was cancelled and does not end."""
_TURNS = 100
_COLLECTIONS = 3


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


async def assert_same(
    case: Case, verb: Verb, way: Callable[[AnyRunnable], AnyRunnable] = faster
) -> None:
    """Assert that nobody can tell the fast way from LangChain's own."""
    slow = await seen(case, as_it_is, verb)
    assert slow, "nothing was seen"
    assert_equal(slow, await seen(case, way, verb))


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
    _use_threads(journal)
    loop.set_exception_handler(lambda _, context: _add_loop_error(journal, context))
    records = _Records(journal)
    logging.getLogger().addHandler(records)
    token = CALLERS.set("set by the caller")
    gc.disable()
    try:
        # The runnable is held by nothing but the call.
        succeeds = await _tried(journal, verb, Call(case, way(case.build(journal)), journal))
        await _settle(journal, own, fails=not succeeds)
        for add in journal.later:
            add()
    finally:
        journal.threads.shutdown(wait=False)
        gc.enable()
        CALLERS.reset(token)
        logging.getLogger().removeHandler(records)
        loop.set_exception_handler(None)
    return journal.view(concurrent=case.concurrent)


async def _tried(journal: Journal, verb: Verb, call: Call) -> bool:
    try:
        await verb(call)
        return True
    # Whatever comes out is what is compared.
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
        journal.add("raised", error)
        return False


def _use_threads(journal: Journal) -> None:
    """Have the loop run what it runs in threads in new ones, which the journal knows of."""
    journal.threads = Threads()
    asyncio.get_running_loop().set_default_executor(journal.threads)


async def _settle(journal: Journal, own: Iterable[asyncio.Task[Any]], *, fails: bool) -> None:
    """Wait for what the call has left running; note and cancel what waits for what never comes."""
    await _quiet(journal, own)
    # A thread holds the error of what it ran until it is told of something else.
    journal.threads.shutdown()
    _use_threads(journal)
    # What is in a cycle is found by the collector alone; an error may hold it for a while.
    for _ in range(_COLLECTIONS if fails else 1):
        gc.collect()
        await _quiet(journal, own)
    others = asyncio.all_tasks().difference(own)
    journal.add("is anything left running", bool(others))
    await end(journal, others)


async def end(journal: Journal, tasks: Iterable[asyncio.Task[Any]]) -> bool:
    """Cancel tasks, and tell whether they end: in LangChain not all do.

    The wait is of turns of the loop, since nothing here waits for anything but tasks and threads.
    """
    for task in tasks:
        task.cancel("of our own")
    for _ in range(_TURNS):
        if all(task.done() for task in tasks):
            return True
        await journal.threads.done()
        await asyncio.sleep(0)
    return False


async def _quiet(journal: Journal, own: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until nothing else runs; the end of a generator may start the closing of another."""
    quiet = 0
    for _ in range(_TURNS):
        await journal.threads.done()
        await asyncio.sleep(0)
        quiet = 0 if asyncio.all_tasks().difference(own) else quiet + 1
        if quiet == 3:
            return


def _add_loop_error(journal: Journal, context: dict[str, Any]) -> None:
    message = context["message"].partition("<")[0]
    # LangChain may close what the collector closes already.
    if "aclose(): asynchronous generator is already running" in str(context.get("exception")):
        return
    journal.add("the loop was told", message, context.get("exception"))


class _Records(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        for ours, langchains in OUR_NAMES.items():
            message = message.replace(ours, langchains)
        self._journal.add("logged", record.levelname, message)
