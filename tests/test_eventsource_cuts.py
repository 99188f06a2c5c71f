"""A real browser's `EventSource` on a long stream, cut at and beside each of its events."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from fastapi.responses import HTMLResponse
from playwright.async_api import Browser, Page

from chainserve.settings import Settings
from tests._apps import make_app
from tests._browser import opened
from tests._chains import streaming
from tests._proxy import Fault, FaultProxy, proxy
from tests._server import serve

pytestmark = pytest.mark.anyio

TOKENS = [f"{number} Grüße\n\n\u2028\u2029\u0085\ufeff\0😀\r" for number in range(28)]
EVENTS = ["metadata", *("data" for _ in TOKENS), "end"]

# After each event; a byte later; and within its last line end: from the CR on, the event is whole.
SHIFTS = (-2, -1, 0, 1)
BORDERS = [(count, shift) for count in range(1, len(EVENTS) + 1) for shift in SHIFTS]
CUTS = [(0, 0), (0, 1), *BORDERS[:-1]]
WHOLE = [(len(EVENTS), -1), (len(EVENTS), 0)]

FOLLOW = """(urls) => Promise.all(urls.map((url) => new Promise((done) => {
  const seen = [];
  const source = new EventSource(url);
  for (const name of ["metadata", "data", "message", "gap", "end", "error"])
    source.addEventListener(name, ({ data, lastEventId }) => {
      if (data !== undefined) seen.push([name, data, lastEventId]);
      else if (source.readyState === EventSource.CLOSED) done(seen);
    });
})))"""

START = """(count) => Promise.all(Array.from({ length: count }, async () => {
  const headers = { "content-type": "application/json" };
  const response = await fetch("/chain/runs", { method: "POST", headers, body: '{"input": 1}' });
  return new URL((await response.json()).stream_url, response.url).pathname;
}))"""


@asynccontextmanager
async def staged(browser: Browser) -> AsyncIterator[tuple[Page, FaultProxy]]:
    """Serve the chain, and open an empty page through the proxy."""
    app = make_app(streaming(*TOKENS), settings=Settings(retry_ms=5))

    @app.get("/page")
    def _page() -> HTMLResponse:
        return HTMLResponse('<!doctype html><title>Page</title><link rel="icon" href="data:,">')

    async with serve(app) as server, proxy(server.port) as before, opened(browser) as tab:
        tab.expected = ["net::ERR_"]
        await tab.page.goto(f"{before.base_url}/page")
        yield tab.page, before


async def started_by_get(page: Page) -> list[str]:
    return [f"/chain/stream?input=1&idempotency_key=cut-{n}-" for n in range(len(CUTS))]


async def started_before(page: Page) -> list[str]:
    urls: list[str] = await page.evaluate(START, len(CUTS))
    return urls


def assert_whole(seen: list[list[str]], cut: Any) -> None:
    """Assert that a page has seen all events, in order and once each."""
    names, data, ids = zip(*seen, strict=True)
    assert list(names) == EVENTS, cut
    assert [json.loads(text) for text in data[1:-1]] == TOKENS, cut
    assert [text.rpartition(".")[2] for text in ids] == [str(n) for n in range(len(ids))], cut
    assert len({text.rpartition(".")[0] for text in ids}) == 1, cut


@pytest.mark.parametrize("started", [started_by_get, started_before], ids=["GET stream", "runs"])
async def test_nothing_is_lost_or_comes_twice_wherever_a_stream_is_cut(
    browser: Browser, started: Callable[[Page], Any]
) -> None:
    async with staged(browser) as (page, before):
        urls = await started(page)
        faults = [
            before.add(Fault(url, after_events=count, shift=shift))
            for url, (count, shift) in zip(urls, CUTS, strict=True)
        ]
        followed = await page.evaluate(FOLLOW, urls)

    assert all(fault.reached.is_set() for fault in faults)
    for url, cut, seen in zip(urls, CUTS, followed, strict=True):
        assert_whole(seen, cut)
        # The start, what the cut made necessary, and the question that is answered by 204. Whether
        # a browser still takes in the last bytes before a cut is up to it.
        assert len(before.to(url)) in ((2, 3) if cut in WHOLE else (3,)), cut


PLACES = [0, *range(400, 6500)]
"""How many bytes of a response may pass: none, or at least its head.

Chromium takes a head that was cut for a whole one, without a media type, and gives up.
"""


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_or_comes_twice_however_often_a_stream_is_cut(
    browser: Browser, seed: int
) -> None:
    source = Random(seed)
    cuts = [source.choices(PLACES, k=source.randint(0, 5)) for _ in range(100)]
    urls = [f"/chain/stream?input=1&idempotency_key=cuts-{n}-" for n in range(len(cuts))]
    async with staged(browser) as (page, before):
        for url, places in zip(urls, cuts, strict=True):
            before.cut_each(url, places)
        followed = await page.evaluate(FOLLOW, urls)

    for places, seen in zip(cuts, followed, strict=True):
        assert_whole(seen, places)
