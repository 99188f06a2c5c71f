"""`/chainserve.js` in a browser: in pages of the server, and in those of another origin."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Browser
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests._bridge import WAIT_SECONDS
from tests._browser import opened
from tests._chains import GatedChain, streaming
from tests._proxy import Fault
from tests._server import serve
from tests.test_chainserve_js import TOKENS, staged

pytestmark = pytest.mark.anyio

READ = """async ([base, path]) => {
  const { RemoteRunnable } = await import(`${base}/chainserve.js`);
  const chain = new RemoteRunnable(path);
  const chunks = [];
  try {
    for await (const chunk of chain.stream(1)) chunks.push(chunk);
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
  return { chunks, output: await chain.invoke(1), run: { ...chain.lastRun } };
}"""

LEAVE = """async ([base, path, how]) => {
  const { RemoteRunnable } = await import(`${base}/chainserve.js`);
  const controller = new AbortController();
  const chain = new RemoteRunnable(path, { signal: controller.signal });
  try {
    for await (const chunk of chain.stream(1)) {
      if (how === "break") break;
      controller.abort(new Error("enough"));
    }
  } catch (error) {
    return error.message;
  }
  return chain.lastRun.status;
}"""


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with an empty page."""
    html = "<!doctype html><title>page</title><link rel=icon href=data:,><body>"
    await PlainTextResponse(html, media_type="text/html")(scope, receive, send)


async def test_a_page_of_the_server_reads_a_stream_through_cuts(browser: Browser) -> None:
    async with staged(streaming(*TOKENS)) as stage, opened(browser) as tab:
        tab.expected += ["net::ERR_"]  # The cuts.
        for after in (5, 0, 9):
            stage.proxy.add(Fault("/chain/stream", after_events=after))
        await tab.page.goto(f"{stage.proxy.base_url}/")
        told = await tab.page.evaluate(READ, ["", "/chain"])

    assert told["chunks"] == TOKENS
    assert told["output"] == "".join(TOKENS)
    assert told["run"]["status"] == "success"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_page_of_a_listed_origin_reads_a_stream_through_cuts(
    browser: Browser, host: str
) -> None:
    async with serve(page, lifespan="off") as pages, opened(browser) as tab:
        tab.expected += ["net::ERR_"]
        origin = f"http://{host}:{pages.port}"
        async with staged(streaming(*TOKENS), cors_origins=(origin,)) as stage:
            for after in (5, 0, 9):
                # The request for leave has the same target, so some of these break one.
                stage.proxy.add(Fault("/chain/stream?", after_events=after))
            await tab.page.goto(origin)
            url = f"{stage.url}?x"
            told = await tab.page.evaluate(READ, [stage.proxy.base_url, url])

    assert told["chunks"] == TOKENS
    assert told["output"] == "".join(TOKENS)


async def test_a_page_of_another_origin_cannot_import_it(browser: Browser) -> None:
    async with serve(page, lifespan="off") as pages, opened(browser) as tab:
        tab.expected += ["blocked by CORS policy", "net::ERR_FAILED"]
        async with staged(streaming(*TOKENS)) as stage:
            await tab.page.goto(f"http://127.0.0.1:{pages.port}")
            script = f"import('{stage.proxy.base_url}/chainserve.js').catch((error) => error.name)"
            assert await tab.page.evaluate(script) == "TypeError"


@pytest.mark.parametrize(("how", "expected"), [("break", "cancelled"), ("abort", "enough")])
@pytest.mark.parametrize("other_origin", [False, True])
async def test_leaving_a_stream_cancels_its_run(
    browser: Browser, how: str, expected: str, other_origin: bool
) -> None:
    chain = GatedChain(before=1)
    async with serve(page, lifespan="off") as pages, opened(browser) as tab:
        tab.expected += ["net::ERR_"]  # The server may go before it has answered the cancel.
        origin = f"http://127.0.0.1:{pages.port}"
        async with staged(chain, cors_origins=(origin,)) as stage:
            base = stage.proxy.base_url
            await tab.page.goto(origin if other_origin else base)
            assert await tab.page.evaluate(LEAVE, [base, stage.url, how]) == expected
            async with asyncio.timeout(WAIT_SECONDS):
                await chain.cancelled.wait()


async def test_a_redirect_is_an_error_that_says_so(browser: Browser) -> None:
    async with staged(streaming(*TOKENS)) as stage, opened(browser) as tab:

        @stage.app.post("/moved/stream")
        def moved() -> Any:
            return PlainTextResponse(status_code=307, headers={"location": "/chain/stream"})

        await tab.page.goto(stage.proxy.base_url)
        told = await tab.page.evaluate(READ, ["", "moved"])

    assert told.startswith("UnexpectedAnswerError: ")
    assert "/moved/stream answered a redirect" in told
