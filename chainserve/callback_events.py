"""The events of a run as `invoke` and `batch` answer them; errors are without their text."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, Generation, RunInfo
from pydantic import BaseModel, RootModel, SerializeAsAny


class BaseCallback(BaseModel):
    """What all events have."""

    run_id: UUID
    parent_run_id: UUID | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    kwargs: dict[str, Any] | None = None


class Error(BaseModel):
    """An exception, as callers are told of it."""

    status_code: int
    message: str
    type: Literal["error"] = "error"


class OnChainStart(BaseCallback):
    """A chain, or a step of one, starts."""

    serialized: dict[str, Any] | None = None
    inputs: Any
    type: Literal["on_chain_start"] = "on_chain_start"


class OnChainEnd(BaseCallback):
    """It has ended."""

    outputs: Any
    type: Literal["on_chain_end"] = "on_chain_end"


class OnChainError(BaseCallback):
    """It has failed."""

    error: Error
    type: Literal["on_chain_error"] = "on_chain_error"


class OnToolStart(BaseCallback):
    """A tool starts."""

    serialized: dict[str, Any] | None = None
    input_str: str
    type: Literal["on_tool_start"] = "on_tool_start"


class OnToolEnd(BaseCallback):
    """It has ended; its output may be anything."""

    output: Any
    type: Literal["on_tool_end"] = "on_tool_end"


class OnToolError(BaseCallback):
    """It has failed."""

    error: Error
    type: Literal["on_tool_error"] = "on_tool_error"


class OnChatModelStart(BaseCallback):
    """A chat model starts."""

    serialized: dict[str, Any] | None = None
    messages: list[list[SerializeAsAny[BaseMessage]]]
    type: Literal["on_chat_model_start"] = "on_chat_model_start"


class OnLLMStart(BaseCallback):
    """A completion model starts."""

    serialized: dict[str, Any] | None = None
    prompts: list[str]
    type: Literal["on_llm_start"] = "on_llm_start"


class LLMResult(BaseModel):
    """What a model answered."""

    generations: list[list[ChatGeneration | Generation]]
    llm_output: dict[str, Any] | None = None
    run: list[RunInfo] | None = None


class OnLLMEnd(BaseCallback):
    """A model has ended."""

    response: LLMResult
    type: Literal["on_llm_end"] = "on_llm_end"


class OnLLMError(BaseCallback):
    """It has failed."""

    error: Error
    type: Literal["on_llm_error"] = "on_llm_error"


class OnRetrieverStart(BaseCallback):
    """A retriever starts."""

    serialized: dict[str, Any] | None = None
    query: str
    type: Literal["on_retriever_start"] = "on_retriever_start"


class OnRetrieverEnd(BaseCallback):
    """It has ended."""

    documents: Sequence[Document]
    type: Literal["on_retriever_end"] = "on_retriever_end"


class OnRetrieverError(BaseCallback):
    """It has failed."""

    error: Error
    type: Literal["on_retriever_error"] = "on_retriever_error"


class OnAgentAction(BaseCallback):
    """An agent has decided what to do."""

    action: Any
    type: Literal["on_agent_action"] = "on_agent_action"


class OnAgentFinish(BaseCallback):
    """An agent has come to its end."""

    finish: Any
    type: Literal["on_agent_finish"] = "on_agent_finish"


CallbackEvent = RootModel[
    OnChainStart
    | OnChainEnd
    | OnChainError
    | OnChatModelStart
    | OnLLMStart
    | OnLLMEnd
    | OnLLMError
    | OnToolStart
    | OnToolEnd
    | OnToolError
    | OnRetrieverStart
    | OnRetrieverEnd
    | OnRetrieverError
    | OnAgentAction
    | OnAgentFinish
]
"""Any of the events; `type` says which."""
