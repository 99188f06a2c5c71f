"""LangChain's objects from the plain data in which they travel.

The data says by its `type` which class of a closed list it is an instance of. Nothing else is ever
made of it: no constructor of another class runs, no secret is looked up.
"""

from typing import Any

from langchain_core.agents import AgentAction, AgentActionMessageLog, AgentFinish
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult
from langchain_core.prompt_values import ChatPromptValueConcrete, StringPromptValue
from pydantic import BaseModel

CLASSES: dict[str, type[BaseModel]] = {
    "ai": AIMessage,
    "human": HumanMessage,
    "chat": ChatMessage,
    "system": SystemMessage,
    "function": FunctionMessage,
    "tool": ToolMessage,
    "AIMessageChunk": AIMessageChunk,
    "HumanMessageChunk": HumanMessageChunk,
    "ChatMessageChunk": ChatMessageChunk,
    "SystemMessageChunk": SystemMessageChunk,
    "FunctionMessageChunk": FunctionMessageChunk,
    "ToolMessageChunk": ToolMessageChunk,
    "Document": Document,
    "StringPromptValue": StringPromptValue,
    "ChatPromptValueConcrete": ChatPromptValueConcrete,
    "AgentAction": AgentAction,
    "AgentFinish": AgentFinish,
    "AgentActionMessageLog": AgentActionMessageLog,
    "ChatGeneration": ChatGeneration,
    "Generation": Generation,
    "ChatGenerationChunk": ChatGenerationChunk,
    "LLMResult": LLMResult,
}
"""The classes by the `type` of their data, as in LangServe."""

_EXTENSIBLE = frozenset(
    name for name, cls in CLASSES.items() if cls.model_config.get("extra") == "allow"
)
"""Those whose objects keep members that their class does not have: messages."""


def decode(value: Any) -> Any:
    """Return plain data with LangChain's objects in the place of what stands for them.

    A dict stays a dict if its `type` is none of theirs, if it does not fit the class, or if it has
    members that the object would lose.
    """
    if isinstance(value, dict):
        decoded = {
            key: decode(item) if isinstance(item, dict | list) else item
            for key, item in value.items()
        }
        return _object(decoded) if "type" in decoded else decoded
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def _object(members: dict[str, Any]) -> Any:
    """Return the object that a dict stands for, or the dict."""
    type_ = members["type"]
    cls = CLASSES.get(type_) if isinstance(type_, str) else None
    if cls is None:
        return members
    if type_ not in _EXTENSIBLE and not members.keys() <= cls.model_fields.keys():
        return members
    try:
        # A copy, for validators of LangChain change what they are given, also before they fail.
        return cls.model_validate({**members})
    except Exception:  # noqa: BLE001 - and they raise KeyError and more of what does not fit
        return members
