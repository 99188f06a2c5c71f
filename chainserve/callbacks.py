"""What a run tells while LangChain runs it: its output, its tokens, and what happened inside it."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, TypedDict, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import BaseRunManager, ahandle_event, handle_event
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, LLMResult

NOTHING: Any = object()
"""The output of a run that has told none."""


_ASKING = 1 if sys.version_info >= (3, 12) else 2
"""Where the function that asks a handler is; comprehensions had a frame of their own once."""


class InlineHandler(BaseCallbackHandler):
    """A handler that LangChain calls in place: else it starts a task, or a thread, for each token.

    langchain-core's `AsyncCallbackManager.on_llm_start` tells no other handler of the start of a
    completion model where one runs inline. So there, and there alone, it is said not to.
    """

    @property
    def run_inline(self) -> bool:  # type: ignore[override]
        """Whether the handler is called in place."""
        return sys._getframe(_ASKING).f_code.co_name != "on_llm_start"


class RunObserver(InlineHandler):
    """Notes how one root run ended, and the usage of all models below it.

    Attributes:
        output: What the root run returned, or `NOTHING`.
        was_cancelled: Whether it ended so.
        usage: The tokens of all models together; None if none counted them.
    """

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self.output: Any = NOTHING
        self.was_cancelled = False
        self.usage: UsageMetadata | None = None

    def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note the output of the root run."""
        self._note(outputs, run_id, parent_run_id)

    def on_tool_end(
        self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note the output of a root run that is a tool."""
        self._note(output, run_id, parent_run_id)

    def on_retriever_end(
        self, documents: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note the output of a root run that is a retriever."""
        self._note(documents, run_id, parent_run_id)

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note that the root run was cancelled; the error itself would keep its frames alive."""
        if run_id == self._run_id:
            self.was_cancelled = isinstance(error, asyncio.CancelledError)

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; without this, LangChain writes all messages as text to tell of the start."""

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Add a model's usage; note its message if it is the root run."""
        for generation in (first for prompt in response.generations for first in prompt[:1]):
            message = generation.message if isinstance(generation, ChatGeneration) else None
            self._note(generation.text if message is None else message, run_id, parent_run_id)
            if isinstance(message, AIMessage) and message.usage_metadata is not None:
                self.usage = add_usage(self.usage, _counts(message.usage_metadata))

    def wants(self, run_id: UUID, parent_run_id: UUID | None) -> bool:
        """Tell whether the output of a run is what to note: whether it is the root run."""
        # A modifier may give the root run a parent; a retriever does not take the run's id.
        return run_id == self._run_id or parent_run_id is None

    def _note(self, output: Any, run_id: UUID, parent_run_id: UUID | None) -> None:
        if self.wants(run_id, parent_run_id):
            self.output = output


def _counts(usage: Mapping[str, Any]) -> Any:
    """Return the whole numbers of a usage, at any depth: what can be added, and written as JSON."""
    counts = {}
    for name, value in usage.items():
        if isinstance(value, Mapping):
            counts[name] = _counts(value)
        elif isinstance(value, Integral):
            counts[name] = int(value)
    return counts


class CallbackEventDict(TypedDict, total=False):
    """What LangChain told a handler: `type` names the method, the other members its arguments.

    Members that a kind of event has of its own, such as `inputs` or `response`, are beside these.
    """

    type: str
    run_id: UUID
    parent_run_id: UUID | None


_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "on_chain_start": ("serialized", "inputs"),
    "on_chain_end": ("outputs",),
    "on_chain_error": ("error",),
    "on_chat_model_start": ("serialized", "messages"),
    "on_llm_start": ("serialized", "prompts"),
    "on_llm_end": ("response",),
    "on_llm_error": ("error",),
    "on_tool_start": ("serialized", "input_str"),
    "on_tool_end": ("output",),
    "on_tool_error": ("error",),
    "on_retriever_start": ("serialized", "query"),
    "on_retriever_end": ("documents",),
    "on_retriever_error": ("error",),
    "on_agent_action": ("action",),
    "on_agent_finish": ("finish",),
}
"""How an event names what LangChain gives a handler's method by position."""


def _noting(type_: str) -> Any:
    """Return a handler's method that notes its arguments.

    Args:
        type_: The method's name.
    """
    names = _ARGUMENTS[type_]

    def note(
        self: "AsyncEventAggregatorCallback",
        *values: Any,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        own = dict(zip(names, values, strict=False))
        own |= {name: kwargs.pop(name) for name in names if name in kwargs}
        event: dict[str, Any] = {"run_id": run_id, "parent_run_id": parent_run_id, "tags": tags}
        event |= {"metadata": metadata, **own, "kwargs": kwargs, "type": type_}
        self.log_callback(cast("CallbackEventDict", event))

    return note


class AsyncEventAggregatorCallback(InlineHandler):
    """Notes what happens in a run, from its start to its end, tokens aside.

    Attributes:
        callback_events: What has happened, in its order, with the objects themselves.
    """

    def __init__(self) -> None:
        self.callback_events: list[CallbackEventDict] = []

    def log_callback(self, event: CallbackEventDict) -> None:
        """Note an event."""
        self.callback_events.append(event)

    on_chain_start = _noting("on_chain_start")
    on_chain_end = _noting("on_chain_end")
    on_chain_error = _noting("on_chain_error")
    on_chat_model_start = _noting("on_chat_model_start")
    on_llm_start = _noting("on_llm_start")
    on_llm_end = _noting("on_llm_end")
    on_llm_error = _noting("on_llm_error")
    on_tool_start = _noting("on_tool_start")
    on_tool_end = _noting("on_tool_end")
    on_tool_error = _noting("on_tool_error")
    on_retriever_start = _noting("on_retriever_start")
    on_retriever_end = _noting("on_retriever_end")
    on_retriever_error = _noting("on_retriever_error")
    on_agent_action = _noting("on_agent_action")
    on_agent_finish = _noting("on_agent_finish")


NAME_TO_IGNORE_CONDITION: dict[str, str | None] = {
    "on_text": None,
    "on_retry": "ignore_retry",
    "on_chain_start": "ignore_chain",
    "on_chain_end": "ignore_chain",
    "on_chain_error": "ignore_chain",
    "on_chat_model_start": "ignore_chat_model",
    "on_llm_start": "ignore_llm",
    "on_llm_end": "ignore_llm",
    "on_llm_error": "ignore_llm",
    "on_tool_start": "ignore_agent",
    "on_tool_end": "ignore_agent",
    "on_tool_error": "ignore_agent",
    "on_agent_action": "ignore_agent",
    "on_agent_finish": "ignore_agent",
    "on_retriever_start": "ignore_retriever",
    "on_retriever_end": "ignore_retriever",
    "on_retriever_error": "ignore_retriever",
}
"""What a handler says of itself when it wants no events of a kind."""


def replace_uuids(callback_events: Sequence[CallbackEventDict]) -> list[CallbackEventDict]:
    """Return the events with new ids for their runs, the same for the same."""
    ids: dict[UUID, UUID] = defaultdict(uuid4)
    replaced = []
    for event in callback_events:
        copied: Any = dict(event)
        for name in ("run_id", "parent_run_id"):
            if copied.get(name) is not None:
                copied[name] = ids[copied[name]]
        replaced.append(copied)
    return replaced


async def ahandle_callbacks(
    callback_manager: BaseRunManager, callback_events: Sequence[CallbackEventDict]
) -> None:
    """Tell a run's handlers of events as if they had happened below it, one after another."""
    for event, named in _retold(callback_manager, callback_events):
        await ahandle_event(callback_manager.handlers, *event, **named)


def handle_callbacks(
    callback_manager: BaseRunManager, callback_events: Sequence[CallbackEventDict]
) -> None:
    """Tell a run's handlers of events as if they had happened below it, one after another."""
    for event, named in _retold(callback_manager, callback_events):
        handle_event(callback_manager.handlers, *event, **named)


def _retold(
    callback_manager: BaseRunManager, callback_events: Sequence[CallbackEventDict]
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Yield the method of each event, what handlers ignore it by, and its arguments, as LangChain.

    A handler may name what it is given by position as it likes. Without a method for chat models,
    it is told of a completion model, for which LangChain itself needs what it has given so.
    """
    for event in replace_uuids(callback_events):
        own: dict[str, Any] = {**event}
        named = (own.pop("kwargs", None) or {}) | own
        type_ = named.pop("type")
        if named.get("parent_run_id") is None:
            named["parent_run_id"] = callback_manager.run_id
        placed = [named.pop(name, None) for name in _ARGUMENTS.get(type_, ())]
        yield [type_, NAME_TO_IGNORE_CONDITION.get(type_), *placed], named
