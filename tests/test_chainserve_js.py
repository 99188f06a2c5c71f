"""`chainserve.js` in Node: every verb, streams that are cut at every place, runs that are left.

What it makes of answers that no chain gives is in `test_chainserve_js_answers.py`, what it does in
a browser in `test_chainserve_js_browser.py`.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from fastapi import FastAPI
from langchain_core.runnables import Runnable, RunnableLambda

from chainserve import Chain, create_app
from chainserve.settings import Settings
from tests import _pair_chains as chains
from tests._bridge import WAIT_SECONDS
from tests._chains import CountingChain, GatedChain, echo, failing, streaming
from tests._js import run_node
from tests._pairs import BOTH, CHAINSERVE, LANGSERVE, Package, forget_oracle_state
from tests._processes import undone
from tests._proxy import Fault, FaultProxy, proxy
from tests._server import RawConnection, serve
from tests._sse import decode_events

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:astream_log is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]

TOKENS = [f"{index}\u2028" for index in range(28)]
EVENTS = len(TOKENS) + 2
KEY = {"idempotency-key": "one"}
PREFERRED = {"accept": "text/event-stream", "prefer": "resumable", **KEY}


@dataclass
class Stage:
    """A chain at `/chain` that is reached through a proxy."""

    app: FastAPI
    proxy: FaultProxy
    port: int

    @property
    def url(self) -> str:
        return f"{self.proxy.base_url}/chain"

    async def play(self, scenario: str, *, query: str = "", **options: Any) -> Any:
        """Do one of the things in `scenarios.mjs`."""
        return await run_node("scenarios.mjs", scenario, self.url + query, options)

    def requested(self, method: str = "POST") -> list[str]:
        """Return what was asked for below the chain, without the ids."""
        return [
            request.target.removeprefix("/chain/")
            for request in self.proxy.requests
            if request.method == method and request.target.startswith("/chain/")
        ]


@asynccontextmanager
async def staged(runnable: Runnable[Any, Any], **settings: Any) -> AsyncIterator[Stage]:
    """Serve a chain behind a proxy; a run that nobody reads goes on, unless it is cancelled."""
    defaults: dict[str, Any] = {"retry_ms": 2, "resume_grace": 300, "log_level": "error"}
    with undone():
        app = create_app([Chain(path="/chain", runnable=runnable)], Settings(**defaults | settings))
        async with serve(app) as server, proxy(server.port) as between:
            yield Stage(app, between, server.port)


@asynccontextmanager
async def staged_by(package: Package, runnable: Runnable[Any, Any]) -> AsyncIterator[Stage]:
    """Serve a chain with one of the packages behind a proxy."""
    forget_oracle_state()
    app = FastAPI()
    package.add_routes(app, runnable, path="/chain")
    async with serve(app) as server, proxy(server.port) as between:
        yield Stage(app, between, server.port)


async def until(condition: Awaitable[Any]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await condition


# The parser.


async def test_the_parser_bounds_events_and_reads_ids_and_times_as_pythons_does() -> None:
    ids = {
        "an id alone": b"id: 1\n\ndata: a\n\n",
        "an id that is cut": b"id: 1\ndata: a\n",
    }
    retries = {f"retry {value}": f"retry: {value}\n\n".encode() for value in RETRIES}
    encoded = {name: base64.b64encode(data).decode() for name, data in {**ids, **retries}.items()}
    told = await run_node("parser.mjs", given=json.dumps(encoded).encode())

    read = {}
    for name, results in told["cases"].items():
        [read[name]] = results  # All ways to cut it have given the same.
    assert [[event["lastEventId"] for event in read[name]["events"]] for name in ids] == [["1"], []]
    assert [read[name]["retryMs"] for name in retries] == [12, 0, None, None, None, None]
    assert told["bounds"] == {
        "refused": ["RangeError: An event is larger than 1000 bytes."] * 3,
        "read": 50,
    }


RETRIES = ["12", "0", "-1", "1.5", "", "1e3"]


# The same answers.


@BOTH
async def test_a_stream_gives_the_json_that_was_sent(package: Package) -> None:
    async with staged_by(package, streaming("one ", {"two": [None, 2]}, TOKENS[0])) as stage:
        told = await stage.play("ask", call={"config": {"tags": ["a"]}})

    assert told["chunks"] == ["one ", {"two": [None, 2]}, TOKENS[0]]
    assert told["run"]["status"] == "success"
    assert told["run"]["runId"] is not None


@BOTH
async def test_inputs_and_outputs_are_plain_json(package: Package) -> None:
    async with staged_by(package, echo()) as stage:
        value = {"a": [1, "é \u2028", None, True, 0.1], "": {"type": "human", "content": "hi"}}
        invoked = await stage.play("ask", verb="invoke", input=value)
        batched = await stage.play("ask", verb="batch", args=[[value, 2]])
        nothing = await stage.play("ask", verb="batch", args=[[]])

    assert invoked["value"] == value
    assert batched["value"] == [value, 2]
    assert nothing["value"] == []
    for told, count in ((invoked, 1), (batched, 2)):
        assert len(told["run"]["runIds"]) == count
        assert told["run"]["status"] == "success"


@BOTH
@pytest.mark.parametrize("verb", ["stream", "stream_log", "stream_events"])
async def test_chunks_are_the_json_of_the_events(package: Package, verb: str) -> None:
    async with staged_by(package, chains.usage_model()) as stage:
        name = {"stream_log": "streamLog", "stream_events": "streamEvents"}.get(verb, verb)
        told = await stage.play("ask", verb=name, input="hi", call={"includeNames": ["none"]})
        body: dict[str, Any] = {"input": "hi", "config": {}, "kwargs": {}}
        body |= {} if verb == "stream" else {"diff": True, "include_names": ["none"]}
        plain = await read_plainly(stage.port, verb, body)

    events = [event.json() for event in decode_events(plain) if event.event == "data"]
    assert without_ids(told["chunks"]) == without_ids(events)
    assert [*map(type, told["chunks"])] == [*map(type, events)]
    if verb == "stream":
        assert told["run"]["usage"]["total_tokens"] > 0


async def read_plainly(port: int, verb: str, body: Any, headers: Any = None) -> bytes:
    """Return the body of a stream."""
    async with await RawConnection.open(port) as client:
        await client.send_request("POST", f"/chain/{verb}", json=body, headers=headers)
        await client.read_head()
        return await client.read_body()


def without_ids(value: Any) -> Any:
    """Return JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {name: without_ids(one) for name, one in value.items() if name not in RANDOM}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


RANDOM = {"id", "run_id", "start_time", "end_time", "parent_ids"}


@BOTH
async def test_what_a_server_says_of_an_error_is_told(package: Package) -> None:
    async with staged_by(package, chains.usage_model()) as stage:
        [invalid] = await stage.play("each", verb="invoke", args=[5])
        [streamed] = await stage.play("each", verb="stream", args=[5])
    async with staged_by(package, failing(after=1)) as stage:
        broken = await stage.play("ask")

    for told in (invalid, streamed):
        assert (told["error"]["name"], told["error"]["status"]) == ("RemoteStatusError", 422)
    assert {told["run"]["status"] for told in (invalid, streamed, broken)} == {"error"}
    assert broken["chunks"] == ["t0 "]
    assert broken["error"]["message"] == "Internal Server Error"
    if package is CHAINSERVE:
        assert broken["error"]["code"] == "internal_error"
        assert invalid["error"]["code"] == "invalid_input"
        assert invalid["error"]["detail"][0]["input"] == 5
    else:
        assert broken["error"]["code"] == "http_error"


# Cut at every place.


async def response_size(port: int) -> int:
    """Return how many bytes the response to a stream has."""
    body = json.dumps({"input": 1}).encode()
    fields = {**PREFERRED, "content-type": "application/json", "content-length": str(len(body))}
    fields |= {"host": "127.0.0.1", "connection": "keep-alive"}
    lines = ["POST /chain/stream HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    size = len(await reader.readuntil(b"\r\n0\r\n\r\n"))
    writer.close()
    return size


@pytest.mark.parametrize("remainder", [0, 1, 2])
async def test_a_stream_that_is_cut_at_any_byte_is_read_whole(remainder: int) -> None:
    """The cuts are spread over three tests, for each of them runs the chain again."""
    async with staged(streaming(*TOKENS)) as stage:
        size = await response_size(stage.port)
        cuts = range(remainder, size + 1, 3)
        for cut in cuts:
            stage.proxy.add(Fault(f"/stream?cut={cut}.", after_bytes=cut))
        wrong = await run_node("cuts.mjs", stage.url, [*cuts], TOKENS)

    assert size > EVENTS * 60
    assert wrong == {}
    assert stage.proxy.faults == []


@pytest.mark.parametrize("seed", range(4))
async def test_streams_that_are_cut_again_and_again_are_read_whole(seed: int) -> None:
    source = Random(seed)
    async with staged(streaming(*TOKENS)) as stage:
        size = await response_size(stage.port)
        for name in range(125):
            for _ in range(source.randint(0, 5)):
                cut, reset = source.randrange(size), source.random() < 0.3
                stage.proxy.add(Fault(f"/stream?cut={name}.", after_bytes=cut, reset=reset))
        wrong = await run_node("cuts.mjs", stage.url, [*range(125)], TOKENS)

    assert wrong == {}


@pytest.mark.parametrize("verb", ["streamLog", "streamEvents"])
async def test_steps_are_read_whole_too(verb: str) -> None:
    async with staged(streaming(*TOKENS)) as stage:
        path = {"streamLog": "/stream_log", "streamEvents": "/stream_events"}[verb]
        for after in (0, 1, 7):
            stage.proxy.add(Fault(path, after_events=after))
        told = await stage.play("ask", verb=verb)

    assert stage.requested() == [path.strip("/")] * 4
    assert told["run"]["status"] == "success"
    assert told["run"]["lastEventId"].endswith(f".{len(told['chunks']) + 1}")


async def test_a_connection_that_stalls_is_given_up_and_the_stream_is_read_whole() -> None:
    async with staged(streaming(*TOKENS)) as stage:
        stage.proxy.add(Fault("/stream", after_events=5, stalls=True))
        told = await stage.play("ask", client={"timeout": 2000})

    assert told["chunks"] == TOKENS
    assert stage.requested() == ["stream", "stream"]


async def test_a_server_that_says_nothing_a_second_time_is_given_up() -> None:
    async with staged(streaming(*TOKENS)) as stage:
        for after in (5, 0):
            stage.proxy.add(Fault("/stream", after_events=after, stalls=True))
        told = await stage.play("ask", client={"timeout": 2000})

    assert told["error"]["name"] == "StreamInterruptedError"
    assert told["error"]["cause"]["code"] == "timeout"
    assert told["run"]["status"] == "lost"
    assert stage.requested() == ["stream", "stream"]


async def test_attempts_that_bring_nothing_are_bounded() -> None:
    async with staged(streaming(*TOKENS)) as stage:
        for after in (3, 0, 0, 0):
            stage.proxy.add(Fault("/stream", after_events=after))
        told = await stage.play("ask", client={"maxRetries": 3})

    assert told["error"]["name"] == "StreamInterruptedError"
    assert told["error"]["cause"]["code"] == "connection_failed"
    assert told["chunks"] == TOKENS[:2]
    assert stage.requested() == ["stream"] * 4


async def test_without_retries_a_cut_is_an_error() -> None:
    async with staged(streaming(*TOKENS)) as stage:
        stage.proxy.add(Fault("/stream", after_events=3))
        told = await stage.play("ask", client={"maxRetries": 0})

    assert told["error"]["name"] == "StreamInterruptedError"
    assert stage.requested() == ["stream"]


async def test_the_pauses_grow_to_a_bound() -> None:
    async with staged(echo()) as stage:
        stage.proxy.faults += [Fault("/invoke", after_bytes=0) for _ in range(7)]
        options = {"timeout": 2**31, "maxRetries": 6}
        told = await stage.play("pauses", verb="invoke", client=options)

    assert told["pauses"] == [1000, 2000, 4000, 8000, 10_000, 10_000]
    assert told["error"]["code"] == "connection_failed"


# Answers that are lost.


@pytest.mark.parametrize("verb", ["invoke", "batch", "stream", "start"])
@pytest.mark.parametrize("after", [0, 40, "head"])
async def test_a_start_whose_answer_was_lost_runs_the_chain_once(verb: str, after: Any) -> None:
    started = 0

    def count(value: Any) -> Any:
        nonlocal started
        started += 1
        return value

    async with staged(RunnableLambda(count)) as stage:
        path = f"{'runs' if verb == 'start' else verb}?once"
        at: Any = {"after_events": 0} if after == "head" else {"after_bytes": after}
        stage.proxy.faults += [Fault(path, **at), Fault(path, **at)]
        given = [7] if verb == "batch" else 7
        answer = 7 if verb == "invoke" else [7]
        told = await stage.play("ask", query="?once", verb=verb, args=[given])
        requested = stage.requested()
        if verb == "start":
            told = await stage.play("ask", verb="wait", args=[told["value"]["runId"]])
            told = told["value"]["output"]

    assert told == 7 if verb == "start" else told.get("value", told.get("chunks")) == answer
    assert started == 1
    assert requested == [path] * 3


async def test_langserve_is_not_asked_again_when_its_answer_was_lost() -> None:
    chain = GatedChain(before=9)
    async with staged_by(LANGSERVE, chain) as stage:
        stage.proxy.faults += [Fault("/stream", after_bytes=0), Fault("/invoke", after_bytes=0)]
        streamed = await stage.play("ask")
        invoked = await stage.play("ask", verb="invoke")

    for told in (streamed, invoked):
        assert (told["error"]["name"], told["error"]["code"]) == (
            "RemoteError",
            "connection_failed",
        )
    assert stage.requested() == ["stream", "invoke"]
    assert chain.started == 2


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stream_of_langserve_that_was_cut_is_an_error(reset: bool) -> None:
    async with staged_by(LANGSERVE, streaming(*TOKENS)) as stage:
        stage.proxy.add(Fault("/stream", after_events=3, reset=reset))
        cut = await stage.play("ask")
        whole = await stage.play("ask")

    if reset:  # It may have taken the head with it.
        assert cut["error"]["name"] in ("StreamInterruptedError", "RemoteError")
    else:
        assert cut["error"]["name"] == "StreamInterruptedError"
        assert cut["chunks"] == TOKENS[:2]
        assert cut["run"]["status"] == "lost"
    assert whole["chunks"] == TOKENS
    assert stage.requested() == ["stream", "stream"]


# Runs that are left.


@pytest.mark.parametrize(
    "scenario", ["leave", "throwInLoop", "closeWhileReading", "abort", "abortBetween"]
)
async def test_a_stream_that_is_left_cancels_its_run(scenario: str) -> None:
    chain = GatedChain(before=1)
    async with staged(chain) as stage:
        told = await stage.play(scenario)
        await until(chain.cancelled.wait())

    [cancel] = [path for path in stage.requested() if path != "stream"]
    assert cancel.startswith("runs/")
    assert cancel.endswith("/cancel")
    assert LEFT[scenario](told)


DONE = {"done": True}
LEFT: dict[str, Callable[[Any], bool]] = {
    "leave": lambda told: (
        (told["chunks"], told["run"]["status"], told["after"]) == (["a"], "cancelled", DONE)
    ),
    "throwInLoop": lambda told: told["error"]["message"] == "of the caller, at a",
    "closeWhileReading": lambda told: told == [DONE, DONE, DONE],
    "abort": lambda told: told["error"]["message"] == "enough" and told["again"] == DONE,
    "abortBetween": lambda told: (
        told["error"]["message"] == told["later"]["message"] == "enough" and told["after"] == DONE
    ),
}


async def test_an_answer_that_is_no_longer_wanted_is_cancelled_by_its_key() -> None:
    chain = CountingChain()
    async with staged(chain) as stage:

        @stage.app.get("/started")
        def started() -> bool:
            return chain.total > 0

        told = await stage.play("abort", verb="invoke")
        await chain.until_in_flight(0)

    assert chain.cancellations == 1
    assert told["error"]["message"] == "enough"
    assert told["run"]["status"] == "cancelled"
    assert stage.requested() == ["invoke", "runs/cancel"]


async def test_an_answer_that_does_not_come_in_time_is_an_error_and_cancelled() -> None:
    chain = CountingChain()
    async with staged(chain) as stage:
        told = await stage.play("ask", verb="invoke", client={"timeout": 1000})
        await chain.until_in_flight(0)

    assert chain.cancellations == 1
    assert told["error"]["code"] == "timeout"
    assert stage.requested() == ["invoke", "runs/cancel"]


async def test_a_stream_that_nobody_reads_asks_for_nothing() -> None:
    async with staged(echo()) as stage:
        assert await stage.play("unread") == DONE
    assert stage.requested() == []


async def test_a_run_in_the_background_is_joined_left_and_joined_again() -> None:
    chain = GatedChain(before=2)
    async with staged(chain) as stage:

        @stage.app.post("/open")
        def open_gate() -> None:
            chain.gate.set()

        told = await stage.play("background", count=2, call={"mode": "stream"})

    started, ended = told["started"], told["ended"]
    assert (started["status"], started["mode"]) == ("running", "stream")
    assert started["streamUrl"] == f"{stage.url}/runs/{started['runId']}/stream"
    assert (told["first"], told["rest"], told["none"]) == (["a", "b"], ["c"], [])
    assert (ended["status"], ended["output"]) == ("success", "abc")
    assert not [path for path in stage.requested() if path.endswith("/cancel")]


async def test_a_run_in_the_background_can_be_cancelled() -> None:
    async with staged(GatedChain()) as stage:
        told = await stage.play("cancel")

    assert told["cancelled"]["status"] == told["waited"]["status"] == "cancelled"
    assert told["waited"]["error"]["code"] == "cancelled"
    joined = told["joined"]
    assert (joined["error"]["status"], joined["error"]["code"]) == (499, "cancelled")
    assert joined["run"]["status"] == "cancelled"


async def test_a_joined_stream_that_was_cut_is_read_whole() -> None:
    async with staged(streaming(*TOKENS)) as stage:
        run = (await stage.play("ask", verb="start"))["value"]["runId"]
        for after in (4, 0, 9):
            stage.proxy.add(Fault(f"/{run}/stream", after_events=after))
        told = await stage.play("ask", verb="join", args=[run])

    assert told["chunks"] == TOKENS


async def test_headers_are_made_anew_for_each_request() -> None:
    async with staged(streaming(*TOKENS)) as stage:
        stage.proxy.add(Fault("/stream", after_events=4))
        assert await stage.play("headers") == TOKENS

    sent = [request.headers["authorization"] for request in stage.proxy.requests]
    assert sent == ["Bearer 1", "Bearer 2"]


async def test_what_a_resumed_stream_sends_is_the_same_request_with_the_last_id() -> None:
    async with staged(streaming(*TOKENS)) as stage:
        stage.proxy.add(Fault("/stream", after_events=4))
        await stage.play("ask", call={"kwargs": {"stop": "x"}})
    refused = stage.proxy.requests  # The chain takes no such argument, and says so.
    assert len(refused) == 1
    assert refused[0].headers["prefer"] == "resumable, handling=strict"

    async with staged(streaming(*TOKENS)) as stage:
        stage.proxy.add(Fault("/stream", after_events=4))
        await stage.play("ask")
    first, second = (dict(request.headers) for request in stage.proxy.requests)
    assert second.pop("last-event-id").endswith(".3")
    assert first == second
    assert first["prefer"] == "resumable"
