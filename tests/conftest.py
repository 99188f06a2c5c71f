"""What all tests share."""

import gc
from collections.abc import AsyncIterator, Iterator

import langserve.client
import pytest
from playwright.async_api import Browser

from tests._browser import launched
from tests._js import require_node

# What LangServe does when the collector finds one of its clients: it starts a thread, and waits for
# ever where the code that was interrupted is starting one too. Tests close what they open.
langserve.client._close_clients = lambda *_: None


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run async tests on asyncio, the loop that the server runs on."""
    return "asyncio"


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """Start a browser for the tests of a module."""
    async with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def node() -> str:
    """Return Node, with the packages that its scripts use."""
    return require_node()


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Let the collector look at what the test makes alone: all that there is takes seconds."""
    gc.freeze()
    yield
    gc.unfreeze()
