"""CORS: which pages may read answers, beside an application that has a word in that itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pydantic
import pytest
from fastapi import FastAPI, Request
from playwright.async_api import Browser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chainserve import create_app
from chainserve.cors import with_cors
from chainserve.settings import Settings
from tests._bridge import WAIT_SECONDS, Response as Answer, lifespan, open_stream, request
from tests._browser import opened
from tests._server import serve

pytestmark = pytest.mark.anyio

APP = "https://app.example"
OTHER = "https://other.example"
ALLOW_ORIGIN = "access-control-allow-origin"


def make_app(*origins: str, credentials: bool = False, **options: Any) -> FastAPI:
    app = create_app([], Settings(cors_origins=origins, cors_credentials=credentials), **options)

    @app.get("/value")
    @app.post("/value")
    def value() -> Response:
        return JSONResponse({}, headers={"location": "runs/1", "preference-applied": "resumable"})

    @app.get("/varied")
    def varied() -> Response:
        return PlainTextResponse(headers={"vary": "accept"})

    @app.get("/own")
    def own() -> Response:
        return PlainTextResponse(headers={ALLOW_ORIGIN: OTHER})

    @app.get("/exposing")
    def exposing() -> Response:
        fields = {
            "access-control-expose-headers": "X-Total",
            "access-control-allow-credentials": "true",
        }
        return PlainTextResponse(headers=fields)

    @app.options("/preflighted")
    def preflighted() -> Response:
        return PlainTextResponse(headers={ALLOW_ORIGIN: OTHER, "access-control-max-age": "1"})

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("of no concern to a page")

    @app.get("/stream")
    def stream() -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await app.state.gate.wait()
            yield b"data: 2\n\n"

        async def end() -> None:
            app.state.ended.set()

        app.state.gate, app.state.ended = asyncio.Event(), asyncio.Event()
        task = BackgroundTask(end)
        return StreamingResponse(events(), media_type="text/event-stream", background=task)

    return app


async def get(app: ASGIApp, path: str = "/value", origin: str | None = APP) -> Answer:
    return await request(app, "GET", path, headers={"origin": origin} if origin else {})


async def preflight(
    app: ASGIApp, path: str = "/value", *, origin: str = APP, method: str = "POST", **fields: str
) -> Answer:
    """Ask for leave as a browser does; underscores in names are hyphens."""
    asked = {"origin": origin, "access-control-request-method": method}
    asked |= {name.replace("_", "-"): value for name, value in fields.items()}
    return await request(app, "OPTIONS", path, headers=asked)


def cors_of(answer: Answer) -> dict[str, str]:
    """Return what an answer says of CORS, and assert that it says nothing twice."""
    names = [name for name in answer.headers if name.startswith("access-control-")]
    assert all(len(answer.headers.get_list(name)) == 1 for name in names)
    return {name: answer.headers[name] for name in names}


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        (" https://app.example, http://localhost:3000 ,,", (APP, "http://localhost:3000")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
    ],
)
def test_origins_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CHAINSERVE_CORS_ORIGINS", text)
    assert Settings().cors_origins == origins


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("https://app.example/", "Write 'https://app.example'"),
        ("https://app.example/page?x#y", "Write 'https://app.example'"),
        ("https://App.example", "Write 'https://app.example'"),
        ("https://app.example:443", "Write 'https://app.example'"),
        ("http://app.example:080", "Write 'http://app.example'"),
        ("https://app.example:", "Write 'https://app.example'"),
        ("https://me:secret@app.example:8443", "Write 'https://app.example:8443'"),
        ("app.example", "has no scheme"),
        ("localhost:3000", "has no scheme"),
        ("//app.example", "has no scheme"),
        ("https://bücher.example", "as 'xn--...'"),
        ("https://", "is not an origin"),
        ("://app.example", "is not an origin"),
        ("https://app example", "is not an origin"),
        ("https://app.example:99999", "is not an origin"),
        ("https://[::1", "is not an origin"),
        ("file:///home/page.html", "is not an origin"),
        ("https://*.app.example", "there are no patterns"),
        ("*,https://app.example", "leave out the others"),
        ("null", "origin of its own"),
    ],
)
def test_a_mistake_in_an_origin_is_refused_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, text: str, mend: str
) -> None:
    monkeypatch.setenv("CHAINSERVE_CORS_ORIGINS", text)
    with pytest.raises(pydantic.ValidationError) as refused:
        Settings()
    assert mend in str(refused.value)


def test_cookies_from_any_origin_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="List the origins of those pages"):
        Settings(cors_origins=("*",), cors_credentials=True)
    assert Settings(cors_origins=(APP,), cors_credentials=True).cors_credentials


async def test_without_origins_there_is_no_layer_and_no_header() -> None:
    app = make_app()
    assert with_cors(app, [], Settings()) is app
    answer = await get(app)
    assert cors_of(answer) == {}
    assert "vary" not in answer.headers


async def test_a_listed_page_may_read_an_answer_and_the_headers_that_matter() -> None:
    answer = await get(make_app(APP, OTHER))
    assert cors_of(answer) == {
        ALLOW_ORIGIN: APP,
        "access-control-expose-headers": "Location, Preference-Applied, Retry-After, X-Request-ID",
    }
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", [None, OTHER, "null", APP + ":8443", "http://app.example"])
async def test_another_page_may_read_nothing_and_no_cache_mixes_the_two_up(
    origin: str | None,
) -> None:
    answer = await get(make_app(APP, credentials=True), origin=origin)
    assert answer.status == 200
    assert cors_of(answer) == {}
    assert answer.headers["vary"] == "Origin"


async def test_a_vary_of_the_application_is_kept() -> None:
    for origin in (APP, OTHER):
        varied = (await get(make_app(APP), "/varied", origin)).headers["vary"]
        assert [part.strip() for part in varied.split(",")] == ["accept", "Origin"]


async def test_any_page_may_read_where_all_are_listed() -> None:
    for origin in (APP, OTHER, "null"):
        assert cors_of(await get(make_app("*"), origin=origin))[ALLOW_ORIGIN] == "*"


async def test_cookies_are_allowed_where_the_settings_say_so() -> None:
    app = make_app(APP, credentials=True)
    for answer in (await get(app), await preflight(app)):
        assert cors_of(answer)["access-control-allow-credentials"] == "true"
        assert cors_of(answer)[ALLOW_ORIGIN] == APP
    assert "access-control-allow-credentials" not in cors_of(await get(make_app(APP)))


async def test_a_preflight_allows_our_methods_and_headers() -> None:
    app = make_app(APP)
    sent = "accept, authorization, content-type, idempotency-key, last-event-id, prefer, x-api-key"
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        answer = await preflight(
            app,
            "/nowhere",
            method=method,
            access_control_request_headers=sent + ",x-request-id",
            access_control_request_private_network="true",
        )
        assert answer.status == 200
        assert cors_of(answer)[ALLOW_ORIGIN] == APP
        assert method in cors_of(answer)["access-control-allow-methods"].split(", ")
        assert cors_of(answer)["access-control-allow-private-network"] == "true"
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "asked",
    [
        {"origin": OTHER},
        {"origin": "null"},
        {"method": "PATCH"},
        {"access_control_request_headers": "x-mine"},
    ],
)
async def test_a_preflight_that_is_not_allowed_is_the_application_s(asked: dict[str, str]) -> None:
    answer = await preflight(make_app(APP), **asked)
    assert answer.status == 405
    assert cors_of(answer) == {}


async def test_an_options_request_that_is_no_preflight_is_the_application_s() -> None:
    for headers in ({"origin": APP}, {"access-control-request-method": "GET"}):
        assert (await request(make_app(APP), "OPTIONS", "/value", headers=headers)).status == 405


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/broken", 500)])
async def test_errors_can_be_read_too(path: str, status: int) -> None:
    answer = await get(make_app(APP), path)
    assert answer.status == status
    assert cors_of(answer)[ALLOW_ORIGIN] == APP


async def test_an_error_that_the_application_handles_itself_can_be_read_too() -> None:
    async def handle(_: Request, __: Exception) -> Response:
        return PlainTextResponse("own", status_code=500)

    app = make_app(APP, exception_handlers={Exception: handle})
    async with open_stream(
        app, "GET", "/broken", headers={"origin": APP}, raise_app_errors=False
    ) as answer:
        assert answer.status == 500
        assert answer.headers[ALLOW_ORIGIN] == APP


async def test_a_stream_passes_piece_by_piece() -> None:
    app = make_app(APP)
    async with open_stream(app, "GET", "/stream", headers={"origin": APP}) as stream:
        assert await stream.next_chunk() == b"data: 1\n\n"
        app.state.gate.set()
        assert await stream.next_chunk() == b"data: 2\n\n"
    assert stream.headers[ALLOW_ORIGIN] == APP


async def test_messages_pass_as_they_are() -> None:
    body: Message = {"type": "http.response.body", "body": b"x"}
    passed: list[Message] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send(body)

    async def keep(message: Message) -> None:
        passed.append(message)

    app = with_cors(inner, [], Settings(cors_origins=(APP,)))
    scope = {"type": "http", "method": "GET", "headers": [(b"origin", APP.encode())]}
    await app(scope, asyncio.Queue[Message]().get, keep)
    assert passed[1] is body
    assert (b"access-control-allow-origin", APP.encode()) in passed[0]["headers"]


async def test_the_lifespan_passes() -> None:
    async with lifespan(make_app(APP)):
        pass


async def test_a_route_that_answers_cors_itself_is_left_alone() -> None:
    app = make_app(APP)
    assert cors_of(await get(app, "/own")) == {ALLOW_ORIGIN: OTHER}
    asked = await preflight(app, "/preflighted", origin=OTHER)
    assert cors_of(asked) == {ALLOW_ORIGIN: OTHER, "access-control-max-age": "1"}


async def test_a_route_may_expose_more_headers_but_not_allow_cookies() -> None:
    exposed = cors_of(await get(make_app(APP), "/exposing"))
    assert exposed["access-control-expose-headers"].startswith("X-Total, Location, ")
    assert "access-control-allow-credentials" not in exposed
    exposed = cors_of(await get(make_app(APP, credentials=True), "/exposing"))
    assert exposed["access-control-allow-credentials"] == "true"


class OwnCORS(CORSMiddleware):
    """An application's middleware, made from Starlette's."""


@pytest.mark.parametrize("cls", [CORSMiddleware, OwnCORS])
@pytest.mark.parametrize("when", ["given", "added"])
async def test_a_middleware_for_cors_of_the_application_answers_alone(
    cls: type[CORSMiddleware], when: str
) -> None:
    if when == "given":
        app = make_app(
            APP,
            OTHER,
            middleware=[Middleware(cls, allow_origins=[OTHER], allow_headers=["x-mine"])],
        )
    else:
        app = make_app(APP, OTHER)
        app.add_middleware(cls, allow_origins=[OTHER], allow_headers=["x-mine"])
    assert cors_of(await get(app, origin=OTHER)) == {ALLOW_ORIGIN: OTHER}
    assert cors_of(await get(app, origin=APP)) == {}
    asked = await preflight(
        app, origin=OTHER, method="GET", access_control_request_headers="x-mine"
    )
    assert asked.status == 200
    assert (await preflight(app, origin=APP)).status == 400


async def test_a_middleware_for_cors_around_the_application_replaces_ours() -> None:
    app = CORSMiddleware(make_app(APP), allow_origins=[APP], expose_headers=["X-Mine"])
    assert cors_of(await get(app)) == {
        ALLOW_ORIGIN: APP,
        "access-control-expose-headers": "X-Mine",
    }


@pytest.mark.parametrize("when", ["given", "added"])
async def test_no_header_is_there_twice_beside_one_that_is_written_by_hand(when: str) -> None:
    if when == "given":
        app = make_app(APP, middleware=[Middleware(Appending)])
    else:
        app = make_app(APP)
        app.add_middleware(Appending)
    assert cors_of(await get(app)) == {ALLOW_ORIGIN: APP, "access-control-max-age": "1"}
    assert cors_of(await preflight(app))[ALLOW_ORIGIN] == APP
    assert cors_of(await preflight(app, origin=OTHER))[ALLOW_ORIGIN] == OTHER


class Appending:
    """Adds a header for whatever origin, even where there is one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                origin = dict(scope["headers"])[b"origin"]
                more = [(ALLOW_ORIGIN.encode(), origin), (b"access-control-max-age", b"1")]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self.app(scope, receive, send_more)


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with an empty page."""
    page = "<!doctype html><title>page</title><link rel=icon href=data:,><body>"
    await PlainTextResponse(page, media_type="text/html")(scope, receive, send)


POST_WITH_PREFER = """async (url) => {
  const headers = {'Content-Type': 'application/json', 'Prefer': 'resumable'};
  try {
    const answer = await fetch(url, {method: 'POST', body: '{}', headers});
    return Object.fromEntries(answer.headers);
  } catch (error) { return null; }
}"""
READ_ONE_EVENT = """(url) => new Promise((resolve) => {
  const source = new EventSource(url);
  source.onmessage = (event) => { source.close(); resolve(event.data); };
  source.onerror = () => { source.close(); resolve(null); };
})"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("listed", [True, False])
async def test_a_page_in_a_browser_reads_only_if_its_origin_is_listed(
    browser: Browser, host: str, listed: bool
) -> None:
    async with serve(page, lifespan="off") as pages, opened(browser) as tab:
        origin = f"http://{host}:{pages.port}"
        if not listed:
            tab.expected += ["blocked by CORS policy", "Failed to load resource"]
        app = make_app(origin if listed else APP)
        async with serve(app) as api:
            await tab.page.goto(origin)
            answer = await tab.page.evaluate(POST_WITH_PREFER, f"{api.base_url}/value")
            event = await tab.page.evaluate(READ_ONE_EVENT, f"{api.base_url}/stream")
            app.state.gate.set()
            with anyio.fail_after(WAIT_SECONDS):
                # A stream that breaks before the browser has let go of it is complained of.
                await app.state.ended.wait()
    if not listed:
        assert (answer, event) == (None, None)
        return
    assert event == "1"
    assert answer.keys() >= {"location", "preference-applied", "x-request-id"}
    assert answer["preference-applied"] == "resumable"
