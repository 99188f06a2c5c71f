"""The playground and the front page, as people see them in a real browser."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableSerializable,
)
from playwright.async_api import Browser, expect
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from chainserve import Chain, add_routes, create_app
from tests._apps import only_run
from tests._browser import Tab, opened
from tests._chains import (
    GatedChain,
    answering,
    echo,
    failing,
    message_chunks,
    streaming,
    tool_call_chunks,
)
from tests._server import serve

pytestmark = pytest.mark.anyio

PAGE = "/chain/playground/"
MARKUP = '<img src="x" onerror="window.ran=1"></script><script>window.ran=1</script>'


def app_of(runnable: Runnable[Any, Any], path: str = "/chain", **declared: Any) -> FastAPI:
    app = FastAPI()
    add_routes(app, Chain(path=path, runnable=runnable, **declared))
    return app


@pytest.fixture
async def tab(browser: Browser) -> AsyncIterator[Tab]:
    async with opened(browser) as tab:
        yield tab


class Scripted:
    """The application, but `/chain/stream` answers these bytes and closes."""

    def __init__(self, app: ASGIApp, *pieces: bytes, media_type: str = "text/event-stream") -> None:
        self._app = app
        self._pieces = pieces
        self._media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != "/chain/stream":
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", self._media_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def test_an_answer_is_seen_while_the_chain_waits_and_then_finished(tab: Tab) -> None:
    chain = GatedChain(["Hello ", "world"], before=1)
    async with serve(app_of(chain, title="Greeter", model="offline-demo")) as server:
        await tab.open(server, PAGE)
        await expect(tab.page).to_have_title("Greeter · Playground")
        await expect(tab.at("model")).to_have_text("offline demo")
        await tab.shows("Not run yet", "")
        await tab.run()
        await expect(tab.at("answer")).to_have_text("Hello")
        await tab.shows("Running…", "Hello ")
        await expect(tab.button("Run")).to_be_disabled()
        assert not chain.finished.is_set()
        chain.gate.set()
        await tab.shows("Finished", "Hello world")

        assert await tab.text("chunks") == "2"
        assert re.fullmatch(r"\d+\.\d\d s", await tab.text("first-chunk"))
        assert re.fullmatch(r"\d+\.\d\d s", await tab.text("elapsed"))
        assert re.fullmatch(r"[0-9a-f-]{36}", await tab.text("run-id"))
        await expect(tab.at("failure")).to_be_hidden()


async def test_stop_cancels_the_run_on_the_server(tab: Tab) -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = app_of(chain)
    async with serve(app) as server:
        await tab.open(server, PAGE)
        await tab.run()
        await expect(tab.at("answer")).to_have_text("a")
        run = only_run(app)
        await tab.button("Stop").click()
        await tab.shows("Stopped", "a")
        async with asyncio.timeout(20):
            await run.ended.wait()

    assert (run.status, run.cancel_reason) == ("cancelled", "client_disconnect")
    assert chain.cancelled.is_set()
    await expect(tab.at("failure")).to_be_hidden()


async def test_a_second_run_replaces_what_the_first_left(tab: Tab) -> None:
    async with serve(app_of(echo())) as server:
        await tab.open(server, PAGE)
        await tab.run('"one"')
        await tab.shows("Finished", "one")
        await tab.run("{")
        await tab.shows("Not run", "one")
        await tab.run('"two"')
        await tab.shows("Finished", "two")
        await expect(tab.at("input-error")).to_be_hidden()


async def test_an_error_event_is_shown_as_a_failure(tab: Tab) -> None:
    error = HTTPException(429, f"Too fast {MARKUP}")
    async with serve(app_of(failing(after=2, error=error))) as server:
        await tab.open(server, PAGE)
        await tab.run()
        await tab.shows_failure(f"429 Too fast {MARKUP}", answer="t0 t1 ")
        await tab.ran_nothing()


async def test_a_connection_that_breaks_is_shown_as_a_failure(tab: Tab) -> None:
    tab.expected = ["net::ERR_"]
    async with serve(app_of(GatedChain(["a", "b"], before=1))) as server:
        await tab.open(server, PAGE)
        await tab.run()
        await expect(tab.at("answer")).to_have_text("a")
        for connection in list(server.server.server_state.connections):
            connection.transport.abort()
        await tab.shows_failure(
            "The connection broke before the end of the answer: network error", answer="a"
        )


async def test_a_stream_that_is_closed_before_its_end_is_shown_as_a_failure(tab: Tab) -> None:
    pieces = (b'event: data\r\ndata: "a"\r\n\r\n', b"event: end\r\n")
    async with serve(Scripted(app_of(echo()), *pieces)) as server:
        await tab.open(server, PAGE)
        await tab.run()
        await tab.shows_failure(
            "The connection was closed before the end of the answer.", answer="a"
        )


@pytest.mark.parametrize(
    ("body", "media_type", "failure"),
    [
        (b"<h1>Hi</h1>", "text/html", "answered text/html, which is not an event stream."),
        (b"event: data\ndata: {\n\n", "text/event-stream", "sent a chunk that is not JSON: {"),
    ],
)
async def test_what_is_no_stream_of_chunks_is_shown_as_a_failure(
    tab: Tab, body: bytes, media_type: str, failure: str
) -> None:
    async with serve(Scripted(app_of(echo()), body, media_type=media_type)) as server:
        await tab.open(server, PAGE)
        await tab.run()
        await tab.shows_failure(f"The server {failure}")


async def test_a_server_that_is_not_there_any_more_is_shown_as_a_failure(tab: Tab) -> None:
    tab.expected = ["net::ERR_CONNECTION_REFUSED"]
    async with serve(app_of(echo())) as server:
        await tab.open(server, PAGE)
    await tab.run()
    await tab.shows_failure("The server was not reached: Failed to fetch")


async def test_what_the_server_refuses_is_shown_with_its_reasons(tab: Tab) -> None:
    class Pair(BaseModel):
        left: int
        right: int

    tab.expected = ["422"]
    async with serve(app_of(echo(), input_type=Pair)) as server:
        await tab.open(server, PAGE)
        await tab.run('{"left": "x"}')
        await tab.shows_failure(
            "422 Unprocessable Content\n"
            "left: Input should be a valid integer, unable to parse string as an integer\n"
            "right: Field required"
        )


async def test_what_another_layer_refuses_is_shown_with_its_detail(tab: Tab) -> None:
    tab.expected = ["401"]
    signed_in = True

    def guard() -> None:
        if not signed_in:
            raise HTTPException(401, "Sign in again.")

    async with serve(app_of(echo(), dependencies=[Depends(guard)])) as server:
        await tab.open(server, PAGE)
        signed_in = False
        await tab.run()
        await tab.shows_failure("401 Unauthorized\nSign in again.")


async def test_input_that_is_no_json_is_said_beside_it_and_not_sent(tab: Tab) -> None:
    chain = GatedChain(["a"], before=0)
    async with serve(app_of(chain)) as server:
        await tab.open(server, PAGE)
        await tab.run("{'a': 1}")
        await expect(tab.at("input-error")).to_contain_text("The input is not valid JSON: ")
        await expect(tab.page.get_by_label("Input, as JSON")).to_be_focused()
        await expect(tab.at("input")).to_have_attribute("aria-invalid", "true")
        await tab.shows("Not run")

    assert chain.started == 0


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
async def test_events_are_read_however_their_bytes_are_cut(tab: Tab, line_end: str) -> None:
    lines = [
        ": ping",
        "event: metadata",
        'data: {"run_id": "the id"}',
        "",
        "",
        "event:data",
        'data:"Grüße \U0001f600 "',
        "id: 1",
        "",
        "retry",
        ":",
        "event: data",
        'data: ["two",',
        "data",
        'data:  "lines"]',
        "",
        "event: other",
        "data: ignored",
        "",
        "event: end",
        "",
        "event: error",
        "",
    ]
    stream = "\ufeff" + line_end.join(lines) + line_end
    await tab.page.add_init_script(fetch_answers(stream.encode()))
    async with serve(app_of(echo())) as server:
        for size in (1, 2, 3, 5, len(stream)):
            await tab.open(server, PAGE)
            await tab.page.evaluate("(size) => { window.size = size; }", size)
            await tab.run()
            await tab.shows("Finished", 'Grüße \U0001f600 \n["two",\n\n "lines"]\n')
            assert await tab.text("run-id") == "the id"
            assert await tab.text("chunks") == "2"


def fetch_answers(body: bytes) -> str:
    """Return a script that answers `stream` with these bytes, `window.size` of them in a read."""
    return f"""
        const fetchFromServer = window.fetch;
        const bytes = new Uint8Array({list(body)});
        const body = () => new ReadableStream({{ start(controller) {{
          for (let at = 0; at < bytes.length; at += window.size)
            controller.enqueue(bytes.slice(at, at + window.size));
          controller.close();
        }} }});
        const headers = {{ "content-type": "text/event-stream; charset=utf-8" }};
        window.fetch = (url, ...rest) => url.endsWith("/stream")
          ? Promise.resolve(new Response(body(), {{ headers }}))
          : fetchFromServer(url, ...rest);
    """


def blocks(*content: str | dict[str, Any]) -> AIMessageChunk:
    return AIMessageChunk(content=list(content), id="run-1")


CALL = {"name": "weather", "args": {"city": "Bonn"}, "id": "1", "type": "tool_call"}


@pytest.mark.parametrize(
    ("chunks", "answer"),
    [
        (["a", "", " b\n", "c"], "a b\nc"),
        ([1, None, {"a": 2**53 + 1}, ["x"]], '1\nnull\n{"a":9007199254740993}\n["x"]\n'),
        (["a", {"b": 1}, "c"], 'a\n{"b":1}\nc'),
        ([{"content": "x", "type": "document"}], '{"content":"x","type":"document"}\n'),
        (message_chunks(["Hel", "lo"]), "Hello"),
        ([AIMessage("one", id="1"), AIMessage("two", id="2")], "one\ntwo"),
        ([blocks({"type": "text", "text": "a"}, "b", {"type": "text"})], "ab"),
        (
            [blocks("a", {"type": "reasoning", "reasoning": "hm"}, "b")],
            'a\n{"type":"reasoning","reasoning":"hm"}\nb',
        ),
        (
            [
                AIMessageChunk(content="Let me see.", id="run-1"),
                *tool_call_chunks("weather", ['{"city": ', '"Bonn"}']),
                ToolMessage("sunny", tool_call_id="1"),
                *message_chunks(["It is ", "sunny."], message_id="run-2"),
            ],
            'Let me see.\n→ weather({"city": "Bonn"})\n← sunny\nIt is sunny.',
        ),
        (tool_call_chunks("weather", ['{"city": "Bonn"}']), '→ weather({"city": "Bonn"})\n'),
        ([AIMessage("", tool_calls=[CALL, CALL])], '→ weather({"city":"Bonn"})\n' * 2),
    ],
    ids=[
        "strings",
        "JSON",
        "mixed",
        "no message",
        "message chunks",
        "messages",
        "text blocks",
        "other blocks",
        "agent",
        "call at the end",
        "whole calls",
    ],
)
async def test_text_is_shown_as_text_and_other_chunks_as_lines(
    tab: Tab, chunks: Sequence[Any], answer: str
) -> None:
    async with serve(app_of(streaming(*chunks))) as server:
        await tab.open(server, PAGE)
        await tab.run()
        await tab.shows("Finished", answer)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("text", "text"),
        (AIMessage("Hello"), "Hello"),
        ({"a": [1]}, '{\n  "a": [\n    1\n  ]\n}\n'),
    ],
    ids=["text", "message", "JSON"],
)
async def test_where_stream_is_not_mounted_the_chain_is_invoked(
    tab: Tab, output: Any, answer: str
) -> None:
    async with serve(app_of(answering(output), disabled_endpoints=["stream"])) as server:
        await tab.open(server, PAGE)
        await tab.run()
        await tab.shows("Finished", answer)
        assert re.fullmatch(r"[0-9a-f-]{36}", await tab.text("run-id"))


async def test_a_chain_that_cannot_be_run_is_shown_as_such(tab: Tab) -> None:
    async with serve(app_of(echo(), enabled_endpoints=["playground"])) as server:
        await tab.page.goto(server.base_url + PAGE)
        await tab.shows_failure("This chain can be run neither by stream nor by invoke.")
        await expect(tab.button("Run")).to_be_disabled()


async def test_examples_fill_the_input_and_the_keyboard_runs_it(tab: Tab) -> None:
    examples = [{"type": "x", "q": "Why is it so?"}, [{"a": "One thing"}, {"a": "Another one"}], 3]
    async with serve(app_of(echo(), examples=examples)) as server:
        await tab.open(server, PAGE)
        field = tab.page.get_by_label("Input, as JSON")
        assert json.loads(await field.input_value()) == examples[0]
        names = await tab.page.get_by_role("group", name="Examples").get_by_role("button").all()
        assert [await name.text_content() for name in names] == [
            "Why is it so?",
            "Another one",
            "3",
        ]
        await tab.button("Another one").focus()
        await tab.page.keyboard.press("Enter")
        assert json.loads(await field.input_value()) == examples[1]
        for keys, text in (("Control+Enter", '"first"'), ("Meta+Enter", '"second"')):
            await field.fill(text)
            await field.press(keys)
            await tab.shows("Finished", json.loads(text))


async def test_without_examples_the_input_has_the_shape_of_the_schema(tab: Tab) -> None:
    class Item(BaseModel):
        name: str
        parts: list["Item"]

    class Order(BaseModel):
        item: Item | None
        count: int
        size: float = 1.5
        note: str | None = None
        express: bool

    async with serve(app_of(echo(), input_type=Order)) as server:
        await tab.open(server, PAGE)
        value = json.loads(await tab.at("input").input_value())

    assert value.pop("item")["name"] == ""
    assert value == {"count": 0, "size": 1.5, "express": False}


async def test_without_its_schemas_a_chain_can_still_be_run(tab: Tab) -> None:
    tab.expected = ["500"]
    app = app_of(echo())
    async with serve(app) as server:
        await tab.page.route("**/*_schema", lambda route: route.fulfill(status=500, body="no"))
        await tab.open(server, PAGE)
        await expect(tab.at("failure")).to_contain_text("../input_schema: The server answered 500")
        await tab.run("1")
        await tab.shows("Finished", "1\n")


async def test_a_config_can_be_sent_where_the_chain_takes_one(tab: Tab) -> None:
    class Toned(RunnableSerializable[Any, str]):
        tone: str = "plain"

        def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
            return self.tone

    chain = Toned().configurable_fields(tone=ConfigurableField(id="tone"))
    async with serve(app_of(chain)) as server:
        await tab.open(server, PAGE)
        await tab.run("1")
        await tab.shows("Finished", "plain")
        await tab.page.get_by_text("Config", exact=True).click()
        config = tab.page.get_by_label("Config, as JSON")
        hint = json.loads(await config.get_attribute("placeholder") or "")
        assert hint == {"configurable": {"tone": "plain"}}
        await config.fill("{")
        await tab.run()
        await expect(tab.at("config-error")).to_contain_text("The config is not valid JSON: ")
        await config.fill('{"configurable": {"tone": "warm"}}')
        await tab.run()
        await tab.shows("Finished", "warm")


async def test_a_chain_without_configurable_fields_shows_no_config(tab: Tab) -> None:
    async with serve(app_of(echo())) as server:
        await tab.open(server, PAGE)
        await expect(tab.at("configuration")).to_be_hidden()


async def test_markup_from_model_declaration_and_examples_is_text_everywhere(tab: Tab) -> None:
    chain = Chain(
        path="/chain",
        runnable=streaming(MARKUP, {MARKUP: MARKUP}, AIMessage(MARKUP)),
        title=MARKUP,
        description=MARKUP,
        model=MARKUP,
        examples=[{MARKUP: MARKUP}],
    )
    async with serve(create_app([chain])) as server:
        await tab.page.goto(server.base_url)
        await expect(tab.page.get_by_role("heading", name=MARKUP)).to_be_visible()
        await tab.ran_nothing()
        await tab.open(server, PAGE)
        await expect(tab.at("title")).to_have_text(MARKUP)
        await expect(tab.at("description")).to_have_text(MARKUP)
        await expect(tab.at("model")).to_have_text(MARKUP)
        await expect(tab.page).to_have_title(f"{MARKUP} · Playground")
        await tab.button(MARKUP).click()
        await tab.run()
        as_json = json.dumps({MARKUP: MARKUP}, separators=(",", ":"))
        await tab.shows("Finished", f"{MARKUP}\n{as_json}\n{MARKUP}")
        await tab.ran_nothing()


async def test_the_policy_stops_code_that_would_get_into_a_page_all_the_same(tab: Tab) -> None:
    tab.expected = ["policy: script-src", "Content Security Policy", "404"]
    async with serve(app_of(echo())) as server:
        await tab.open(server, PAGE)
        async with tab.page.expect_console_message(lambda said: "policy:" in said.text):
            await tab.page.evaluate("(markup) => { document.body.innerHTML = markup; }", MARKUP)
        await expect(tab.page.locator("img")).to_have_count(1)
        assert await tab.page.evaluate("window.ran") is None


def below_a_router(app: FastAPI) -> None:
    router = APIRouter(prefix="/api")
    add_routes(router, echo(), path="/chain")
    app.include_router(router, prefix="/v1")


def in_a_mounted_application(app: FastAPI) -> None:
    sub = FastAPI()
    add_routes(sub, echo(), path="/chain")
    app.mount("/sub", sub)


def at_the_root(app: FastAPI) -> None:
    add_routes(app, echo())


class StripsPrefix:
    """A proxy in front of the application, which is told of the prefix or not."""

    def __init__(self, app: ASGIApp, prefix: str, *, told: bool) -> None:
        self._app = app
        self._prefix = prefix
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._told:
            scope = {**scope, "root_path": self._prefix}
        elif scope["type"] == "http":
            scope = {**scope, "path": scope["path"].removeprefix(self._prefix)}
        await self._app(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "path"),
    [
        (below_a_router, "/v1/api/chain/playground"),
        (in_a_mounted_application, "/sub/chain/playground"),
        (at_the_root, "/playground"),
    ],
)
async def test_the_playground_works_wherever_it_is_mounted(tab: Tab, app: Any, path: str) -> None:
    root = FastAPI()
    app(root)
    async with serve(root) as server:
        await tab.open(server, path)
        assert tab.page.url == f"{server.base_url}{path}/"
        await tab.run('"here"')
        await tab.shows("Finished", "here")


@pytest.mark.parametrize("told", [True, False])
async def test_the_front_page_leads_to_a_playground_that_works_behind_a_proxy(
    tab: Tab, told: bool
) -> None:
    app = create_app([Chain(path="/chain", runnable=echo())])
    async with serve(StripsPrefix(app, "/proxied", told=told)) as server:
        await tab.page.goto(f"{server.base_url}/proxied/")
        await tab.page.get_by_role("link", name="Playground").click()
        await expect(tab.button("Run")).to_be_enabled()
        assert tab.page.url == f"{server.base_url}/proxied{PAGE}"
        await tab.run('"here"')
        await tab.shows("Finished", "here")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_fit_a_small_screen_and_follow_its_colour_scheme(
    browser: Browser, scheme: str
) -> None:
    long = "Donaudampfschifffahrtsgesellschaft" * 9
    chain = Chain(
        path="/chain",
        runnable=streaming(long),
        title=long,
        description=long,
        model=long,
        examples=[long],
    )
    size = {"width": 380, "height": 500}
    async with (
        serve(create_app([chain])) as server,
        opened(browser, viewport=size, color_scheme=scheme) as tab,
    ):
        for path in ("/", PAGE):
            await tab.page.goto(server.base_url + path)
            await expect(tab.page.get_by_role("heading", name=long)).to_be_visible()
            assert await tab.page.evaluate("document.documentElement.scrollWidth") == 380
            background = await tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
            red = int(re.findall(r"\d+", background)[0])
            assert red > 200 if scheme == "light" else red < 50
        await tab.run()
        await tab.shows("Finished", long)
        await expect(tab.at("answer")).to_be_in_viewport()
        assert await tab.page.evaluate("document.documentElement.scrollWidth") == 380
