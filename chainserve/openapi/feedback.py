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

    async def documented(body: Any) -> None:
        raise NotImplementedError

    described = description_of(
        documented,
        "Feedback",
        "Send feedback on a run to LangSmith.",
        *BODY_PROBLEMS,
        404,
        502,
        504,
    )
    return {**described, **bodies(documented, FeedbackCreateRequest, Feedback)}


def check_feedback(_: BodyModels) -> Documentation:
    """Describe `HEAD feedback`."""
    return _check("Check feedback", "Tell whether feedback may be sent: 200, or 400.")


def create_feedback_from_token(_: BodyModels) -> Documentation:
    """Describe `POST token_feedback`."""

    async def documented(body: Any) -> None:
        raise NotImplementedError

    description = "Send the feedback to LangSmith that a token allows."
    described = description_of(
        documented, "Token feedback", description, *BODY_PROBLEMS, 404, 502, 504
    )
    return {**described, **bodies(documented, FeedbackCreateRequestTokenBased, None)}


def create_public_trace_link(_: BodyModels) -> Documentation:
    """Describe `PUT public_trace_link`."""

    async def documented(body: Any) -> None:
        raise NotImplementedError

    description = "Make the LangSmith trace of a run public, and answer where it is."
    described = description_of(
        documented, "Public trace link", description, *BODY_PROBLEMS, 404, 502, 504
    )
    return {**described, **bodies(documented, PublicTraceLinkCreateRequest, PublicTraceLink)}


def check_public_trace_link(_: BodyModels) -> Documentation:
    """Describe `HEAD public_trace_link`."""
    return _check("Check public trace link", "Tell whether traces may be made public: 200, or 400.")


def _check(summary: str, description: str) -> Documentation:
    """Describe a route that tells whether another can be used."""

    async def documented() -> None:
        raise NotImplementedError

    return description_of(documented, summary, description, 400)
