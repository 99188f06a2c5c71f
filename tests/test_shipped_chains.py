"""The seven chains that are shipped, answered by the offline model."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from pydantic import TypeAdapter, ValidationError

from chains._calculator import CalculationError, calculate
from chains._messages import Conversation
from chainserve.chain import Chain
from chainserve.demo_answers import NOTICE
from chainserve.validation import unpack

pytestmark = pytest.mark.anyio

TEXT_CHAINS = ("assistant", "writer", "tutor", "coder", "analyst")
MESSAGE_CHAINS = ("chat", "agent")
Load = Callable[[str], Chain]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a chain anew, with an offline model that does not wait."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CHAINSERVE_DEMO_PAUSE", "0")

    def import_anew(name: str) -> Chain:
        monkeypatch.delitem(sys.modules, f"chains.{name}", raising=False)
        chain = importlib.import_module(f"chains.{name}").chain
        assert isinstance(chain, Chain)
        return chain

    return import_anew


def validated(chain: Chain, data: Any) -> Any:
    """Return an input as the server hands it to the chain."""
    return unpack(chain.input_type.model_validate(data))


async def streamed_text(chain: Chain, data: Any) -> list[str]:
    return [chunk async for chunk in chain.runnable.astream(validated(chain, data))]


def asked(text: str) -> dict[str, Any]:
    return {"messages": [{"type": "human", "content": text}]}


@pytest.mark.parametrize("name", TEXT_CHAINS + MESSAGE_CHAINS)
def test_a_chain_is_declared_in_full(load: Load, name: str) -> None:
    chain = load(name)
    assert chain.path == f"/{name}"
    assert chain.title
    assert chain.description.endswith(".")
    assert chain.tags
    assert len(chain.examples) >= 2
    assert chain.model == "offline-demo"
    schema = TypeAdapter(chain.input_type).json_schema()
    assert all("description" in member for member in schema["properties"].values())
    assert len(str(schema)) < 2000


@pytest.mark.parametrize("name", TEXT_CHAINS)
async def test_text_streams_and_is_the_same_as_invoked(load: Load, name: str) -> None:
    chain = load(name)
    for example in chain.examples:
        chunks = await streamed_text(chain, example)
        assert len(chunks) > 10
        text = "".join(chunks)
        assert text.startswith(NOTICE)
        assert await chain.runnable.ainvoke(validated(chain, example)) == text
        assert chain.runnable.invoke(validated(chain, example)) == text


@pytest.mark.parametrize("name", MESSAGE_CHAINS)
async def test_messages_stream_in_chunks(load: Load, name: str) -> None:
    chain = load(name)
    for example in chain.examples:
        given = validated(chain, example)
        chunks = [chunk async for chunk in chain.runnable.astream(given)]
        assert len(chunks) > 10
        assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
        assert [chunk.text for chunk in chain.runnable.stream(given)] == [c.text for c in chunks]
        message = await chain.runnable.ainvoke(given)
        assert type(message) is AIMessage
        assert message.text == "".join(chunk.text for chunk in chunks)
        assert message.text.startswith(NOTICE)


async def test_the_streams_of_a_chain_can_be_cancelled(load: Load) -> None:
    chain = load("agent")
    given = validated(chain, asked("What is 2 + 2?"))
    with anyio.fail_after(10):
        stream = chain.runnable.astream(given)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]


async def test_each_chain_works_on_its_input(load: Load) -> None:
    data = {"task": "reverse a list", "language": "Go"}
    assert "func reverse_a_list()" in "".join(await streamed_text(load("coder"), data))
    brief = {"brief": "Rain.", "words": 200}
    assert "about 120 words" in "".join(await streamed_text(load("writer"), brief))
    lesson = {"task": "Halve 10, then add 1.", "level": "I can add."}
    assert "“Halve 10”" in "".join(await streamed_text(load("tutor"), lesson))


async def test_braces_and_tags_in_the_users_text_are_text(load: Load) -> None:
    odd = "{question} </task> {0} {{x}}"
    text = "".join(await streamed_text(load("assistant"), {"question": odd}))
    assert odd in text
    assert await streamed_text(load("coder"), {"task": odd})


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("assistant", {"question": ""}, "question"),
        ("assistant", {}, "question"),
        ("writer", {"brief": "x", "words": 10**6}, "words"),
        ("writer", {"brief": "x", "kind": "poem"}, "kind"),
        ("tutor", {"level": "new"}, "task"),
        ("coder", {"task": "x" * 20_001}, "task"),
        ("chat", {"messages": []}, "messages"),
        ("chat", asked("x") | {"messages": [{"type": "function", "content": "x"}]}, "messages"),
        ("agent", {"messages": "hello"}, "messages"),
        ("analyst", {"data": "no table", "question": "Why?"}, "data"),
        ("analyst", {"data": "a\n1", "question": ""}, "question"),
    ],
)
def test_a_wrong_input_is_refused_where_it_is_wrong(
    load: Load, name: str, data: dict[str, Any], place: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        validated(load(name), data)
    assert {error["loc"][0] for error in refused.value.errors()} == {place}


async def test_the_analyst_starts_from_the_right_figures(load: Load) -> None:
    chain = load("analyst")
    region = "".join(await streamed_text(chain, chain.examples[0]))
    assert "- Sum of sales by region: South 230, North 129\n" in region
    assert "sum 359, mean 89.75, median 100, min 9, max 150" in region
    team = "".join(await streamed_text(chain, chain.examples[1]))
    assert "- Sum of hours by team: Blue 31.5, Red 28\n" in team
    assert "2 values, 1 missing" in team


def test_the_analyst_says_what_is_wrong_with_a_table(load: Load) -> None:
    chain = load("analyst")
    with pytest.raises(ValidationError, match="3 values for 2 columns"):
        validated(chain, {"data": "a,b\n1,2,3", "question": "Why?"})


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("What is 12 * (3 + 4.5)?", "calculate answered: 12 * (3 + 4.5) = 90"),
        ("How much is 1,234 - 2**3", "calculate answered: 1,234 - 2**3 = 1226"),
        ("And 1/0?", "calculate could not do it: Division by zero"),
        ("Time in Mars/Olympus?", "current_time could not do it: There is no time zone"),
        ("Time in Europe/../Paris or Etc/UTC?", "in Etc/UTC"),
    ],
)
async def test_the_agent_calls_a_tool_and_tells_its_result(
    load: Load, question: str, says: str
) -> None:
    chain = load("agent")
    given = validated(chain, asked(question))
    chunks = [chunk async for chunk in chain.runnable.astream(given)]
    calling = [chunk for chunk in chunks if chunk.tool_call_chunks]
    assert len(calling) > 3
    assert says in "".join(chunk.text for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 2
    assert says in (await chain.runnable.ainvoke(given)).text


async def test_the_agent_uses_two_tools_at_once(load: Load) -> None:
    chain = load("agent")
    message = await chain.runnable.ainvoke(validated(chain, asked("2 + 3, and the time in UTC")))
    assert "2 + 3 = 5" in message.text
    assert message.text.endswith(" in UTC")


@pytest.mark.parametrize("zone", ["Nowhere", "", "Europe", "../etc/passwd", "/etc/passwd", "a\0b"])
def test_a_wrong_time_zone_is_told_to_the_model(load: Load, zone: str) -> None:
    load("agent")
    clock = sys.modules["chains.agent"].tools[1]
    call = {"type": "tool_call", "id": "1", "name": clock.name, "args": {"time_zone": zone}}
    result = clock.invoke(call)
    assert isinstance(result, ToolMessage)
    assert result.status == "error"
    assert "There is no time zone" in result.text


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * -4", -20),
        ("7 / 2", 3.5),
        ("7 // 2 + 7 % 2", 4),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("4 ** 0.5", 2),
        ("1,234,567 \u00d7 2 \u00f7 2 \u2212 7", 1234560),
        ("\n 1 +\n 1 ", 2),
        ("0 ** 1000", 0),
    ],
)
def test_arithmetic_is_calculated(expression: str, value: float) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 +",
        "1 / 0",
        "0 ** -1",
        "5 % 0",
        "9 ** 9 ** 9 ** 9",
        "10 ** 100000",
        "2 ** -99999999",
        "(2 ** 2000) ** 2000",
        "2 ** 2000 * 2 ** 2000",
        "10.0 ** 400",
        "(-8) ** 0.5",
        "(" * 100 + "1" + ")" * 99,
        "-" * 150 + "(" * 40,
        "1" * 201,
        "__import__('os')",
        "open",
        "1 if 1 else 2",
        "[1]",
        "1, 2",
        "1 << 99999",
        "2 ^ 8",
        "1j",
        "1e999",
        "(1)(2)",
        "1 .real",
        "012",
        "1\0",
        "\u0661 + \u0661",
    ],
)
def test_a_hostile_expression_is_refused_at_once(expression: str) -> None:
    with pytest.raises(CalculationError):
        calculate(expression)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"type": "human", "content": "x"}, HumanMessage),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, HumanMessage),
        ({"role": "assistant", "content": "x", "tool_calls": []}, AIMessage),
        ({"type": "AIMessageChunk", "content": "x", "tool_call_chunks": []}, AIMessage),
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, ToolMessage),
    ],
)
def test_messages_are_taken_as_langchain_and_openai_write_them(
    data: dict[str, Any], kind: type
) -> None:
    (message,) = Conversation.model_validate({"messages": [data]}).messages
    assert type(message) is kind
    assert message.text == "x"


@pytest.mark.parametrize(
    "data",
    [
        {"type": "tool", "content": "x"},
        {"type": "ai", "content": "x", "tool_calls": "x"},
        {"type": "ai", "content": "x", "tool_calls": [{"a": 1}]},
        {"type": [], "content": "x"},
        {"content": "x"},
        "x",
        None,
    ],
)
def test_what_is_no_message_is_a_validation_error(data: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        Conversation.model_validate({"messages": [data]})
    assert refused.value.errors()[0]["loc"][:2] == ("messages", 0)


def test_importing_the_chains_starts_no_thread_and_no_connection() -> None:
    code = (
        "import importlib, socket, sys, threading\n"
        "def refuse(*args): sys.exit('connects')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "for name in sys.argv[1:]: importlib.import_module('chains.' + name)\n"
        "sys.exit(threading.active_count() - 1)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    command = [sys.executable, "-c", code, *TEXT_CHAINS, *MESSAGE_CHAINS]
    subprocess.run(command, check=True, env=environment, timeout=60)
