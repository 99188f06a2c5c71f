"""LangServe's own playground, out of its package, drives a chain of this server."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import Runnable
from playwright.async_api import Browser, expect

from chainserve import add_routes
from chainserve.routes.langserve_playground import installed_files
from tests import _pair_chains as chains
from tests._apps import make_app
from tests._bridge import request
from tests._browser import Tab, opened
from tests._chains import echo
from tests._pairs import LANGSERVE, Pair, ask, forget_oracle_state
from tests._server import serve

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]

PAGE = "/chain/langserve-playground/"


@pytest.fixture
async def tab(browser: Browser) -> AsyncIterator[Tab]:
    async with opened(browser) as tab:
        tab.expected.append("is not defined")  # The page logs what its form warns of.
        tab.complaints.clear()
        yield tab


async def run_in(tab: Tab, url: str) -> None:
    await tab.page.goto(url)
    await tab.page.locator("textarea").first.fill("cats")
    # A server that stops before the page has read the end of its stream cuts it.
    async with tab.page.expect_event("requestfinished", lambda one: "/stream_log" in one.url):
        await tab.page.get_by_role("button", name="Start").click()
    await expect(tab.page.get_by_text("Hi שלום 😀")).to_be_visible()


async def test_it_runs_a_chain_and_shows_the_answer(tab: Tab) -> None:
    async with serve(make_app(chains.text_chain())) as server:
        await run_in(tab, f"{server.base_url}{PAGE}")
        await expect(tab.page.get_by_text("Intermediate steps")).to_be_visible()


async def test_it_works_below_prefixes(tab: Tab) -> None:
    inner, router = FastAPI(), APIRouter(prefix="/v1")
    add_routes(router, chains.text_chain(), path="/chain")
    inner.include_router(router)
    app = FastAPI()
    app.mount("/inner", inner)
    async with serve(app) as server:
        await run_in(tab, f"{server.base_url}/inner/v1{PAGE}")


def hostile() -> Runnable[Any, Any]:
    """Return a chain whose schemas hold what would end a script."""
    return PromptTemplate.from_template("{a}" + "{</script><script>ran = true</script>}")


async def test_a_schema_ends_no_script(tab: Tab) -> None:
    async with serve(make_app(hostile())) as server:
        await tab.page.goto(f"{server.base_url}{PAGE}")
        await expect(tab.page.get_by_role("button", name="Start")).to_be_visible()

        assert await tab.page.evaluate("window.ran") is None
        assert await tab.page.evaluate("typeof window.INPUT_SCHEMA") == "object"


async def test_in_langserve_a_schema_ends_a_script() -> None:
    def everything(package: Any, runnable: Any, options: Mapping[str, Any]) -> FastAPI:
        app = FastAPI()
        package.add_routes(app, runnable, path="/chain")
        return app

    forget_oracle_state()
    pair = Pair(chain=hostile, target="playground/", method="GET", mount=everything)
    theirs = await ask(LANGSERVE, pair)
    ours = await request(make_app(hostile()), "GET", PAGE)

    assert b"</script><script>ran" in theirs.body
    assert b"</script><script>ran" not in ours.body


@pytest.mark.parametrize("kind", ["default", "chat"])
async def test_its_files_are_those_of_the_package(kind: Any) -> None:
    app = make_app(echo(), playground_type=kind)
    for name, path in installed_files(kind).items():
        response = await request(app, "GET", f"{PAGE}{name}")
        assert response.status == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        if path.suffix != ".html":
            assert response.body == path.read_bytes()


@pytest.mark.parametrize(
    "name", ["../../../version.py", "..%2f..%2fversion.py", "assets", "nothing.js", "runs/x"]
)
async def test_nothing_else_is_answered(name: str) -> None:
    assert (await request(make_app(echo()), "GET", f"{PAGE}{name}")).status == 404
    assert (await request(make_app(echo()), "POST", PAGE)).status == 404


async def test_it_leads_to_the_endpoints_that_there_are() -> None:
    app = make_app(echo(), disabled_endpoints=["stream_log"])

    there = await request(app, "POST", f"{PAGE}invoke", json={"input": 1})
    not_there = await request(app, "POST", f"{PAGE}stream_log", json={"input": 1})

    assert (there.status, there.headers["location"]) == (307, "../invoke")
    assert not_there.status == 404


async def test_it_goes_with_the_playground() -> None:
    app = make_app(echo(), disabled_endpoints=["playground"])

    assert (await request(app, "GET", PAGE)).status == 404
