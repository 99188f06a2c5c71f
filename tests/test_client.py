"""`RemoteRunnable` against chainserve and against LangServe, on real sockets."""

import asyncio
import gc
import gzip
import json
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing
from typing import Any

import httpx
import httpx2
import langserve
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, HTTPException
from fastapi.middleware.gzip import GZipMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

import chainserve
from chainserve import (
    RemoteError,
    RemoteRunnable,
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
    answers as answers_module,
)
from chainserve.remote import RemoteRun
from chainserve.wire.parser import EventParser
from tests import _pair_chains as chains, _pair_values as values
from tests._chains import GatedChain, echo, failing, streaming
from tests._pairs import CHAINSERVE, LANGSERVE, Package, forget_oracle_state
from tests._proxy import Fault, proxy
from tests._server import serve
from tests.test_langserve_client import all_verbs, shown

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:`config_schema` is deprecated"),  # LangGraph's
    pytest.mark.filterwarnings("ignore:astream_log is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]

SERVERS = pytest.mark.parametrize("package", [CHAINSERVE, LANGSERVE], ids=repr)
MARKS = {"__useragent", "__langserve_version", "__langserve_endpoint"}


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


@asynccontextmanager
async def served(
    package: Package, runnable: Runnable[Any, Any], **options: Any
) -> AsyncIterator[RemoteRunnable[Any, Any]]:
    """Serve a chain with a package, and yield our client for it."""
    app = FastAPI()
    package.add_routes(app, runnable, path="/chain", **options)
    async with (
        serve(app) as server,
        RemoteRunnable[Any, Any](f"{server.base_url}/chain", verify=False) as client,
    ):
        yield client


@asynccontextmanager
async def answering(answer: Callable[[Request], Any]) -> AsyncIterator[RemoteRunnable[Any, Any]]:
    """Serve one function at every path, and yield our client for it."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["POST"])
    async def every_path(request: Request) -> Response:
        response: Response = answer(request)
        return response

    async with (
        serve(app) as server,
        RemoteRunnable[Any, Any](f"{server.base_url}/chain", verify=False) as client,
    ):
        yield client


async def both_streams(client: Runnable[Any, Any], value: Any = 1) -> list[Any]:
    """Return what both ways to stream give; the sync one runs in a thread."""
    return [
        await asyncio.to_thread(lambda: list(client.stream(value))),
        [chunk async for chunk in client.astream(value)],
    ]


# The same answers.


@SERVERS
async def test_both_clients_read_the_same_answers_of_every_verb(package: Package) -> None:
    app = FastAPI()
    given = {name: one for name, one in values.CHAINS.items() if name != "with_config"}
    paths = {name: f"/{number}" for number, name in enumerate(given)}
    for name, (chain, _) in given.items():
        forget_oracle_state()
        package.add_routes(app, chain(), path=paths[name])
    found, expected = {}, {}

    async with serve(app) as server:
        for name, (_, value) in given.items():
            async with RemoteRunnable[Any, Any](
                server.base_url + paths[name], verify=False
            ) as ours:
                found[name] = await told(ours, value)
            theirs: Any = langserve.RemoteRunnable(server.base_url + paths[name], verify=False)
            expected[name] = await told(theirs, value)
            theirs.sync_client.close()
            await theirs.async_client.aclose()

    assert found == expected


async def told(client: Runnable[Any, Any], value: Any) -> Any:
    """Return how the answers of every verb look, or the status of what LangServe cannot answer."""
    try:
        return [shown(one) for one in await all_verbs(client, value)]
    except httpx.HTTPStatusError as error:
        return error.response.status_code


@SERVERS
@pytest.mark.parametrize("chain", [chains.text_chain, chains.configurable_prompt])
async def test_both_clients_read_the_same_steps(package: Package, chain: Any) -> None:
    async with served(package, chain()) as ours:
        theirs: Any = langserve.RemoteRunnable(ours.url, verify=False)
        told = [await steps(client) for client in (ours, theirs)]
        await theirs.async_client.aclose()

    assert told[0] == told[1]
    assert told[0]["events"]


async def steps(client: Any) -> dict[str, Any]:
    """Return the run log and the events that a client reads, without ids and times."""
    log = None
    async for patch in client.astream_log(values.TOPIC, include_types=["prompt", "parser"]):
        log = patch if log is None else log + patch
    events = [
        (event["event"], event["name"], shown(event["data"]))
        async for event in client.astream_events(values.TOPIC, exclude_types=["parser"])
    ]
    state = log.state  # type: ignore[union-attr]
    return {
        "events": events,
        "final": shown(state["final_output"]),
        "streamed": shown(state["streamed_output"]),
        "logs": {name: shown(entry["final_output"]) for name, entry in state["logs"].items()},
    }


@SERVERS
async def test_whole_logs_are_told_where_no_patches_are_wanted(package: Package) -> None:
    async with served(package, chains.text_chain()) as client:
        logs: list[Any] = [log async for log in client.astream_log(values.TOPIC, diff=False)]
        patches = [patch async for patch in client.astream_log(values.TOPIC)]

    assert len(logs) == len(patches)
    assert logs[0].state["final_output"] is None
    assert logs[-1].state["final_output"]


@SERVERS
async def test_a_line_separator_cuts_no_chunk(package: Package) -> None:
    text = "a\u2028b\u2029c\u0085d"
    async with served(package, streaming(text, "end")) as client:
        assert await both_streams(client) == [[text, "end"]] * 2


@SERVERS
async def test_configs_reach_the_chain(package: Package) -> None:
    own: Any = {"configurable": {"template": "Say no to {topic}"}}
    keeps: Any = {**own, "callbacks": [BaseCallbackHandler()], "metadata": {"a": object()}}
    async with served(package, chains.configurable_prompt()) as client:
        told = [
            await client.ainvoke(values.TOPIC, keeps),
            (await client.abatch([values.TOPIC] * 2, [own, {}]))[0],
            await client.with_config(own).ainvoke(values.TOPIC),
        ]
        told += await _all(client.astream(values.TOPIC, keeps))

    assert ["Say no to cats" in str(one) for one in told] == [True] * 4


@SERVERS
async def test_it_is_a_runnable_like_any_other(package: Package) -> None:
    async with served(package, echo()) as client, served(package, failing()) as broken:
        sequence: Any = RunnableLambda(lambda x: x + 1) | client | RunnableLambda(lambda x: x * 2)
        parallel = RunnableParallel(a=client, b=client)

        assert await sequence.ainvoke(1) == 4
        assert [chunk async for chunk in sequence.astream(1)] == [4]
        assert await parallel.ainvoke(3) == {"a": 3, "b": 3}
        assert await broken.with_fallbacks([client]).ainvoke(5) == 5
        assert await client.with_retry().ainvoke(6) == 6
        assert await client.map().ainvoke([1, 2]) == [1, 2]
        assert await asyncio.to_thread(sequence.batch, [1, 2]) == [4, 6]


class _Traced(BaseCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.told.append(("start", inputs, kwargs.get("name")))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.told.append(("end", outputs))

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.told.append(("error", type(error)))


async def test_callbacks_are_told_of_every_call() -> None:
    traced = _Traced()
    config: Any = {"callbacks": [traced], "run_name": "remote"}
    async with served(CHAINSERVE, streaming("a", "b")) as client:
        await client.ainvoke(1, config)
        await client.abatch([1], config)
        await asyncio.to_thread(lambda: list(client.stream(1, config)))
        async for _ in client.astream(1, config):
            pass

    assert traced.told == [("start", 1, "remote"), ("end", "ab")] * 4


async def test_callbacks_are_told_of_failures_and_of_streams_that_are_closed() -> None:
    traced = _Traced()
    config: Any = {"callbacks": [traced]}
    async with served(CHAINSERVE, failing(after=1)) as client:
        with pytest.raises(RemoteStatusError):
            async for _ in client.astream(1, config):
                pass
        stream: Any = client.stream(1, config)
        await asyncio.to_thread(next, stream)
        await asyncio.to_thread(stream.close)

    assert [one[0] for one in traced.told] == ["start", "error", "start", "end"]
    assert traced.told[1] == ("error", RemoteStatusError)


# What is known of a run.


def run_of(client: RemoteRunnable[Any, Any]) -> RemoteRun:
    assert client.last_run is not None
    return client.last_run


async def test_the_last_run_is_known_in_each_task() -> None:
    async with served(CHAINSERVE, chains.usage_model()) as client:
        assert client.last_run is None

        async def call(count: int) -> tuple[str, ...]:
            await (client.abatch(["hi"] * count) if count > 1 else client.ainvoke("hi"))
            return run_of(client).run_ids

        ids = await asyncio.gather(call(1), call(2), call(3))

        assert [len(one) for one in ids] == [1, 2, 3]
        assert len({run_id for one in ids for run_id in one}) == 6
        assert client.last_run is None

        async for _ in client.astream("hi"):
            assert run_of(client).status == "running"
        assert run_of(client).status == "success"
        assert run_of(client).run_id
        await client.ainvoke("hi")
        assert run_of(client).usage == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}


async def test_a_run_that_failed_is_known_too() -> None:
    async with served(CHAINSERVE, failing(after=1)) as client:
        with pytest.raises(RemoteStatusError):
            async for _ in client.astream(1):
                pass
        assert run_of(client).status == "error"


@SERVERS
@pytest.mark.parametrize("verb", ["astream_log", "astream_events"])
async def test_the_id_of_a_run_whose_steps_are_read_is_known(package: Package, verb: str) -> None:
    async with served(package, chains.text_chain()) as client:
        read = [one async for one in getattr(client, verb)(values.TOPIC)]
        first = read[0].ops[0]["value"]["id"] if verb == "astream_log" else read[0]["run_id"]

        assert (run_of(client).run_id, run_of(client).status) == (first, "success")
        async for _ in client.astream_events(values.TOPIC, include_types=["prompt"]):
            pass
        # The metadata of a stream that can be resumed tells it in any case.
        assert (run_of(client).run_id is None) == (package is LANGSERVE)


# Errors.


@SERVERS
@pytest.mark.parametrize("verb", ["invoke", "batch", "stream"])
async def test_a_refusal_keeps_the_servers_detail(package: Package, verb: str) -> None:
    async with served(package, chains.prompt()) as client:
        for error in await errors_of(client, verb, "cats"):
            assert error.status_code == 422 or verb == "batch"
            if error.status_code == 422:
                assert error.detail[0]["msg"]
                assert error.detail[0]["msg"] in str(error)
            assert isinstance(error, httpx.HTTPStatusError)
            assert isinstance(error, httpx2.HTTPStatusError)
            assert isinstance(error, RemoteError)
            assert error.response.status_code == error.status_code


async def errors_of(client: RemoteRunnable[Any, Any], verb: str, value: Any) -> list[Any]:
    """Return what both forms of a verb raise."""
    caught = []
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "invoke": (lambda: client.invoke(value), lambda: client.ainvoke(value)),
        "batch": (lambda: client.batch([value]), lambda: client.abatch([value])),
        "stream": (lambda: list(client.stream(value)), lambda: _all(client.astream(value))),
    }
    sync, in_loop = calls[verb]
    with pytest.raises(RemoteError) as first:
        await asyncio.to_thread(sync)
    with pytest.raises(RemoteError) as second:
        await in_loop()
    caught += [first.value, second.value]
    return caught


async def _read_into(read: list[Any], stream: AsyncIterator[Any]) -> None:
    async for chunk in stream:
        read.append(chunk)  # noqa: PERF401 - what came before an error counts


async def _all(stream: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("verb", ["invoke", "batch", "stream"])
async def test_our_errors_have_their_code(verb: str) -> None:
    error = HTTPException(429, "Slow down.")
    async with served(CHAINSERVE, failing(error=error)) as client:
        for raised in await errors_of(client, verb, 1):
            assert (raised.status_code, raised.code) == (429, "http_error")
            assert "Slow down." in str(raised)


async def test_an_error_shows_no_secret() -> None:
    async with served(CHAINSERVE, chains.prompt()) as client:
        secret = RemoteRunnable[Any, Any](
            client.url, verify=False, headers={"authorization": "Bearer s3cret", "x-key": "s3cret"}
        )
        for verb in ("invoke", "stream"):
            for error in await errors_of(secret, verb, "cats"):
                assert "s3cret" not in repr((error, vars(error), error.request.headers))
        await secret.aclose()


@pytest.mark.parametrize("verb", ["invoke", "batch", "stream"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda _: HTMLResponse("<h1>Hello</h1>"), "Is it the URL of a chain"),
        (lambda _: HTMLResponse("<h1>No</h1>", 502), "502 Bad Gateway"),
        (lambda _: Response("[1, 2]", media_type="application/json"), "Is it the URL of a chain"),
        (lambda _: Response(status_code=204), ""),
        (
            lambda _: RedirectResponse("http://other.test/"),
            "redirects are followed to the same origin alone",
        ),
        (lambda _: Response("no", 500, media_type="text/plain"), "500 Internal Server Error"),
        (lambda _: Response('{"detail": "gone"}', 410, media_type="application/json"), "gone"),
    ],
)
async def test_what_is_no_such_server_is_told(verb: str, answer: Any, expected: str) -> None:
    async with answering(answer) as client:
        for error in await errors_of(client, verb, 1):
            assert expected in str(error)


def sse(*pieces: bytes, **headers: str) -> Callable[[Request], Response]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return lambda _: StreamingResponse(body(), media_type="text/event-stream", headers=headers)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"",),
        (b'event: data\r\ndata: "a"\r\n\r\n',),
        (b'event: data\r\ndata: "a"\r\n\r\n', b'event: data\r\ndata: "b"\r\n'),
        (b'event: data\r\ndata: "a"\r\n\r\n', b"event: end\r\n"),
        (b": ping\r\n\r\n",),
    ],
)
async def test_a_stream_that_ends_early_is_no_success(pieces: tuple[bytes, ...]) -> None:
    async with answering(sse(*pieces)) as client:
        for error in await errors_of(client, "stream", 1):
            assert isinstance(error, StreamInterruptedError)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_to_langserve_that_is_cut_is_told_after_the_chunks_that_came(
    reset: bool,
) -> None:
    app = FastAPI()
    LANGSERVE.add_routes(app, streaming(*"abcdef"), path="/chain")
    async with serve(app) as server, proxy(server.port) as between:
        client = RemoteRunnable[Any, Any](f"{between.base_url}/chain", verify=False)
        between.add(Fault("/chain/stream", after_events=3, reset=reset))
        read: list[Any] = []
        # A reset may take the head of the response with it; then httpx tells of it.
        expected = httpx.ReadError if reset else StreamInterruptedError
        with pytest.raises(expected):
            await _read_into(read, client.astream(1))
        assert read == ["a", "b"][: len(read)]
        await client.aclose()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"event: data\r\ndata: {\r\n\r\n",), UnexpectedAnswerError),
        ((b"event: data\r\n\r\n",), UnexpectedAnswerError),
        ((b"event: error\r\ndata: oops\r\n\r\n",), RemoteStatusError),
        ((b'event: error\r\ndata: {"message": "x"}\r\n\r\n',), RemoteStatusError),
        ((b"event: error\r\n\r\n",), RemoteStatusError),
    ],
)
async def test_events_that_cannot_be_read_are_told(
    pieces: tuple[bytes, ...], expected: type[Exception]
) -> None:
    async with answering(sse(*pieces)) as client:
        for error in await errors_of(client, "stream", 1):
            assert type(error) is expected


async def test_events_of_another_name_are_told_of_once_and_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = sse(
        b'event: x\ndata: 1\n\nevent: x\ndata: 2\n\nevent: data\ndata: "a"\n\nevent: end\n\n'
    )
    async with answering(stream) as client:
        assert [chunk async for chunk in client.astream(1)] == ["a"]

    assert [record.getMessage() for record in caplog.records if record.name == "chainserve.client"]
    assert len([one for one in caplog.records if one.name == "chainserve.client"]) == 1


async def test_an_event_without_end_is_refused_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EventParser.__init__, "__defaults__", (10_000,))
    async with answering(sse(b"data: ", *[b"x" * 1000] * 20)) as client:
        for error in await errors_of(client, "stream", 1):
            assert isinstance(error, UnexpectedAnswerError)


async def test_a_compressed_stream_is_read() -> None:
    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=0)
    chainserve.add_routes(app, echo(), path="/chain")
    async with (
        serve(app) as server,
        RemoteRunnable[Any, Any](f"{server.base_url}/chain", verify=False) as client,
    ):
        assert await client.ainvoke("x" * 1000) == "x" * 1000
        assert await both_streams(client, "y" * 1000) == [["y" * 1000]] * 2


def unpacking_to(mebibytes: int) -> bytes:
    """Return gzip that unpacks to so many mebibytes of blanks, and is a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join(packer.compress(b" " * 2**20) for _ in range(mebibytes)) + packer.flush()


BOMB = unpacking_to(512)


@pytest.mark.parametrize("package", [httpx, httpx2])
@pytest.mark.parametrize("verb", ["invoke", "stream"])
@pytest.mark.parametrize(
    ("coding", "content"),
    [
        ("gzip", BOMB),
        ("gzip, gzip", gzip.compress(BOMB, 9)),
        ("GZIP,identity,gzip", gzip.compress(BOMB, 9)),
        ("br", b""),
        ("zstd", b""),
    ],
)
async def test_what_unpacks_to_more_than_is_read_takes_bounded_memory(
    package: Any, verb: str, coding: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "MAX_ANSWER_BYTES", 2**20)
    monkeypatch.setattr(EventParser.__init__, "__defaults__", (2**20,))
    media_type = "text/event-stream" if verb == "stream" else "application/json"
    packed = {"content-encoding": coding}
    async with (
        answering(lambda _: Response(content, headers=packed, media_type=media_type)) as any_client,
        RemoteRunnable[Any, Any](
            any_client.url, timeout=package.Timeout(10), verify=False
        ) as client,
    ):
        tracemalloc.start()
        try:
            for error in await errors_of(client, verb, 1):
                assert isinstance(error, UnexpectedAnswerError)
                assert coding == "gzip" or coding in str(error)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 400 * 2**20


@pytest.mark.parametrize("coding", ["", "identity", "none", "utf-8", "identity, gzip"])
async def test_a_coding_that_packs_nothing_is_none(coding: str) -> None:
    body = gzip.compress(b'{"output": 1}') if "gzip" in coding else b'{"output": 1}'

    def answer(_: Any) -> Any:
        return httpx2.Response(200, content=body, headers={"content-encoding": coding})

    transport = {"transport": httpx2.MockTransport(answer)}
    async with RemoteRunnable[Any, Any](
        "http://test/chain", client_kwargs=transport, verify=False
    ) as client:
        assert await client.ainvoke(1) == 1


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:secret@other.test/x?token=secret", "It is at https://other.test/x;"),
        ("/elsewhere", "It is at /elsewhere;"),
        ("http://[", "It is at no URL of the web;"),
    ],
)
async def test_where_a_redirect_leads_is_told_without_secrets(location: str, shown: str) -> None:
    def answer(_: Any) -> Any:
        return httpx2.Response(307, headers={"location": location})

    transport = {"transport": httpx2.MockTransport(answer)}
    async with RemoteRunnable[Any, Any](
        "http://test/chain", client_kwargs=transport, verify=False
    ) as client:
        with pytest.raises(RemoteStatusError) as raised:
            await client.ainvoke(1)

    assert shown in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_an_error_in_another_coding_is_told_without_its_body(verb: str) -> None:
    packed = {"content-encoding": "gzip, gzip"}
    async with answering(lambda _: Response(b"x", 503, headers=packed)) as client:
        for error in await errors_of(client, verb, 1):
            assert error.status_code == 503
            assert error.response.content == b""


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (None, "gzip, deflate"),
        ("identity", "identity"),
        ("br, gzip;q=0.5, zstd", "gzip;q=0.5"),
        ("br", "identity"),
    ],
)
async def test_no_coding_is_asked_for_that_is_not_unpacked_within_bounds(
    accepted: str | None, expected: str
) -> None:
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.headers["accept-encoding"])
        return Response('{"output": 1}', media_type="application/json")

    async with answering(answer) as any_client:
        headers = {"accept-encoding": accepted} if accepted else None
        async with RemoteRunnable[Any, Any](
            any_client.url, headers=headers, verify=False
        ) as client:
            await client.ainvoke(1)

    assert asked == [expected]


# Time-outs.


async def test_a_server_that_says_nothing_is_waited_for_within_bounds() -> None:
    chain = GatedChain(["a", "b"], before=1)
    async with served(CHAINSERVE, chain) as client:
        hasty = RemoteRunnable[Any, Any](client.url, timeout=0.05, verify=False)
        with pytest.raises(httpx.ReadTimeout):
            await hasty.ainvoke(1)
        read: list[Any] = []
        with pytest.raises(httpx.ReadTimeout):
            await _read_into(read, hasty.astream(1))
        assert read == ["a"]
        await hasty.aclose()


def test_no_time_out_is_none_unless_it_is_said() -> None:
    client = RemoteRunnable[Any, Any]("http://127.0.0.1:1/chain", verify=False)
    assert client.sync_client.timeout == httpx2.Timeout((10, 600, 60, 600))

    endless = RemoteRunnable[Any, Any](
        "http://127.0.0.1:1/chain", timeout=httpx2.Timeout(None), verify=False
    )
    assert endless.sync_client.timeout == httpx2.Timeout(None)


# Leaving.


@pytest.mark.parametrize("kind", ["closed", "cancelled", "invoke"])
async def test_leaving_ends_the_run_on_the_server(kind: str) -> None:
    chain = GatedChain(["a", "b"], before=1)
    async with served(CHAINSERVE, chain) as client:
        if kind == "closed":
            leaving: Any = client.astream(1)
            async with aclosing(leaving) as stream:
                assert await anext(stream) == "a"
        else:
            call = _all(client.astream(1)) if kind == "cancelled" else client.ainvoke(1)
            task = asyncio.ensure_future(call)
            await asyncio.wait_for(chain.reached[1].wait(), 5)
            task.cancel()
            await asyncio.wait((task,))
        await asyncio.wait_for(chain.cancelled.wait(), 1)

    assert chain.cancellations == 1


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        pytest.param(CHAINSERVE, "cancelled", id="chainserve"),
        pytest.param(LANGSERVE, "running", id="langserve"),
    ],
)
async def test_a_closed_sync_stream_ends_the_run_on_the_server(server: Any, expected: str) -> None:
    chain = GatedChain(["a", "b"], before=1)
    async with served(server, chain) as client:

        def read_one() -> Any:
            chunks: Any = client.stream(1)
            with closing(chunks):
                first = next(chunks)
            return first, run_of(client).status

        assert await asyncio.to_thread(read_one) == ("a", expected)
        await asyncio.wait_for(chain.cancelled.wait(), 1)


# The clients of httpx.


async def test_what_is_collected_is_closed() -> None:
    async with served(CHAINSERVE, echo()) as first:
        client = RemoteRunnable[Any, Any](first.url, verify=False)
        assert await client.ainvoke(1) == 1
        assert await asyncio.to_thread(client.invoke, 1) == 1
        sync, in_loop = client.sync_client, client.async_client
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del client
            gc.collect()
            async with asyncio.timeout(20):
                while not in_loop.is_closed:
                    await checkpoint()  # httpx has no event to wait for.
    assert sync.is_closed


async def test_the_clients_may_be_replaced() -> None:
    app = FastAPI()
    chainserve.add_routes(app, echo(), path="/chain")
    client = RemoteRunnable[Any, Any]("http://test/chain", verify=False)
    client.async_client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))

    assert await client.ainvoke(1) == 1
    assert await _all(client.astream(1)) == [1]
    await client.aclose()


@pytest.mark.parametrize("package", [httpx, httpx2])
async def test_it_works_with_the_library_whose_objects_it_is_given(package: Any) -> None:
    app = FastAPI()
    chainserve.add_routes(app, echo(), path="/chain")
    async with RemoteRunnable[Any, Any](
        "http://test/chain", client_kwargs={"transport": package.ASGITransport(app)}, verify=False
    ) as client:
        assert await client.ainvoke(1) == 1
        assert await _all(client.astream(1)) == [1]
        with pytest.raises(package.HTTPStatusError):
            await client.abatch([1] * 200)


@pytest.mark.parametrize("make", [RemoteRunnable, langserve.RemoteRunnable])
async def test_a_test_may_answer_in_the_place_of_a_server(make: Any) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"output": json.loads(request.content)["input"]})

    client = make("http://test/chain", client_kwargs={"transport": httpx.MockTransport(handler)})

    assert isinstance(client.sync_client, httpx.Client)
    assert isinstance(client.async_client, httpx.AsyncClient)
    assert client.invoke("hi") == await client.ainvoke("hi") == "hi"
    client.sync_client.close()
    await client.async_client.aclose()


async def test_many_tasks_and_threads_may_use_one_client() -> None:
    async with served(CHAINSERVE, echo()) as client:
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(client.invoke(n))) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        answers = await asyncio.gather(*[client.ainvoke(n) for n in range(8)])
        for thread in threads:
            await asyncio.to_thread(thread.join)

    assert (answers, sorted(found)) == ([*range(8)], [*range(8)])


# Requests.


@pytest.mark.parametrize("url", ["http://test/chain", "http://test/chain/"])
async def test_the_requests_are_those_of_langserves_client(url: str) -> None:
    seen: dict[str, list[Any]] = {"ours": [], "theirs": []}

    def client(name: str, package: Any, make: Any) -> Any:
        def answer(request: Any) -> Any:
            seen[name].append(
                (
                    request.method,
                    str(request.url),
                    json.loads(request.content),
                    {key: request.headers.get(key) for key in ("accept", "content-type")},
                )
            )
            return package.Response(500)

        transport = package.MockTransport(answer)
        return make(url, client_kwargs={"transport": transport}, verify=False)

    config = {"tags": ["a"], "metadata": {"b": 1}, "configurable": {"c": 2, "d": object()}}
    for name, package, make in (
        ("ours", httpx2, RemoteRunnable),
        ("theirs", httpx, langserve.RemoteRunnable),
    ):
        remote = client(name, package, make)
        message = HumanMessage("hi", id="1")
        for call in (
            lambda r=remote, m=message: r.ainvoke({"messages": [m]}, config),
            lambda r=remote: r.abatch([1, 2], config),
            lambda r=remote: r.abatch([1, 2], [config, {}]),
            lambda r=remote: _all(r.astream(1, config)),
            lambda r=remote: _all(r.astream_log(1, config, include_names=["a"])),
            lambda r=remote: _all(r.astream_events(1, config, exclude_tags=["a"], version="v2")),
        ):
            with pytest.raises(httpx.HTTPStatusError):
                await call()
        await remote.async_client.aclose()

    for ours, theirs in zip(seen["ours"], seen["theirs"], strict=True):
        assert ours == theirs


async def test_arguments_for_the_runnable_are_sent_if_they_can_be() -> None:
    bodies: list[Any] = []

    def answer(request: Any) -> Any:
        bodies.append(json.loads(request.content))
        return httpx2.Response(200, json={"output": 1})

    async with RemoteRunnable[Any, Any](
        "http://test/chain", client_kwargs={"transport": httpx2.MockTransport(answer)}, verify=False
    ) as client:
        await client.ainvoke(1, stop=["a"])
        await client.ainvoke(1, stop=values.half_made())
        await client.ainvoke(1, stop=[2**70, float("nan"), HumanMessage("a")])
        with pytest.raises(TypeError, match=r"sent as JSON: stop\[1\] is of type object\. Turn"):
            await client.ainvoke(1, stop=["a", object()])

    first, second, third = [body["kwargs"]["stop"] for body in bodies]
    assert (first, second) == (["a"], {"first": 1})
    assert (third[:2], third[2]["content"]) == ([2**70, None], "a")


async def test_exceptions_are_returned_for_each_input() -> None:
    async with served(CHAINSERVE, RunnableLambda(lambda x: 1 / x)) as client:
        first, second = await client.abatch([1, 0], return_exceptions=True)
        same = await asyncio.to_thread(lambda: client.batch([1, 0], return_exceptions=True))

    assert first == same[0] == 1
    assert type(second) is type(same[1]) is RemoteStatusError


async def test_messages_of_a_stream_add_up() -> None:
    messages = [AIMessageChunk(content="a", id="1"), AIMessageChunk(content="b", id="1")]
    traced = _Traced()
    async with served(CHAINSERVE, streaming(*messages)) as client:
        chunks = await _all(client.astream(1, {"callbacks": [traced]}))

    assert chunks == messages
    assert traced.told[-1] == ("end", messages[0] + messages[1])
