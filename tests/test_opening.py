"""Runs whose log waits for feedback tokens while their chains go on."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import anyio
import pytest
from fastapi import FastAPI
from langchain_core.runnables import RunnableGenerator
from langsmith import utils

from chainserve import APIHandler, feedback
from chainserve.errors import LangSmithError, LangSmithTimeoutError
from chainserve.feedback import LangSmith
from chainserve.opening import Opening
from chainserve.routes import starting
from chainserve.runtime import runtimes_on
from chainserve.schema import FeedbackCreateRequest, FeedbackToken, PublicTraceLinkCreateRequest
from chainserve.settings import Settings
from chainserve.stores.base import BEFORE_FIRST, RunRecord
from chainserve.stores.memory import MemoryStore
from chainserve.types import RunId
from chainserve.wire.events import Event
from tests._apps import make_app, only_run
from tests._bridge import WAIT_SECONDS, open_stream, request
from tests._langsmith import stub
from tests._server import serve

pytestmark = pytest.mark.anyio

RUN = RunId(str(uuid4()))
TOKEN = FeedbackToken(key="k", token_url="http://langsmith/feedback/tokens/1")
KEY = "a_key_that_nobody_may_read"


def chunks(*texts: bytes) -> list[Event]:
    return [Event(seq, "data", text) for seq, text in enumerate(texts, 1)]


BOUNDS: dict[str, Any] = {
    "max_log_bytes": 2**20,
    "max_run_log_bytes": 2**20,
    "max_runs": 9,
    "log_ttl": 9,
    "run_ttl": 9,
}


class Log:
    """An opening, its log, and the token that it waits for."""

    def __init__(self, store: MemoryStore | None = None, max_kept: int = 100) -> None:
        self.store = store or MemoryStore(**BOUNDS)
        self._token: asyncio.Future[FeedbackToken | None] = asyncio.Future()
        self._max_kept = max_kept

    async def open(self) -> Opening:
        record = RunRecord(
            run_id=RUN, epoch="e", path="/chain", mode="stream", status="running", created_at=0
        )
        await self.store.create(record, log=True)
        return Opening([RUN], self._ask, self.store, self._max_kept)

    async def _ask(self, run_id: RunId) -> FeedbackToken | None:
        return await self._token

    def give(self, token: FeedbackToken | None) -> None:
        self._token.set_result(token)

    async def events(self) -> list[tuple[int, str]]:
        events, _ = await self.store.read_after(RUN, BEFORE_FIRST, max_bytes=2**20)
        return [(event.seq, event.event) for event in events]


async def test_chunks_are_kept_until_the_token_is_there_and_follow_metadata() -> None:
    log = Log()
    opening = await log.open()
    for chunk in chunks(b"1", b"2"):
        await opening.append(RUN, [chunk])
    assert await log.events() == []

    log.give(TOKEN)
    assert await opening.finish(wait=True) is None
    await opening.append(RUN, [Event(3, "data", b"3")])

    assert await log.events() == [(0, "metadata"), (1, "data"), (2, "data"), (3, "data")]
    assert opening.tokens == [[TOKEN]]


async def test_a_run_that_does_not_wait_ends_without_its_token() -> None:
    log = Log()
    opening = await log.open()
    await opening.append(RUN, chunks(b"1"))

    assert await opening.finish(wait=False) is None
    assert await log.events() == [(0, "metadata"), (1, "data")]
    assert opening.tokens == [[]]


async def test_a_chain_waits_for_the_token_once_too_much_is_kept() -> None:
    log = Log(max_kept=10)
    opening = await log.open()
    first, second = chunks(b"1" * 8, b"2" * 8)
    await opening.append(RUN, [first])
    waiting = asyncio.create_task(opening.append(RUN, [second]))
    await anyio.wait_all_tasks_blocked()
    assert not waiting.done()

    log.give(None)
    await asyncio.wait_for(waiting, WAIT_SECONDS)
    assert await log.events() == [(0, "metadata"), (1, "data"), (2, "data")]


class SlowStore(MemoryStore):
    """Writes when it is told to."""

    def __init__(self, **bounds: Any) -> None:
        super().__init__(**bounds)
        self.go = asyncio.Event()

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        await self.go.wait()
        await super().append(run_id, events)


async def test_a_chunk_that_comes_while_others_are_written_stays_behind_them() -> None:
    store = SlowStore(**BOUNDS)
    log = Log(store)
    opening = await log.open()
    first, second = chunks(b"1", b"2")
    await opening.append(RUN, [first])
    log.give(TOKEN)
    await anyio.wait_all_tasks_blocked()
    await opening.append(RUN, [second])
    store.go.set()
    await opening.finish(wait=True)

    assert await log.events() == [(0, "metadata"), (1, "data"), (2, "data")]


class BrokenStore(MemoryStore):
    """Writes nothing."""

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        raise OSError("full")


async def test_a_log_that_cannot_be_written_is_told_to_the_run() -> None:
    log = Log(BrokenStore(**BOUNDS))
    opening = await log.open()
    log.give(TOKEN)

    assert isinstance(await opening.finish(wait=True), OSError)


# With an application, and a LangSmith that is slow for as long as a test wants.


def forget_environment() -> None:
    """Let LangSmith's package read the environment again."""
    utils.get_env_var.cache_clear()  # type: ignore[attr-defined]


class Noted:
    """Where the server says what LangSmith did not do."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(f"{event} {fields}")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Ask the LangSmith that a test names; nothing is traced."""
    monkeypatch.setenv("LANGSMITH_API_KEY", KEY)
    monkeypatch.setattr(starting, "tracing_is_on", lambda: True)
    monkeypatch.setattr(feedback, "tracing_is_on", lambda: True)
    forget_environment()
    yield monkeypatch
    forget_environment()


@asynccontextmanager
async def langsmith(environment: pytest.MonkeyPatch, **script: Any) -> AsyncIterator[str]:
    app = stub()
    async with serve(app) as server:
        await request(app, "PUT", "/script", json=script)
        environment.setenv("LANGSMITH_ENDPOINT", server.base_url)
        forget_environment()
        yield server.base_url


def five(reached: asyncio.Event, go_on: asyncio.Event | None = None) -> RunnableGenerator[Any, str]:
    """Return a chain of five chunks that says when it is through, and may wait before its end."""

    async def generate(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            for chunk in "abcde":
                yield chunk
            reached.set()
            if go_on is not None:
                await go_on.wait()

    return RunnableGenerator(generate)


TOKENS: dict[str, Any] = {"token_feedback_config": {"key_configs": [{"key": "k"}]}}
FOR_EVER = 60.0


@asynccontextmanager
async def served(
    environment: pytest.MonkeyPatch, runnable: Any, *, delay: float = 0, **options: Any
) -> AsyncIterator[FastAPI]:
    """Enter with an application whose runs have tokens, that come after a delay."""
    async with langsmith(environment, delay=delay):
        app = make_app(runnable, **TOKENS, **options)
        yield app
        await runtimes_on(app.router).close()


async def test_a_chain_goes_on_while_its_token_is_awaited(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setattr(feedback, "TOKEN_TIMEOUT", FOR_EVER)
    through = asyncio.Event()
    chain = five(through, asyncio.Event())
    async with (
        served(environment, chain, delay=FOR_EVER) as app,
        open_stream(app, "POST", "/chain/stream", json={"input": 1}),
    ):
        await asyncio.wait_for(through.wait(), WAIT_SECONDS)


async def test_each_run_of_a_batch_has_its_own_token(environment: pytest.MonkeyPatch) -> None:
    async with served(environment, five(asyncio.Event())) as app:
        response = await request(app, "POST", "/chain/batch", json={"inputs": [1, 2]})

    metadata = response.json()["metadata"]
    assert [len(one["feedback_tokens"]) for one in metadata["responses"]] == [1, 1]
    assert [one["run_id"] for one in metadata["responses"]] == metadata["run_ids"]


async def test_a_run_whose_client_left_ends_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(feedback, "TOKEN_TIMEOUT", FOR_EVER)
    through = asyncio.Event()
    async with served(environment, five(through, asyncio.Event()), delay=FOR_EVER) as app:
        async with open_stream(app, "POST", "/chain/stream", json={"input": 1}):
            await asyncio.wait_for(through.wait(), WAIT_SECONDS)
            run = only_run(app)
        await asyncio.wait_for(run.ended.wait(), WAIT_SECONDS)

    assert run.status == "cancelled"


async def test_a_failure_is_told_at_once_with_the_chunks_before_it(
    environment: pytest.MonkeyPatch,
) -> None:
    async def generate(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in inputs:
            yield "a"
            raise ValueError("no")

    environment.setattr(feedback, "TOKEN_TIMEOUT", FOR_EVER)
    async with served(environment, RunnableGenerator(generate), delay=FOR_EVER) as app:
        with anyio.fail_after(WAIT_SECONDS):
            response = await request(app, "POST", "/chain/stream", json={"input": 1})

    lines = [line for line in response.text.splitlines() if line.startswith("event")]
    assert lines == ["event: metadata", "event: data", "event: error"]


async def test_waiting_for_a_token_is_no_pause_of_the_chain(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setattr(feedback, "TOKEN_TIMEOUT", 0.4)
    settings = Settings(idle_timeout=0.2)
    chain = five(asyncio.Event())
    async with served(environment, chain, delay=FOR_EVER, settings=settings) as app:
        response = await request(app, "POST", "/chain/stream", json={"input": 1})

    assert response.text.endswith("event: end\r\n\r\n")
    assert response.text.count("event: data") == 5


# LangSmith itself.


async def test_a_caller_waits_no_longer_than_the_bound(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(feedback, "ANSWER_TIMEOUT", 0.2)
    noted = Noted()
    async with langsmith(environment, delay=FOR_EVER):
        asked = LangSmith(noted)
        with pytest.raises(LangSmithTimeoutError):
            await asked.create_feedback(FeedbackCreateRequest(run_id=uuid4(), key="k"))
        await asked.close()

    assert "langsmith_timeout" in noted.lines[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LANGSMITH_API_KEY", f"{KEY}\nmore"),
        ("LANGSMITH_API_KEY", f"{KEY}\u00e9"),
        ("LANGSMITH_ENDPOINT", "http://[" + KEY),
        ("LANGSMITH_ENDPOINT", "ftp://" + KEY),
        ("LANGSMITH_ENDPOINT", "http://127.0.0.1:1"),
    ],
)
async def test_an_environment_that_cannot_work_is_told_without_its_values(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    noted = Noted()
    async with langsmith(environment):
        environment.setenv(name, value)
        forget_environment()
        asked = LangSmith(noted)
        assert await asked.token(RUN, "k") is None
        with pytest.raises(LangSmithError) as refused:
            await asked.share_run(uuid4())
        await asked.close()

    assert len(noted.lines) == 2
    assert KEY not in "".join([*noted.lines, refused.value.message])


async def test_what_was_never_asked_has_nothing_to_close(environment: pytest.MonkeyPatch) -> None:
    app = make_app(five(asyncio.Event()))
    await request(app, "POST", "/chain/invoke", json={"input": 1})
    asked = runtimes_on(app.router).current().langsmith
    await asked.close()

    assert asked._connecting is None


async def test_the_key_is_sent_with_each_request(environment: pytest.MonkeyPatch) -> None:
    async with langsmith(environment):
        asked = LangSmith(Noted())
        token = await asked.token(RUN, "k")
        connection = await asked._connected()
        await asked.close()

    assert token is not None
    assert connection.http.headers["x-api-key"] == KEY
    assert connection.http.is_closed


def test_a_handler_is_not_bound_to_the_first_event_loop(environment: pytest.MonkeyPatch) -> None:
    handler = APIHandler(
        five(asyncio.Event()), path="/x", **TOKENS, enable_public_trace_link_endpoint=True
    )

    async def link() -> str:
        async with langsmith(environment):
            asked = PublicTraceLinkCreateRequest(run_id=uuid4())
            return (await handler.create_public_trace_link(asked)).public_url

    environment.setattr("chainserve.api_handler.tracing_is_on", lambda: True)
    assert asyncio.run(link()) == asyncio.run(link())
