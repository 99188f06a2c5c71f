"""LangServe's own `RemoteRunnable` drives chainserve through a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import ChatPromptValueConcrete, StringPromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langserve import RemoteRunnable
from starlette.requests import Request

from chainserve import add_routes
from tests import _pair_chains as chains
from tests._chains import echo, failing, message_chunks, streaming
from tests._pairs import normalised
from tests._server import serve

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:`config_schema` is deprecated"),  # LangGraph's
]

TOPIC = {"topic": "cats"}
LINE_BREAKS = "a\u2028b\u2029c\x85d\r\n"


@asynccontextmanager
async def remote(
    runnable: Runnable[Any, Any], *, headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[RemoteRunnable[Any, Any]]:
    """Serve a chain with chainserve, and yield LangServe's client for it."""
    app = FastAPI()
    add_routes(app, runnable, path="/chain", **options)
    async with serve(app) as server, client_of(f"{server.base_url}/chain", headers) as client:
        yield client


@asynccontextmanager
async def client_of(
    url: str, headers: dict[str, str] | None = None
) -> AsyncIterator[RemoteRunnable[Any, Any]]:
    """Yield LangServe's client, and close its connections before the server stops."""
    # Without `verify`, since loading certificates takes longer than all the rest.
    client: RemoteRunnable[Any, Any] = RemoteRunnable(url, timeout=5, headers=headers, verify=False)
    try:
        yield client
    finally:
        client.sync_client.close()
        await client.async_client.aclose()


def shown(value: Any) -> bytes:
    """Return how a value looks in Python, its class included and random ids aside."""
    return normalised(repr(value).encode())


async def all_verbs(runnable: Runnable[Any, Any], value: Any, config: Any = None) -> list[Any]:
    """Return what each of the six verbs gives; the sync ones run in a thread."""
    run = asyncio.to_thread
    return [
        await run(runnable.invoke, value, config),
        await runnable.ainvoke(value, config),
        await run(runnable.batch, [value, value], config),
        await runnable.abatch([value, value], config),
        await run(lambda: list(runnable.stream(value, config))),
        [chunk async for chunk in runnable.astream(value, config)],
    ]


Given: TypeAlias = dict[str, tuple[Callable[[], Runnable[Any, Any]], Any]]

VALUES: Given = {
    "text": (echo, "😀 中文 שלום"),
    "text with line breaks of every kind": (echo, LINE_BREAKS),
    "chunks with line breaks of every kind": (lambda: streaming(*LINE_BREAKS), 1),
    "null": (echo, None),
    "a nested dict": (echo, {"a": [1, 2.5, {"b": True}]}),
    "an empty str": (echo, ""),
    "messages": (
        chains.messages_out,
        [
            HumanMessage([{"type": "text", "text": "hi"}], id="h1"),
            AIMessage("", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c1"}]),
            ToolMessage("sunny", tool_call_id="c1"),
        ],
    ),
    "documents": (lambda: echo(list[Document]), [Document("x", metadata={"page": 1})]),
}

MODELS: Given = {
    "given text": (chains.usage_model, "hi"),
    "given messages": (chains.usage_model, [SystemMessage("x"), HumanMessage("hi")]),
    "given a prompt": (chains.usage_model, StringPromptValue(text="hi")),
    "given a prompt of messages": (
        chains.usage_model,
        ChatPromptValueConcrete(messages=[HumanMessage("hi")]),
    ),
    "calling a tool": (chains.tool_model, "hi"),
}

CHAINS: Given = {
    "prompt, model and parser": (chains.text_chain, TOPIC),
    "prompt, model and JSON parser": (chains.json_chain, TOPIC),
    "a prompt of text": (chains.text_prompt, TOPIC),
    "a retriever": (chains.retriever, "cats"),
    "a tool": (chains.a_tool, {"first": 1, "second": 2}),
    "branches side by side": (chains.parallel, 3),
    "assign": (chains.assigned, {"text": "abc"}),
    "a graph": (chains.counting_graph, {"number": 1, "steps": ["start"]}),
}


@pytest.mark.parametrize("given", [VALUES, MODELS, CHAINS], ids=["values", "models", "chains"])
async def test_every_verb_answers_as_the_chain_does_in_process(given: Given) -> None:
    app = FastAPI()
    paths = {name: f"/{number}" for number, name in enumerate(given)}
    for name, (chain, _) in given.items():
        add_routes(app, chain(), path=paths[name])
    found, expected = {}, {}

    async with serve(app) as server:
        for name, (chain, value) in given.items():
            async with client_of(server.base_url + paths[name]) as client:
                found[name] = [shown(one) for one in await all_verbs(client, value)]
            expected[name] = [shown(one) for one in await in_process(chain(), value)]

    assert found == expected


async def in_process(runnable: Runnable[Any, Any], value: Any) -> list[Any]:
    """Return the same as `all_verbs`, by async verbs alone: some graphs have no others."""
    once = await runnable.ainvoke(value)
    both = await runnable.abatch([value, value])
    chunks = [chunk async for chunk in runnable.astream(value)]
    return [once, once, both, both, chunks, chunks]


async def test_a_stream_of_nothing_is_empty() -> None:
    async with remote(streaming()) as client:
        assert [chunk async for chunk in client.astream(1)] == []
        assert await asyncio.to_thread(lambda: list(client.stream(1))) == []


async def test_an_empty_batch_is_empty() -> None:
    async with remote(echo()) as client:
        assert await client.abatch([]) == []
        assert await asyncio.to_thread(client.batch, []) == []


async def test_many_calls_at_once_get_their_own_answers() -> None:
    async with remote(chains.sync_double()) as client:
        answers = await asyncio.gather(*(client.ainvoke(number) for number in range(20)))

    assert answers == [2 * number for number in range(20)]


async def test_it_stands_between_local_steps() -> None:
    prompt = ChatPromptTemplate.from_template("Tell of {topic}")
    model = chains.ScriptedChatModel(chunks=message_chunks(["hel", "lo"]))
    async with remote(model) as client:
        chain = prompt | client | StrOutputParser()
        found = await all_verbs(chain, TOPIC)

    assert found == await in_process(prompt | model | StrOutputParser(), TOPIC)


async def test_a_served_prompt_feeds_a_local_model() -> None:
    model = chains.ScriptedChatModel(chunks=message_chunks(["hello"]))
    async with remote(chains.prompt()) as client:
        chain = client | model | StrOutputParser()

        assert await chain.ainvoke(TOPIC) == "hello"


async def test_a_field_reaches_the_chain_by_every_verb() -> None:
    config: RunnableConfig = {"configurable": {"template": "Say no to {topic}"}}
    expected = StringPromptValue(text="Say no to cats")
    async with remote(chains.configurable_prompt()) as client:
        found = await all_verbs(client, TOPIC, config)
        bound = await client.with_config(config).ainvoke(TOPIC)

    assert found == [expected, expected, [expected] * 2, [expected] * 2, [expected], [expected]]
    assert bound == expected


async def test_each_input_of_a_batch_has_its_own_config() -> None:
    configs: Any = [{"configurable": {"llm": name}} for name in ("dear", "cheap", "dear")]
    async with remote(chains.model_choice()) as client:
        assert await client.abatch(["a", "b", "c"], configs) == ["dear", "cheap", "dear"]
        assert await asyncio.to_thread(client.batch, ["a", "b", "c"], configs) == [
            "dear",
            "cheap",
            "dear",
        ]


async def test_tags_and_metadata_are_dropped_unless_the_server_takes_them() -> None:
    config: Any = {"tags": ["mine"], "metadata": {"mine": 1}, "recursion_limit": 3}
    async with remote(chains.telling_config()) as client:
        dropped = await client.ainvoke(1, config)
    async with remote(chains.telling_config(), config_keys=("tags", "metadata")) as client:
        taken = await client.ainvoke(1, config)

    assert (dropped["tags"], "mine" in dropped["metadata"]) == ([], False)
    assert (taken["tags"], taken["metadata"]["mine"]) == (["mine"], 1)


async def test_a_header_reaches_the_config() -> None:
    def by_header(config: dict[str, Any], request: Request) -> dict[str, Any]:
        return {**config, "configurable": {"template": request.headers["x-template"]}}

    headers = {"x-template": "By header: {topic}"}
    async with remote(
        chains.configurable_prompt(), headers=headers, per_req_config_modifier=by_header
    ) as client:
        assert await client.ainvoke(TOPIC) == StringPromptValue(text="By header: cats")


# Errors.


async def error_of(client: RemoteRunnable[Any, Any], verb: str, value: Any) -> httpx.Response:
    """Return the response in the exception that a verb raises."""

    async def call() -> Any:
        match verb:
            case "invoke":
                return await asyncio.to_thread(client.invoke, value)
            case "ainvoke":
                return await client.ainvoke(value)
            case "batch":
                return await asyncio.to_thread(client.batch, [value])
            case "abatch":
                return await client.abatch([value])
            case "stream":
                return await asyncio.to_thread(lambda: list(client.stream(value)))
            case _:
                return [chunk async for chunk in client.astream(value)]

    with pytest.raises(httpx.HTTPStatusError) as caught:
        await call()
    return caught.value.response


CALLS = ("invoke", "ainvoke", "batch", "abatch")
STREAMS = ("stream", "astream")


def too_many(value: Any) -> Any:
    raise HTTPException(429, "Slow down.")


async def test_an_invalid_input_is_explained() -> None:
    async with remote(chains.sync_double()) as client:
        responses = [await error_of(client, verb, "x") for verb in CALLS]

    assert [response.status_code for response in responses] == [422] * 4
    for response in responses:
        assert response.json()["detail"][0]["type"] == "int_parsing"


async def test_an_invalid_input_of_a_stream_is_refused() -> None:
    async with remote(chains.sync_double()) as client:
        responses = [await error_of(client, verb, "x") for verb in STREAMS]

    assert [response.status_code for response in responses] == [422] * 2


async def test_the_status_of_an_http_exception_reaches_the_caller() -> None:
    async with remote(RunnableLambda(too_many)) as client:
        responses = [await error_of(client, verb, 1) for verb in CALLS]

    for response in responses:
        assert (response.status_code, response.json()) == (429, {"detail": "Slow down."})


async def test_the_status_of_an_http_exception_reaches_the_reader_of_a_stream() -> None:
    async with remote(RunnableLambda(too_many)) as client:
        responses = [await error_of(client, verb, 1) for verb in STREAMS]

    for response in responses:
        assert (response.status_code, response.text) == (429, "Slow down.")


async def test_an_unexpected_error_is_a_500_that_says_nothing() -> None:
    async with remote(chains.failing_function()) as client:
        responses = [await error_of(client, verb, 1) for verb in CALLS]

    for response in responses:
        assert response.status_code == 500
        assert "secret" not in response.text


async def test_an_unexpected_error_of_a_stream_is_a_500_that_says_nothing() -> None:
    async with remote(chains.failing_function()) as client:
        responses = [await error_of(client, verb, 1) for verb in STREAMS]

    for response in responses:
        assert (response.status_code, response.text) == (500, "Internal Server Error")


async def test_the_chunks_before_an_error_arrive() -> None:
    async with remote(failing(after=2)) as client:
        chunks = client.astream(1)

        assert [await anext(chunks), await anext(chunks)] == ["t0 ", "t1 "]
        with pytest.raises(httpx.HTTPStatusError, match="Internal Server Error"):
            await anext(chunks)


async def test_the_message_of_an_error_has_the_problem_document() -> None:
    async with remote(chains.sync_double()) as client:
        with pytest.raises(httpx.HTTPStatusError, match=r"int_parsing.*invalid_input"):
            await client.ainvoke("x")


async def test_a_disabled_endpoint_is_not_found() -> None:
    async with remote(echo(), disabled_endpoints=["stream"]) as client:
        response = await error_of(client, "astream", 1)

        assert response.status_code == 404
        assert await client.ainvoke(1) == 1
