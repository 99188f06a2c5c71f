"""A real Chromium, and a tab of it that notes what a page does wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests._server import Served
from tests._system import require_program

# The browser runs as root in CI, and asks nothing of any other host.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_PATIENCE = 20_000
"""Milliseconds in which a page shows what is expected of it, on a machine with much else to do."""


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Start the browser; skip or fail where it is missing."""
    program = require_program("chromium", package="chromium")
    expect.set_options(timeout=_PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        await browser.close()


@dataclass
class Tab:
    """A page of the browser.

    Attributes:
        complaints: What the console says of errors, and each breach of the page's policy.
        expected: What may be among them; a browser notes each 4xx as an error, for one.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    @property
    def unexpected(self) -> list[str]:
        """The complaints that nobody expected."""
        return [said for said in self.complaints if not any(part in said for part in self.expected)]

    async def open(self, server: Served, path: str) -> None:
        """Go to a playground and wait until it can be used."""
        await self.page.goto(server.base_url + path)
        await expect(self.button("Run")).to_be_enabled()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def at(self, name: str) -> Locator:
        return self.page.locator(f"#{name}")

    async def text(self, name: str) -> str:
        """Return the exact text of an element, line ends and all."""
        return await self.at(name).text_content() or ""

    async def run(self, text: str | None = None) -> None:
        """Run the chain, with an input that is typed over the one that is there if given."""
        if text is not None:
            await self.page.get_by_label("Input, as JSON").fill(text)
        await self.button("Run").click()

    async def shows(self, status: str, answer: str | None = None) -> None:
        await expect(self.page.get_by_role("status")).to_have_text(status)
        if answer is not None:
            assert await self.text("answer") == answer

    async def shows_failure(self, text: str, *, answer: str = "") -> None:
        await expect(self.at("failure")).to_have_text(text)
        await self.shows("Failed", answer)
        await expect(self.at("status")).to_have_attribute("data-state", "failed")

    async def ran_nothing(self) -> None:
        """Assert that no markup came out of what was only text."""
        assert await self.page.evaluate("window.ran") is None
        assert await self.page.locator("img").count() == 0
        assert await self.page.locator("script:not([src])").count() == 0


@asynccontextmanager
async def opened(browser: Browser, **options: Any) -> AsyncIterator[Tab]:
    """Open a tab; leaving fails if the page has complained of anything unexpected."""
    context = await browser.new_context(**options)
    await context.add_init_script(
        "document.addEventListener('securitypolicyviolation',"
        " (event) => console.error(`policy: ${event.violatedDirective}`))"
    )
    tab = Tab(await context.new_page())
    tab.page.on(
        "console",
        lambda said: tab.complaints.append(said.text) if said.type != "log" else None,
    )
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    yield tab
    await context.close()
    assert tab.unexpected == [], tab.unexpected
