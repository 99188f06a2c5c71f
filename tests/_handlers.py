"""Handlers that write into a journal what they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from tests._journal import Journal

EVENTS = (
    "on_llm_start",
    "on_chat_model_start",
    "on_llm_new_token",
    "on_llm_end",
    "on_llm_error",
    "on_stream_event",
    "on_chain_start",
    "on_chain_end",
    "on_chain_error",
    "on_tool_start",
    "on_tool_end",
    "on_tool_error",
    "on_agent_action",
    "on_agent_finish",
    "on_retriever_start",
    "on_retriever_end",
    "on_retriever_error",
    "on_text",
    "on_retry",
    "on_custom_event",
)


def handler(journal: Journal, kind: str, *, fails: str = "", raises: bool = False) -> Any:
    """Return a handler that tells the journal all that it is told.

    Args:
        kind: `sync`, `inline` or `async`.
        fails: The method that raises when it has told.
        raises: Whether LangChain is to let that error out.
    """
    base = AsyncCallbackHandler if kind == "async" else BaseCallbackHandler
    methods = {name: _method(journal, name, kind, fails) for name in EVENTS}
    members = {**methods, "run_inline": kind == "inline", "raise_error": raises}
    return type(f"{kind.title()}Handler", (base,), members)()


def _method(journal: Journal, name: str, kind: str, fails: str) -> Callable[..., Any]:
    def tell(self: Any, *args: Any, **kwargs: Any) -> None:
        journal.tell(name, args, kwargs)
        if name == fails:
            raise ValueError(f"the handler fails in {name}")

    async def atell(self: Any, *args: Any, **kwargs: Any) -> None:
        tell(self, *args, **kwargs)

    method: Callable[..., Any] = atell if kind == "async" else tell
    method.__name__ = name
    return method
