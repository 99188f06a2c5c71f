"""Feedback on runs, and public links to their traces: what a chain's callers send to LangSmith."""

from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from chainserve.errors import InvalidInputError
from chainserve.feedback import require_tracing
from chainserve.routes.requests import answers_errors
from chainserve.routes.starting import RunStarter
from chainserve.runtime import runtime_of
from chainserve.schema import (
    FeedbackCreateRequest,
    FeedbackCreateRequestTokenBased,
    PublicTraceLink,
    PublicTraceLinkCreateRequest,
)
from chainserve.validation import errors_of

_Body = TypeVar("_Body", bound=BaseModel)


class FeedbackRoutes:
    """The handlers of one chain's `feedback`, `token_feedback` and `public_trace_link`.

    Where runs belong to principals, only a run of the caller's own that this server still knows may
    be spoken of; who has a feedback token needs no more.

    Args:
        starter: Finds the chain's runs.
    """

    def __init__(self, starter: RunStarter) -> None:
        self._starter = starter

    @answers_errors
    async def create_feedback(self, request: Request) -> Response:
        """Send feedback on a run."""
        await self._check(request)
        self._require_feedback()
        body = await self._body(request, FeedbackCreateRequest)
        await self._check_owner(request, body.run_id)
        return _json(await runtime_of(request).langsmith.create_feedback(body))

    @answers_errors
    async def check_feedback(self, request: Request) -> Response:
        """Tell whether feedback may be sent."""
        await self._check(request)
        self._require_feedback()
        return Response()

    @answers_errors
    async def create_feedback_from_token(self, request: Request) -> Response:
        """Send the feedback that a token allows."""
        await self._check(request)
        has_tokens = self._starter.chain.feedback_key is not None
        require_tracing(enabled=has_tokens, option="token_feedback_config")
        body = await self._body(request, FeedbackCreateRequestTokenBased)
        await runtime_of(request).langsmith.create_feedback_from_token(body)
        return Response(b"null", media_type="application/json")

    @answers_errors
    async def create_public_trace_link(self, request: Request) -> Response:
        """Make the trace of a run public."""
        await self._check(request)
        self._require_links()
        body = await self._body(request, PublicTraceLinkCreateRequest)
        await self._check_owner(request, body.run_id)
        url = await runtime_of(request).langsmith.share_run(body.run_id)
        return _json(PublicTraceLink(public_url=url))

    @answers_errors
    async def check_public_trace_link(self, request: Request) -> Response:
        """Tell whether traces may be made public."""
        await self._check(request)
        self._require_links()
        return Response()

    def _require_feedback(self) -> None:
        enabled = self._starter.chain.enable_feedback_endpoint
        require_tracing(enabled=enabled, option="enable_feedback_endpoint")

    def _require_links(self) -> None:
        enabled = self._starter.chain.enable_public_trace_link_endpoint
        require_tracing(enabled=enabled, option="enable_public_trace_link_endpoint")

    async def _check(self, request: Request) -> None:
        """Refuse a config in the URL that cannot be used, and what the chain's modifier refuses."""
        await self._starter.config(None, request, "feedback")

    async def _check_owner(self, request: Request, run_id: UUID) -> None:
        """Refuse what is not the caller's, where that is known.

        Raises:
            RunNotFoundError: There is no such run, or it is another caller's.
        """
        if self._starter.has_owners(request):
            await self._starter.find(request, str(run_id), 1)

    async def _body(self, request: Request, model: type[_Body]) -> _Body:
        """Return the body, whose errors are FastAPI's, as LangServe leaves them to it."""
        read = await self._starter.read(request)
        try:
            return model.model_validate(read.data, from_attributes=True)
        except ValidationError as error:
            errors = errors_of(error, loc=("body",))
            shown = [{name: part for name, part in one.items() if name != "url"} for one in errors]
            raise InvalidInputError(shown) from None


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
