"""Declared chains: found in a folder, refused with reasons, and told apart by how they stream."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
from fastapi import FastAPI
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import agenerate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    chain as as_chain,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from chainserve import Chain, DiscoveryError, add_routes, create_app, discover
from chainserve.flow import why_not_streaming, why_stream_fails
from chainserve.registry import SERVER_ROUTES
from chainserve.settings import Settings
from tests._bridge import lifespan, request
from tests._chains import History
from tests._processes import undone

pytestmark = pytest.mark.anyio

IMPORTS = """\
from langchain_core.runnables import RunnableLambda
from chainserve import Chain
"""
Write = Callable[..., Path]


def declares(path: str, name: str = "chain") -> str:
    """Return the source of a module that declares a chain."""
    return f"{IMPORTS}{name} = Chain(path={path!r}, runnable=RunnableLambda(len))\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules into a folder, as `write(a=source)`; afterwards forget what was imported."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)

    def write(folder: str | Path = "my_chains", **sources: str) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            (path / f"{name}.py").write_text(source)
        return path

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


def paths(chains: list[Chain]) -> list[str]:
    return [chain.path for chain in chains]


def complaints(folder: str | Path) -> list[str]:
    """Return what `discover` has against a folder: a line for each thing."""
    with pytest.raises(DiscoveryError) as refused:
        discover(folder)
    first, *lines = str(refused.value).splitlines()
    assert first == f"{len(lines)} of the declared chains cannot be served:"
    assert all(line.startswith("  - my_chains/") for line in lines)
    return [line.removeprefix("  - my_chains/") for line in lines]


# Finding them.


def test_chains_are_found_in_the_order_of_their_files(write: Write) -> None:
    folder = write(b=declares("/second"), a=declares("/first"), c=declares("/third", "served"))

    assert paths(discover(folder)) == ["/first", "/second", "/third"]


def test_a_folder_may_be_text_and_relative(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(a=declares("/a"))
    monkeypatch.chdir(tmp_path)

    for given in (folder, str(folder), "my_chains", Path("my_chains"), "./my_chains/"):
        assert paths(discover(given)) == ["/a"]


def test_a_folder_may_be_the_working_directory_itself(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(a=declares("/a")))

    assert paths(discover(".")) == ["/a"]


def test_a_folder_may_be_a_package(write: Write) -> None:
    folder = write(__init__='"""Chains."""\nNAME = "/named"\n', a=declares("/a"))
    (folder / "b.py").write_text(
        f"from my_chains import NAME\n{IMPORTS}"
        "chain = Chain(path=NAME, runnable=RunnableLambda(len))\n"
    )

    assert paths(discover(folder)) == ["/a", "/named"]


def test_modules_with_an_underscore_are_neither_served_nor_imported(write: Write) -> None:
    folder = write(a=declares("/a"), _broken="raise ValueError", __private="1 / 0")

    assert paths(discover(folder)) == ["/a"]


def test_what_is_no_module_is_left_alone(write: Write) -> None:
    folder = write(a=declares("/a"))
    (folder / "notes.txt").write_text("not Python")
    (folder / "data.json").write_text("{}")
    write("my_chains/deeper", b="raise ValueError")

    assert paths(discover(folder)) == ["/a"]


def test_an_empty_folder_has_no_chains(write: Write) -> None:
    assert discover(write()) == []


@pytest.mark.parametrize("name", ["missing", "a.py"])
def test_a_folder_that_is_none_is_refused(write: Write, name: str) -> None:
    folder = write(a=declares("/a"))
    with pytest.raises(DiscoveryError) as refused:
        discover(folder / name)

    assert str(folder / name) in str(refused.value)
    assert "Create it, or name another." in str(refused.value)


def test_siblings_may_import_one_another(write: Write) -> None:
    folder = write(
        _shared=f"{IMPORTS}runnable = RunnableLambda(len)\n",
        a=f"{IMPORTS}from my_chains._shared import runnable\n"
        "chain = Chain(path='/a', runnable=runnable)\n",
        b=f"{IMPORTS}from my_chains import a\n"
        "chain = Chain(path='/b', runnable=a.chain.runnable)\n",
    )

    chains = discover(folder)

    assert paths(chains) == ["/a", "/b"]
    assert chains[0].runnable is chains[1].runnable


def test_a_chain_that_a_sibling_imports_by_name_is_served_once(write: Write) -> None:
    folder = write(
        a=declares("/a"),
        b=f"{IMPORTS}from my_chains.a import chain as first\n"
        "chain = Chain(path='/b', runnable=first.runnable)\n",
    )

    assert paths(discover(folder)) == ["/a", "/b"]


def test_a_chain_with_two_names_in_its_module_is_served_once(write: Write) -> None:
    folder = write(a=declares("/a") + "default = chain\n")

    assert paths(discover(folder)) == ["/a"]


def test_a_module_may_declare_several_chains(write: Write) -> None:
    folder = write(a=declares("/one", "one") + declares("/two", "two"))

    assert paths(discover(folder)) == ["/one", "/two"]


def test_two_folders_of_one_name_keep_apart_in_one_process(write: Write) -> None:
    one = write("one/my_chains", a=declares("/of-one"))
    two = write("two/my_chains", a=declares("/of-two"), b=declares("/also-of-two"))

    assert paths(discover(one)) == ["/of-one"]
    assert paths(discover(two)) == ["/of-two", "/also-of-two"]


@pytest.mark.parametrize("name", ["my-chains", "v1.chains", "json", "7"])
def test_a_folder_may_have_any_name(write: Write, name: str) -> None:
    folder = write(f"parent/{name}", a=declares("/a"))

    assert paths(discover(folder)) == ["/a"]


@pytest.mark.parametrize("name", ["my-chain", "a.b", "json", "2nd"])
def test_a_module_may_have_any_name(write: Write, name: str) -> None:
    folder = write(**{name: declares("/a")})

    assert paths(discover(folder)) == ["/a"]


def test_a_module_that_was_added_since_is_found(write: Write) -> None:
    folder = write(a=declares("/a"))
    assert paths(discover(folder)) == ["/a"]
    write(b=declares("/b"))

    assert paths(discover(folder)) == ["/a", "/b"]


# Refusing them.

BROKEN = {
    "a syntax error": ("def (:\n", "SyntaxError", "Mend the module"),
    "bytes that are no text": ("x = '\udcff'\n", "SyntaxError", "Mend the module"),
    "a package that is missing": (
        "import no_such_package.part\n",
        "ModuleNotFoundError: No module named 'no_such_package'",
        "Install the package that has no_such_package",
    ),
    "a name that is missing": (
        "from json import no_such_name\n",
        "ImportError: cannot import name 'no_such_name'",
        "Mend the module",
    ),
    "an exception": ("raise ValueError('on purpose')\n", "ValueError: on purpose", "Mend"),
    "an exception without a text": ("assert False\n", "AssertionError", "Mend"),
    "an exit": ("import sys\nsys.exit('I want to leave')\n", "SystemExit", "Mend"),
    "an endless recursion": ("def f(): f()\nf()\n", "RecursionError", "Mend"),
    "an import of itself": ("from my_chains.bad import chain\n", "ImportError", "Mend"),
    "a path without a slash": (
        f"{IMPORTS}chain = Chain(path='x', runnable=RunnableLambda(len))\n",
        "The path 'x' must start with a slash",
        "Mend",
    ),
    "no runnable": (f"{IMPORTS}chain = Chain(path='/x', runnable=len)\n", "not a Runnable", "Mend"),
    "no chain": ("runnable = 1\n", "declares no chain", "Add `chain = Chain(...)`"),
    "nothing": ("", "declares no chain", "Add `chain = Chain(...)`"),
    "a chain that is only in a list": (
        f"{IMPORTS}chains = [Chain(path='/x', runnable=RunnableLambda(len))]\n",
        "declares no chain",
        "Add `chain = Chain(...)`",
    ),
}


@pytest.mark.parametrize(("source", "reason", "mend"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_module_is_told_with_file_reason_and_mend(
    write: Write, source: str, reason: str, mend: str
) -> None:
    folder = write(good=declares("/good"))
    (folder / "bad.py").write_text(source, errors="surrogateescape")

    [complaint] = complaints(folder)

    assert complaint.startswith("bad.py: ")
    assert reason in complaint
    assert mend in complaint
    assert ".." not in complaint.replace("Chain(...)", "")


def test_a_missing_sibling_is_no_package_to_install(write: Write) -> None:
    [complaint] = complaints(write(a="from my_chains._gone import x\n"))

    assert "Install the package" not in complaint


def test_an_interrupt_is_not_swallowed(write: Write) -> None:
    folder = write(a="raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        discover(folder)


def test_a_reason_of_several_lines_is_told_on_one(write: Write) -> None:
    [complaint] = complaints(write(a="raise ValueError('one\\ntwo\\nthree')\n"))

    assert "one" in complaint
    assert "three" in complaint


def test_two_chains_at_one_path_are_told_with_both_files(write: Write) -> None:
    folder = write(a=declares("/same"), b=declares("/other"), c=declares("/same/"))

    [complaint] = complaints(folder)

    assert complaint.startswith("c.py: uses the path /same, as does my_chains/a.py.")


def test_three_chains_at_one_path_are_told_twice(write: Write) -> None:
    folder = write(a=declares("/same"), b=declares("/same"), c=declares("/same"))

    assert [line[:5] for line in complaints(folder)] == ["b.py:", "c.py:"]


@pytest.mark.parametrize("segment", [*SERVER_ROUTES, "chainserve.js", "chainserve.events.js"])
@pytest.mark.parametrize("path", ["/{}", "/{}/", "/{}/more"])
def test_a_chain_in_the_place_of_a_server_route_is_told(
    write: Write, segment: str, path: str
) -> None:
    [complaint] = complaints(write(a=declares(path.format(segment))))

    assert f"shadows the server's /{segment}" in complaint
    assert complaint.endswith("Choose another path.")


def test_everything_that_is_wrong_is_told_at_once(write: Write) -> None:
    folder = write(
        a=declares("/a"),
        b="import no_such_package\n",
        c="def (:\n",
        d="",
        e=declares("/docs"),
        f=declares("/a"),
        g="raise SystemExit(3)\n",
        h="raise ValueError\n",
    )

    told = complaints(folder)

    assert sorted(line.partition(":")[0] for line in told) == [f"{name}.py" for name in "bcdefgh"]


@pytest.mark.parametrize("source", ["raise ValueError\n", "def (:\n", "import no_such_package\n"])
def test_a_module_that_failed_is_not_left_behind_and_can_be_mended(
    write: Write, source: str
) -> None:
    folder = write(a=declares("/a"), bad=source)
    complaints(folder)
    assert "my_chains.bad" not in sys.modules
    write(bad=declares("/mended"))

    assert paths(discover(folder)) == ["/a", "/mended"]


# Streaming: the verdict and the truth.

TOKENS = ('{"answer": "a', "b", '"}')


class GatedModel(BaseChatModel):
    """A chat model that says its first token and waits for the gate before the second."""

    gate: Any
    tokens: tuple[str, ...] = TOKENS

    @property
    def _llm_type(self) -> str:
        return "gated"

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index, token in enumerate(self.tokens):
            if index == 1:
                async with asyncio.timeout(20):
                    await self.gate.wait()
            yield ChatGenerationChunk(message=AIMessageChunk(content=token))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError


class WholeModel(GatedModel):
    """One that answers in one piece, as models without `_astream` do."""

    _astream = BaseChatModel._astream

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(GatedModel._astream(self, messages))


class Answer(BaseModel):
    answer: str


def text_of(message: Any) -> str:
    return str(getattr(message, "content", message))


async def upper(chunks: AsyncIterator[Any]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield text_of(chunk).upper()


@tool
def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


def graph_of(model: BaseChatModel, mode: str) -> Runnable[Any, Any]:
    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    graph: Runnable[Any, Any] = builder.compile().copy(update={"stream_mode": mode})
    to_state: Runnable[Any, Any] = RunnableLambda(
        lambda text: {"messages": [HumanMessage(text_of(text))]}
    )
    return to_state | graph


def asked_by_a_generator(model: BaseChatModel) -> Runnable[Any, Any]:
    @as_chain
    async def ask(text: str) -> AsyncIterator[Any]:
        async for chunk in model.astream(text):
            yield chunk

    return ask


def with_history(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    history = History()
    return RunnableWithMessageHistory(runnable, lambda session_id: history)


PROMPT = ChatPromptTemplate.from_template("{text}")
TO_PROMPT: Runnable[Any, Any] = RunnableLambda(lambda text: {"text": text}) | PROMPT
LAMBDA: Runnable[Any, Any] = RunnableLambda(text_of, name="text_of")
TEXT = StrOutputParser()
FIELD = ConfigurableField(id="which")

STREAMED: dict[str, Callable[[Any], Runnable[Any, Any]]] = {
    "model": lambda m: m,
    "prompt, model, parser": lambda m: TO_PROMPT | m | TEXT,
    "lambda in front": lambda m: LAMBDA | m | TEXT,
    "lambda in the middle, then a second model": lambda m: GatedOpen.of(m) | LAMBDA | m | TEXT,
    "lambda that returns the model": lambda m: RunnableLambda(lambda _: m),
    "generator function": asked_by_a_generator,
    "generator behind": lambda m: m | RunnableGenerator(upper),
    "two generators behind": lambda m: m | RunnableGenerator(upper) | RunnableGenerator(upper),
    "parallel with the model": lambda m: RunnableParallel(a=m, b=LAMBDA),
    "parallel of sequences": lambda m: RunnableParallel(a=TO_PROMPT | m | TEXT, b=LAMBDA),
    "parallel behind that passes on": lambda m: m | RunnableParallel(a=TEXT, b=TEXT),
    "assign of the model": lambda m: TO_TEXT | RunnablePassthrough.assign(a=PROMPT | m),
    "assign behind a parallel": lambda m: (
        RunnableParallel(a=m) | RunnablePassthrough.assign(b=lambda _: 1)
    ),
    "pick": lambda m: RunnableParallel(a=m) | RunnablePassthrough().pick("a"),
    "passthrough behind": lambda m: m | RunnablePassthrough(),
    "branch to the model": lambda m: RunnableBranch((lambda _: True, m | TEXT), LAMBDA),
    "fallbacks of models": lambda m: m.with_fallbacks([m]) | TEXT,
    "fallbacks of sequences": lambda m: (m | TEXT).with_fallbacks([m | TEXT]),
    "retry": lambda m: m.with_retry() | TEXT,
    "retry of a sequence": lambda m: (TO_PROMPT | m | TEXT).with_retry(),
    "bound": lambda m: m.bind(stop=["x"]).with_config(tags=["a"]) | TEXT,
    "typed": lambda m: (TO_PROMPT | m | TEXT).with_types(input_type=str),
    "listeners": lambda m: (m | TEXT).with_listeners(on_end=lambda _: None),
    "configurable fields": lambda m: m.configurable_fields(tokens=FIELD) | TEXT,
    "configurable alternatives": lambda m: (
        m.configurable_alternatives(FIELD, default_key="a", b=LAMBDA) | TEXT
    ),
    "graph that streams messages": lambda m: graph_of(m, "messages"),
    "graph that streams its state": lambda m: graph_of(m, "values"),
    "JSON parser": lambda m: m | JsonOutputParser(),
    "pydantic parser": lambda m: m | PydanticOutputParser(pydantic_object=Answer),
    "nested sequences": lambda m: LAMBDA | ((TO_PROMPT | m) | (TEXT | RunnableGenerator(upper))),
    "message history": lambda m: with_history(m),
}
WAITS: dict[str, Callable[[Any], Runnable[Any, Any]]] = {
    "lambda behind": lambda m: m | LAMBDA,
    "lambda between model and parser": lambda m: m | LAMBDA | TEXT,
    "lambda behind the parser": lambda m: TO_PROMPT | m | TEXT | LAMBDA,
    "lambda behind a generator": lambda m: m | RunnableGenerator(upper) | LAMBDA,
    "prompt behind": lambda m: m | TEXT | TO_PROMPT,
    "tool behind": lambda m: m | TEXT | shout,
    "bound lambda behind": lambda m: m | LAMBDA.with_config(tags=["a"]),
    "lambda with a retry behind": lambda m: m | LAMBDA.with_retry(),
    "lambda with fallbacks behind": lambda m: m | LAMBDA.with_fallbacks([LAMBDA]),
    "prompt with alternatives behind": lambda m: (
        m | TEXT | TO_TEXT | PROMPT.configurable_alternatives(FIELD, default_key="a", b=PROMPT)
    ),
    "parallel of lambdas behind": lambda m: m | RunnableParallel(a=LAMBDA, b=LAMBDA),
    "parallel of sequences that wait": lambda m: RunnableParallel(a=m | LAMBDA),
    "branch of lambdas behind": lambda m: m | RunnableBranch((lambda _: True, LAMBDA), LAMBDA),
    "branch to a sequence that waits": lambda m: RunnableBranch(
        (lambda _: True, m | LAMBDA), LAMBDA
    ),
    "fallbacks of sequences that wait": lambda m: (m | LAMBDA).with_fallbacks([m | LAMBDA]),
    "nested sequences": lambda m: LAMBDA | (TO_PROMPT | m) | (LAMBDA | TEXT),
    "map": lambda m: RunnableLambda(lambda text: [text]) | m.map(),
    "model without a stream": lambda m: WholeModel(gate=m.gate) | TEXT,
    "model whose stream is switched off": lambda m: (
        GatedModel(gate=m.gate, disable_streaming=True) | TEXT
    ),
}


class GatedOpen(GatedModel):
    """One that never waits."""

    @classmethod
    def of(cls, _: Any) -> "GatedOpen":
        gate = asyncio.Event()
        gate.set()
        return cls(gate=gate)


TO_TEXT: Runnable[Any, Any] = RunnableLambda(lambda text: {"text": text})


@dataclass
class Reading:
    """What came of a stream while the model waited, and afterwards."""

    early: int
    late: int


async def settle() -> None:
    """Let everything run that does not wait for the gate: tasks, and the one thread there is."""
    loop = asyncio.get_running_loop()
    for _ in range(60):
        await loop.run_in_executor(None, bool)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()


async def read_gated(runnable: Runnable[Any, Any], gate: asyncio.Event) -> Reading:
    """Stream a chain as the server does, first with its model's gate closed."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    count = 0

    async def read() -> None:
        nonlocal count
        config = RunnableConfig(configurable={"session_id": "one"})
        async for _ in runnable.astream("hi", config):
            count += 1

    async with asyncio.timeout(20):
        reading = asyncio.create_task(read())
        await settle()
        early = count
        gate.set()
        await reading
    return Reading(early, count - early)


HISTORY_IS_OLD = pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")


@HISTORY_IS_OLD
@pytest.mark.parametrize("make", STREAMED.values(), ids=STREAMED.keys())
async def test_a_chain_that_streams_is_not_complained_of(
    make: Callable[[Any], Runnable[Any, Any]],
) -> None:
    gate = asyncio.Event()
    runnable = make(GatedModel(gate=gate))
    reading = await read_gated(runnable, gate)

    assert reading.early > 0, "this chain does not stream: the test is wrong"
    assert why_not_streaming(runnable) is None


@HISTORY_IS_OLD
@pytest.mark.parametrize("make", WAITS.values(), ids=WAITS.keys())
async def test_a_chain_that_waits_for_its_model_is_told_with_a_reason(
    make: Callable[[Any], Runnable[Any, Any]],
) -> None:
    gate = asyncio.Event()
    runnable = make(GatedModel(gate=gate))
    reading = await read_gated(runnable, gate)

    assert reading.early == 0, "this chain streams: the test is wrong"
    assert reading.late > 0
    assert why_not_streaming(runnable) is not None


async def test_the_reason_names_the_step() -> None:
    reason = why_not_streaming(GatedModel(gate=None) | LAMBDA | TEXT)

    assert reason == "text_of (RunnableLambda) waits for the whole answer"


async def test_a_graph_that_streams_after_each_step_is_not_complained_of() -> None:
    assert why_not_streaming(graph_of(GatedModel(gate=None), "updates")) is None


def test_a_chain_without_a_model_is_not_complained_of() -> None:
    assert why_not_streaming(LAMBDA) is None
    assert why_not_streaming(LAMBDA | LAMBDA) is None
    assert why_not_streaming(TO_PROMPT | TEXT) is None


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_server_warns_once_for_each_chain_that_does_not_stream(
    log_format: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = GatedModel(gate=None)
    chains = [
        Chain(path="/waits", runnable=model | LAMBDA),
        Chain(path="/waits-too", runnable=TO_PROMPT | model | LAMBDA | TEXT),
        Chain(path="/streams", runnable=model | TEXT),
    ]
    app = create_app(chains, Settings(log_format=log_format))
    assert "does not stream" not in caplog.text
    with undone():
        async with lifespan(app):
            await request(app, "GET", "/chains")

    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all("waits for the whole answer" in line for line in warnings)
    assert "RunnableGenerator" in warnings[0]
    if log_format == "json":
        assert [json.loads(line)["path"] for line in warnings] == ["/waits", "/waits-too"]


def sync_words(chunks: Iterator[str]) -> Iterator[str]:
    yield from chunks


async def async_words(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield chunk


SYNC_ALONE: Runnable[Any, Any] = RunnableGenerator(sync_words)


@pytest.mark.parametrize(
    "runnable", [SYNC_ALONE, SYNC_ALONE | TEXT, LAMBDA | SYNC_ALONE.with_config(tags=["a"])]
)
async def test_a_chain_whose_streams_always_fail_is_told_with_the_step(
    runnable: Runnable[Any, Any],
) -> None:
    app = FastAPI()
    add_routes(app, runnable, path="/chain")
    response = await request(app, "POST", "/chain/stream", json={"input": "a"})

    assert response.events()[-1].event == "error", "this chain streams: the test is wrong"
    assert why_stream_fails(runnable) == (
        "sync_words (RunnableGenerator) is made of a sync generator alone"
    )


def test_a_generator_that_can_stream_is_not_complained_of() -> None:
    for generator in (RunnableGenerator(async_words), RunnableGenerator(sync_words, async_words)):
        assert why_stream_fails(LAMBDA | generator) is None


async def test_a_chain_whose_streams_fail_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_routes(FastAPI(), SYNC_ALONE, path="/chain")
    [of_mounting] = [record.message for record in caplog.records]
    caplog.clear()
    app = create_app([Chain(path="/chain", runnable=SYNC_ALONE)], Settings())
    with undone():
        async with lifespan(app):
            pass

    of_server = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(of_server) == 1
    for line in (of_mounting, *of_server):
        assert "sync_words (RunnableGenerator)" in line
        assert "async generator function" in line


async def test_the_list_of_chains_says_which_of_them_stream() -> None:
    model = GatedModel(gate=None)
    chains = [
        Chain(path="/streams", runnable=model | TEXT),
        Chain(path="/waits", runnable=model | LAMBDA),
        Chain(path="/one-piece", runnable=LAMBDA),
    ]
    described = (await request(create_app(chains, Settings()), "GET", "/chains")).json()

    assert [entry["streams"] for entry in described] == [True, False, False]
