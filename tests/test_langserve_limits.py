"""What LangServe sets no bounds to, or too narrow ones, shown on it and on this server."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakSet

import anyio
import anyio.lowlevel
import pytest
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda

from chainserve import Settings
from tests._bridge import WAIT_SECONDS, lifespan, open_stream, request
from tests._chains import CountingChain
from tests._pairs import BOTH, LANGSERVE, Package, app_of, forget_oracle_state
from tests._processes import undone

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]

SETTINGS = Settings()
GUARD_SECONDS = WAIT_SECONDS
"""More than others have: so many callers at once take a loaded machine some time."""


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


class Crowd:
    """Callers of a chain whose last step is synchronous and waits for the test.

    Attributes:
        chain: What they call.
        release: Lets all of them, also later ones, go on.
        arrived: How many have come to the step before that one.
        inside: How many are in it now, each in a thread.
        highest: The most there ever were.
    """

    def __init__(self) -> None:
        self.chain: Runnable[Any, Any] = RunnableLambda(self._arrive) | self._wait
        self.release = threading.Event()
        self.arrived = 0
        self.inside = 0
        self.highest = 0
        self._lock = threading.Lock()

    async def until(self, *, arrived: int, inside: int) -> None:
        """Wait until exactly so many have arrived and are inside."""
        with anyio.fail_after(GUARD_SECONDS):
            while (self.arrived, self.inside) != (arrived, inside):
                await anyio.lowlevel.checkpoint()

    async def _arrive(self, value: Any) -> Any:
        self.arrived += 1
        return value

    def _wait(self, value: Any) -> Any:
        self._count(1)
        released = self.release.wait(GUARD_SECONDS)
        self._count(-1)
        return released and value

    def _count(self, change: int) -> None:
        with self._lock:
            self.inside += change
            self.highest = max(self.highest, self.inside)


@BOTH
def test_sync_steps_of_many_callers_do_not_wait_for_each_other(package: Package) -> None:
    callers = SETTINGS.max_threads
    threads = ThreadPoolExecutor()._max_workers  # As asyncio makes its own.
    held = threads if package is LANGSERVE else callers

    async def call_at_once() -> Crowd:
        crowd = Crowd()
        app = app_of(package, crowd.chain)
        async with lifespan(app), asyncio.TaskGroup() as calls:
            for _ in range(callers):
                call = request(
                    app, "POST", "/chain/invoke", json={"input": 1}, wait_seconds=GUARD_SECONDS
                )
                calls.create_task(call)
            try:
                await crowd.until(arrived=callers, inside=held)
            finally:
                crowd.release.set()
        return crowd

    with undone():
        crowd = asyncio.run(call_at_once())

    assert crowd.highest == held
    assert threads < callers


@BOTH
async def test_a_body_has_a_bound(package: Package) -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(package, chain | len)
    body = {"input": "x" * SETTINGS.max_body_bytes}
    response = await request(app, "POST", "/chain/invoke", json=body)

    assert response.status == (200 if package is LANGSERVE else 413)
    assert chain.total == (1 if package is LANGSERVE else 0)


@BOTH
async def test_a_body_that_any_page_can_send_runs_no_chain(package: Package) -> None:
    chain = CountingChain()
    chain.release.set()
    response = await request(
        app_of(package, chain),
        "POST",
        "/chain/invoke",
        body=b'{"input": 1}',
        headers={"content-type": "text/plain"},
    )

    assert response.status == (200 if package is LANGSERVE else 415)
    assert chain.total == (1 if package is LANGSERVE else 0)


class Value:
    """Something that is large outside of a test."""


@BOTH
@pytest.mark.usefixtures("small_heap")
async def test_a_stream_keeps_nothing_of_the_steps_that_are_over(package: Package) -> None:
    alive: WeakSet[Value] = WeakSet()
    gate = asyncio.Event()

    def make() -> Value:
        value = Value()
        alive.add(value)
        return value

    async def work(_: Value) -> Value:
        return make()

    step = RunnableLambda(work)

    async def answer(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            pass
        for _ in range(3):
            await step.ainvoke(make())
        yield "a"
        await gate.wait()

    app = app_of(package, RunnableGenerator(answer))
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        events = [await stream.next_event() for _ in range(2)]
        gc.collect()
        kept = len(alive)
        gate.set()
        await stream.read()
    gc.collect()

    assert [event and event.event for event in events] == ["metadata", "data"]
    assert kept == (6 if package is LANGSERVE else 0)
    assert not alive
