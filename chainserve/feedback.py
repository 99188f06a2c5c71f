"""What LangSmith is asked: tokens for feedback, feedback, and links to traces."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from langsmith import AsyncClient
from langsmith.utils import LangSmithNotFoundError, get_api_url, tracing_is_enabled

from chainserve.errors import (
    FeedbackNotEnabledError,
    RunNotFoundError,
    UpstreamError,
    UpstreamTimeoutError,
)
from chainserve.schema import (
    Feedback,
    FeedbackCreateRequest,
    FeedbackCreateRequestTokenBased,
    FeedbackToken,
)
from chainserve.translation import upstream_cause
from chainserve.types import RunId
from chainserve.validation import input_error

TOKEN_TIMEOUT = 2.0
"""Seconds in which LangSmith must give a token; an answer goes without it otherwise."""

ANSWER_TIMEOUT = 10.0
"""Seconds in which LangSmith must answer what a caller waits for."""

_SOURCE = {"from_langserve": True}
"""What LangSmith shows of where feedback came from, in LangServe's word."""

_Answer = TypeVar("_Answer")


class LangSmith:
    """Asks LangSmith on behalf of callers, within bounds of time and off no thread.

    Its address and key are those of the environment, as LangSmith's own client reads them; the
    client is made when it is first needed.

    Args:
        log: Where it is noted what LangSmith did not do.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._made: AsyncClient | None = None

    async def token(self, run_id: RunId, key: str) -> FeedbackToken | None:
        """Return a token for feedback on a run; None if LangSmith gives none in time."""
        try:
            async with asyncio.timeout(TOKEN_TIMEOUT):
                token = await self._client().create_presigned_feedback_token(UUID(run_id), key)
        except Exception as error:  # noqa: BLE001 - no answer fails with LangSmith
            self._log.warning("no feedback token", run_id=run_id, **upstream_cause(error))
            return None
        return FeedbackToken(key=key, token_url=token.url, expires_at=token.expires_at)

    async def create_feedback(self, asked: FeedbackCreateRequest) -> Feedback:
        """Send feedback on a run, and return it as it was sent.

        Raises:
            UpstreamError: LangSmith does not take it.
        """
        sent = await self._asked(
            self._client().create_feedback(
                asked.run_id,
                asked.key,
                score=asked.score,
                value=asked.value,
                comment=asked.comment,
                source_info=_SOURCE,
                stop_after_attempt=1,
            )
        )
        return Feedback(
            id=sent.id,
            run_id=sent.run_id,
            created_at=sent.created_at,
            modified_at=sent.modified_at,
            key=sent.key,
            score=sent.score,
            value=sent.value,
            comment=sent.comment,
        )

    async def create_feedback_from_token(self, asked: FeedbackCreateRequestTokenBased) -> None:
        """Send the feedback that a token allows.

        Raises:
            InvalidInputError: It is no token of the LangSmith that this server uses.
            UpstreamError: LangSmith does not take it.
        """
        client = self._client()
        await self._asked(
            client.create_feedback_from_token(
                self._token_of(asked.token_or_url),
                score=asked.score,
                value=asked.value,
                correction=asked.correction,
                comment=asked.comment,
                metadata={**(asked.metadata or {}), **_SOURCE},
            )
        )

    async def share_run(self, run_id: UUID) -> str:
        """Make the trace of a run public, and return its URL.

        Raises:
            RunNotFoundError: LangSmith knows no such run.
            UpstreamError: LangSmith does not do it.
        """
        return str(await self._asked(self._client().share_run(run_id)))

    async def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            await self._made.aclose()  # type: ignore[no-untyped-call]

    def _client(self) -> AsyncClient:
        if self._made is None:
            self._made = AsyncClient()
        return self._made

    def _token_of(self, token_or_url: UUID | str) -> UUID:
        """Return the token itself: a URL is never asked, whatever it is."""
        text = str(token_or_url)
        own = urlsplit(get_api_url(None))
        try:
            scheme, netloc, path, *_ = urlsplit(text)
            if (scheme, netloc) in (("", ""), (own.scheme, own.netloc)):
                return UUID(path.rstrip("/").rpartition("/")[2])
        except ValueError:
            pass
        message = "Input should be a token, or its URL, of the LangSmith that this server uses"
        raise input_error("invalid_token", ("body", "token_or_url"), message, text)

    async def _asked(self, answer: Awaitable[_Answer]) -> _Answer:
        """Return an answer of LangSmith's; what it says of a failure is for the log alone."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError:
            raise UpstreamTimeoutError from None
        except LangSmithNotFoundError:
            raise RunNotFoundError from None
        except Exception as error:
            self._log.warning("LangSmith failed", **upstream_cause(error))
            raise UpstreamError("LangSmith did not take the request.") from error


def require_tracing(*, enabled: bool, option: str) -> None:
    """Refuse a request that makes sense only where runs are traced and an option is set.

    Raises:
        FeedbackNotEnabledError: They are not, or it is not.
    """
    if not (enabled and tracing_is_enabled()):
        raise FeedbackNotEnabledError(option)
