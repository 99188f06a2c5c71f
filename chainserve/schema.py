"""Request and response bodies as pydantic models: the counterpart of `langserve.schema`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from chainserve.types import RunMode, RunStatus


class CustomUserType(BaseModel):
    """Base class for input models that the chain wants as they are.

    Other pydantic models in a chain's input type are turned into dicts before the chain sees them.
    """


class FeedbackToken(BaseModel):
    """A token with which a caller may give feedback on one run."""

    key: str
    token_url: str | None = None
    expires_at: datetime | None = None


class BaseFeedback(BaseModel):
    """What feedback on a run says."""

    run_id: UUID | None = Field(description="The run that it is about.")
    key: str = Field(description="What it is about, such as `correctness`.")
    score: float | int | bool | None = None
    value: float | int | bool | str | dict[Any, Any] | None = None
    comment: str | None = None


class FeedbackCreateRequest(BaseFeedback):
    """The body of `POST feedback`."""

    run_id: UUID = Field(description="The run that it is about.")


class Feedback(BaseFeedback):
    """Feedback that LangSmith was sent."""

    id: UUID
    created_at: datetime
    modified_at: datetime
    correction: dict[Any, Any] | None = None


class FeedbackCreateRequestTokenBased(BaseModel):
    """The body of `POST token_feedback`."""

    token_or_url: UUID | str = Field(description="What the run's `feedback_tokens` have.")
    score: float | int | bool | None = None
    value: float | int | bool | str | dict[Any, Any] | None = None
    comment: str | None = None
    correction: dict[Any, Any] | None = None
    metadata: dict[Any, Any] | None = None


class PublicTraceLinkCreateRequest(BaseModel):
    """The body of `PUT public_trace_link`."""

    run_id: UUID


class PublicTraceLink(BaseModel):
    """Where anybody can see the trace of a run."""

    public_url: str


class SharedResponseMetadata(BaseModel):
    """Base class of what answers say beside their outputs."""


class InvokeResponseMetadata(SharedResponseMetadata):
    """What is known of the run behind a response."""

    run_id: str = Field(description="The run's id, a UUID.")
    feedback_tokens: list[FeedbackToken] = Field(
        default_factory=list, description="Tokens for feedback, if the server gives them."
    )


SingletonResponseMetadata = InvokeResponseMetadata
"""LangServe's older name of it."""


class BatchResponseMetadata(SharedResponseMetadata):
    """What is known of the runs behind a batch, in the order of its inputs."""

    responses: list[InvokeResponseMetadata]
    run_ids: list[str]


class RunError(BaseModel):
    """Why a run did not succeed."""

    status_code: int
    message: str
    code: str = Field(description="A stable name of the error.")


class RunDetails(BaseModel):
    """What is known of a run; members that are not known yet are left out."""

    run_id: str = Field(description="The run's id, a UUID.")
    status: RunStatus
    mode: RunMode
    stream_url: str = Field(description="Where its log is read, relative to the request's URL.")
    created_at: str = Field(description="When it was started (RFC 3339).")
    ended_at: str | None = Field(None, description="When it ended.")
    output: Any = Field(None, description="The output, if it succeeded and was kept.")
    error: RunError | None = None
    usage: dict[str, Any] | None = Field(
        None, description="The tokens its models counted, as LangChain's UsageMetadata."
    )


class RunList(BaseModel):
    """The caller's runs, the newest first."""

    runs: list[RunDetails]


class ProblemDetails(BaseModel):
    """An error: a problem document (RFC 9457), with the members that LangChain clients read."""

    type: str = Field(description="A URI reference that identifies the kind of problem.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: Any = Field(description="What is wrong; for an invalid input, the list of its errors.")
    code: str = Field(description="A stable name of the error.")
    message: str = Field(description="One sentence that says what to change.")
