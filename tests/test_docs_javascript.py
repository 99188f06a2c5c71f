"""The code in JavaScript of docs/javascript.md and the README, run as it stands."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.async_api import Browser

from chainserve.routes.pages import client_files
from tests._js import run_node
from tests._processes import ServerProcess

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "javascript.md").read_text()
CLIENT = ROOT / "chainserve" / "js"
BLOCKS = [
    block
    for text in (TEXT, (ROOT / "README.md").read_text(), (CLIENT / "README.md").read_text())
    for block in re.findall(r"^```js\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
]
OF_PAGES = [
    block for block in BLOCKS if 'from "/chainserve.js"' in block or "new EventSource" in block
]
OF_NODE = [block for block in BLOCKS if 'from "chainserve"' in block]
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    environment = {"PYTHONPATH": str(ROOT), "CHAINSERVE_DEMO_PAUSE": "0", "PORT": "0"}
    process = ServerProcess(["server.py"], environment)
    yield f"127.0.0.1:{process.port()}"
    process.close()


def test_all_code_is_for_one_of_the_two() -> None:
    assert (len(OF_PAGES), len(OF_NODE)) == (3, 3)
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("block", range(3))
async def test_a_page_shows_its_chain(address: str, browser: Browser, block: int) -> None:
    async with await browser.new_context(bypass_csp=True) as context:
        page = await context.new_page()
        await page.goto(f"http://{address}/")
        await page.evaluate("document.body.replaceChildren()")
        await page.add_script_tag(content=OF_PAGES[block], type="module")
        shown = "document.body.textContent.includes('offline demo')"
        await page.wait_for_function(shown, timeout=20_000)


@pytest.mark.parametrize("block", range(3))
async def test_a_script_runs_where_the_package_is_installed(
    address: str, tmp_path: Path, block: int
) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "chainserve").symlink_to(CLIENT)
    code = OF_NODE[block].replace("127.0.0.1:8000", address)
    code = code.replace("/joke", "/assistant").replace('topic: "cats"', 'question: "?"')
    code = re.sub(r"(console\.log|process\.stdout\.write)\(", "printed.push(", code)
    script = tmp_path / "script.mjs"
    script.write_text(
        f"const printed = [];\n{code}console.log(JSON.stringify(printed.join('')));\n"
    )
    printed = await run_node(script)

    assert "offline demo" in printed
    if block < 2:
        assert printed.endswith("success")


def test_an_application_of_ones_own_serves_all_modules() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    with TestClient(names["app"]) as client:
        served = {name: client.get(f"/js/{name}") for name in client_files()}

    assert {name: answer.content for name, answer in served.items()} == {
        name: file.body for name, file in client_files().items()
    }
    assert all("javascript" in answer.headers["content-type"] for answer in served.values())


def test_the_document_names_all_that_is_exported() -> None:
    exported = re.findall(r"^export (?:\{([^}]*)\}|class (\w+))", MODULE, flags=re.MULTILINE)
    names = {name for one in exported for text in one for name in re.findall(r"\w+", text)}

    assert names >= {"RemoteRunnable", "EventParser", "StreamInterruptedError"}
    for name in names - {"RemoteRun", "RemoteStream"}:  # What methods give.
        assert name in TEXT, name
    for method in re.findall(
        r"^  (?:async )?(\w+)\(input|^  (?:async )?(\w+)\(runId", MODULE, re.M
    ):
        assert f"`{method[0] or method[1]}(" in TEXT, method
    for option in re.findall(r"@property \{[^\n]*\} \[(\w+)\]", MODULE):
        assert option in TEXT or option.startswith(("include", "exclude")), option


MODULE = client_files()["chainserve.js"].body.decode()
