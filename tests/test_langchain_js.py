"""LangChain.js's `RemoteRunnable`, in Node, on both servers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException

from tests import _pair_chains as chains
from tests._chains import echo, failing, streaming
from tests._js import FOLDER
from tests._pairs import CHAINSERVE, LANGSERVE, Package, forget_oracle_state
from tests._server import serve

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore:astream_log is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]


@asynccontextmanager
async def served(package: Package) -> AsyncIterator[str]:
    forget_oracle_state()
    app = FastAPI()
    for path, chain in {
        "/echo": echo(),
        "/words": streaming("one ", "two ", "three"),
        "/prompt": chains.configurable_prompt(),
        "/model": chains.usage_model(),
        "/separators": streaming("a\u2028b\u2029c\u0085d", "e"),
        "/busy": failing(error=HTTPException(429, "Slow down.")),
        "/broken": failing(after=1),
    }.items():
        package.add_routes(app, chain, path=path)
    async with serve(app) as server:
        yield server.base_url


async def results_of(node: str, package: Package) -> dict[str, Any]:
    async with served(package) as url:
        process = await asyncio.create_subprocess_exec(
            node, "remote.mjs", url, cwd=FOLDER, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode == 0, output
    results: dict[str, Any] = json.loads(output)
    return results


async def test_it_gets_the_same_values_of_both_and_errors_that_it_can_print(node: str) -> None:
    theirs, ours = [await results_of(node, package) for package in (LANGSERVE, CHAINSERVE)]

    for name, result in theirs.items():
        if "value" in result:
            assert ours[name] == result, name
    assert ours["invoke"] == {"value": {"a": [1, "é"]}}
    assert ours["stream"] == {"value": ["one ", "two ", "three"]}
    assert ours["separators"] == {"value": ["a\u2028b\u2029c\u0085d", "e"]}
    assert ours["log"]["value"][-1:]
    assert ["on_chain_end", "/words"] in ours["events"]["value"]

    assert {name for name, result in ours.items() if "error" in result} == {
        "invalid",
        "invalidStream",
        "refused",
        "broken",
        "brokenStream",
        "nowhere",
    }
    for name in ("invalid", "invalidStream", "refused"):
        assert "undefined" not in ours[name]["error"], ours[name]
    assert "Slow down." in ours["refused"]["error"]
    assert "input" in ours["invalidStream"]["error"]
