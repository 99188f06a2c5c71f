"""The runs of a `RemoteRunnable`: started in the background, joined, waited for and cancelled."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chainserve import RemoteRunnable, RemoteStatusError, UnexpectedAnswerError, add_routes
from chainserve.remote import RemoteRun
from chainserve.settings import Settings
from tests._apps import make_app
from tests._chains import GatedChain, failing, streaming
from tests._proxied import ProxiedServer, proxied
from tests._proxy import Fault

pytestmark = pytest.mark.anyio

TOKENS = ["a", "b", "c", "d"]
SETTINGS = Settings(retry_ms=1, resume_grace=60, max_output_bytes=100)

Method = Callable[..., Any]


def in_thread(client: RemoteRunnable[Any, Any]) -> Callable[[str], Method]:
    """Return the sync methods, each called in a thread; what `join` yields is a list."""

    def named(name: str) -> Method:
        def call(*arguments: Any, **options: Any) -> Any:
            told = getattr(client, name)(*arguments, **options)
            return list(told) if name == "join" else told

        return lambda *arguments, **options: asyncio.to_thread(call, *arguments, **options)

    return named


def in_loop(client: RemoteRunnable[Any, Any]) -> Callable[[str], Method]:
    """Return the async methods under the names of the sync ones."""

    def named(name: str) -> Method:
        async def call(*arguments: Any, **options: Any) -> Any:
            method = getattr(client, "await_" if name == "wait" else f"a{name}")
            told = method(*arguments, **options)
            return [chunk async for chunk in told] if name == "join" else await told

        return call

    return named


WAYS = pytest.mark.parametrize("way", [in_thread, in_loop], ids=["sync", "async"])
Way = Callable[[RemoteRunnable[Any, Any]], Callable[[str], Method]]


class Stage:
    """A server behind a proxy, whose chain stops at its second chunk until its gate is opened."""

    def __init__(self, server: ProxiedServer, chain: GatedChain) -> None:
        self.server = server
        self.chain = chain

    def client(self, path: str = "/chain", **options: Any) -> RemoteRunnable[Any, Any]:
        url = self.server.base_url + path
        return RemoteRunnable(url, **{"verify": False, "timeout": 20, **options})

    def open_gate(self) -> None:
        self.server.portal.call(self.chain.gate.set)

    async def until(self, event: asyncio.Event) -> None:
        await asyncio.to_thread(self.server.portal.call, event.wait)


@contextmanager
def staged() -> Iterator[Stage]:
    chain = GatedChain(TOKENS, before=1)
    app = make_app(chain, settings=SETTINGS)
    for path, runnable in {
        "/broken": failing(after=2),
        "/busy": failing(error=HTTPException(429, "Slow down.")),
        "/long": streaming("x" * 100),
    }.items():
        add_routes(app, runnable, path=path)
    with proxied(app) as server:
        yield Stage(server, chain)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@WAYS
async def test_a_run_in_the_background_is_started_joined_and_waited_for(
    stage: Stage, way: Way
) -> None:
    async with stage.client() as client:
        call = way(client)
        run = await call("start")(1, {"tags": ["a"]})
        assert isinstance(run, RemoteRun)
        assert (run.status, str(UUID(run.run_id))) == ("running", run.run_id)
        assert (await call("get_run")(run)).status == "running"
        stage.open_gate()
        for named in (run, run.run_id, UUID(run.run_id)):
            assert await call("join")(named) == TOKENS
            assert await call("wait")(named) == "abcd"
        ended = await call("get_run")(run)

    assert (ended.run_id, ended.status, ended.output) == (run.run_id, "success", "abcd")
    assert stage.chain.started == 1


@pytest.mark.parametrize("mode", ["invoke", "stream_events", "stream_log"])
async def test_a_run_does_what_its_mode_says(stage: Stage, mode: Any) -> None:
    stage.open_gate()
    async with stage.client() as client:
        run = await client.astart(1, mode=mode)
        assert await client.await_(run) == "abcd"
        chunks = [chunk async for chunk in client.ajoin(run)] if mode != "invoke" else []

    assert len(chunks) > len(TOKENS) or mode == "invoke"


@WAYS
async def test_a_join_that_is_cut_goes_on_and_begins_where_it_is_told(
    stage: Stage, way: Way
) -> None:
    stage.open_gate()
    async with stage.client() as client:
        call = way(client)
        run = await call("start")(1)
        await call("wait")(run)
        for events in (0, 1, 3, 5):
            stage.server.add(Fault("/stream", after_events=events))
            assert await call("join")(run) == TOKENS
        first = client.join(run)
        assert [next(first), next(first)] == TOKENS[:2]
        last_run = client.last_run
        assert last_run is not None
        first.close()
        assert await call("join")(run, last_event_id=last_run.last_event_id) == TOKENS[2:]
        whole = client.join(run)
        assert list(whole) == TOKENS
        last_run = client.last_run
        assert last_run is not None
        assert await call("join")(run, last_event_id=last_run.last_event_id) == []


async def test_who_leaves_a_run_that_was_joined_leaves_it_running(stage: Stage) -> None:
    async with stage.client() as client:
        run = await client.astart(1)
        stream = client.ajoin(run)
        assert await anext(stream) == "a"
        await stream.aclose()
        stage.open_gate()
        assert await client.await_(run) == "abcd"

    assert stage.chain.cancellations == 0
    assert stage.server.to("cancel") == []


@WAYS
async def test_a_run_is_cancelled_once_however_often_it_is_asked(stage: Stage, way: Way) -> None:
    async with stage.client() as client:
        call = way(client)
        run = await call("start")(1)
        await stage.until(stage.chain.reached[1])
        for _ in range(2):
            assert (await call("cancel")(run)).status == "cancelled"
        with pytest.raises(RemoteStatusError) as raised:
            await call("wait")(run)

    assert (raised.value.status_code, raised.value.code) == (499, "cancelled")
    assert stage.chain.cancellations == 1


@WAYS
@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("/broken", 500, "internal_error", "Internal Server Error"),
        ("/busy", 429, "http_error", "Slow down."),
    ],
)
async def test_what_a_run_failed_of_is_raised_where_its_output_is_wanted(
    stage: Stage, way: Way, path: str, status: int, code: str, message: str
) -> None:
    async with stage.client(path) as client:
        call = way(client)
        run = await call("start")(1)
        for wanted in ("wait", "join"):
            with pytest.raises(RemoteStatusError, match=message) as raised:
                await call(wanted)(run)
            assert (raised.value.status_code, raised.value.code) == (status, code)
        known = await call("get_run")(run)

    assert known.status == "error"
    assert known.error["status_code"] == status


@WAYS
async def test_an_output_that_the_server_does_not_keep_is_told(stage: Stage, way: Way) -> None:
    async with stage.client("/long") as client:
        run = await way(client)("start")(1)
        with pytest.raises(UnexpectedAnswerError, match="join"):
            await way(client)("wait")(run)
        assert await way(client)("join")(run) == ["x" * 100]


@WAYS
@pytest.mark.parametrize("seconds", [0, 0.01, -1])
async def test_a_run_is_waited_for_only_so_long(stage: Stage, way: Way, seconds: float) -> None:
    async with stage.client() as client:
        run = await way(client)("start")(1)
        with pytest.raises(TimeoutError, match="has not ended"):
            await way(client)("wait")(run, timeout=seconds)
        stage.open_gate()
        assert await way(client)("wait")(run) == "abcd"
    assert stage.chain.cancellations == 0


async def test_an_answer_is_held_back_no_longer_than_the_client_waits_for_one(
    stage: Stage,
) -> None:
    async with stage.client(timeout=0.5) as client:
        run = await client.astart(1)
        task = asyncio.ensure_future(client.await_(run))
        await asyncio.to_thread(stage.server.until_requests, f"/runs/{run.run_id}", 3)
        stage.open_gate()
        assert await task == "abcd"
    waits = {one.headers.get("prefer") for one in stage.server.to(f"/runs/{run.run_id}")}
    assert waits == {"wait=0.250"}


@WAYS
@pytest.mark.parametrize("verb", ["get_run", "wait", "join", "cancel"])
async def test_an_unknown_run_and_one_of_another_chain_are_told(
    stage: Stage, way: Way, verb: str
) -> None:
    stage.open_gate()
    async with stage.client() as client, stage.client("/long") as other:
        theirs = await other.astart(1)
        for run_id in (theirs.run_id, str(uuid4()), "none", "a/b", "..%2f", "é"):
            with pytest.raises(RemoteStatusError) as raised:
                await way(client)(verb)(run_id)
            assert raised.value.status_code == 404
        for nothing in ("", ".", "..", RemoteRun()):
            with pytest.raises(ValueError, match="run id"):
                await way(client)(verb)(nothing)


@WAYS
async def test_a_start_whose_answer_was_lost_starts_one_run(stage: Stage, way: Way) -> None:
    stage.open_gate()
    async with stage.client() as client:
        for place in (0, 20, 200):
            stage.server.add(Fault("/chain/runs", after_bytes=place))
            run = await way(client)("start")(1)
            assert await way(client)("wait")(run) == "abcd"
    assert stage.chain.started == 3
    keys = [one.headers.get("idempotency-key") for one in stage.server.to("/chain/runs")]
    assert len({key for key in keys if key}) == 3


async def test_a_run_may_end_when_its_readers_have_left(stage: Stage) -> None:
    async with stage.client() as client:
        run = await client.astart(1, on_disconnect="cancel")
        with pytest.raises(RemoteStatusError, match="422"):
            await client.astart(1, on_disconnect="sometimes")  # type: ignore[arg-type]
        assert run.status == "running"


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"null", b"{}", b'{"run_id": 1, "status": "running"}', b'{"run_id": "x"}', b"<html>"],
)
async def test_what_is_no_run_is_told(answer: bytes) -> None:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def every_path(request: Request) -> Response:
        return Response(answer, media_type="application/json")

    transport = httpx2.ASGITransport(app)
    async with RemoteRunnable[Any, Any](
        "http://test/chain", client_kwargs={"transport": transport}, verify=False
    ) as client:
        for call in (client.astart(1), client.aget_run("x"), client.await_("x")):
            with pytest.raises(UnexpectedAnswerError, match="no run"):
                await call


async def test_langserve_has_no_runs() -> None:
    app = FastAPI()

    @app.exception_handler(404)
    async def nothing(request: Request, error: Any) -> Response:
        return JSONResponse({"detail": "Not Found"}, 404)

    transport = httpx2.ASGITransport(app)
    async with RemoteRunnable[Any, Any](
        "http://test/chain", client_kwargs={"transport": transport}, verify=False
    ) as client:
        with pytest.raises(RemoteStatusError, match="404 Not Found"):
            await client.astart(1)
