"""What a page in a real browser gets, with `EventSource` and with `fetch`, while connections break.

The page and the chain are reached through a proxy that cuts connections where a test says.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from langchain_core.runnables import Runnable
from playwright.async_api import Browser, Page

from chainserve import Chain, add_stream_route, create_app
from chainserve.settings import Settings
from tests._apps import executor_of, make_app
from tests._browser import Tab, opened
from tests._chains import GatedChain, failing
from tests._processes import undone
from tests._proxy import Fault, FaultProxy, proxy
from tests._server import Served, serve

pytestmark = pytest.mark.anyio

TOKENS = ("Grüße ", "an ", "alle\n\n", "\u2028!")
EVENTS = ("metadata", *(["data"] * len(TOKENS)), "end")
SETTINGS = Settings(retry_ms=10)
STREAM = "/chain/stream?input=1"

PAGE = """<!doctype html><title>Page</title><link rel="icon" href="data:,"><script>
const seen = window.seen = [];  // The events, and each loss of the connection.
function listen([url, closing]) {
  const source = window.source = new EventSource(url);
  for (const name of ["metadata", "data", "message", "end", "error", "gap"])
    source.addEventListener(name, ({ data, lastEventId }) => seen.push(
      data === undefined ? { event: "lost" } : { event: name, data, id: lastEventId }));
  if (closing) source.addEventListener("end", () => source.close());
}

// What fetch libraries for event streams do: POST, leave while the page is hidden, and come back
// with the id of the last event.
function post(url, headers) {
  let id = "", leaving;
  window.ended = new Promise((resolve) => {
    async function connect() {
      leaving = new AbortController();
      const sent = { "content-type": "application/json", ...headers };
      if (id) sent["last-event-id"] = id;
      const options = { method: "POST", headers: sent, body: '{"input": 1}' };
      try {
        const response = await fetch(url, { ...options, signal: leaving.signal });
        seen.push({ event: `status ${response.status}` });
        await read(response.body.pipeThrough(new TextDecoderStream()));
        resolve();
      } catch (error) {
        seen.push({ event: error.name });
      }
    }
    async function read(body) {
      let rest = "";
      for await (const text of body) {
        const blocks = (rest + text).split("\\r\\n\\r\\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const fields = Object.fromEntries(block.split("\\r\\n").map((line) => line.split(": ")));
          id = fields.id ?? id;
          seen.push({ event: fields.event, data: fields.data, id });
        }
      }
    }
    document.addEventListener("visibilitychange", () =>
      document.hidden ? leaving.abort() : connect());
    connect();
  });
}

function hide(hidden) {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
</script>"""


def with_page(app: FastAPI) -> FastAPI:
    """Return the application with the page at `/page`."""

    @app.get("/page")
    def _page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    return app


@dataclass
class Stage:
    """A tab at a page whose connections go through the proxy."""

    tab: Tab
    proxy: FaultProxy
    app: FastAPI

    @property
    def page(self) -> Page:
        return self.tab.page

    async def listen(self, path: str, *, closing: bool = False, page: Page | None = None) -> None:
        """Open a page's `EventSource`, which closes at the end or leaves that to the server."""
        await (page or self.page).evaluate("listen", [path, closing])

    async def events(self, page: Page | None = None) -> list[dict[str, str]]:
        """Return the events that a page has seen, and its losses of the connection."""
        seen: list[dict[str, str]] = await (page or self.page).evaluate("seen")
        return seen

    async def names(self) -> list[str]:
        return [one["event"] for one in await self.events()]

    async def until(self, condition: str, page: Page | None = None) -> None:
        """Wait until something is true in a page."""
        await (page or self.page).wait_for_function(condition, timeout=10_000)

    async def until_seen(self, count: int, event: str = "data", page: Page | None = None) -> None:
        """Wait until a page has seen so many events of a name."""
        await self.until(f"seen.filter((one) => one.event === '{event}').length >= {count}", page)

    async def until_closed(self) -> None:
        """Wait until the page's `EventSource` has given up."""
        await self.until("source.readyState === EventSource.CLOSED")

    def cut(self, count: int, path: str = "/stream") -> Fault:
        """Plan to cut the next stream after so many events; it stalls there before."""
        return self.proxy.add(Fault(path, after_events=count, stalls=True))

    async def saw_everything_once(self, page: Page | None = None) -> None:
        """Assert that a page has seen the whole answer, nothing twice, and no error."""
        events = [one for one in await self.events(page) if one["event"] != "lost"]
        assert [one["event"] for one in events] == list(EVENTS)
        assert chunks(events) == list(TOKENS)
        ids = [one["id"] for one in events]
        assert ids == [f"{ids[0].rpartition('.')[0]}.{seq}" for seq in range(len(ids))]


def chunks(events: Sequence[dict[str, str]]) -> list[Any]:
    return [json.loads(one["data"]) for one in events if one["event"] == "data"]


@asynccontextmanager
async def staged(
    browser: Browser, runnable: Runnable[Any, Any], settings: Settings = SETTINGS
) -> AsyncIterator[Stage]:
    """Serve a chain, at two routes, and open the page through the proxy."""
    app = with_page(make_app(runnable, settings=settings))
    add_stream_route(app, runnable, "/stream_chat")
    async with serve(app) as server, proxy(server.port) as before, opened(browser) as tab:
        tab.expected = ["net::ERR_"]
        await tab.page.goto(f"{before.base_url}/page")
        yield Stage(tab, before, app)


@pytest.fixture
def chain() -> GatedChain:
    """A chain that goes through if nobody shuts its gate."""
    chain = GatedChain(TOKENS)
    chain.gate.set()
    return chain


@pytest.fixture
async def stage(browser: Browser, chain: GatedChain) -> AsyncIterator[Stage]:
    async with staged(browser, chain) as stage:
        yield stage


async def test_named_events_arrive_until_the_page_closes(stage: Stage, chain: GatedChain) -> None:
    await stage.listen(STREAM, closing=True)
    await stage.until_closed()

    await stage.saw_everything_once()
    assert "lost" not in await stage.names()
    [request] = stage.proxy.to(STREAM)
    assert "last-event-id" not in request.headers
    assert chain.started == 1


async def test_a_page_that_does_not_close_is_told_to_stop(stage: Stage, chain: GatedChain) -> None:
    answers: list[int] = []
    stage.page.on("response", lambda response: answers.append(response.status))
    await stage.listen(STREAM)
    await stage.until_closed()

    await stage.saw_everything_once()
    assert (await stage.names())[-2:] == ["lost", "lost"]  # One of them is the 204.
    assert answers == [200, 204]
    _, request = stage.proxy.to(STREAM)
    assert request.headers["last-event-id"] == (await stage.events())[len(EVENTS) - 1]["id"]
    assert chain.started == 1
    # Would the first reconnect again, it did so before the second, which waits as long.
    await stage.listen("/chain/stream?input=2")
    await stage.until_closed()
    assert len(stage.proxy.to("/chain/stream?input=2")) == 2
    assert len(stage.proxy.to(STREAM)) == 2


async def test_a_page_that_was_cut_after_any_event_goes_on_where_it_was(
    stage: Stage, chain: GatedChain
) -> None:
    for count in range(1, len(EVENTS) + 1):
        url = f"/chain/stream?input={count}"
        cut = stage.cut(count)
        await stage.page.evaluate("seen.length = 0")
        await stage.listen(url)
        await stage.until(f"seen.length === {count}")
        cut.go.set()
        await stage.until_closed()

        await stage.saw_everything_once()
        assert (await stage.names())[count] == "lost"
        request = stage.proxy.to(url)[1]
        assert request.headers["last-event-id"] == (await stage.events())[count - 1]["id"]
        assert chain.started == count


@pytest.mark.parametrize("path", [STREAM, "/chain/runs/{id}/stream"])
async def test_a_page_that_is_cut_after_every_event_misses_nothing(
    stage: Stage, chain: GatedChain, path: str
) -> None:
    started = await stage.page.evaluate(_START_A_RUN) if "{id}" in path else ""
    cuts = [stage.cut(1) for _ in EVENTS]
    await stage.listen(started or path)
    for count, cut in enumerate(cuts, 1):
        await stage.until(f"seen.filter((one) => one.event !== 'lost').length === {count}")
        cut.go.set()
    await stage.until_closed()

    await stage.saw_everything_once()
    requests = stage.proxy.to("/stream")
    ids = [one["id"] for one in await stage.events() if one["event"] != "lost"]
    assert [request.headers.get("last-event-id") for request in requests] == [None, *ids]
    assert chain.started == 1


_START_A_RUN = """async () => {
  const headers = { "content-type": "application/json" };
  const response = await fetch("/chain/runs", { method: "POST", headers, body: '{"input": 1}' });
  return new URL((await response.json()).stream_url, response.url).href;
}"""


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_page_that_is_cut_while_it_waits_goes_on(
    stage: Stage, chain: GatedChain, reset: bool
) -> None:
    chain.gate.clear()  # Before the second token.
    cut = stage.proxy.add(Fault("/stream", after_events=2, stalls=True, reset=reset))
    await stage.listen(STREAM)
    await stage.until_seen(1)
    cut.go.set()
    await stage.proxy.until_requests(STREAM, 2)
    assert len(executor_of(stage.app).live) == 1
    chain.gate.set()
    await stage.until_closed()

    await stage.saw_everything_once()
    assert chain.started == 1
    assert chain.cancellations == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/stream", after_bytes=0),
        Fault("/stream", after_bytes=0, reset=True),
        Fault("/stream"),
    ],
    ids=["closed", "reset", "closed after the head"],
)
async def test_with_a_key_a_cut_before_the_first_event_pays_once(
    stage: Stage, chain: GatedChain, fault: Fault
) -> None:
    stage.proxy.add(fault)
    url = f"{STREAM}&idempotency_key=k1"
    await stage.listen(url)
    await stage.until_closed()  # The browser's own time before it reconnects is three seconds.

    await stage.saw_everything_once()
    first, second = stage.proxy.to(url)[:2]
    assert "last-event-id" not in first.headers
    assert "last-event-id" not in second.headers
    assert chain.started == 1


async def test_a_run_that_was_started_before_is_read_from_its_start_after_such_a_cut(
    stage: Stage, chain: GatedChain
) -> None:
    url = await stage.page.evaluate(_START_A_RUN)
    stage.proxy.add(Fault("/stream", after_events=0))
    await stage.listen(url)
    await stage.until_closed()

    await stage.saw_everything_once()
    assert chain.started == 1


async def test_a_plain_onmessage_gets_the_text(stage: Stage, chain: GatedChain) -> None:
    cut = stage.cut(3)
    await stage.listen(f"{STREAM}&format=text")
    await stage.until_seen(2, "message")
    cut.go.set()
    await stage.until_closed()

    events = [one for one in await stage.events() if one["event"] != "lost"]
    texts = [one["data"] for one in events if one["event"] == "message"]
    assert texts == list(TOKENS)
    assert [one["event"] for one in events] == [
        name if name != "data" else "message" for name in EVENTS
    ]
    assert chain.started == 1


async def test_the_plain_route_resumes_as_text(stage: Stage, chain: GatedChain) -> None:
    cut = stage.cut(2, "/stream_chat")
    await stage.listen("/stream_chat?input=1")
    await stage.until_seen(1, "message")
    cut.go.set()
    await stage.until_closed()

    texts = [one["data"] for one in await stage.events() if one["event"] == "message"]
    assert texts == list(TOKENS)
    assert chain.started == 1


@pytest.mark.parametrize("path", [STREAM, f"{STREAM}&format=text"])
async def test_the_servers_error_has_data_and_the_connections_has_none(
    browser: Browser, path: str
) -> None:
    async with staged(browser, failing(after=1)) as stage:
        await stage.listen(path)
        await stage.until_closed()

        names = await stage.names()
        chunk = "message" if "format=text" in path else "data"
        assert names == ["metadata", chunk, "error", "lost", "lost"]
        error = json.loads((await stage.events())[2]["data"])
        assert error["status_code"] == 500
        assert error["code"] == "internal_error"
        assert len(stage.proxy.to(path)) == 2


async def test_what_is_refused_is_not_asked_again(stage: Stage, chain: GatedChain) -> None:
    stage.tab.expected = ["422"]
    await stage.listen("/chain/stream")
    await stage.until_closed()

    assert await stage.names() == ["lost"]
    assert len(stage.proxy.to("/chain/stream")) == 1
    assert chain.started == 0


async def test_only_readers_start_runs(stage: Stage, chain: GatedChain) -> None:
    stage.tab.expected = ["403", "405", "MIME type", "404"]  # 404 is the icon of what it opens.
    answers: list[tuple[str, int]] = []
    stage.page.on("response", lambda one: answers.append((one.url, one.status)))
    head = await stage.page.evaluate(f"fetch('{STREAM}', {{method: 'HEAD'}}).then((r) => r.status)")
    assert head == 405
    await stage.page.evaluate(_LOAD_AS_PARTS, STREAM)
    await stage.proxy.until_requests(STREAM, 1 + _PARTS)
    answer = await stage.page.goto(f"{stage.proxy.base_url}{STREAM}")

    assert answer is not None
    assert answer.status == 403
    assert {status for url, status in answers if STREAM in url} == {403, 405}
    assert len(stage.proxy.to(STREAM)) == 2 + _PARTS
    assert chain.started == 0


_PARTS = 6
_LOAD_AS_PARTS = """async (url) => {
  const load = (name, attributes) => new Promise((done) => {
    const element = Object.assign(document.createElement(name), attributes);
    element.onload = element.onerror = done;
    document.body.append(element);
  });
  await Promise.all([
    load("img", { src: url + "&part=1" }),
    load("script", { src: url + "&part=2" }),
    load("iframe", { src: url + "&part=3" }),
    load("link", { rel: "stylesheet", href: url + "&part=4" }),
    load("link", { rel: "prefetch", href: url + "&part=5" }),
    load("video", { src: url + "&part=6" }),
  ]);
}"""


@dataclass
class TwoOrigins:
    """A tab at a page of one server, and a chain at another."""

    stage: Stage
    chain_url: str


@asynccontextmanager
async def two_origins(
    browser: Browser, chain: GatedChain, *, host: str, listed: bool
) -> AsyncIterator[TwoOrigins]:
    """Serve the page from another host or port than the chain, which may list its origin."""
    async with AsyncExitStack() as stack:
        stack.enter_context(undone())
        pages = await stack.enter_async_context(serve(with_page(FastAPI())))
        origin = f"http://{host}:{pages.port}"
        settings = Settings(retry_ms=10, cors_origins=(origin,) if listed else ())
        app = create_app([Chain(path="/chain", runnable=chain)], settings)
        server: Served = await stack.enter_async_context(serve(app))
        before = await stack.enter_async_context(proxy(server.port))
        tab = await stack.enter_async_context(opened(browser))
        tab.expected = ["net::ERR_", "CORS policy", "403", "MIME type"]
        await tab.page.goto(f"{origin}/page")
        yield TwoOrigins(Stage(tab, before, app), f"{before.base_url}{STREAM}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same site", "cross site"])
async def test_a_page_of_another_origin_cannot_start_a_run(
    browser: Browser, chain: GatedChain, host: str
) -> None:
    async with two_origins(browser, chain, host=host, listed=False) as origins:
        stage, url = origins.stage, origins.chain_url
        await stage.listen(url)
        await stage.until_closed()
        assert await stage.names() == ["lost"]
        for mode in ("cors", "no-cors"):
            await stage.page.evaluate(
                "([url, mode]) => fetch(url, { mode }).catch(() => null)", [url, mode]
            )
        await stage.page.evaluate(_LOAD_AS_PARTS, url)
        assert len(stage.proxy.to(STREAM)) >= 3 + _PARTS
    assert chain.started == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same site", "cross site"])
async def test_a_page_of_a_listed_origin_starts_a_run_and_resumes_it(
    browser: Browser, chain: GatedChain, host: str
) -> None:
    async with two_origins(browser, chain, host=host, listed=True) as origins:
        stage = origins.stage
        cut = stage.cut(3)
        await stage.listen(origins.chain_url)
        await stage.until_seen(2)
        cut.go.set()
        await stage.until_closed()
        await stage.saw_everything_once()
    assert chain.started == 1


async def test_a_page_that_is_reloaded_goes_on_with_its_run(
    stage: Stage, chain: GatedChain
) -> None:
    chain.gate.clear()
    url = f"{STREAM}&idempotency_key=k1"
    await stage.listen(url)
    await stage.until_seen(1)
    first = (await stage.events())[0]
    await stage.page.reload()
    await stage.listen(url)
    await stage.until_seen(1)
    assert (await stage.events())[0] == first
    chain.gate.set()
    await stage.until_closed()

    await stage.saw_everything_once()
    assert chain.started == 1
    assert chain.cancellations == 0


async def test_two_tabs_read_one_run_and_either_may_leave(stage: Stage, chain: GatedChain) -> None:
    chain.gate.clear()
    url = f"{STREAM}&idempotency_key=k1"
    other = await stage.page.context.new_page()
    await other.goto(f"{stage.proxy.base_url}/page")
    await stage.listen(url)
    await stage.until_seen(1)
    await stage.listen(url, page=other)
    await stage.until_seen(1, page=other)
    await stage.page.close()
    chain.gate.set()
    await stage.until("source.readyState === EventSource.CLOSED", other)

    await stage.saw_everything_once(other)
    assert chain.started == 1


async def test_two_tabs_both_get_everything(stage: Stage, chain: GatedChain) -> None:
    chain.gate.clear()
    url = await stage.page.evaluate(_START_A_RUN)
    other = await stage.page.context.new_page()
    await other.goto(f"{stage.proxy.base_url}/page")
    await stage.listen(url)
    await stage.listen(url, page=other)
    for page in (stage.page, other):
        await stage.until_seen(1, page=page)
    chain.gate.set()
    for page in (stage.page, other):
        await stage.until("source.readyState === EventSource.CLOSED", page)
        await stage.saw_everything_once(page)

    assert chain.started == 1


async def test_a_page_that_leaves_for_good_ends_its_run(
    browser: Browser, chain: GatedChain
) -> None:
    chain.gate.clear()
    async with staged(browser, chain, Settings(resume_grace=0)) as stage:
        await stage.listen(STREAM)
        await stage.until_seen(1)
        await stage.page.close()
        await chain.cancelled.wait()


async def test_a_hidden_page_leaves_and_goes_on_when_it_is_seen_again(
    stage: Stage, chain: GatedChain
) -> None:
    chain.gate.clear()
    await stage.page.evaluate("post('/chain/stream', { prefer: 'resumable' })")
    await stage.until_seen(1)
    await stage.page.evaluate("hide(true)")
    await stage.until_seen(1, "AbortError")
    await stage.page.evaluate("hide(false)")
    await stage.until_seen(2, "status 200")
    chain.gate.set()
    await stage.page.evaluate("ended")

    await posted_everything_once(stage)
    _, again = stage.proxy.to("/chain/stream")
    assert again.method == "POST"
    assert again.headers["last-event-id"] == (await stage.events())[2]["id"]
    assert chain.started == 1
    assert chain.cancellations == 0


@pytest.mark.parametrize("events", [0, 1])
async def test_a_page_that_hides_before_the_first_chunk_pays_once(
    stage: Stage, chain: GatedChain, events: int
) -> None:
    stage.cut(events)  # It is never let go: the page leaves.
    headers = json.dumps({"prefer": "resumable", "idempotency-key": "k1"})
    await stage.page.evaluate(f"post('/chain/stream', {headers})")
    await stage.until(f"seen.length === {1 + events}")
    await stage.page.evaluate("hide(true)")
    await stage.until_seen(1, "AbortError")
    await stage.page.evaluate("hide(false)")
    await stage.page.evaluate("ended")

    await posted_everything_once(stage)
    assert chain.started == 1


async def posted_everything_once(stage: Stage) -> None:
    """Assert that a page that read with `fetch` has the whole answer, and nothing twice."""
    events = [one for one in await stage.events() if "id" in one]
    assert [one["event"] for one in events] == list(EVENTS)
    assert chunks(events) == list(TOKENS)
