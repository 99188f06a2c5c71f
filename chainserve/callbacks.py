"""What a run tells of itself while LangChain runs it: its final output and its token usage."""

import sys
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
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
    """Notes the output of one root run and the usage of all models below it.

    Attributes:
        output: What the root run returned, or `NOTHING`.
        usage: The tokens of all models together; None if none counted them.
    """

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self.output: Any = NOTHING
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
                self.usage = add_usage(self.usage, message.usage_metadata)

    def _note(self, output: Any, run_id: UUID, parent_run_id: UUID | None) -> None:
        # A modifier may give the root run a parent; a retriever does not take the run's id.
        if run_id == self._run_id or parent_run_id is None:
            self.output = output
