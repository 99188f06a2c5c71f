"""The text of a chunk."""

import json
from typing import Any

import orjson

_MESSAGE_TYPES = frozenset(
    [
        "ai",
        "AIMessageChunk",
        "chat",
        "ChatMessageChunk",
        "function",
        "FunctionMessageChunk",
        "human",
        "HumanMessageChunk",
        "system",
        "SystemMessageChunk",
        "tool",
        "ToolMessageChunk",
    ]
)
"""The `type` of LangChain's messages, except `remove`, which says nothing."""

_MAY_BE_TEXT = (b'"', b"{", b" ", b"\t")
"""How the JSON of a string or an object begins; a custom serializer may write spaces first."""


def text_of(data: bytes) -> str | None:
    """Return the text that the JSON of a chunk stands for, or None if it is not text.

    A string is itself. A LangChain message is its content, or the text blocks of its content
    without the others. The text always has a form in UTF-8: a lone surrogate becomes U+FFFD.
    """
    if not data.startswith(_MAY_BE_TEXT):
        return None
    try:
        value = orjson.loads(data)
    except ValueError:
        return _text_slowly(data)
    return value if isinstance(value, str) else _message_text(value)


def _text_slowly(data: bytes) -> str | None:
    """Read what orjson refuses: an escaped lone surrogate, or NaN beside the text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # A custom serializer may write what is not JSON.
        return None
    text = value if isinstance(value, str) else _message_text(value)
    if text is None:
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _message_text(value: Any) -> str | None:
    """Return the text of a message, None for any other value."""
    if not isinstance(value, dict):
        return None
    kind, content = value.get("type"), value.get("content")
    if not isinstance(kind, str) or kind not in _MESSAGE_TYPES:
        return None
    if isinstance(content, list):
        return "".join(map(_block_text, content))
    return content if isinstance(content, str) else None


def _block_text(block: Any) -> str:
    """Return the text of a content block, empty if it is of another kind."""
    if isinstance(block, dict):
        block = block.get("text") if block.get("type") == "text" else None
    return block if isinstance(block, str) else ""
