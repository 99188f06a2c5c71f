"""The text of a chunk: strings and messages have one, nothing else has."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings, strategies as st
from langchain_core import messages
from langchain_core.messages import BaseMessage

from chainserve.serialization import WellKnownLCSerializer
from chainserve.wire.text import text_of

dumps = WellKnownLCSerializer().dumps


@settings(deadline=None)
@given(st.text())
def test_a_string_is_its_own_text(text: str) -> None:
    assert text_of(orjson.dumps(text)) == text
    assert text_of(json.dumps(text).encode()) == text


MESSAGES: list[BaseMessage] = [
    messages.AIMessage(content="h\u00e9"),
    messages.AIMessageChunk(content="h\u00e9"),
    messages.ChatMessage(content="h\u00e9", role="critic"),
    messages.ChatMessageChunk(content="h\u00e9", role="critic"),
    messages.FunctionMessage(content="h\u00e9", name="f"),
    messages.FunctionMessageChunk(content="h\u00e9", name="f"),
    messages.HumanMessage(content="h\u00e9"),
    messages.HumanMessageChunk(content="h\u00e9"),
    messages.SystemMessage(content="h\u00e9"),
    messages.SystemMessageChunk(content="h\u00e9"),
    messages.ToolMessage(content="h\u00e9", tool_call_id="1"),
    messages.ToolMessageChunk(content="h\u00e9", tool_call_id="1"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_of_langchain_is_its_content(message: BaseMessage) -> None:
    assert text_of(dumps(message)) == "h\u00e9"


def test_there_is_a_case_for_every_message_of_langchain() -> None:
    names = {name for name in messages.__all__ if re.search("Message(Chunk)?$", name)}

    covered = {type(message).__name__ for message in MESSAGES}
    assert names - covered == {"AnyMessage", "BaseMessage", "BaseMessageChunk", "RemoveMessage"}


@pytest.mark.parametrize(
    "content",
    [
        [],
        ["a", "b"],
        [{"type": "text", "text": "a"}, "b", {"type": "text", "text": "c", "index": 0}],
        [{"type": "reasoning", "text": "hidden"}, {"type": "text", "text": "shown"}],
        [{"type": "image_url", "image_url": "x"}, {"type": "text", "text": "shown"}],
        [{"text": "without a type"}, {"type": "tool_use", "name": "f"}],
    ],
)
def test_a_messages_content_blocks_give_what_langchain_calls_its_text(content: list[Any]) -> None:
    message = messages.AIMessageChunk(content=content)

    assert text_of(dumps(message)) == str(message.text)


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b"1",
        b"true",
        b"NaN",
        b"[]",
        b'["a"]',
        b"{}",
        b'{"content":"a"}',
        b'{"type":"ai"}',
        b'{"type":"ai","content":null}',
        b'{"type":"ai","content":{"text":"a"}}',
        b'{"type":"document","content":"a"}',
        b'{"type":["ai"],"content":"a"}',
        b'{"type":{},"content":"a"}',
        b'{"type":"remove","content":"","id":"1"}',
        b'{"type":"text","text":"a"}',
        b"",
        b'"',
        b'"a" "b"',
        b'"\xff"',
        b"{",
        b"not json",
        b'{"type":"ai","content":' + b"[" * 5000,
        b'{"n":' + b"9" * 5000 + b"}",
        b'{"n":NaN}',
        b' ["a"]',
    ],
    ids=lambda data: ascii(data)[:40],
)
def test_anything_else_has_no_text(data: bytes) -> None:
    assert text_of(data) is None


def test_blocks_that_are_no_text_are_left_out_whatever_they_are() -> None:
    content = b'["a",1,null,["b"],{"type":"text"},{"type":"text","text":7},{"type":["text"]}]'

    assert text_of(b'{"type":"ai","content":%b}' % content) == "a"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"a\ud800b"', "a\ufffdb"),
        (rb'"a\udc00\ud800"', "a\ufffd\ufffd"),
        (rb'"\ufeff\ud800\ud83d\ude00"', "\ufeff\ufffd\U0001f600"),
        (rb'{"type":"ai","content":"a\ud800"}', "a\ufffd"),
    ],
)
def test_a_lone_surrogate_is_replaced_as_utf_8_has_none(data: bytes, text: str) -> None:
    assert text_of(data) == text


def test_an_escaped_pair_that_was_cut_in_two_chunks_spoils_neither() -> None:
    first, second = (dumps(half) for half in ("so\ud83d", "\ude00, so"))

    assert (text_of(first), text_of(second)) == ("so\ufffd", "\ufffd, so")


@pytest.mark.parametrize(
    "data", [b'  "a"', b'\t"a" ', b' {"type": "ai", "content": "a", "score": NaN}']
)
def test_the_json_of_a_custom_serializer_is_read_too(data: bytes) -> None:
    assert text_of(data) == "a"
