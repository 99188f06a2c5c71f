"""Streams that are sent outside of the application that has made them, and those that are not."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from chainserve import Chain, add_routes, create_app
from chainserve.settings import Settings
from tests._bridge import open_stream, request
from tests._chains import GatedChain, streaming
from tests._processes import undone
from tests._verbs import VERBS, body_of

pytestmark = pytest.mark.anyio

RUN_ID = "0d0f0000-1111-4222-8333-444455556666"


@pytest.fixture(autouse=True)
def process_as_it_was() -> Any:
    with undone():
        yield


class Onlooker:
    """A layer that notes what passes it.

    Attributes:
        scope: What is known of the request.
        sent: How many messages were sent.
        returned: Whether what is inside has returned.
    """

    def __init__(self, app: ASGIApp, notes: dict[str, Any]) -> None:
        self.app = app
        self.notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Any) -> None:
            self.notes["sent"] += 1
            await send(message)

        self.notes |= {"scope": scope, "sent": 0, "returned": False}
        await self.app(scope, receive, noting)
        self.notes["returned"] = True


def stacks_in(scope: Scope) -> list[AsyncExitStack]:
    return [value for value in scope.values() if isinstance(value, AsyncExitStack)]


async def test_a_stream_that_waits_keeps_nothing_of_the_router_and_its_stacks() -> None:
    chain, notes = GatedChain(["a", "b"], before=1), dict[str, Any]()
    app = create_app([Chain(path="/chain", runnable=chain)], Settings())
    app.add_middleware(Onlooker, notes=notes)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        assert stacks_in(notes["scope"]) == []
        assert notes["returned"] is False
        chain.gate.set()
        assert (await stream.read()).endswith(b"event: end\r\n\r\n")
        await stream.ended()

    assert notes["returned"] is True
    assert notes["scope"]["chainserve.exit"] == "finished"


async def test_a_layer_inside_sees_a_whole_stream() -> None:
    chain, notes = GatedChain(["a", "b"], before=1), dict[str, Any]()
    layers = [Middleware(Onlooker, notes=notes)]
    app = create_app([Chain(path="/chain", runnable=chain)], Settings(), middleware=layers)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        await stream.next_event()
        assert notes["sent"] > 1
        assert notes["returned"] is False
        chain.gate.set()
        await stream.read()
        await stream.ended()

    assert notes["returned"] is True


def with_a_dependency_of(place: str, dependency: Any) -> tuple[FastAPI, GatedChain]:
    """Return a server whose chain depends on something by its declaration, or from outside."""
    runnable, needs = GatedChain(["a", "b"], before=1), [Depends(dependency)]
    if place == "chain":
        chain = Chain(path="/chain", runnable=runnable, dependencies=needs)
        return create_app([chain], Settings()), runnable
    chain = Chain(path="/chain", runnable=runnable)
    if place == "application":
        return create_app([chain], Settings(), dependencies=needs), runnable
    router = APIRouter()
    add_routes(router, chain)
    app = create_app([], Settings())
    app.include_router(router, dependencies=needs)
    return app, runnable


@pytest.mark.parametrize("place", ["chain", "application", "router"])
async def test_a_dependency_with_yield_ends_after_the_stream(place: str) -> None:
    steps: list[str] = []

    async def resource() -> AsyncIterator[None]:
        steps.append("entered")
        yield
        steps.append("left")

    app, chain = with_a_dependency_of(place, resource)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        assert steps == ["entered"]
        chain.gate.set()
        assert (await stream.read()).endswith(b"event: end\r\n\r\n")
        await stream.ended()

    assert steps == ["entered", "left"]


@pytest.mark.parametrize("verb", [*VERBS, "stream_log", "stream_events"])
async def test_what_is_sent_outside_is_what_is_sent_inside(verb: str) -> None:
    options: dict[str, Any] = {
        "json": {
            **body_of(verb, "hi"),
            "config": {"run_id": "0d0f0000-1111-4222-8333-444455556666"},
        },
    }
    chain = Chain(path="/chain", runnable=streaming("a", "b"), config_keys=["run_id"])
    outside = await request(create_app([chain], Settings()), "POST", f"/chain/{verb}", **options)
    app = FastAPI()
    add_routes(app, chain)
    inside = await request(app, "POST", f"/chain/{verb}", **options)

    assert outside.status == inside.status == 200
    assert outside.body == inside.body
    assert {**outside.headers, "x-request-id": ""} == {**inside.headers, "x-request-id": ""}
