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

_MODELS_TYPES = ("ai", "AIMessageChunk")

_MAY_BE_TEXT = (b'"', b"{", b"[", b" ", b"\t")
"""How the JSON of what may be text begins; a custom serializer may write spaces first."""


def text_of(data: bytes) -> str | None:
    """Return the text that the JSON of a chunk stands for, or None if it is not text.

    A string is itself. A LangChain message is its content, or the text blocks of its content
    without the others. Of the pair of message and metadata that a LangGraph graph streams for each
    token, the text is that of a model's message, and empty for any other. The text always has a
    form in UTF-8: a lone surrogate becomes U+FFFD.
    """
    if not data.startswith(_MAY_BE_TEXT):
        return None
    try:
        value = orjson.loads(data)
    except ValueError:
        return _text_slowly(data)
    return value if isinstance(value, str) else _text_of_value(value)


def _text_slowly(data: bytes) -> str | None:
    """Read what orjson refuses: an escaped lone surrogate, or NaN beside the text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # A custom serializer may write what is not JSON.
        return None
    text = value if isinstance(value, str) else _text_of_value(value)
    if text is None:
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text_of_value(value: Any) -> str | None:
    """Return the text of a message, or of a graph's pair; None for any other value."""
    if not isinstance(value, list):
        return _message_text(value)
    if len(value) != 2 or not isinstance(value[1], dict) or "langgraph_node" not in value[1]:
        return None
    text = _message_text(value[0])
    is_models = isinstance(value[0], dict) and value[0].get("type") in _MODELS_TYPES
    return text if text is None or is_models else ""


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
