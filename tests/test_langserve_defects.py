"""What LangServe gets wrong beside its answers' bytes, shown on it and on this server."""

import json
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any
from urllib.parse import urljoin

import langserve
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.log_stream import RunLogPatch
from pydantic import AfterValidator, BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse

import chainserve
from chainserve import StreamInterruptedError
from chainserve.lzstring import compress
from tests import _pair_chains as chains
from tests._bridge import open_stream, request
from tests._chains import CountingChain, echo
from tests._pairs import (
    BOTH,
    CHAINSERVE,
    LANGSERVE,
    Package,
    Pair,
    app_of,
    ask,
    forget_oracle_state,
    option,
)
from tests._server import serve

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


@BOTH
async def test_a_playground_takes_no_config_that_nobody_allowed(package: Package) -> None:
    app = app_of(package, chains.configurable_prompt(), disabled_endpoints=["config_hashes"])
    hidden = compress(json.dumps({"configurable": {"template": "{injected}"}}))

    plain = await request(app, "GET", "/chain/playground/")
    asked = await request(app, "GET", f"/chain/playground/?config_hash={hidden}")
    sent = await request(
        app, "GET", "/chain/playground/", json={"configurable": {"template": "{injected}"}}
    )

    assert (plain.body == asked.body == sent.body) is (package is CHAINSERVE)


@BOTH
async def test_a_folder_of_the_playground_is_no_file(package: Package) -> None:
    app = app_of(package, echo())
    response = await request(app, "GET", "/chain/playground/assets", raise_app_errors=False)

    assert response.status == (500 if package is LANGSERVE else 404)


@BOTH
async def test_models_of_equal_schemas_are_not_mixed_up(package: Package) -> None:
    def positive(value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value

    class Strict(BaseModel):
        value: Annotated[int, AfterValidator(positive)]

    class Loose(BaseModel):
        value: int

    def negative(model: type[BaseModel], _: Any) -> BaseModel:
        return model.model_construct(value=-1)

    Strict.__name__ = Loose.__name__ = "Answer"
    app = FastAPI()
    for path, model in (("/strict", Strict), ("/loose", Loose)):
        chain: Any = RunnableLambda(partial(negative, model))
        package.add_routes(app, chain.with_types(output_type=model), path=path)

    response = await request(
        app, "POST", "/loose/invoke", json={"input": 1}, raise_app_errors=False
    )

    assert response.status == (500 if package is LANGSERVE else 200)


@BOTH
async def test_a_stream_that_is_cut_is_no_success(package: Package) -> None:
    app = FastAPI()

    @app.post("/chain/stream")
    async def cut(_: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b'event: data\r\ndata: "half"\r\n\r\n'

        return StreamingResponse(body(), media_type="text/event-stream")

    module: Any = langserve if package is LANGSERVE else chainserve
    async with serve(app) as server:
        client = module.RemoteRunnable(f"{server.base_url}/chain", verify=False)
        read: list[Any] = []
        try:
            async for chunk in client.astream(1):
                read.append(chunk)  # noqa: PERF401 - what came before an error counts
            cut_was_told = False
        except StreamInterruptedError:
            cut_was_told = True
        await client.async_client.aclose()
        client.sync_client.close()

    assert read == ["half"]
    assert cut_was_told is (package is CHAINSERVE)


@BOTH
async def test_an_allow_list_works_for_a_sequence(package: Package) -> None:
    pair = Pair(
        chain=chains.text_chain,
        target="stream_events",
        body={"input": {"topic": "x"}},
        options=option(stream_log_name_allow_list=["StrOutputParser"]),
    )
    answer = await ask(package, pair)

    assert (b"event: error" in answer.body) is (package is LANGSERVE)


async def leave_an_invoke(package: Package, chain: CountingChain, **options: Any) -> None:
    async with open_stream(
        app_of(package, chain),
        "POST",
        "/chain/invoke",
        json={"input": 1},
        wait_for_start=False,
        raise_app_errors=False,
        **options,
    ):
        await chain.until_in_flight(1)


async def test_leaving_an_invoke_ends_its_run() -> None:
    theirs, ours = CountingChain(), CountingChain()

    with pytest.raises(TimeoutError, match="ran on after the disconnect"):
        await leave_an_invoke(LANGSERVE, theirs, wait_seconds=1)  # It never ends.
    await leave_an_invoke(CHAINSERVE, ours)
    await ours.until_in_flight(0)

    assert ours.cancellations == 1


@BOTH
async def test_a_batch_has_a_bound(package: Package) -> None:
    chain = CountingChain()
    app = app_of(package, chain)
    chain.release.set()
    body = {"inputs": [1] * 101}
    response = await request(app, "POST", "/chain/batch", json=body, raise_app_errors=False)

    assert response.status == (200 if package is LANGSERVE else 413)
    assert chain.total == (101 if package is LANGSERVE else 0)


@BOTH
async def test_the_pages_of_an_included_router_find_their_files(package: Package) -> None:
    router, app = APIRouter(), FastAPI()
    package.add_routes(router, echo(), path="/chain")
    app.include_router(router, prefix="/v1")
    page = await request(app, "GET", "/v1/chain/playground/")
    found = re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page.text)

    assert found
    for name in found:
        target = urljoin("/v1/chain/playground/", name)
        status = (await request(app, "GET", target)).status
        assert status == (404 if package is LANGSERVE else 200)


@BOTH
async def test_a_path_may_end_with_a_slash(package: Package) -> None:
    app = FastAPI()
    package.add_routes(app, echo(), path="/chain/")

    response = await request(app, "POST", "/chain/invoke", json={"input": 1})

    assert response.status == (404 if package is LANGSERVE else 200)


@BOTH
async def test_a_small_hash_stands_for_no_large_config(package: Package) -> None:
    bomb = compress(json.dumps({"configurable": {"template": "x" * 200_000}}))
    app = app_of(package, chains.configurable_prompt())

    answer = await request(app, "GET", f"/chain/c/{bomb}/config_schema", raise_app_errors=False)

    assert len(bomb) < 5_000
    assert answer.status == (200 if package is LANGSERVE else 400)


async def test_a_dependencys_scheme_is_in_the_document() -> None:
    app = app_of(CHAINSERVE, echo(), dependencies=[Depends(HTTPBearer())])
    document = (await request(app, "GET", "/openapi.json")).json()

    assert "HTTPBearer" in document["components"]["securitySchemes"]
    for path in ("/chain/invoke", "/chain/stream", "/chain/stream_events", "/chain/runs"):
        assert document["paths"][path]["post"]["security"] == [{"HTTPBearer": []}]


async def test_each_client_works_with_each_server() -> None:
    told: dict[Any, Any] = {}
    for package in (LANGSERVE, CHAINSERVE):
        forget_oracle_state()
        async with serve(app_of(package, chains.text_chain())) as server:
            for module in (langserve, chainserve):
                made: Any = module
                client = made.RemoteRunnable(f"{server.base_url}/chain", verify=False)
                log: Any = RunLogPatch()
                async for patch in client.astream_log({"topic": "x"}):
                    log = log + patch if log.ops else patch
                told[package, module] = (
                    await client.ainvoke({"topic": "x"}),
                    await client.abatch([{"topic": "x"}]),
                    [chunk async for chunk in client.astream({"topic": "x"})],
                    log.state["final_output"],
                    [event["event"] async for event in client.astream_events({"topic": "x"})],
                )
                await client.async_client.aclose()
                client.sync_client.close()

    [first, *others] = told.values()
    assert others == [first] * 3
