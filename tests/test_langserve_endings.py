"""What ends LangServe's streams, and what it leaves behind, shown on it and on this server."""

import asyncio
import gc
import signal
from functools import partial
from typing import Literal, get_args

import anyio.lowlevel
import pytest
from starlette.types import ASGIApp

from tests._bridge import WAIT_SECONDS, IncompleteBodyError, open_stream
from tests._chains import GatedChain, echo, failing
from tests._pairs import (
    BOTH,
    CHAINSERVE,
    LANGSERVE,
    Package,
    app_of,
    ask,
    ask_over_socket,
    forget_oracle_state,
    stream,
)
from tests._server import RawConnection, serve

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


async def names_of(client: RawConnection) -> list[str]:
    """Return the names of the events to come; `cut` is a body that does not come to its end."""
    names: list[str] = []
    try:
        while (event := await client.next_event()) is not None:
            names.append(event.event)
    except IncompleteBodyError:
        names.append("cut")
    return names


@BOTH
async def test_two_loops_in_one_process_serve_streams(package: Package) -> None:
    def ask_in_a_loop() -> bool:
        return asyncio.run(ask(package, stream(echo, 1))).complete

    complete = [await asyncio.to_thread(ask_in_a_loop) for _ in range(2)]

    assert complete == [True, package is CHAINSERVE]


@BOTH
async def test_a_server_that_stopped_cuts_no_stream_of_another(package: Package) -> None:
    pair = stream(echo, 1)
    before = await ask_over_socket(package, pair)
    async with serve(pair.app(package)) as stopped:
        stopped.server.handle_exit(signal.SIGTERM, None)
    after = await ask_over_socket(package, pair)

    assert (before.complete, after.complete) == (True, package is CHAINSERVE)


@BOTH
async def test_a_server_that_stops_lets_its_streams_come_to_their_ends(package: Package) -> None:
    chain = GatedChain(["a", "b"])
    app = app_of(package, chain)
    async with (
        serve(app, timeout_graceful_shutdown=5) as served,
        await RawConnection.open(served.port) as client,
    ):
        await client.send_request("POST", "/chain/stream", json={"input": 1})
        await client.read_head()
        await asyncio.wait_for(chain.reached[1].wait(), WAIT_SECONDS)
        served.server.handle_exit(signal.SIGTERM, None)
        if package is CHAINSERVE:
            await served.until_stopping()
            chain.gate.set()
        names = await names_of(client)

    assert names == ["metadata", "data"] + (
        ["error", "cut"] if package is LANGSERVE else ["data", "end"]
    )
    assert chain.cancelled.is_set() is (package is LANGSERVE)


Leaving = Literal["the client hangs up", "the server cancels"]


async def leave_while_a_send_waits(app: ASGIApp, how: Leaving) -> None:
    async with open_stream(
        app,
        "POST",
        "/chain/stream",
        json={"input": 1},
        read=False,
        spec_version="2.4",
        raise_app_errors=False,
    ) as response:
        async with asyncio.timeout(WAIT_SECONDS):
            await response.send_blocked.wait()
        if how == "the server cancels":
            response.cancel()
            await response.ended()


@BOTH
@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("how", get_args(Leaving))
def test_a_stream_that_is_left_while_it_sends_is_closed(package: Package, how: Leaving) -> None:
    told: list[str] = []

    async def leave() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))
        chain = GatedChain()
        await leave_while_a_send_waits(app_of(package, chain), how)
        closed = chain.cancelled.is_set()
        gc.collect()
        for _ in range(10):  # A task closes a generator that was collected.
            await anyio.lowlevel.checkpoint()
        return closed

    closed = asyncio.run(leave())

    assert told == (["async generator ignored GeneratorExit"] if package is LANGSERVE else [])
    assert closed or package is LANGSERVE  # There it is the collector that closes the chain.


@BOTH
async def test_a_failing_stream_is_logged_once_and_as_a_run(
    package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    await ask_over_socket(package, stream(partial(failing, after=1), 1))

    [logged] = [record for record in caplog.records if record.levelname == "ERROR"]
    message = logged.getMessage()
    assert ("Exception in ASGI application" in message) is (package is LANGSERVE)
    assert ("run failed" in message) is (package is CHAINSERVE)
