"""Idempotency keys: under one key a run is started once, whoever asks, how often and when."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI, HTTPException
from langchain_core.runnables import Runnable, RunnableLambda

from chainserve import Chain, add_routes, add_stream_route, create_app
from chainserve.settings import Settings
from tests._apps import assert_problem, executor_of, make_app, only_run
from tests._asgi import Headers
from tests._bridge import Response, open_stream, request
from tests._chains import CountingChain, GatedChain, answering, failing
from tests._openai import OpenAIServer, Status
from tests._server import RawConnection, Served, serve
from tests._sse import decode_events
from tests.test_cancellation import model_at

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "order-1"}
SIMULTANEOUS = 20


@dataclass(frozen=True)
class Start:
    """A request that starts a run.

    Attributes:
        json: The body of a POST.
        other: A body, or the target of a GET, that asks for something else.
    """

    method: str
    target: str
    other: Any
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None

    async def send(self, client: RawConnection) -> None:
        """Send it over a socket."""
        await client.send_request(self.method, self.target, headers=self.headers, json=self.json)

    async def ask(self, app: FastAPI, **headers: str) -> Response:
        """Send it in process and return the answer."""
        fields = {**self.headers, **headers}
        if self.method == "GET":
            return await request(app, "GET", self.target, headers=fields)
        return await request(app, "POST", self.target, headers=fields, json=self.json)

    def for_something_else(self) -> "Start":
        """Return a request under the same key with another content."""
        if self.method == "GET":
            return replace(self, target=self.other)
        return replace(self, json=self.other)


def post(verb: str, **headers: str) -> Start:
    body, other = {"input": 1}, {"input": 2}
    if verb == "batch":
        body, other = {"inputs": [1, 1]}, {"inputs": [1]}  # type: ignore[dict-item]
    return Start("POST", f"/chain/{verb}", other, {**KEY, **headers}, body)


STREAMS = {
    "langserve": post("stream"),
    "ids": post("stream", prefer="resumable"),
    "ndjson": post("stream", accept="application/x-ndjson"),
    "text": post("stream", accept="text/plain"),
    "get": Start("GET", "/chain/stream?input=1", "/chain/stream?input=2", KEY),
    "get with a parameter": Start(
        "GET",
        "/chain/stream?input=1&idempotency_key=order-1",
        "/chain/stream?input=2&idempotency_key=order-1",
    ),
    "plain": Start("POST", "/plain", 2, KEY, 1),
    "plain get": Start("GET", "/plain?input=1", "/plain?input=2", KEY),
    "plain get with a parameter": Start(
        "GET", "/plain?input=1&idempotency_key=order-1", "/plain?input=2&idempotency_key=order-1"
    ),
}
OUTPUTS = {"invoke": post("invoke"), "batch": post("batch")}
RUNS = {
    "runs": post("runs"),
    "runs that are waited for": post("runs", prefer="wait=5"),
    "runs of one output": replace(
        post("runs", prefer="wait=5"),
        json={"input": 1, "mode": "invoke"},
        other={"input": 1, "mode": "stream"},
    ),
}
STARTS = {**STREAMS, **OUTPUTS, **RUNS}

streams = pytest.mark.parametrize("start", STREAMS.values(), ids=STREAMS.keys())
outputs = pytest.mark.parametrize("start", OUTPUTS.values(), ids=OUTPUTS.keys())
starts = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())


def app_of(chain: Runnable[Any, Any] | Callable[..., Any], **settings: Any) -> FastAPI:
    """Return an application with the chain below /chain and as one plain route."""
    app = make_app(chain, settings=Settings.model_validate(settings))
    runnable = chain if isinstance(chain, Runnable) else RunnableLambda(chain)
    add_stream_route(app, runnable, "/plain")
    return app


def noting(calls: list[Any]) -> Callable[[Any], str]:
    """Return a chain that answers its input as text, and notes that it was called."""

    def note(value: Any) -> str:
        calls.append(value)
        return str(value)

    return note


def spoken(headers: Headers, body: bytes) -> str:
    """Return the text of a whole streamed answer, which must have ended well."""
    if headers["content-type"].startswith("text/plain"):
        return body.decode()
    if headers["content-type"] == "application/x-ndjson":
        lines = [json.loads(line) for line in body.splitlines() if line]
        assert lines[-1]["event"] == "end", body
        return "".join(line["data"] for line in lines if line["event"] == "data")
    events = decode_events(body)
    assert events[-1].event == "end", body
    named = "".join(event.json() for event in events if event.event == "data")
    return named + "".join(event.data or "" for event in events if event.event == "message")


def without_retry(body: bytes) -> bytes:
    """Return an answer without the one thing in it that is left to chance."""
    return b"\r\n".join(line for line in body.split(b"\r\n") if not line.startswith(b"retry:"))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that nothing tells of."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def ended(app: FastAPI) -> None:
    """Wait until no run is live."""
    await until(lambda: not executor_of(app).live)


async def all_answers(
    stack: AsyncExitStack, server: Served, start: Start, release: Callable[[], Any]
) -> list[tuple[int, Headers, bytes]]:
    """Send so many requests at once, do what lets the run go on, and return all answers."""
    clients = [
        await stack.enter_async_context(await RawConnection.open(server.port))
        for _ in range(SIMULTANEOUS)
    ]
    await asyncio.gather(*map(start.send, clients))
    await release()
    return await asyncio.gather(*map(whole_answer, clients))


async def whole_answer(client: RawConnection) -> tuple[int, Headers, bytes]:
    status, headers = await client.read_head()
    return status, headers, await client.read_body()


def readers(app: FastAPI) -> int:
    return sum(run.readers for run in executor_of(app).live)


@streams
async def test_simultaneous_streams_under_one_key_are_one_run(start: Start) -> None:
    chain = GatedChain(["a", "b", "c"], before=1)
    app = app_of(chain)

    async def release() -> None:
        await until(lambda: readers(app) == SIMULTANEOUS)
        chain.gate.set()

    async with serve(app) as server, AsyncExitStack() as stack:
        answers = await all_answers(stack, server, start, release)

    assert chain.started == 1
    assert [status for status, _, _ in answers] == [200] * SIMULTANEOUS
    assert [spoken(headers, body) for _, headers, body in answers] == ["abc"] * SIMULTANEOUS
    assert len({without_retry(body) for _, _, body in answers}) == 1


@outputs
async def test_simultaneous_verbs_under_one_key_are_one_run(start: Start) -> None:
    chain = CountingChain()
    app = app_of(chain)

    async def release() -> None:
        await until(lambda: readers(app) == SIMULTANEOUS)
        chain.release.set()

    async with serve(app) as server, AsyncExitStack() as stack:
        answers = await all_answers(stack, server, start, release)

    assert chain.total == (2 if start.target.endswith("batch") else 1)
    assert [status for status, _, _ in answers] == [200] * SIMULTANEOUS
    assert len({body for _, _, body in answers}) == 1
    assert json.loads(answers[0][2])["output"] in (1, [1, 1])


async def test_simultaneous_background_starts_under_one_key_are_one_run() -> None:
    chain = GatedChain(["a", "b"], before=0)
    app = app_of(chain)

    async def release() -> None:
        pass

    async with serve(app) as server, AsyncExitStack() as stack:
        answers = await all_answers(stack, server, RUNS["runs"], release)
        chain.gate.set()
        await ended(app)

    assert chain.started == 1
    assert {status for status, _, _ in answers} == {202}
    assert len({json.loads(body)["run_id"] for _, _, body in answers}) == 1
    assert len({headers["location"] for _, headers, _ in answers}) == 1


@pytest.mark.parametrize("mode", ["stream", "invoke"])
async def test_all_who_wait_for_one_background_run_get_its_output(mode: str) -> None:
    chain = CountingChain()
    app = app_of(chain)
    start = replace(post("runs", prefer="wait=5"), json={"input": 7, "mode": mode})

    async def release() -> None:
        await until(lambda: readers(app) == SIMULTANEOUS)
        chain.release.set()

    async with serve(app) as server, AsyncExitStack() as stack:
        answers = await all_answers(stack, server, start, release)

    assert chain.total == 1
    shown = [json.loads(body) for _, _, body in answers]
    assert [status for status, _, _ in answers] == [200] * SIMULTANEOUS
    assert [(one["status"], one["output"]) for one in shown] == [("success", 7)] * SIMULTANEOUS
    assert len({one["run_id"] for one in shown}) == 1


async def test_readers_on_all_wires_share_the_run_of_one_key() -> None:
    chain = GatedChain(["a", "b", "c"], before=1)
    app = app_of(chain)
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_stream(app, "POST", start.target, json=start.json, headers=start.headers)
            )
            for start in (STREAMS[name] for name in ("langserve", "ids", "ndjson", "text"))
        ]
        assert only_run(app).readers == 4
        chain.gate.set()
        assert [spoken(stream.headers, await stream.read()) for stream in opened] == ["abc"] * 4

    assert chain.started == 1


@starts
async def test_the_same_key_with_another_content_is_refused(start: Start) -> None:
    calls: list[Any] = []
    app = app_of(noting(calls))
    first = await start.ask(app)
    await ended(app)
    second = await start.for_something_else().ask(app)

    assert first.status in (200, 202)
    assert_problem(second, 422, "idempotency_key_reused")
    assert calls in ([1], [1, 1])


@pytest.mark.parametrize("verb", ["invoke", "batch", "stream", "runs"])
async def test_the_same_key_with_another_content_is_refused_while_its_run_lives(verb: str) -> None:
    chain = CountingChain()
    app = app_of(chain)
    start = post(verb)
    async with open_stream(
        app, "POST", start.target, json=start.json, headers=KEY, wait_for_start=False
    ) as stream:
        await chain.until_in_flight(2 if verb == "batch" else 1)
        second = await start.for_something_else().ask(app)
        chain.release.set()
        await stream.started()
        await stream.read()
        await ended(app)

    assert_problem(second, 422, "idempotency_key_reused")
    assert stream.status in (200, 202)
    assert chain.total == (2 if verb == "batch" else 1)


async def test_the_key_of_a_config_in_the_url_belongs_to_that_config() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    body = {"input": 1}
    first = await request(app, "POST", "/chain/invoke", json=body, headers=KEY)
    other = await request(app, "POST", "/chain/c/N4XyA/invoke", json=body, headers=KEY)

    assert first.status == 200
    assert_problem(other, 422, "idempotency_key_reused")
    assert chain.total == 1


async def test_each_verb_has_keys_of_its_own() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    for verb in ("invoke", "batch", "stream", "runs"):
        assert (await post(verb).ask(app)).status in (200, 202)
    await ended(app)

    assert chain.total == 5


async def test_each_path_has_keys_of_its_own() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    add_routes(app, chain, path="/other")
    for path in ("/chain/stream", "/other/stream", "/plain"):
        body = 1 if path == "/plain" else {"input": 1}
        assert (await request(app, "POST", path, json=body, headers=KEY)).status == 200

    assert chain.total == 3


async def test_a_slash_at_the_end_makes_no_other_key() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    for path in ("/chain/invoke", "/chain/invoke/"):
        response = await request(app, "POST", path, json={"input": 1}, headers=KEY)
        assert response.status == 200

    assert chain.total == 1


@pytest.mark.parametrize("verb", ["invoke", "batch", "stream", "runs"])
async def test_each_principal_has_keys_of_its_own(verb: str) -> None:
    chain = CountingChain()
    chain.release.set()
    app = FastAPI()
    owned = Chain(path="/chain", runnable=chain, principal=lambda asked: asked.headers["x-user"])
    add_routes(app, owned)
    start = post(verb)
    for user in ("ann", "bob", "ann", "bob"):
        assert (await start.ask(app, **{"x-user": user})).status in (200, 202)
        await ended(app)

    assert chain.total == (4 if verb == "batch" else 2)


async def test_another_principal_is_not_told_of_a_key() -> None:
    chain = CountingChain()
    chain.release.set()
    app = FastAPI()
    owned = Chain(path="/chain", runnable=chain, principal=lambda asked: asked.headers["x-user"])
    add_routes(app, owned)
    start = post("invoke")
    anns = await start.ask(app, **{"x-user": "ann"})
    bobs = await start.for_something_else().ask(app, **{"x-user": "bob"})

    assert anns.json()["output"] == 1
    assert bobs.json()["output"] == 2


@starts
async def test_after_its_end_a_key_leads_to_the_same_run_until_log_ttl_has_passed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    app = app_of(noting(calls), log_ttl=300)
    a_run = 2 if start.target.endswith("batch") else 1
    first = await start.ask(app)
    await ended(app)
    again = await start.ask(app)
    assert len(calls) == a_run
    if start.target.endswith("runs"):
        assert again.status == 200
        assert again.json()["run_id"] == first.json()["run_id"]
        assert again.json()["output"] == "1"
    else:
        assert without_retry(again.body) == without_retry(first.body)

    monkeypatch.setattr(executor_of(app).store, "_clock", lambda: time.monotonic() + 301)
    afresh = await start.ask(app)
    await ended(app)
    assert len(calls) == 2 * a_run
    assert afresh.status == first.status
    assert without_retry(afresh.body) != without_retry(first.body) or not _names_run(first)


def _names_run(response: Response) -> bool:
    """Tell whether an answer says which run it is of."""
    return response.headers["content-type"].split(";")[0] != "text/plain"


@starts
@pytest.mark.parametrize("cut", ["at once", "when the run has begun"])
async def test_a_cut_before_the_first_event_leaves_a_run_that_the_second_attempt_gets(
    start: Start, cut: str
) -> None:
    chain = GatedChain(["a", "b", "c"], before=0)
    app = app_of(chain)
    runs = 2 if start.target.endswith("batch") else 1
    async with serve(app) as server:
        async with await RawConnection.open(server.port) as client:
            await start.send(client)
            if cut != "at once":
                await until(lambda: chain.started == runs)
            client.reset()
        if cut != "at once":
            await until(lambda: readers(app) == 0)
        async with await RawConnection.open(server.port) as client:
            await start.send(client)
            await until(lambda: chain.started == runs)
            chain.gate.set()
            status, headers, body = await whole_answer(client)
        await ended(app)

    assert chain.started == runs
    assert not chain.cancelled.is_set()
    if start in STREAMS.values():
        assert spoken(headers, body) == "abc"
    elif start is RUNS["runs"]:
        assert status == 202
    else:
        assert json.loads(body)["output"] in ("abc", ["abc", "abc"])


async def test_a_body_that_was_cut_starts_nothing_and_leaves_its_key_free() -> None:
    chain = GatedChain(["a"], before=1)
    chain.gate.set()
    app = app_of(chain)
    start = STREAMS["langserve"]
    async with serve(app) as server:
        async with await RawConnection.open(server.port) as client:
            headers = {**KEY, "content-type": "application/json", "content-length": "12"}
            await client.send_request("POST", start.target, headers=headers, body=b'{"input": ')
            client.reset()
        async with await RawConnection.open(server.port) as client:
            await start.send(client)
            _, headers_, body = await whole_answer(client)

    assert spoken(headers_, body) == "a"
    assert chain.started == 1


def unserializable(_: Any) -> Any:
    return {"thing": object()}


def teapot(_: Any) -> Any:
    raise HTTPException(418, "no coffee")


FAILURES: dict[str, tuple[Runnable[Any, Any], int, str]] = {
    "unexpected": (failing(), 500, "internal_error"),
    "unserializable": (RunnableLambda(unserializable), 500, "output_not_serializable"),
    "a status of its own": (RunnableLambda(teapot), 418, "http_error"),
}
failures = pytest.mark.parametrize(
    ("chain", "status", "code"), FAILURES.values(), ids=FAILURES.keys()
)


@failures
@outputs
async def test_an_error_is_repeated_as_it_was(
    start: Start, chain: Runnable[Any, Any], status: int, code: str
) -> None:
    app, calls = counted(chain)
    first = assert_problem(await start.ask(app), status, code)
    calls_of_a_run = len(calls)
    again = assert_problem(await start.ask(app), status, code)

    assert again == first
    assert len(calls) == calls_of_a_run


def counted(chain: Runnable[Any, Any]) -> tuple[FastAPI, list[Any]]:
    """Return a server with the chain, and the list of the inputs that it was given."""
    calls: list[Any] = []

    def note(value: Any) -> Any:
        calls.append(value)
        return value

    served = Chain(path="/chain", runnable=RunnableLambda(note) | chain)
    return create_app([served], Settings()), calls


@failures
@pytest.mark.parametrize("wire", ["langserve", "ids", "ndjson", "get"])
async def test_a_stream_that_failed_is_repeated_with_its_error(
    wire: str, chain: Runnable[Any, Any], status: int, code: str
) -> None:
    app, calls = counted(chain)
    start = STREAMS[wire]
    first, again = await start.ask(app), await start.ask(app)

    assert without_retry(again.body) == without_retry(first.body)
    assert str(status).encode() in again.body
    assert len(calls) == 1


@outputs
async def test_a_timeout_is_repeated(start: Start) -> None:
    chain = CountingChain()
    app = app_of(chain, run_timeout=0.05)
    first = assert_problem(await start.ask(app), 504, "timeout")
    total = chain.total
    assert assert_problem(await start.ask(app), 504, "timeout") == first
    assert chain.total == total


@outputs
async def test_a_cancelled_run_stays_cancelled_under_its_key(start: Start) -> None:
    chain = CountingChain()
    app = app_of(chain)
    async with open_stream(
        app, "POST", start.target, json=start.json, headers=KEY, wait_for_start=False
    ) as stream:
        await until(lambda: chain.in_flight > 0)
        [run] = executor_of(app).live
        cancelled = await request(app, "POST", f"/chain/runs/{run.id}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        await stream.started()
        assert stream.status == 499
    total = chain.total
    assert_problem(await start.ask(app), 499, "cancelled")
    assert chain.total == total


@outputs
async def test_a_providers_rate_limit_is_repeated_and_not_asked_for_again(start: Start) -> None:
    limited = Status(429, {"retry-after": "7"})
    async with OpenAIServer(default=limited) as upstream:
        app = make_app(model_at(upstream))
        body = {"inputs": ["hi"]} if start.target.endswith("batch") else {"input": "hi"}
        start = replace(start, json=body)
        first = assert_problem(await start.ask(app), 429, "upstream_rate_limited")
        again = assert_problem(await start.ask(app), 429, "upstream_rate_limited")

    assert again == first
    assert len(upstream.requests) == 1


@outputs
async def test_an_output_over_the_bound_is_answered_once_and_then_410(start: Start) -> None:
    app = app_of(answering("x" * 100), max_output_bytes=50)
    first = await start.ask(app)
    again = await start.ask(app)

    assert first.json()["output"] in ("x" * 100, ["x" * 100] * 2)
    problem = assert_problem(again, 410, "output_not_kept")
    run_id = first.json()["metadata"].get("run_id") or first.json()["metadata"]["run_ids"][0]
    assert run_id in problem["message"]


@outputs
async def test_an_output_over_the_bound_reaches_all_who_wait_for_it(start: Start) -> None:
    chain = CountingChain()
    app = app_of(chain, max_output_bytes=0)

    async def release() -> None:
        await until(lambda: readers(app) == SIMULTANEOUS)
        chain.release.set()

    async with serve(app) as server, AsyncExitStack() as stack:
        answers = await all_answers(stack, server, start, release)

    assert {json.dumps(json.loads(body)["output"]) for _, _, body in answers} <= {"1", "[1, 1]"}
    assert {status for status, _, _ in answers} == {200}


@streams
async def test_a_stream_whose_output_was_not_kept_is_repeated_from_its_log(start: Start) -> None:
    chain = GatedChain(["a", "b", "c"])
    chain.gate.set()
    app = app_of(chain, max_output_bytes=0)
    for _ in range(2):
        response = await start.ask(app)
        assert spoken(response.headers, response.body) == "abc"
    assert chain.started == 1


async def test_a_background_run_whose_output_was_not_kept_is_found_again_without_it() -> None:
    app = app_of(answering("x" * 100), max_output_bytes=50)
    start = RUNS["runs of one output"]
    first, again = await start.ask(app), await start.ask(app)

    assert (first.status, again.status) == (200, 200)
    assert first.json()["run_id"] == again.json()["run_id"]
    assert "output" not in again.json()


async def test_a_batch_of_which_a_run_was_forgotten_is_not_repeated_in_part() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    start = replace(OUTPUTS["batch"], json={"inputs": [1, 2, 3]})
    first = await start.ask(app)
    second_run = first.json()["metadata"]["run_ids"][1]
    assert (await request(app, "DELETE", f"/chain/runs/{second_run}")).status == 204
    again = await start.ask(app)

    assert first.json()["output"] == [1, 2, 3]
    assert_problem(again, 410, "output_not_kept")
    assert chain.total == 3


async def test_a_batch_is_not_repeated_with_the_output_of_another_run_of_the_same_id() -> None:
    chain = CountingChain()
    chain.release.set()
    app = make_app(chain, config_keys=["run_id"])
    ids = [f"0d0f0000-1111-4222-8333-44445555666{index}" for index in range(2)]
    configs = [{"run_id": run_id} for run_id in ids]
    start = replace(OUTPUTS["batch"], json={"inputs": [1, 2], "config": configs})
    first = await start.ask(app)
    body = {"input": 9, "config": configs[1]}
    assert (await request(app, "POST", "/chain/invoke", json=body)).json()["output"] == 9
    again = await start.ask(app)

    assert first.json()["output"] == [1, 2]
    assert_problem(again, 410, "output_not_kept")
    assert chain.total == 3


async def test_forgetting_a_run_frees_its_key() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    start = OUTPUTS["invoke"]
    first = (await start.ask(app)).json()["metadata"]["run_id"]
    assert (await request(app, "DELETE", f"/chain/runs/{first}")).status == 204
    second = (await start.ask(app)).json()["metadata"]["run_id"]

    assert second != first
    assert chain.total == 2


BAD_KEYS = [
    "",
    "k" * 256,
    "schl\u00fcssel",
    "a\tb",
    "a\0b",
    "a\nb",
    "a\x7fb",
    " ",
]
SPACED_KEYS = [" key", "key "]


@pytest.mark.parametrize(
    "name", ["langserve", "get", "plain", "plain get", "invoke", "batch", "runs"]
)
async def test_a_bad_key_is_refused_and_starts_nothing(name: str) -> None:
    chain = CountingChain()
    app = app_of(chain)
    for key in BAD_KEYS:
        response = await replace(STARTS[name], headers={"idempotency-key": key}).ask(app)
        assert_problem(response, 400, "invalid_idempotency_key")
    assert not executor_of(app).live
    assert chain.total == 0


async def test_white_space_around_a_header_is_no_part_of_the_key() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    for key in ("key", *SPACED_KEYS):
        start = replace(OUTPUTS["invoke"], headers={"idempotency-key": key})
        assert (await start.ask(app)).status == 200
    assert chain.total == 1


@pytest.mark.parametrize("path", ["/chain/stream", "/plain"])
async def test_a_bad_key_in_a_parameter_is_refused(path: str) -> None:
    chain = CountingChain()
    app = app_of(chain)
    for key in (*BAD_KEYS, *SPACED_KEYS, "\u043a\u043b\u044e\u0447"):
        query = {"input": "1", "idempotency_key": key}
        response = await request(app, "GET", path, query=query)
        assert_problem(response, 400, "invalid_idempotency_key")
    assert chain.total == 0


@pytest.mark.parametrize("key", ["k", "k" * 255, "~!#$ %&", '"quoted"'])
async def test_any_other_printable_ascii_is_a_key(key: str) -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    start = replace(OUTPUTS["invoke"], headers={"idempotency-key": key})
    assert [(await start.ask(app)).status for _ in range(2)] == [200, 200]
    assert chain.total == 1


async def test_the_header_goes_before_the_parameter() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    for key in ("in the header", "another in the header", "in the header"):
        start = replace(STREAMS["get with a parameter"], headers={"idempotency-key": key})
        assert (await start.ask(app)).status == 200
    assert chain.total == 2


async def test_the_parameters_of_the_reading_are_not_those_of_the_run() -> None:
    chain = GatedChain(["a", "b"])
    chain.gate.set()
    app = app_of(chain)
    start = STREAMS["get"]
    named = await start.ask(app)
    unnamed = await replace(start, target=f"{start.target}&format=text").ask(app)

    assert spoken(named.headers, named.body) == spoken(unnamed.headers, unnamed.body) == "ab"
    assert chain.started == 1


@starts
async def test_where_nothing_is_retained_a_key_holds_as_long_as_its_run(start: Start) -> None:
    chain = GatedChain(["a", "b", "c"], before=1)
    app = app_of(chain, retention=False)
    runs = 2 if start.target.endswith("batch") else 1

    async def release() -> None:
        if start is not RUNS["runs"]:
            await until(lambda: readers(app) == SIMULTANEOUS)
        chain.gate.set()

    async with serve(app) as server, AsyncExitStack() as stack:
        answers = await all_answers(stack, server, start, release)
        await ended(app)
        assert chain.started == runs
        await start.ask(app)
        await ended(app)

    assert {status for status, _, _ in answers} <= {200, 202}
    if start in STREAMS.values():
        assert {spoken(headers, body) for _, headers, body in answers} == {"abc"}
    assert chain.started == 2 * runs


@starts
async def test_where_nothing_is_retained_a_run_that_never_waits_is_answered_whole(
    start: Start,
) -> None:
    chain = GatedChain(["a", "b", "c"])
    chain.gate.set()
    app = app_of(chain, retention=False)
    response = await start.ask(app)
    await ended(app)

    if start in STREAMS.values():
        assert spoken(response.headers, response.body) == "abc"
    else:
        assert response.status in (200, 202)


@pytest.mark.parametrize("name", ["langserve", "ids", "get", "get with a parameter", "plain"])
async def test_a_cursor_goes_before_a_key(name: str) -> None:
    chain = GatedChain(["a", "b", "c"])
    chain.gate.set()
    app = app_of(chain)
    start = STREAMS[name]
    resumable = replace(start, headers={"prefer": "resumable"}, target=_without_key(start.target))
    events = (await resumable.ask(app)).events()
    cursor = next(event.id for event in events if event.data in ('"a"', "a"))
    assert cursor is not None
    response = await start.ask(app, **{"last-event-id": cursor})

    assert spoken(response.headers, response.body) == "bc"
    assert chain.started == 1


def _without_key(target: str) -> str:
    return target.replace("&idempotency_key=order-1", "")


async def test_a_key_beside_a_cursor_is_left_free() -> None:
    chain = GatedChain(["a", "b"])
    chain.gate.set()
    app = app_of(chain)
    events = (await post("stream", prefer="resumable").ask(app)).events()
    cursor = events[1].id
    assert cursor is not None
    other = {"idempotency-key": "order-2", "last-event-id": cursor}
    await replace(post("stream"), headers=other).ask(app)
    await replace(post("stream"), headers={"idempotency-key": "order-2"}).ask(app)

    assert chain.started == 2


async def test_a_stream_that_is_cut_goes_on_by_its_key_or_by_its_cursor() -> None:
    chain = GatedChain(["a", "b", "c"], before=1)
    app = app_of(chain)
    start = STREAMS["ids"]
    async with open_stream(
        app, "POST", start.target, json=start.json, headers=start.headers
    ) as stream:
        await stream.next_event()
        await stream.next_event()
        cursor = stream.last_event_id
    chain.gate.set()
    whole = await start.ask(app)
    rest = await start.ask(app, **{"last-event-id": cursor})

    assert spoken(whole.headers, whole.body) == "abc"
    assert spoken(rest.headers, rest.body) == "bc"
    assert chain.started == 1


async def test_a_start_that_was_refused_leaves_its_key_free() -> None:
    chain = CountingChain()
    chain.release.set()
    app = app_of(chain)
    start = OUTPUTS["batch"]
    refused = await replace(start, json={"inputs": 1}).ask(app)
    answered = await start.ask(app)

    assert (refused.status, answered.status) == (422, 200)


async def test_a_run_id_in_use_leaves_the_key_of_the_refused_start_free() -> None:
    chain = CountingChain()
    app = make_app(chain, config_keys=["run_id"])
    ids = [f"0d0f0000-1111-4222-8333-44445555666{index}" for index in range(2)]
    first = {"input": 1, "config": {"run_id": ids[1]}}
    batch = {"inputs": [1, 2], "config": [{"run_id": run_id} for run_id in ids]}
    async with open_stream(
        app, "POST", "/chain/invoke", json=first, wait_for_start=False
    ) as stream:
        await chain.until_in_flight(1)
        refused = await request(app, "POST", "/chain/batch", json=batch, headers=KEY)
        unknown = await request(app, "GET", f"/chain/runs/{ids[0]}")
        chain.release.set()
        await stream.started()
        await stream.read()
    answered = await request(app, "POST", "/chain/batch", json=batch, headers=KEY)

    assert_problem(refused, 409, "run_id_in_use")
    assert unknown.status == 404
    assert answered.json()["output"] == [1, 2]


async def test_a_key_goes_before_the_run_id_that_its_request_repeats() -> None:
    chain = CountingChain()
    app = make_app(chain, config_keys=["run_id"])
    run_id = "0d0f0000-1111-4222-8333-444455556666"
    body = {"input": 1, "config": {"run_id": run_id}}
    async with AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(
                open_stream(
                    app, "POST", "/chain/invoke", json=body, headers=KEY, wait_for_start=False
                )
            )
            for _ in range(2)
        ]
        await until(lambda: readers(app) == 2)
        chain.release.set()
        for stream in both:
            await stream.started()
            assert json.loads(await stream.read())["metadata"]["run_id"] == run_id
    assert chain.total == 1
