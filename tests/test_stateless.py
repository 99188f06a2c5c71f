"""A server that keeps nothing beyond a request, so that any of its workers may get the next."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from langchain_core.runnables import RunnableLambda
from playwright.async_api import Browser

from chainserve import (
    Chain,
    RemoteRunnable,
    StreamInterruptedError,
    add_routes,
    add_stream_route,
    create_app,
)
from chainserve.settings import Settings
from tests._apps import assert_problem, executor_of, make_app
from tests._bridge import WAIT_SECONDS, open_stream, request
from tests._browser import opened
from tests._chains import GatedChain, echo, streaming
from tests._proxied import ProxiedServer, proxied
from tests._proxy import Fault, proxy
from tests._server import serve
from tests.test_eventsource_cuts import FOLLOW

pytestmark = pytest.mark.anyio

STATELESS = Settings(stateless=True, resume_grace=60, retry_ms=1)
TOKENS = ("a", "b", "c")
RESUMABLE = {"Prefer": "resumable", "Idempotency-Key": "order-1"}
POST: dict[str, Any] = {"json": {"input": 1}}


def keeping_chain(runnable: Any) -> Chain:
    """Return a chain that would have much kept, were it not for the server."""
    return Chain(path="/chain", runnable=runnable, retention=True, resume_grace=60)


def app_with(runnable: Any) -> FastAPI:
    app = create_app([keeping_chain(runnable)], STATELESS)
    add_stream_route(app, keeping_chain(runnable), "/plain")
    return app


# What there is not.


@pytest.mark.parametrize("options", [{}, {"enabled_endpoints": ["stream", "Runs"]}])
async def test_there_are_no_run_routes_where_the_server_is_made(options: dict[str, Any]) -> None:
    app = create_app([Chain(path="/chain", runnable=echo(), **options)], STATELESS)
    [described] = (await request(app, "GET", "/chains")).json()
    routes = (await request(app, "GET", "/openapi.json")).json()["paths"]

    assert "stream" in described["endpoints"]
    assert "runs" not in described["endpoints"]
    assert "/chain/stream" in routes
    assert not [path for path in routes if "runs" in path]
    assert_problem(await request(app, "POST", "/chain/runs", **POST), 404, "http_error")


async def test_there_are_none_on_an_application_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHAINSERVE_STATELESS", "true")
    app = FastAPI()
    add_routes(app, echo(), path="/chain", disabled_endpoints=["playground"])

    assert (await request(app, "POST", "/chain/runs", **POST)).status == 404
    assert (await request(app, "GET", "/chain/playground/")).status == 404
    assert (await request(app, "POST", "/chain/invoke", **POST)).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/chain/stream", "/plain"])
async def test_a_run_that_lives_is_found_by_no_cursor(method: str, path: str) -> None:
    chain = GatedChain(TOKENS)
    app = app_with(chain)
    async with open_stream(app, "GET", "/chain/stream?input=1") as stream:
        event = await stream.next_event()
        assert event is not None
        cursor = {"Last-Event-ID": str(event.id)}
        answer = await request(app, method, path, headers=cursor, json={})

        assert_problem(answer, 404, "run_not_found")
        assert len(executor_of(app).live) == 1


async def test_a_cursor_that_is_none_is_told_as_elsewhere() -> None:
    target = "/chain/stream?input=1&last_event_id=x"
    assert_problem(await request(app_with(echo()), "GET", target), 400, "invalid_cursor")


# What is ignored.


async def test_a_stream_that_shall_be_resumable_is_that_of_a_langserve() -> None:
    app = app_with(streaming(*TOKENS))
    asked = await request(app, "POST", "/chain/stream", headers=RESUMABLE, **POST)
    plain = await request(app, "POST", "/chain/stream", **POST)

    assert b"id: " not in asked.body
    assert asked.body.partition(b"event: data")[2] == plain.body.partition(b"event: data")[2]
    assert not {"preference-applied", "location"} & {name.lower() for name in asked.headers}


@pytest.mark.parametrize("key", ["order-1", "", "x" * 300])
async def test_a_key_starts_a_run_each_time(key: str) -> None:
    calls: list[Any] = []

    def note(value: Any) -> Any:
        calls.append(value)
        return value

    app = app_with(RunnableLambda(note).with_types(input_type=Any))
    for value in (1, 1, 2):
        headers = {"Idempotency-Key": key}
        answer = await request(app, "POST", "/chain/invoke", headers=headers, json={"input": value})
        assert answer.json()["output"] == value
    target = f"/chain/stream?input=3&idempotency_key={key}"
    assert (await request(app, "GET", target)).status == 200
    assert calls == [1, 1, 2, 3]


# What is not kept.


@pytest.mark.parametrize("target", ["/chain/stream?input=1", "/plain?input=1"])
async def test_a_page_that_leaves_ends_its_run_at_once(target: str) -> None:
    chain = GatedChain(TOKENS)
    app = app_with(chain)
    async with open_stream(app, "GET", target) as stream:
        await stream.next_event()
    async with asyncio.timeout(WAIT_SECONDS):
        await chain.cancelled.wait()


async def test_a_run_that_has_ended_is_forgotten() -> None:
    app = app_with(streaming(*TOKENS))
    for verb in ("invoke", "stream"):
        assert (
            await request(app, "POST", f"/chain/{verb}", headers=RESUMABLE, **POST)
        ).status == 200
    store = executor_of(app).store

    assert await store.list_runs("/chain", owner=None, limit=10) == []


# What clients make of it.


@contextmanager
def staged() -> Iterator[tuple[ProxiedServer, GatedChain, list[Any]]]:
    """Serve a stream and a function behind a proxy; the list has what the function was given."""
    chain, calls = GatedChain(TOKENS), list[Any]()
    chain.gate.set()
    app = make_app(chain, settings=STATELESS)
    add_routes(app, RunnableLambda(calls.append), path="/function")
    with proxied(app) as server:
        yield server, chain, calls


async def test_our_client_starts_nothing_twice() -> None:
    with staged() as (server, chain, calls):
        server.add(Fault("/chain/stream", after_events=2))
        stream: RemoteRunnable[Any, str] = RemoteRunnable(f"{server.base_url}/chain")
        with pytest.raises(StreamInterruptedError):
            [_ async for _ in stream.astream(1)]
        assert [chunk async for chunk in stream.astream(1)] == [*TOKENS]
        assert chain.started == 2
        await stream.aclose()

        server.add(Fault("/function/invoke", after_bytes=20))
        function: RemoteRunnable[Any, Any] = RemoteRunnable(f"{server.base_url}/function")
        with pytest.raises(httpx.HTTPError):
            await function.ainvoke(1)
        await function.aclose()
        assert calls == [1]


async def test_a_page_whose_stream_is_cut_is_told_so_and_starts_nothing_twice(
    browser: Browser,
) -> None:
    """Without ids a browser would start the run again, and show the answer twice."""
    chain = GatedChain(TOKENS)
    chain.gate.set()
    app = make_app(chain, settings=STATELESS)

    @app.get("/page")
    def _page() -> HTMLResponse:
        return HTMLResponse('<!doctype html><title>Page</title><link rel="icon" href="data:,">')

    url = "/chain/stream?input=1"
    async with serve(app) as server, proxy(server.port) as before, opened(browser) as tab:
        tab.expected = ["net::ERR_", "404"]
        await tab.page.goto(f"{before.base_url}/page")
        before.add(Fault(url, after_events=2))
        [seen] = await tab.page.evaluate(FOLLOW, [url])

    assert [name for name, *_ in seen] == ["metadata", "data"]
    assert len(before.to(url)) == 2
    assert chain.started == 1
