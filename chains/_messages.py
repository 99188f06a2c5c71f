"""The conversation that `/chat` and `/agent` take."""

from typing import Annotated, Any, TypeAlias

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, Field, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator

MAX_MESSAGES = 200
"""How many messages a conversation may have."""

MAX_PARTS = 1000
"""How many items a member of a message may have, its content blocks among them."""

_TYPES = {
    "user": "human",
    "assistant": "ai",
    "developer": "system",
    "AIMessageChunk": "ai",
    "HumanMessageChunk": "human",
}
"""Other names of the types: OpenAI's roles, and the chunks of a stream that a client sends back."""

_MESSAGE_SCHEMA = {
    "title": "Message",
    "type": "object",
    "properties": {
        "type": {
            "title": "Type",
            "enum": ["human", "ai", "system", "tool"],
            "description": "Who speaks; `role` with OpenAI's names is accepted as well.",
        },
        "content": {
            "title": "Content",
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "object"}},
            ],
            "description": "The text, or a list of content blocks.",
        },
        "tool_calls": {
            "title": "Tool calls",
            "type": "array",
            "items": {"type": "object"},
            "description": "Of an `ai` message: the calls it made.",
        },
        "tool_call_id": {
            "title": "Tool call id",
            "type": "string",
            "description": "Of a `tool` message: the call it answers.",
        },
    },
    "required": ["content"],
}


def _validate(message: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Return a message, or the reason why it is none."""
    if isinstance(message, dict):
        for name, member in message.items():
            if isinstance(member, list) and len(member) > MAX_PARTS:
                raise ValueError(f"{name[:40]} has more than {MAX_PARTS} items")
    try:
        return validate(_named_as_langchain_does(message))
    # LangChain's own validators raise these for missing and mistyped members; pydantic lets them
    # pass, and the caller would get a 500.
    except KeyError as error:
        raise ValueError(f"the message lacks {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError("a member of the message has the wrong type") from error


def _named_as_langchain_does(message: Any) -> Any:
    """Return a message's data with LangChain's `type` in place of OpenAI's `role`."""
    if not isinstance(message, dict):
        return message
    kind = message.get("type") or message.get("role")
    rest = {name: value for name, value in message.items() if name not in ("type", "role")}
    return rest | {"type": _TYPES.get(kind, kind) if isinstance(kind, str) else kind}


Message: TypeAlias = Annotated[
    Annotated[HumanMessage | AIMessage | SystemMessage | ToolMessage, Field(discriminator="type")],
    WrapValidator(_validate),
    # LangChain's own schemas are many pages, most of it what only providers write.
    WithJsonSchema(_MESSAGE_SCHEMA),
]
"""A message as LangChain or OpenAI writes it; validated to LangChain's."""


class Conversation(BaseModel):
    """What was said so far, the oldest first."""

    messages: list[Message] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="What was said so far, the oldest first; the last one is answered.",
    )
