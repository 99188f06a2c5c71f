"""What a chain's author is told when a run ends, and what callers are told of its errors."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import openai
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, HTTPException
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from chainserve import Chain, ChainServeError, EndedRun, add_routes
from chainserve.runtime import runtimes_on
from chainserve.settings import Settings
from chainserve.types import RunId
from tests._apps import assert_problem, executor_of, only_run
from tests._bridge import Response, open_stream, request
from tests._chains import (
    CountingChain,
    GatedChain,
    SwallowingChain,
    answering,
    echo,
    failing,
    message_chunks,
    streaming,
)
from tests._openai import OpenAIServer, Status, refused_base_url
from tests._verbs import VERBS, ask, body_of

pytestmark = pytest.mark.anyio


class Ends:
    """Keeps what the hook was called with, in every form that a hook may have."""

    def __init__(self) -> None:
        self.runs: list[EndedRun] = []
        self.threads: list[threading.Thread] = []
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def coroutine(self, run: EndedRun) -> None:
        self._keep(run)

    def function(self, run: EndedRun) -> None:
        self._loop.call_soon_threadsafe(self._keep, run)
        self.threads.append(threading.current_thread())

    async def __call__(self, run: EndedRun) -> None:
        self._keep(run)

    async def count(self, count: int) -> list[EndedRun]:
        """Wait for so many calls; return them once no run and no hook is left that could call."""
        async with asyncio.timeout(20):
            while len(self.runs) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.runs

    async def one(self) -> EndedRun:
        """Wait for the one call."""
        [run] = await self.count(1)
        return run

    def _keep(self, run: EndedRun) -> None:
        self.runs.append(run)
        self._arrived.set()


def app_of(runnable: Runnable[Any, Any], settings: Settings | None = None, **hooks: Any) -> FastAPI:
    app = FastAPI()
    runtimes_on(app.router, settings or Settings())
    add_routes(app, Chain(path="/chain", runnable=runnable, **hooks))
    return app


async def settle(app: FastAPI) -> None:
    """Wait until every run has ended and every hook has returned."""
    async with asyncio.timeout(20):
        await executor_of(app).shutdown()


async def come_to(event: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await event.wait()


# When it is called.


FORMS: dict[str, Callable[[Ends], Any]] = {
    "a coroutine function": lambda ends: ends.coroutine,
    "a function": lambda ends: ends.function,
    "an object": lambda ends: ends,
    "a partial": lambda ends: partial(ends.coroutine),
    "a function that returns what is to be awaited": lambda ends: lambda run: ends.coroutine(run),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("verb", [*VERBS, "runs"])
async def test_the_end_of_a_run_is_told_once(verb: str, form: str) -> None:
    ends = Ends()
    app = app_of(echo(), on_end=FORMS[form](ends))
    headers = {"x-request-id": "request-1", "prefer": "wait=5"}
    answer = await ask(app, verb, "hi", headers=headers)
    run = await ends.one()
    await settle(app)

    assert answer.status == 200
    assert run.run_id in answer.text
    assert (run.path, run.status, run.output, run.input) == ("/chain", "success", "hi", "hi")
    assert run.mode == ("stream" if verb == "runs" else verb)
    assert str(run.config["run_id"]) == run.run_id
    assert run.created_at <= run.ended_at
    assert run.request_id == "request-1"
    assert (run.owner, run.usage, run.error, run.exception, run.cancel_reason) == (None,) * 5
    assert len(ends.runs) == 1


async def test_a_function_is_called_in_a_thread() -> None:
    ends = Ends()
    app = app_of(echo(), on_end=ends.function)
    await ask(app, "invoke")
    await ends.one()

    assert ends.threads[0] is not threading.main_thread()


async def test_the_hook_is_called_after_the_terminal_event() -> None:
    seen: list[Any] = []

    async def on_end(run: EndedRun) -> None:
        store = executor_of(app).store
        record = await store.get(run.run_id)
        events, _ = await store.read_after(run.run_id, -1)
        seen.append((record and record.status, events[-1].event))

    app = app_of(echo(), on_end=on_end)
    await ask(app, "stream")
    await settle(app)

    assert seen == [("success", "end")]


async def test_each_run_of_a_batch_is_told_with_what_is_its_own() -> None:
    ends = Ends()
    app = app_of(echo(), on_end=ends)
    answer = await request(app, "POST", "/chain/batch", json={"inputs": ["a", "b", "c"]})
    runs = await ends.count(3)
    await settle(app)

    assert [run.run_id for run in runs] == answer.json()["metadata"]["run_ids"]
    assert [(run.input, run.output) for run in runs] == [("a", "a"), ("b", "b"), ("c", "c")]
    assert {run.mode for run in runs} == {"batch"}


async def test_a_run_that_a_key_started_is_told_once_however_often_it_is_asked_for() -> None:
    ends = Ends()
    app = app_of(echo(), on_end=ends)
    for verb in ("invoke", "stream", "batch"):
        for _ in range(3):
            await ask(app, verb, headers={"idempotency-key": "k"})
    await ends.count(3)
    await settle(app)

    assert sorted(run.mode for run in ends.runs) == ["batch", "invoke", "stream"]


async def test_a_request_that_starts_nothing_tells_nothing() -> None:
    ends = Ends()
    app = app_of(echo(int), on_end=ends)
    for verb in VERBS:
        assert (await ask(app, verb, "no number")).status == 422
    await request(app, "POST", "/chain/batch", json={"inputs": []})
    await settle(app)

    assert ends.runs == []


async def test_the_owner_and_the_tokens_of_a_run_are_told() -> None:
    ends = Ends()
    model = streaming(*message_chunks(["Hello", " world"]))
    app = app_of(model, on_end=ends, principal=lambda request: request.headers["x-user"])
    await ask(app, "stream", headers={"x-user": "ann"})
    run = await ends.one()

    assert run.owner == "ann"
    assert run.output.content == "Hello world"


# What it is told of runs that do not succeed.


@pytest.mark.parametrize("verb", [*VERBS, "runs"])
async def test_a_failure_is_told_with_its_exception(verb: str) -> None:
    ends = Ends()
    error = ValueError("secret-reason")
    app = app_of(failing(0, error), on_end=ends)
    await ask(app, verb)
    run = await ends.one()
    await settle(app)

    assert run.status == "error"
    assert run.exception is error
    assert run.error == {
        "status_code": 500,
        "message": "Internal Server Error",
        "code": "internal_error",
    }
    assert run.cancel_reason is None
    assert run.output is None
    assert len(ends.runs) == 1


async def test_a_stream_that_fails_is_told_with_what_it_had_said() -> None:
    ends = Ends()
    app = app_of(failing(2), on_end=ends)
    await ask(app, "stream")

    assert (await ends.one()).output == "t0 t1 "


PARTS: dict[str, tuple[list[Any], Any]] = {
    "text": (["a", "b", "never"], "ab"),
    "dicts": ([{"a": 1}, {"b": 2}, {"c": 3}], {"b": 2}),
    "lists": ([[1], [2], [3]], [1, 2]),
    "numbers": ([1, 2, 4], 3),
    "one chunk": (["a", "never"], "a"),
    "text and numbers": (["a", 1, "never"], 1),
    "none": ([None, None, "never"], None),
}


def gated(chunks: list[Any], gate: asyncio.Event, reached: asyncio.Event) -> Runnable[Any, Any]:
    """Stream chunks, and wait at a gate before the last."""

    async def stream(inputs: Any) -> Any:
        async for _ in inputs:
            pass
        for chunk in chunks[:-1]:
            yield chunk
        reached.set()
        await gate.wait()
        yield chunks[-1]

    return RunnableLambda(lambda value: value) | stream


@pytest.mark.parametrize("kind", [*PARTS, "messages"])
async def test_a_cancelled_stream_is_told_with_what_it_had_said(kind: str) -> None:
    messages = message_chunks(["Hello", " world"])
    chunks, expected = PARTS.get(kind, (messages, "Hello world"))
    ends, gate, reached = Ends(), asyncio.Event(), asyncio.Event()
    app = app_of(gated(chunks, gate, reached), on_end=ends)
    started = await request(app, "POST", "/chain/runs", json={"input": 1})
    await come_to(reached)
    await until_written(app, len(chunks) - 1)
    await request(app, "POST", f"/chain/{started.headers['location']}/cancel")
    run = await ends.one()
    await settle(app)

    assert (run.status, run.cancel_reason) == ("cancelled", "requested")
    assert run.error is not None
    assert run.error["status_code"] == 499
    if kind == "messages":
        assert isinstance(run.output, AIMessageChunk)
        assert run.output.content == expected
    else:
        assert run.output == expected
    assert len(ends.runs) == 1


async def until_written(app: FastAPI, chunks: int) -> None:
    """Wait until a live run has written so many chunks."""
    run = only_run(app)
    async with asyncio.timeout(20):
        while run.next_seq < chunks + 1:
            await checkpoint()


@pytest.mark.parametrize("verb", VERBS)
async def test_a_client_that_leaves_is_told_of(verb: str) -> None:
    ends, chain = Ends(), CountingChain()
    app = app_of(chain, on_end=ends)
    async with open_stream(app, "POST", f"/chain/{verb}", json=body_of(verb), wait_for_start=False):
        await chain.until_in_flight(1)
    run = await ends.one()
    await settle(app)

    assert (run.status, run.cancel_reason, run.output) == ("cancelled", "client_disconnect", None)
    assert len(ends.runs) == 1


@pytest.mark.parametrize("deadline", ["run_timeout", "first_event_timeout", "idle_timeout"])
async def test_a_deadline_is_told_of(deadline: str) -> None:
    ends = Ends()
    before = 0 if deadline == "first_event_timeout" else 1
    settings = Settings.model_validate({deadline: 0.02})
    app = app_of(GatedChain(before=before), settings, on_end=ends)
    await ask(app, "stream")
    run = await ends.one()
    await settle(app)

    assert (run.status, run.cancel_reason) == ("timeout", "timeout")
    assert run.error is not None
    assert (run.error["status_code"], run.error["code"]) == (504, "timeout")
    assert run.output == ("a" if before else None)
    assert len(ends.runs) == 1


@pytest.mark.parametrize("verb", VERBS)
async def test_a_run_that_is_left_behind_is_told_once(verb: str) -> None:
    ends, chain = Ends(), SwallowingChain()
    app = app_of(chain, Settings(cancel_timeout=0.05), on_end=ends)
    async with open_stream(app, "POST", f"/chain/{verb}", json=body_of(verb), wait_for_start=False):
        await come_to(chain.started)
    run = await ends.one()
    chain.release.set()
    await come_to(chain.finished)
    await settle(app)

    assert run.status == "cancelled"
    assert len(ends.runs) == 1


async def test_the_end_of_the_server_is_told_of_and_waits_for_the_hook() -> None:
    ends, chain = Ends(), GatedChain()
    app = app_of(chain, on_end=ends.function)
    await request(app, "POST", "/chain/runs", json={"input": 1})
    await come_to(chain.reached[1])
    await settle(app)
    run = await ends.one()

    assert (run.status, run.cancel_reason, run.output) == ("cancelled", "shutdown", "a")


async def test_a_run_that_is_not_kept_is_told_all_the_same() -> None:
    ends = Ends()
    app = app_of(echo(), on_end=ends, retention=False)
    answer = await ask(app, "invoke", "hi")
    run = await ends.one()

    assert run.run_id == answer.json()["metadata"]["run_id"]
    assert run.output == "hi"


async def test_an_output_that_cannot_be_written_is_told_as_it_is() -> None:
    ends = Ends()
    value = object()
    app = app_of(answering(value), on_end=ends)
    answer = await ask(app, "invoke")
    run = await ends.one()

    assert_problem(answer, 500, "output_not_serializable")
    assert run.status == "error"
    assert run.output is value


# Hooks that fail.


class HookError(Exception):
    """What a hook raises."""


def failing_hook(run: EndedRun) -> None:
    raise HookError("the hook failed")


async def failing_hook_later(run: EndedRun) -> None:
    raise HookError("the hook failed later")


async def hanging_hook(run: EndedRun) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("hook", "named", "seconds"),
    [
        (failing_hook, "HookError", 5),
        (failing_hook_later, "HookError", 5),
        (hanging_hook, "TimeoutError", 0.02),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("verb", [*VERBS, "runs"])
async def test_a_hook_that_fails_or_hangs_is_logged_and_changes_nothing(
    verb: str, hook: Any, named: str, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(echo(), Settings(on_end_timeout=seconds), on_end=hook)
    for _ in range(2):
        answer = await ask(app, verb, "hi", headers={"prefer": "wait=5"})
        assert answer.status == 200
        assert '"hi"' in answer.text
    await settle(app)

    told = [entry for entry in caplog.messages if "on_end failed" in entry]
    assert len(told) == 2
    assert all(named in entry for entry in told)
    assert not executor_of(app).live


async def test_a_thread_that_hangs_holds_no_run_back(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def hang(run: EndedRun) -> None:
        release.wait(5)

    app = app_of(echo(), Settings(on_end_timeout=0.02), on_end=hang)
    answer = await ask(app, "invoke", "hi")
    await settle(app)
    release.set()

    assert answer.json()["output"] == "hi"
    assert any("on_end failed" in entry for entry in caplog.messages)


async def test_a_hook_that_is_still_at_it_holds_no_answer_back() -> None:
    release, entered = asyncio.Event(), asyncio.Event()

    async def slow(run: EndedRun) -> None:
        entered.set()
        await release.wait()

    app = app_of(echo(), on_end=slow)
    for verb in VERBS:
        entered.clear()
        assert (await ask(app, verb)).status == 200
        await come_to(entered)
    release.set()
    await settle(app)


# What an error is to a caller.


class QuotaError(Exception):
    """An exception of the chain's own."""


def to_quota(error: Exception) -> Exception | None:
    return HTTPException(402, "No credit is left.") if isinstance(error, QuotaError) else None


def told(verb: str, answer: Response) -> tuple[int, str]:
    """Return the status and the words in which a caller is told of an error."""
    if verb == "stream":
        error = answer.events()[-1]
        assert error.event == "error"
        return error.json()["status_code"], error.json()["message"]
    if verb == "runs":
        error = answer.json()["error"]
        return error["status_code"], error["message"]
    problem = answer.json()
    return answer.status, problem.get("message", problem["detail"])


WAYS = [*VERBS, "runs"]


async def error_of(app: FastAPI, verb: str) -> tuple[int, str]:
    return told(verb, await ask(app, verb, headers={"prefer": "wait=5"}))


@pytest.mark.parametrize("verb", WAYS)
async def test_an_error_is_told_as_the_hook_translates_it(verb: str) -> None:
    ends = Ends()
    app = app_of(failing(0, QuotaError("secret")), translate_error=to_quota, on_end=ends)

    assert await error_of(app, verb) == (402, "No credit is left.")
    run = await ends.one()
    assert isinstance(run.exception, HTTPException)
    record = await executor_of(app).store.get(RunId(run.run_id))
    assert record is not None
    assert record.error == run.error
    assert run.error == {"status_code": 402, "message": "No credit is left.", "code": "http_error"}


@pytest.mark.parametrize("verb", WAYS)
async def test_an_error_that_the_hook_leaves_is_told_as_without_it(verb: str) -> None:
    app = app_of(failing(0, ValueError("secret")), translate_error=to_quota)

    assert await error_of(app, verb) == (500, "Internal Server Error")


@pytest.mark.parametrize("verb", WAYS)
async def test_a_hook_that_fails_leaves_the_error_as_it_is_and_is_logged(
    verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    def translate(error: Exception) -> Exception | None:
        raise HookError("the hook failed")

    app = app_of(failing(0, HTTPException(418, "teapot")), translate_error=translate)

    assert await error_of(app, verb) == (418, "teapot")
    assert any("translate_error failed" in entry for entry in caplog.messages)


@pytest.mark.parametrize("verb", WAYS)
async def test_a_hook_may_be_async(verb: str) -> None:
    async def translate(error: Exception) -> Exception | None:
        await asyncio.sleep(0)
        return to_quota(error)

    app = app_of(failing(0, QuotaError("secret")), translate_error=translate)

    assert await error_of(app, verb) == (402, "No credit is left.")


async def test_an_async_hook_that_hangs_leaves_the_error_as_it_is() -> None:
    async def translate(error: Exception) -> Exception | None:
        await asyncio.Event().wait()
        return None

    settings = Settings(on_end_timeout=0.02)
    app = app_of(failing(0, HTTPException(418, "teapot")), settings, translate_error=translate)

    assert await error_of(app, "stream") == (418, "teapot")


class OddError(BaseException):
    """What `except Exception` does not catch."""


async def cancelling_itself(error: Exception) -> Exception | None:
    asyncio.current_task().cancel()  # type: ignore[union-attr]
    await asyncio.sleep(0)
    return None


def odd(error: Exception) -> Exception | None:
    raise OddError


def exiting(error: Exception) -> Exception | None:
    raise SystemExit(1)


async def exiting_later(error: Exception) -> Exception | None:
    raise SystemExit(1)


def no_error(error: Exception) -> Exception | None:
    return HTTPException(200, "fine")


@pytest.mark.parametrize("verb", WAYS)
@pytest.mark.parametrize("hook", [cancelling_itself, odd, exiting, exiting_later, no_error])
async def test_no_hook_keeps_a_run_from_its_end(verb: str, hook: Any) -> None:
    ends = Ends()
    app = app_of(failing(0, HTTPException(418, "teapot")), translate_error=hook, on_end=ends)

    assert await error_of(app, verb) == (418, "teapot")
    await ends.one()
    assert not executor_of(app).live


@pytest.mark.parametrize("kind", ["on_end", "translate_error"])
async def test_a_hook_that_ignores_its_end_is_left_behind(kind: str) -> None:
    release = asyncio.Event()

    async def swallow(_: Any) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    app = app_of(failing(), Settings(on_end_timeout=0.02), **{kind: swallow})
    assert await error_of(app, "invoke") == (500, "Internal Server Error")
    await settle(app)
    release.set()


async def test_chunks_that_cannot_be_added_up_are_told_all_the_same() -> None:
    def message(value: Any) -> AIMessageChunk:
        return AIMessageChunk(content="a", additional_kwargs={"a": value})

    async def stream(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in inputs:
            yield message(1)
            yield message("x")
            raise ValueError

    ends = Ends()
    app = app_of(RunnableGenerator(stream), on_end=ends)
    await ask(app, "stream")
    run = await ends.one()

    assert run.status == "error"
    assert isinstance(run.output, AIMessageChunk)


@pytest.mark.parametrize("answer", ["text", 7, KeyError, {"status_code": 400}], ids=str)
async def test_a_hook_that_answers_something_else_is_an_unexpected_error(answer: Any) -> None:
    app = app_of(failing(), translate_error=lambda _: answer)

    assert await error_of(app, "stream") == (500, "Internal Server Error")


async def test_an_error_of_this_library_may_be_the_answer() -> None:
    class TenantError(ChainServeError):
        code = "no_such_tenant"
        status_code = 404

    app = app_of(failing(), translate_error=lambda _: TenantError("There is no such tenant."))
    answer = await ask(app, "invoke")

    assert assert_problem(answer, 404, "no_such_tenant")["detail"] == "There is no such tenant."


async def test_the_hook_sees_each_error_once_and_none_of_ours() -> None:
    seen: list[Exception] = []

    def translate(error: Exception) -> None:
        seen.append(error)

    app = app_of(failing(), translate_error=translate)
    for verb in WAYS:
        await error_of(app, verb)
    assert [str(error) for error in seen] == ["the chain failed on purpose"] * len(WAYS)

    seen.clear()
    chain = GatedChain()
    late = app_of(chain, Settings(run_timeout=0.02), translate_error=translate)
    assert (await error_of(late, "stream"))[0] == 504
    opaque = app_of(answering(object()), translate_error=translate)
    assert (await error_of(opaque, "invoke"))[0] == 500
    assert seen == []


async def test_an_error_that_is_translated_has_no_trace_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    app = app_of(failing(0, QuotaError("secret")), translate_error=to_quota)
    await error_of(app, "invoke")

    assert "secret" not in caplog.text


def to_busy(error: Exception) -> Exception | None:
    if isinstance(error, openai.RateLimitError):
        return HTTPException(503, "Come back tomorrow.")
    if isinstance(error, openai.APIConnectionError):
        return HTTPException(503, "The model is away.")
    return None


@pytest.mark.parametrize("verb", WAYS)
async def test_a_providers_error_reaches_the_hook_before_it_is_ours(verb: str) -> None:
    async with OpenAIServer(Status(429, {"retry-after": "7"})) as server:
        app = app_of(model_at(server.base_url), translate_error=to_busy)
        assert await error_of(app, verb) == (503, "Come back tomorrow.")


async def test_a_provider_that_is_away_reaches_the_hook() -> None:
    app = app_of(model_at(refused_base_url()), translate_error=to_busy)

    assert await error_of(app, "invoke") == (503, "The model is away.")


@pytest.mark.parametrize("verb", WAYS)
async def test_a_providers_error_that_the_hook_leaves_is_told_as_ours(verb: str) -> None:
    async with OpenAIServer(Status(401)) as server:
        app = app_of(model_at(server.base_url), translate_error=to_busy)
        status, message = await error_of(app, verb)

    assert status == 502
    assert "credentials" in message


def model_at(base_url: str) -> Runnable[Any, Any]:
    model = ChatOpenAI(
        base_url=base_url, api_key=SecretStr("test"), model="scripted", max_retries=0
    )
    return RunnableLambda(str) | model
