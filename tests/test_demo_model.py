"""The model behind the shipped chains, offline and as the environment chooses it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal

import anyio
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import ValidationError

from chainserve.demo import OfflineChatModel, chat_model, model_name
from chainserve.demo_answers import NOTICE, tokens
from chainserve.errors import ConfigurationError

pytestmark = pytest.mark.anyio

QUESTION = "Which is larger, 7 or 10, and why does it matter?"
VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "CHAINSERVE_DEMO_PAUSE")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def model() -> OfflineChatModel:
    return OfflineChatModel(pause=0)


def text_of(model: BaseChatModel, messages: str | Sequence[BaseMessage]) -> str:
    return model.invoke(messages).text


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def look_up(title: str) -> str:
    """Look up a book."""
    return title


def paint(colour: Literal["red", "green"], thick: bool = False) -> str:
    """Paint a line."""
    return f"{colour} {thick}"


async def test_it_says_the_same_streamed_or_not_and_sync_or_not(model: OfflineChatModel) -> None:
    invoked = model.invoke(QUESTION).text
    assert [chunk.text for chunk in model.stream(QUESTION)] == tokens(invoked)
    assert [chunk.text async for chunk in model.astream(QUESTION)] == tokens(invoked)
    assert (await model.ainvoke(QUESTION)).text == invoked


def test_it_says_that_it_is_the_offline_demo(model: OfflineChatModel) -> None:
    answer = text_of(model, QUESTION)
    assert answer.startswith(NOTICE)
    assert "OPENAI_API_KEY" in answer


def test_what_it_says_of_a_message_is_true(model: OfflineChatModel) -> None:
    answer = text_of(model, "Add 12.5, 3 and -2 for v1.2 of 1,234 parts")
    assert "I count 10 words" in answer
    assert "in order are -2, 3, 12.5; their sum is 13.5." in answer


def test_it_remembers_the_conversation(model: OfflineChatModel) -> None:
    turns = [HumanMessage("My name is Zoë."), AIMessage("Hello."), HumanMessage("Who am I?")]
    answer = text_of(model, turns)
    assert "“Who am I?”" in answer
    assert "1 message, the last: “My name is Zoë.”" in answer


@pytest.mark.parametrize(
    "messages",
    [
        "",
        " \n\t",
        [SystemMessage("Be brief.")],
        [HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])],
    ],
)
def test_a_message_without_words_is_answered_too(
    model: OfflineChatModel, messages: str | list[BaseMessage]
) -> None:
    assert "no word in your message" in text_of(model, messages)


@pytest.mark.parametrize(
    "text", ["Größe? naïve café", "東京の天気は", "שלום עולם", "👩‍👩‍👧 ok", "e\u0301"]
)
def test_any_script_comes_back_whole(model: OfflineChatModel, text: str) -> None:
    chunks = list(model.stream(text))
    assert text in "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("text", ["a  b\n\nc ", "\n", "x" * 100, "…!?", " lead", ""])
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


def test_the_parts_of_a_prompt_decide_what_it_does(model: OfflineChatModel) -> None:
    code = text_of(model, '<language>Python</language><task>Print "it\'s\\n"</task>')
    assert 'raise NotImplementedError("Print \\"it\'s\\\\n\\"")' in code
    assert "no stub for “COBOL”" in text_of(model, "<language>COBOL</language><task>Add.</task>")
    story = text_of(model, "<kind>story</kind><words>100</words><brief>A fox.</brief>")
    assert all(f"about {words} words" in story for words in (20, 60))
    lesson = text_of(
        model, "<level>new</level><task>Add, then halve</task><attempt>I halve</attempt>"
    )
    assert "2. Do this part by itself: “Add”" in lesson
    assert "does not mention: then, Add." in lesson


def test_the_last_chunk_counts_the_tokens(model: OfflineChatModel) -> None:
    *chunks, last = model.stream(QUESTION)
    assert all(chunk.usage_metadata is None for chunk in chunks)
    assert last.chunk_position == "last"
    assert last.response_metadata == {"model_name": "offline-demo", "finish_reason": "stop"}
    used = last.usage_metadata
    assert used is not None
    assert used["input_tokens"] == len(tokens(QUESTION))
    assert used["output_tokens"] == len(chunks) + 1
    assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"]


async def test_an_answer_has_one_id_and_the_next_another(model: OfflineChatModel) -> None:
    first = {chunk.id async for chunk in model.astream(QUESTION)}
    second = {chunk.id async for chunk in model.astream(QUESTION)}
    assert len(first) == len(second) == 1
    assert first != second


def merged(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


def calls_of(message: AIMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in message.tool_calls]


async def test_a_fitting_tool_is_called_in_pieces(model: OfflineChatModel) -> None:
    bound = model.bind_tools([add, look_up])
    chunks = [chunk async for chunk in bound.astream("What is 19 plus 23?")]
    assert len(chunks) > 3
    total = merged([chunk for chunk in chunks if isinstance(chunk, AIMessageChunk)])
    assert calls_of(total) == [("add", {"a": 19, "b": 23})]
    assert total.text == ""
    assert total.response_metadata["finish_reason"] == "tool_calls"
    assert calls_of(bound.invoke("What is 19 plus 23?")) == calls_of(total)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("Find “Dune” for me", [("look_up", {"title": "Dune"})]),
        (
            'Add 1 and 2.5, and find "Dune"',
            [("add", {"a": 1, "b": 2.5}), ("look_up", {"title": "Dune"})],
        ),
        ("Make it red", [("paint", {"colour": "red"})]),
        ("Add 1 and nothing", []),
        ("", []),
    ],
)
def test_only_tools_whose_arguments_are_there_are_called(
    model: OfflineChatModel, text: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    message = model.bind_tools([add, look_up, paint]).invoke(text)
    assert calls_of(message) == calls
    assert bool(message.text) is not bool(calls)


def test_calls_have_different_ids_in_a_conversation(model: OfflineChatModel) -> None:
    bound = model.bind_tools([add])
    first = bound.invoke([HumanMessage("1 and 2")])
    turns = [HumanMessage("1 and 2"), first, ToolMessage("3", tool_call_id="x"), AIMessage("3")]
    second = bound.invoke([*turns, HumanMessage("1 and 2")])
    assert first.tool_calls[0]["id"] != second.tool_calls[0]["id"]


def test_a_tools_results_are_told_in_words(model: OfflineChatModel) -> None:
    turns = [
        HumanMessage("19 plus 23, and 1 by 0"),
        AIMessage(""),
        ToolMessage("42", tool_call_id="a", name="add"),
        ToolMessage("no value", tool_call_id="b", name="divide", status="error"),
    ]
    answer = model.bind_tools([add]).invoke(turns).text
    assert answer.endswith("The tool add answered: 42\n\nThe tool divide could not do it: no value")


async def test_cancelling_stops_it_at_once() -> None:
    model = OfflineChatModel(pause=3600)
    started = asyncio.Event()

    async def read() -> None:
        async for _ in model.astream(QUESTION):
            started.set()

    task = asyncio.create_task(read())
    with anyio.fail_after(10):
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("pause", [-1, float("nan"), float("inf")])
def test_a_pause_must_be_a_time(pause: float) -> None:
    with pytest.raises(ValidationError):
        OfflineChatModel(pause=pause)


def test_without_a_key_the_demo_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_BASE_URL", " ")
    model = chat_model(temperature=0)
    assert isinstance(model, OfflineChatModel)
    assert model.pause == 0.03
    assert model_name(model) == "offline-demo"


def test_the_demos_pace_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINSERVE_DEMO_PAUSE", "0.5")
    model = chat_model()
    assert isinstance(model, OfflineChatModel)
    assert model.pause == 0.5


@pytest.mark.parametrize("pause", ["fast", "-1", "nan", "inf"])
def test_a_pace_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, pause: str) -> None:
    monkeypatch.setenv("CHAINSERVE_DEMO_PAUSE", pause)
    with pytest.raises(ConfigurationError, match="CHAINSERVE_DEMO_PAUSE"):
        chat_model()


def test_a_key_asks_for_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    openai = pytest.importorskip("langchain_openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    # An empty address must not reach the openai package, which would take it as it is.
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    model = chat_model(temperature=0.5)
    assert isinstance(model, openai.ChatOpenAI)
    assert str(model.root_async_client.base_url) == "https://api.openai.com/v1/"
    assert model.openai_api_key.get_secret_value() == "sk-test"
    assert model_name(model) == "gpt-4.1-mini"
    assert (model.streaming, model.stream_usage, model.temperature) == (True, True, 0.5)
    assert (model.request_timeout, model.max_retries) == (60, 2)


def test_an_address_alone_asks_for_a_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    openai = pytest.importorskip("langchain_openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1")
    monkeypatch.setenv("OPENAI_MODEL", "llama")
    model = chat_model(stream_usage=True)
    assert isinstance(model, openai.ChatOpenAI)
    assert str(model.root_async_client.base_url) == "http://127.0.0.1:11434/v1/"
    assert model.openai_api_key.get_secret_value()
    assert model_name(model) == "llama"
    assert model.stream_usage is True
    assert not chat_model().stream_usage  # type: ignore[attr-defined]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(ConfigurationError, match=r"chainserve\[openai\]"):
        chat_model()


def test_offline_nothing_of_openai_is_imported() -> None:
    code = (
        "import sys; from chainserve.demo import chat_model; chat_model().invoke('hi'); "
        "sys.exit('openai' in sys.modules or 'langchain_openai' in sys.modules)"
    )
    environment = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    environment["CHAINSERVE_DEMO_PAUSE"] = "0"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
