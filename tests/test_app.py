"""The whole server: its own routes, its errors, its log, and the processes it runs in."""

import asyncio
import http.client
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from langchain_core.runnables import Runnable, RunnableLambda
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, Response

from chainserve import (
    Chain,
    ConfigurationError,
    DiscoveryError,
    add_routes,
    create_app,
    discover,
    runtime,
)
from chainserve.observability import configure_logging
from chainserve.settings import Settings
from chainserve.stores.memory import MemoryStore
from tests._apps import assert_problem, executor_of
from tests._bridge import lifespan, open_stream, request
from tests._chains import CountingChain, GatedChain, echo, failing, streaming
from tests._processes import ROOT, ServerProcess, ask, asking, free_port, undone
from tests._verbs import VERBS, ask as ask_verb, body_of, run_id_of

pytestmark = pytest.mark.anyio

JSON_LOG = Settings(log_format="json", log_level="debug")
SHIPPED = ["/agent", "/analyst", "/assistant", "/chat", "/coder", "/tutor", "/writer"]


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    with undone():
        yield


def app_of(
    runnable: Runnable[Any, Any], settings: Settings | None = None, **options: Any
) -> FastAPI:
    chain = Chain(path="/chain", runnable=runnable)
    return create_app([chain], settings or Settings(), **options)


@pytest.fixture(scope="module")
def shipped() -> FastAPI:
    """The server as it is shipped; its chains are described, not run."""
    return create_app(discover(ROOT / "chains"), Settings())


# Its own routes.


async def test_the_front_page_names_and_links_the_shipped_chains(shipped: FastAPI) -> None:
    page = await request(shipped, "GET", "/")

    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in SHIPPED:
        assert path in page.text


async def test_every_link_of_the_front_page_works_also_below_a_prefix(shipped: FastAPI) -> None:
    for root in ("", "/behind/a-proxy"):
        page = await request(shipped, "GET", "/", root_path=root)
        links = re.findall(r'href="(?!data:)([^"]+)"', page.text)
        assert len(links) > len(SHIPPED)
        for link in links:
            relative = link.removeprefix(root).removeprefix(".").removeprefix("/")
            found = await request(shipped, "GET", f"/{relative}", root_path=root)
            assert found.status == 200, link


async def test_what_chains_say_of_themselves_is_escaped_on_the_front_page() -> None:
    chain = Chain(
        path="/a<b>&'\"",
        runnable=echo(),
        title="<script>alert(1)</script>",
        description='"><img src=x>',
        model="{braces} & <b>",
    )
    page = await request(create_app([chain], Settings()), "GET", "/")

    assert page.status == 200
    for unescaped in ("<script>alert", "<img", "<b>"):
        assert unescaped not in page.text


async def test_the_list_of_chains_describes_each_in_full(shipped: FastAPI) -> None:
    described = (await request(shipped, "GET", "/chains")).json()

    assert [entry["path"] for entry in described] == SHIPPED
    for entry in described:
        assert entry.keys() == {
            "path",
            "title",
            "description",
            "tags",
            "model",
            "examples",
            "endpoints",
            "streams",
            "playground_type",
        }
        assert entry["title"]
        assert entry["description"]
        assert entry["examples"]
        assert {
            *VERBS,
            "stream_log",
            "stream_events",
            "input_schema",
            "output_schema",
            "config_schema",
        } <= {*entry["endpoints"]}
        assert entry["model"] == "offline-demo"
        assert entry["streams"] is True


async def test_the_list_of_chains_names_only_the_endpoints_that_answer() -> None:
    chain = Chain(path="/chain", runnable=echo(), enabled_endpoints=["invoke", "stream_log"])
    [entry] = (await request(create_app([chain], Settings()), "GET", "/chains")).json()

    assert entry["endpoints"] == ["invoke", "stream_log"]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_probe_is_answered(shipped: FastAPI, path: str) -> None:
    response = await request(shipped, "GET", path)

    assert (response.status, response.json()) == (200, {"status": "ok"})


async def test_a_probe_is_answered_while_a_chain_works() -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = app_of(chain)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        assert (await request(app, "GET", "/livez")).status == 200
        chain.gate.set()
        await stream.read()


async def test_a_server_without_chains_starts_and_answers() -> None:
    app = create_app([], Settings())
    async with lifespan(app):
        for path in ("/", "/chains", "/livez", "/docs", "/openapi.json"):
            assert (await request(app, "GET", path)).status == 200


async def test_a_chain_at_the_empty_path_lives_beside_the_servers_routes() -> None:
    app = create_app([Chain(path="", runnable=echo())], Settings())

    assert (await request(app, "GET", "/chains")).json()[0]["path"] == ""
    assert (await request(app, "GET", "/")).status == 200
    assert (await request(app, "POST", "/invoke", json={"input": 1})).json()["output"] == 1


def test_chains_that_cannot_be_served_together_are_refused() -> None:
    chains = [
        Chain(path="/a", runnable=echo()),
        Chain(path="/a/", runnable=echo()),
        Chain(path="/livez", runnable=echo()),
    ]
    with pytest.raises(DiscoveryError, match="2 of the declared chains") as refused:
        create_app(chains, Settings())

    assert "uses the path /a" in str(refused.value)
    assert "shadows the server's /livez" in str(refused.value)


# What a user brings along.


async def test_options_of_fastapi_are_passed_on() -> None:
    app = app_of(
        echo(),
        title="Mine",
        version="7",
        docs_url=None,
        middleware=[Middleware(GZipMiddleware, minimum_size=1)],
    )
    document = await request(app, "GET", "/openapi.json", headers={"accept-encoding": "gzip"})

    assert (app.title, app.version) == ("Mine", "7")
    assert document.headers["content-encoding"] == "gzip"
    assert_problem(await request(app, "GET", "/docs"), 404, "http_error")


async def test_the_users_lifespan_runs_and_its_state_arrives() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        steps.append("up")
        yield {"database": "open"}
        steps.append("down")

    async def look(request: Request) -> None:
        steps.append(request.state.database)

    chain = Chain(path="/chain", runnable=echo(), dependencies=[Depends(look)])
    app = create_app([chain], Settings(), lifespan=own)
    async with lifespan(app) as state:
        await request(app, "POST", "/chain/invoke", json={"input": 1}, state=state)

    assert steps == ["up", "open", "down"]


@pytest.mark.parametrize("key", [404, StarletteHTTPException, HTTPException])
async def test_the_users_exception_handlers_are_kept(key: Any) -> None:
    async def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"mine": type(error).__name__}, status_code=418)

    app = app_of(failing(error=HTTPException(404, "gone")), exception_handlers={key: answer})

    response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert (response.status, response.json()) == (418, {"mine": "HTTPException"})


async def test_the_settings_hold_when_the_server_is_mounted_in_another_application() -> None:
    root = FastAPI()
    root.mount("/ai", app_of(echo(), Settings(max_body_bytes=20)))

    response = await request(root, "POST", "/ai/chain/invoke", json={"input": "x" * 50})

    assert_problem(response, 413, "body_too_large")


async def test_a_server_started_again_in_its_process_works_again() -> None:
    app = app_of(streaming("a"))
    for _ in range(2):
        async with lifespan(app):
            response = await request(app, "POST", "/chain/stream", json={"input": 1})
            assert response.body.endswith(b"event: end\r\n\r\n")


async def test_what_is_over_its_time_is_dropped_although_nobody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "_EXPIRY_INTERVAL", 0.001)
    app = app_of(streaming("a"), Settings(log_ttl=0.01, run_ttl=0.01))
    await request(app, "POST", "/chain/stream", json={"input": 1})
    store = executor_of(app).store
    assert isinstance(store, MemoryStore)

    async with asyncio.timeout(20):
        while store.log_bytes:
            await anyio.lowlevel.checkpoint()


# Errors.


async def test_an_unknown_path_is_a_problem() -> None:
    app = app_of(echo())
    for path in ("/nowhere", "/chain", "/chain/nothing", "/chain/invoke/more"):
        for method in ("GET", "POST", "DELETE"):
            problem = assert_problem(await request(app, method, path), 404, "http_error")
            assert problem["title"] == problem["detail"] == "Not Found"
            assert problem["message"].startswith(f"There is no {path}.")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/chain/streem", "Did you mean /chain/stream?"),
        ("/chian/stream/", "Did you mean /chain/stream?"),
        ("/chain/runs/5/steam", "Did you mean /chain/runs/5/stream?"),
        ("/chain", "Below it there are: batch, config_schema, input_schema, invoke, output_schema"),
    ],
)
@pytest.mark.parametrize("root", ["", "/behind"])
async def test_an_unknown_path_is_answered_with_what_is_near(
    root: str, path: str, says: str
) -> None:
    response = await request(app_of(echo()), "GET", path, root_path=root)

    message = assert_problem(response, 404, "http_error")["message"]
    assert says.replace(" /", f" {root}/") in message


@pytest.mark.parametrize("path", ["/nowhere", "/chain/" + "x" * 5000, "/chain/invoke/more"])
async def test_a_path_that_is_like_no_other_is_answered_in_one_short_sentence(path: str) -> None:
    response = await request(app_of(echo()), "GET", path)

    message = assert_problem(response, 404, "http_error")["message"]
    assert message.count(".") == 1
    assert len(message) < 300


async def test_an_application_without_a_document_tells_no_paths() -> None:
    response = await request(app_of(echo(), openapi_url=None), "GET", "/chain/streem")

    assert response.json()["message"] == "There is no /chain/streem."


async def test_a_404_of_a_route_is_left_as_it_is() -> None:
    for detail in (None, "gone"):
        app = app_of(failing(error=HTTPException(404, detail)))
        response = await ask_verb(app, "invoke")
        assert response.json()["message"] == (detail or "Not Found")


async def test_a_405_of_a_chain_is_left_as_it_is() -> None:
    app = app_of(failing(error=HTTPException(405, headers={"Allow": "TRACE"})))
    response = await ask_verb(app, "invoke")

    assert response.headers["allow"] == "TRACE"
    assert response.json()["message"] == "Method Not Allowed"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/chain/invoke", "POST"),
        ("POST", "/chains", "GET"),
        ("PUT", "/", "GET"),
        ("HEAD", "/chain/stream", "GET, POST"),
        ("PUT", "/chain/runs", "GET, POST"),
        ("OPTIONS", "/chain/runs/5/", "GET, DELETE"),
        ("DELETE", "/chain/c/N4XyA/runs/5/stream", "GET"),
        ("PUT", "/mine", "GET, DELETE"),
    ],
)
async def test_a_wrong_method_is_a_problem_that_says_which_is_right(
    method: str, path: str, allowed: str
) -> None:
    app = app_of(echo())
    app.add_api_route("/mine", lambda: None, methods=["GET"])
    app.add_api_route("/mine", lambda: None, methods=["DELETE"])
    response = await request(app, method, path)

    assert response.headers["allow"] == allowed
    if method != "HEAD":
        problem = assert_problem(response, 405, "http_error")
        assert problem["message"] == f"There is no {method} {path}. Use {allowed}."


@pytest.mark.parametrize("detail", ["slow down", {"wait": 5}, ["a", 1], None, ""])
async def test_an_http_exception_of_a_chain_is_a_problem_with_its_detail(detail: Any) -> None:
    error = HTTPException(429, detail, headers={"retry-after": "5"})
    for verb in ("invoke", "batch"):
        response = await ask_verb(app_of(failing(error=error)), verb)
        problem = assert_problem(response, 429, "http_error")
        assert problem["detail"] == (detail or error.detail or "Too Many Requests")
        assert response.headers["retry-after"] == "5"


async def test_an_http_exception_without_a_body_has_none() -> None:
    for status in (204, 304):
        response = await ask_verb(app_of(failing(error=HTTPException(status))), "invoke")
        assert (response.status, response.body) == (status, b"")


async def test_a_dependency_that_fails_unexpectedly_is_a_problem_without_its_text() -> None:
    def fail() -> None:
        raise ValueError("CANARY")

    chain = Chain(path="/chain", runnable=echo(), dependencies=[Depends(fail)])
    response = await request(
        create_app([chain], Settings()),
        "POST",
        "/chain/invoke",
        json={"input": 1},
        raise_app_errors=False,
    )

    assert_problem(response, 500, "internal_error")
    assert "CANARY" not in response.text


# Request ids.

KEPT = ["a", "0" * 128, "2f1c-4e5a", "AZaz09._:+/=-", "00-4bf92f3577b34da6-00f067aa0ba902b7-01"]
REPLACED = ["", " ", "a b", "0" * 129, "é", "a\r\nset-cookie: x=1", "a\nb", "a\x00b", "a,b", "<b>"]


async def test_every_answer_has_a_request_id_of_its_own() -> None:
    app = app_of(echo(int))
    asked = [
        await request(app, "GET", "/"),
        await request(app, "GET", "/nowhere"),
        await request(app, "GET", "/chain/invoke"),
        await request(app, "POST", "/chain/invoke", json={"input": 1}),
        await request(app, "POST", "/chain/invoke", json={"input": "no int"}),
        await request(app, "POST", "/chain/invoke", body=b"{"),
        await request(app, "POST", "/chain/stream", json={"input": 1}),
    ]
    ids = [response.headers["x-request-id"] for response in asked]

    assert len(set(ids)) == len(asked)
    assert all(re.fullmatch("[0-9a-f]{32}", given) for given in ids)


async def test_a_well_formed_request_id_is_kept() -> None:
    app = app_of(echo())
    for verb in VERBS:
        for given in KEPT:
            response = await ask_verb(app, verb, headers={"x-request-id": given})
            assert response.headers.get_list("x-request-id") == [given]


async def test_a_malformed_request_id_is_replaced() -> None:
    app = app_of(echo())
    for given in REPLACED:
        response = await ask_verb(app, "invoke", headers={"x-request-id": given})
        [answered] = response.headers.get_list("x-request-id")
        assert re.fullmatch("[0-9a-f]{32}", answered), given
        assert "set-cookie" not in response.headers


async def test_the_answer_to_a_failure_outside_the_chains_has_its_request_id() -> None:
    app = app_of(echo())

    @app.get("/mine")
    async def mine() -> None:
        raise ValueError("CANARY")

    response = await request(
        app, "GET", "/mine", headers={"x-request-id": "abc"}, raise_app_errors=False
    )

    assert response.status == 500
    assert response.headers["x-request-id"] == "abc"


# The log.


class Lines:
    """The lines of a server's log in JSON, by what they tell of."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def of(self, event: str) -> list[dict[str, Any]]:
        texts = [entry.getMessage() for entry in self._caplog.records if entry.name == "chainserve"]
        lines: list[dict[str, Any]] = [json.loads(text) for text in texts]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """All lines, down to debug level, as after a server's start."""
    caplog.set_level(logging.DEBUG)
    configure_logging(JSON_LOG)
    return Lines(caplog)


@pytest.mark.parametrize("verb", VERBS)
async def test_there_is_one_line_for_the_request_and_one_for_the_run(
    verb: str, lines: Lines
) -> None:
    response = await ask_verb(app_of(echo(), JSON_LOG), verb, headers={"x-request-id": "abc"})

    [asked] = lines.of("request")
    assert (
        asked.items()
        >= {
            "request_id": "abc",
            "method": "POST",
            "path": f"/chain/{verb}",
            "status": 200,
            "level": "info",
        }.items()
    )
    assert asked["duration_ms"] >= 0
    assert asked["timestamp"].endswith("Z")
    [ran] = lines.of("run")
    assert (
        ran.items()
        >= {
            "request_id": "abc",
            "run_id": run_id_of(verb, response),
            "path": "/chain",
            "mode": verb,
            "status": "success",
        }.items()
    )
    assert ran["duration_ms"] >= 0
    if verb == "stream":
        assert (asked["exit"], ran["chunks"]) == ("finished", 1)
    if verb == "batch":
        assert ran["runs"] == 1


async def test_a_start_is_told_in_one_line(lines: Lines) -> None:
    async with lifespan(app_of(echo(), JSON_LOG)):
        [started] = lines.of("serving")

    assert started["chains"] == ["/chain"]


async def test_a_client_that_leaves_is_told_with_its_reason(lines: Lines) -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = app_of(chain, JSON_LOG)
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as stream:
        await stream.next_event()
        [run] = executor_of(app).live
    async with asyncio.timeout(20):
        await run.ended.wait()
        await anyio.lowlevel.checkpoint()

    [asked], [ran] = lines.of("request"), lines.of("run")
    assert (asked["status"], asked["exit"]) == (200, "client_gone")
    assert (ran["status"], ran["code"]) == ("cancelled", "cancelled")
    assert ran["cancel_reason"] == "client_disconnect"


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 422), (b"{}", 422), (b'{"input":1}', 415), (b"x" * 200, 413)]
)
async def test_a_request_that_is_refused_has_a_line_and_no_run(
    body: bytes, status: int, lines: Lines
) -> None:
    app = app_of(echo(), Settings(log_format="json", max_body_bytes=100))
    headers = {"content-type": "text/plain" if status == 415 else "application/json"}
    await request(app, "POST", "/chain/invoke", body=body, headers=headers)

    assert [line["status"] for line in lines.of("request")] == [status]
    assert lines.of("run") == []


@pytest.mark.parametrize("verb", VERBS)
async def test_an_unexpected_errors_text_and_trace_are_in_the_log_once(
    verb: str, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    response = await ask_verb(app_of(failing(error=ValueError("CANARY-REASON")), JSON_LOG), verb)

    [failed], [ran] = lines.of("run failed"), lines.of("run")
    assert failed["level"] == "error"
    assert failed["run_id"] == ran["run_id"]
    assert "Traceback" in failed["exception"]
    assert "ValueError: CANARY-REASON" in failed["exception"]
    assert (ran["status"], ran["code"]) == ("error", "internal_error")
    assert caplog.text.count("CANARY-REASON") == failed["exception"].count("CANARY-REASON")
    assert b"CANARY" not in response.body
    assert b"Traceback" not in response.body


async def test_a_client_that_leaves_while_it_uploads_is_no_error(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        yield b'{"input":'
        asked.set()
        await never.wait()

    async with open_stream(
        app_of(echo(), JSON_LOG), "POST", "/chain/invoke", body=upload(), wait_for_start=False
    ):
        async with asyncio.timeout(20):
            await asked.wait()

    assert len(lines.of("request")) == 1
    assert [entry.levelname for entry in caplog.records if entry.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("verb", VERBS)
async def test_an_error_that_the_caller_is_told_has_no_trace_in_the_log(
    verb: str, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    await ask_verb(app_of(failing(error=HTTPException(409, "CANARY-DETAIL")), JSON_LOG), verb)

    [ran] = lines.of("run")
    assert (ran["status"], ran["code"]) == ("error", "http_error")
    assert "Traceback" not in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_line_has_inputs_outputs_or_secrets_even_at_debug_level(
    log_format: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chains = [
        Chain(
            path="/chain",
            runnable=RunnableLambda(lambda text: f"CANARY-OUTPUT {text}"),
            config_keys=["configurable", "metadata", "tags"],
        ),
        Chain(path="/chunks", runnable=streaming("CANARY-CHUNK", {"a": "CANARY-CHUNK"})),
        Chain(path="/typed", runnable=echo(int)),
        Chain(path="/unserializable", runnable=streaming({"CANARY-KEY": {"CANARY-VALUE"}})),
        Chain(path="/refused", runnable=failing(error=HTTPException(409, "CANARY-DETAIL"))),
    ]
    app = create_app(chains, Settings(log_format=log_format, log_level="debug"))
    config = {"metadata": {"CANARY-NAME": "CANARY-META"}, "tags": ["CANARY-TAG"]}
    headers = {"authorization": "Bearer CANARY-TOKEN", "cookie": "a=CANARY-COOKIE"}
    async with lifespan(app):
        for chain in chains:
            for verb in VERBS:
                await request(
                    app,
                    "POST",
                    f"{chain.path}/{verb}?key=CANARY-QUERY",
                    json=body_of(verb, "CANARY-INPUT", config=config),
                    headers=headers,
                )
        await request(app, "POST", "/chain/invoke", body=b"CANARY-BODY", headers=headers)

    assert len(caplog.records) > 10
    assert "CANARY" not in caplog.text


async def test_a_path_cannot_write_lines_or_control_the_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    app = app_of(echo(), Settings(log_format="console"))
    async with lifespan(app):
        for path in (
            "/a%0Aforged",
            "/a%0D%0Aforged",
            "/%1B[2J",
            "/a%C2%9B2J",
            "/%E2%80%A8",
            "/%00",
        ):
            await request(app, "GET", path)

    for entry in caplog.records:
        if entry.name == "chainserve":
            assert entry.getMessage().isprintable(), repr(entry.getMessage())


def test_a_trace_shows_no_local_variables_where_rich_is_installed() -> None:
    pip = pytest.importorskip("pip", reason="rich comes from what pip brings along")
    code = """
import sys
sys.path.append(sys.argv[1])
import rich, structlog
assert structlog.dev.default_exception_formatter is structlog.dev.rich_traceback
from chainserve.observability import configure_logging, make_logger
from chainserve.settings import Settings
settings = Settings()
configure_logging(settings)
def answer(question):
    raise ValueError("on purpose")
try:
    answer("CANARY " + "x" * 3)
except ValueError as error:
    make_logger(settings).error("run failed", exc_info=error)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, Path(pip.__file__).parent / "_vendor"],
        env={"COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert "ValueError: on purpose" in ran.stderr
    assert "CANARY xxx" not in ran.stderr


async def test_the_line_of_a_request_is_written_when_it_is_over(lines: Lines) -> None:
    chain = CountingChain()
    app = app_of(chain, JSON_LOG)
    async with open_stream(
        app, "POST", "/chain/invoke", json={"input": 1}, wait_for_start=False
    ) as stream:
        await chain.until_in_flight(1)
        assert lines.of("request") == []
        chain.release.set()
        await stream.read()
        await stream.ended()

    assert len(lines.of("request")) == 1


# Processes.

FAILING_SERVER = """
from langchain_core.runnables import RunnableLambda
from chainserve import Chain, Settings, create_app

from chains.assistant import chain

def fail(value):
    raise ValueError("CANARY-REASON")

app = create_app(
    [chain, Chain(path="/failing", runnable=RunnableLambda(fail))],
    Settings(log_format="json", log_level="debug"),
)
"""
GRACE = 1.0
QUICK = {
    "CHAINSERVE_SHUTDOWN_GRACE_PERIOD": str(GRACE),
    "CHAINSERVE_LOG_FORMAT": "json",
    "CHAINSERVE_DEMO_PAUSE": "60",
}
OPENAI = {
    "OPENAI_API_KEY": "CANARY-KEY",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "OPENAI_MODEL": "some-model",
}
A_LITTLE = 3.0


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServerProcess]]:
    """Three servers, started at the same time to save time."""
    folder = tmp_path_factory.mktemp("failing")
    (folder / "failing_server.py").write_text(FAILING_SERVER)
    uvicorn = ["-m", "uvicorn", "--timeout-graceful-shutdown", str(round(GRACE)), "--port"]
    started = {
        "python server.py": ServerProcess(["server.py"], {**QUICK, "PORT": "0"}),
        "uvicorn server:app": ServerProcess([*uvicorn, str(free_port()), "server:app"], QUICK),
        "failing": ServerProcess(
            [*uvicorn, str(free_port()), "--log-level", "debug", "failing_server:app"],
            {**OPENAI, "PYTHONPATH": str(ROOT)},
            folder,
        ),
    }
    yield started
    for process in started.values():
        process.close()


def json_lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


@dataclass(frozen=True)
class Ending:
    """What became of a server, and of a client that was reading a stream from it."""

    code: int
    seconds: float
    output: str
    head: bytes
    rest: bytes
    complete: bool

    @property
    def run(self) -> dict[str, Any]:
        """The one line about a run."""
        [line] = [line for line in json_lines(self.output) if line["event"] == "run"]
        return line


def end(process: ServerProcess, number: signal.Signals) -> Ending:
    """Send a signal while a client reads a stream that has begun and would not end by itself."""
    body = {"input": {"question": "CANARY-INPUT?"}}
    with asking(process.port(), "POST", "/assistant/stream", body) as stream:
        head = b"".join(stream.readline() for _ in range(6))
        process.signal(number)
        code, seconds = process.wait(GRACE + 5)
        try:
            rest, complete = stream.read(), True
        except http.client.IncompleteRead as error:
            rest, complete = error.partial, False
        except ConnectionResetError:
            rest, complete = b"", False
    return Ending(code, seconds, process.output, head, rest, complete)


@pytest.fixture(scope="module")
def endings(processes: dict[str, ServerProcess]) -> dict[str, Ending]:
    """How `python server.py` and `uvicorn server:app` end."""
    with ThreadPoolExecutor(2) as pool:
        terminated = pool.submit(end, processes["python server.py"], signal.SIGTERM)
        interrupted = pool.submit(end, processes["uvicorn server:app"], signal.SIGINT)
        return {"SIGTERM": terminated.result(), "SIGINT": interrupted.result()}


SIGNALS = ["SIGTERM", "SIGINT"]
Endings = dict[str, Ending]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_a_server_in_time_although_a_stream_is_open(
    endings: Endings, name: str
) -> None:
    ending = endings[name]

    assert ending.head.startswith(b"event: metadata")
    assert ending.code in (0, -signal.Signals[name])
    assert ending.seconds < GRACE + A_LITTLE
    assert "Application shutdown complete" in ending.output


@pytest.mark.parametrize("name", SIGNALS)
def test_the_run_that_a_signal_ends_has_its_line(endings: Endings, name: str) -> None:
    run = endings[name].run

    assert run["run_id"].encode() in endings[name].head
    assert (run["status"], run["mode"]) == ("cancelled", "stream")


@pytest.mark.parametrize("name", SIGNALS)
def test_the_run_that_a_signal_ends_was_cancelled_by_the_shutdown(
    endings: Endings, name: str
) -> None:
    assert endings[name].run["cancel_reason"] == "shutdown"


@pytest.mark.parametrize("name", SIGNALS)
def test_the_client_of_a_stream_that_a_signal_ends_gets_a_terminal_event(
    endings: Endings, name: str
) -> None:
    ending = endings[name]

    assert ending.rest.count(b"event: error") == 1
    assert ending.complete


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_leaves_no_trace_of_an_exception_in_the_log(endings: Endings, name: str) -> None:
    assert "Traceback" not in endings[name].output


@pytest.mark.parametrize("name", SIGNALS)
def test_a_servers_output_has_no_inputs_and_no_keys(endings: Endings, name: str) -> None:
    assert "CANARY" not in endings[name].output


def test_the_model_of_the_environment_is_named(processes: dict[str, ServerProcess]) -> None:
    status, chains = ask(processes["failing"].port(), "GET", "/chains")

    assert status == 200
    assert json.loads(chains)[0]["model"] == "some-model"


def test_the_trace_of_a_failure_is_in_a_real_servers_log_once_for_each_run(
    processes: dict[str, ServerProcess],
) -> None:
    process = processes["failing"]
    port = process.port()
    answers = [ask(port, "POST", f"/failing/{verb}", body_of(verb)) for verb in VERBS]
    process.signal(signal.SIGTERM)
    process.wait(GRACE + 5)

    assert [status for status, _ in answers] == [500, 500, 200]
    assert "CANARY-KEY" not in process.output
    assert not any("CANARY" in body or "Traceback" in body for _, body in answers)
    failures = [line for line in json_lines(process.output) if line["event"] == "run failed"]
    assert [line["mode"] for line in failures] == VERBS
    assert process.output.count("Traceback") == len(VERBS)
    assert process.output.count("ValueError: CANARY-REASON") == len(VERBS)
    assert "Exception in ASGI application" not in process.output


async def test_sync_steps_run_side_by_side_in_as_many_threads_as_are_set() -> None:
    together = threading.Barrier(20)
    chain = Chain(path="/chain", runnable=RunnableLambda(lambda _: together.wait(5) >= 0))
    app = create_app([chain], Settings(max_threads=20))
    async with lifespan(app):
        response = await request(app, "POST", "/chain/batch", json={"inputs": [1] * 20})

    assert response.status == 200, response.text
    assert response.json()["output"] == [True] * 20


@pytest.mark.parametrize("given", [Chain(path="/a", runnable=echo()), echo(), [echo()], 3, None])
def test_what_is_no_list_of_chains_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="it must be a list of chains"):
        create_app(given, Settings())


async def test_an_application_may_have_an_executor_of_its_own() -> None:
    own = ThreadPoolExecutor(1, thread_name_prefix="own")

    @asynccontextmanager
    async def with_own(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(own)
        yield

    app = FastAPI(lifespan=with_own)
    add_routes(app, RunnableLambda(lambda _: threading.current_thread().name), path="/chain")
    async with lifespan(app):
        response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert response.json()["output"].startswith("own")


async def test_an_executor_that_was_there_before_stays() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, "before"))
    app = FastAPI()
    add_routes(app, RunnableLambda(lambda _: threading.current_thread().name), path="/chain")
    async with lifespan(app):
        response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert response.json()["output"].startswith("before")


async def test_chains_of_a_mounted_application_have_threads_too() -> None:
    sub = FastAPI()
    add_routes(sub, RunnableLambda(lambda _: threading.current_thread().name), path="/chain")
    app = FastAPI()
    app.mount("/sub", sub)
    async with lifespan(app):
        response = await request(app, "POST", "/sub/chain/invoke", json={"input": 1})

    assert response.json()["output"].startswith("chainserve")
