"""Which requests may start and end runs: what browsers send of each, and what is refused."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import pytest
from playwright.async_api import Browser, Page
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from chainserve.cross_site import refuse_cross_site, refuse_cross_site_write
from chainserve.errors import CrossSiteError
from tests._bridge import WAIT_SECONDS
from tests._browser import opened
from tests._server import Served, serve

pytestmark = pytest.mark.anyio

APP = "https://app.example"
PAGE_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
IMAGE_ACCEPT = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"


def headers(**fields: str) -> Headers:
    """Headers of a request to api.example; underscores are hyphens."""
    return Headers(
        {"host": "api.example"} | {k.replace("_", "-"): value for k, value in fields.items()}
    )


def fetched(site: str, dest: str = "empty", mode: str = "cors", **fields: str) -> Headers:
    """Headers of a browser that sends Fetch Metadata."""
    return headers(sec_fetch_site=site, sec_fetch_dest=dest, sec_fetch_mode=mode, **fields)


def refusal(request: Headers, *origins: str) -> str | None:
    """Return why a start is refused, or None if it is not."""
    try:
        refuse_cross_site(request, origins=origins)
    except CrossSiteError as error:
        return error.message
    return None


def write_refused(request: Headers, *origins: str) -> bool:
    try:
        refuse_cross_site_write(request, origins=origins)
    except CrossSiteError:
        return True
    return False


@pytest.mark.parametrize(
    "request_",
    [
        fetched("same-origin", accept="text/event-stream"),
        fetched("same-origin", accept="*/*"),
        fetched("none", accept="*/*"),
        headers(accept="*/*", user_agent="curl/8.9.1"),
        headers(accept="*/*", user_agent="python-httpx/0.28.1"),
        headers(user_agent="Go-http-client/1.1"),
        headers(accept="text/event-stream"),
        headers(accept="text/html, text/event-stream"),
        headers(origin="http://api.example", accept="text/event-stream"),
        headers(origin="https://api.example"),
    ],
)
def test_readers_and_programs_may_start_a_run(request_: Headers) -> None:
    assert refusal(request_) is None
    assert refusal(request_, APP) is None
    assert not write_refused(request_)


@pytest.mark.parametrize("dest", ["document", "iframe", "frame", "object", "embed", "fencedframe"])
@pytest.mark.parametrize("site", ["same-origin", "same-site", "cross-site", "none"])
def test_a_navigation_never_starts_a_run_and_is_told_how(dest: str, site: str) -> None:
    request = fetched(site, dest, "navigate", accept=PAGE_ACCEPT)
    for origins in [(), (APP,), ("*",)]:
        assert "Read it with EventSource, fetch or curl." in (refusal(request, *origins) or "")


def test_a_download_is_a_navigation_without_a_destination() -> None:
    assert "opened as a page" in (refusal(fetched("same-origin", mode="navigate")) or "")


@pytest.mark.parametrize(
    "dest",
    ["image", "script", "style", "video", "audio", "track", "font", "worker", "manifest", "later"],
)
def test_a_part_of_a_page_never_starts_a_run(dest: str) -> None:
    for site in ("same-origin", "cross-site"):
        request = fetched(site, dest, "no-cors", accept="*/*")
        assert "part of a page" in (refusal(request) or "")
        assert refusal(request, "*") == refusal(request)


@pytest.mark.parametrize(
    "purpose",
    [
        {"sec_purpose": "prefetch"},
        {"sec_purpose": "prefetch;prerender"},
        {"sec_purpose": "prefetch;anonymous-client-ip"},
        {"purpose": "prefetch"},
        {"x_moz": "prefetch"},
    ],
)
def test_a_prefetch_never_starts_a_run(purpose: dict[str, str]) -> None:
    for request in (
        fetched("same-origin", **purpose),
        fetched("none", "document", "navigate", **purpose),
        headers(**purpose),
    ):
        assert "ahead of time" in (refusal(request, "*") or "")


@pytest.mark.parametrize("site", ["same-site", "cross-site", "unheard-of"])
def test_a_page_of_another_origin_starts_runs_only_if_it_is_listed(site: str) -> None:
    request = fetched(site, origin=APP)
    assert "CHAINSERVE_CORS_ORIGINS" in (refusal(request) or "")
    assert refusal(request, "https://other.example") is not None
    assert refusal(request, "https://other.example", APP) is None
    assert refusal(request, "*") is None
    assert write_refused(request)
    assert not write_refused(request, APP)


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_a_request_of_another_site_that_hides_its_origin_is_refused(site: str) -> None:
    for request in (fetched(site, mode="no-cors"), fetched(site, origin="null")):
        assert refusal(request, APP) is not None
        assert write_refused(request, APP)
        assert refusal(request, "*") is None


def test_what_the_browser_says_counts_more_than_how_the_origin_looks() -> None:
    assert refusal(fetched("cross-site", origin="https://api.example")) is not None
    assert refusal(fetched("same-origin", origin="https://behind.a.proxy")) is None


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://lan.test:8000", "lan.test:8000", True),
        ("https://lan.test", "lan.test", True),
        ("https://lan.test", "lan.test:443", True),
        ("http://lan.test", "lan.test:80", True),
        ("http://lan.test", "LAN.test", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://lan.test:3000", "lan.test:8000", False),
        ("http://lan.test", "lan.test:8000", False),
        ("https://lan.test", "lan.test:80", False),
        ("http://evil.test", "lan.test", False),
        ("http://lan.test.evil.test", "lan.test", False),
        ("http://evil.test@lan.test", "lan.test", False),
        ("app://lan.test", "lan.test", False),
        ("null", "lan.test", False),
        ("", "", False),
        ("http://", "", False),
        ("http://[", "lan.test", False),
    ],
)
def test_without_fetch_metadata_the_origin_is_held_against_the_host(
    origin: str, host: str, own: bool
) -> None:
    request = Headers({"host": host, "origin": origin, "accept": "text/event-stream"})
    assert (refusal(request) is None) is own
    assert write_refused(request) is not own
    assert refusal(request, "*") is None


def test_a_forwarded_host_is_not_believed() -> None:
    assert refusal(headers(origin=APP, x_forwarded_host="app.example")) is not None


@pytest.mark.parametrize(
    "accept", [PAGE_ACCEPT, IMAGE_ACCEPT, "image/*", "text/css,*/*;q=0.1", "TEXT/HTML"]
)
def test_without_fetch_metadata_what_is_accepted_gives_a_page_or_an_image_away(accept: str) -> None:
    assert "Read it with EventSource" in (refusal(headers(accept=accept)) or "")
    assert not write_refused(headers(accept=accept))
    assert refusal(headers(accept=accept, origin=APP), APP) is None


class Recorder:
    """Answers every request, and keeps the headers of the first for each path."""

    def __init__(self) -> None:
        self._seen: dict[str, Headers] = {}
        self._changed = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        # To a proxy a browser sends the whole URL, which is the path here.
        path = "/" + scope["path"].rpartition("/")[2]
        self._seen.setdefault(path, request.headers)
        self._changed.set()
        self._changed = anyio.Event()
        page = HTMLResponse("<!doctype html><title>page</title><link rel=icon href=data:,><body>")
        await (page if path == "/page" else PlainTextResponse())(scope, receive, send)

    async def first(self, path: str) -> Headers:
        with anyio.fail_after(WAIT_SECONDS):
            while path not in self._seen:
                await self._changed.wait()
        return self._seen[path]


def adding(tag: str, **properties: str) -> str:
    """A script that adds an element; the values are JavaScript."""
    lines = "".join(f"element.{name} = {value};" for name, value in properties.items())
    return f"const element = document.createElement('{tag}'); {lines} document.body.append(element)"


READERS = {
    "eventsource": "new EventSource(url)",
    "fetch": "fetch(url)",
}
BLIND = {"fetch-no-cors": "fetch(url, {mode: 'no-cors'})"}
OTHERS = {
    "image": "new Image().src = url",
    "iframe": adding("iframe", src="url"),
    "object": adding("object", data="url"),
    "script": adding("script", src="url"),
    "style": adding("link", rel="'stylesheet'", href="url"),
    "video": adding("video", src="url"),
    "prefetch": adding("link", rel="'prefetch'", href="url"),
    "link": adding("a", href="url") + "; element.click()",
    "download": adding("a", href="url", download="'file'") + "; element.click()",
    "form": adding("form", action="url") + "; element.submit()",
    "sandboxed": adding(
        "iframe",
        sandbox="'allow-scripts'",
        srcdoc="`<script>new EventSource('${url}')</script>`",
    ),
}
WRITES = {
    "fetch-post": "fetch(url, {method: 'POST'})",
    "fetch-post-no-cors": "fetch(url, {method: 'POST', mode: 'no-cors'})",
    "beacon": "navigator.sendBeacon(url)",
    "form-post": adding("form", action="url", method="'post'") + "; element.submit()",
}
NAVIGATIONS = {"link", "download", "form", "form-post"}
# What Chromium sends of these over plain http is what a program sends: `Accept: */*` and no more.
INDISTINCT = {"script", "video"}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def server(recorder: Recorder) -> AsyncIterator[Served]:
    async with serve(recorder, lifespan="off") as server:
        yield server


async def recorded(
    browser: Browser,
    recorder: Recorder,
    scripts: Mapping[str, str],
    *,
    page: str,
    server: str,
    **options: Any,
) -> dict[str, Headers]:
    """Run each script in a page, and return what the browser sent for it."""
    async with await browser.new_context(**options) as context:
        tab: Page | None = None
        for name, script in scripts.items():
            if tab is None or name in NAVIGATIONS:
                tab = await context.new_page()
                await tab.goto(f"{page}/page")
            # Later, so that a page that is left has answered before.
            run = f"(url) => {{ setTimeout(() => {{ {script} }}) }}"
            await tab.evaluate(run, f"{server}/{name}")
            tab = None if name in NAVIGATIONS else tab
        return {name: await recorder.first(f"/{name}") for name in scripts}


async def test_a_browser_starts_runs_for_readers_of_the_same_origin_alone(
    browser: Browser, recorder: Recorder, server: Served
) -> None:
    own = server.base_url
    scripts = READERS | BLIND | OTHERS | WRITES
    sent = await recorded(browser, recorder, scripts, page=own, server=own)
    passed = {name for name in READERS | BLIND | OTHERS if refusal(sent[name]) is None}
    assert passed == {*READERS, *BLIND}
    assert not any(write_refused(sent[name]) for name in WRITES)


@pytest.mark.parametrize("page_host", ["127.0.0.1", "localhost"])
async def test_a_browser_starts_runs_for_readers_of_a_listed_origin_alone(
    browser: Browser, recorder: Recorder, server: Served, page_host: str
) -> None:
    async with serve(recorder, lifespan="off") as pages:
        origin = f"http://{page_host}:{pages.port}"
        scripts = READERS | BLIND | OTHERS | WRITES
        sent = await recorded(browser, recorder, scripts, page=origin, server=server.base_url)
    site = {"127.0.0.1": "same-site", "localhost": "cross-site"}[page_host]
    assert sent["fetch"]["sec-fetch-site"] == site
    assert sent["fetch"]["origin"] == origin
    starts = READERS | BLIND | OTHERS
    assert all(refusal(sent[name]) is not None for name in starts)
    assert {name for name in starts if refusal(sent[name], origin) is None} == {*READERS}
    assert all(write_refused(sent[name]) for name in WRITES)
    assert not any(write_refused(sent[name], origin) for name in WRITES)


async def test_an_address_that_is_typed_in_starts_no_run(
    browser: Browser, recorder: Recorder, server: Served
) -> None:
    async with opened(browser) as tab:
        await tab.page.goto(f"{server.base_url}/typed")
    typed = await recorder.first("/typed")
    assert typed["sec-fetch-site"] == "none"
    assert "opened as a page" in (refusal(typed) or "")


@pytest.mark.parametrize("page", ["http://lan.test", "http://other.test"])
async def test_over_plain_http_a_browser_gives_most_away_by_what_it_accepts(
    browser: Browser, recorder: Recorder, server: Served, page: str
) -> None:
    # Its own proxy is how a browser meets, on this machine, a server that is not on it.
    proxy = {"proxy": {"server": server.base_url}}
    scripts = {k: v for k, v in (READERS | BLIND | OTHERS | WRITES).items() if k != "download"}
    sent = await recorded(browser, recorder, scripts, page=page, server="http://lan.test", **proxy)
    assert not any(name.startswith("sec-fetch-") for found in sent.values() for name in found)
    passed = {name for name in sent if name not in WRITES and refusal(sent[name]) is None}
    readers = {*READERS} if page == "http://lan.test" else set()
    assert passed == readers | {*BLIND} | INDISTINCT
    refused = {name for name in WRITES if write_refused(sent[name])}
    assert refused == (set() if page == "http://lan.test" else {*WRITES})
