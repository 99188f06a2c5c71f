"""What callers send to LangSmith."""

from typing import Any

from chainserve.bodies import BodyModels
from chainserve.openapi.describing import BODY_PROBLEMS, Documentation, bodies, description_of
from chainserve.schema import (
    Feedback,
    FeedbackCreateRequest,
    FeedbackCreateRequestTokenBased,
    PublicTraceLink,
    PublicTraceLinkCreateRequest,
)


def create_feedback(_: BodyModels) -> Documentation:
    """Describe `POST feedback`."""
    description = "Send feedback on a run to LangSmith."
    return _sent("Feedback", description, FeedbackCreateRequest, Feedback)


def create_feedback_from_token(_: BodyModels) -> Documentation:
    """Describe `POST token_feedback`."""
    description = "Send the feedback to LangSmith that a token allows."
    return _sent("Token feedback", description, FeedbackCreateRequestTokenBased, None)


def create_public_trace_link(_: BodyModels) -> Documentation:
    """Describe `PUT public_trace_link`."""
    description = "Make the LangSmith trace of a run public, and answer where it is."
    return _sent("Public trace link", description, PublicTraceLinkCreateRequest, PublicTraceLink)


def _sent(summary: str, description: str, request: Any, answer: Any) -> Documentation:
    """Describe a route that passes something on to LangSmith."""

    async def documented(body: Any) -> None:
        raise NotImplementedError

    statuses = (*BODY_PROBLEMS, 404, 502, 504)
    described = description_of(documented, summary, description, *statuses)
    return {**described, **bodies(documented, request, answer)}


def check_feedback(_: BodyModels) -> Documentation:
    """Describe `HEAD feedback`."""
    return _check("Check feedback", "Tell whether feedback may be sent: 200, or 400.")


def check_public_trace_link(_: BodyModels) -> Documentation:
    """Describe `HEAD public_trace_link`."""
    return _check("Check public trace link", "Tell whether traces may be made public: 200, or 400.")


def _check(summary: str, description: str) -> Documentation:
    """Describe a route that tells whether another can be used."""

    async def documented() -> None:
        raise NotImplementedError

    return description_of(documented, summary, description, 400)
