"""What LangSmith is asked: tokens for feedback, feedback, and links to traces.

LangSmith's own clients start threads, ask again for as long as a minute, share a cache with the
rest of the process, and warn of what LangServe's routes need. So its API is asked directly, by a
client that is made at the first call.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pydantic_core
from langsmith import utils
from pydantic import BaseModel

from chainserve.errors import (
    ChainServeError,
    FeedbackNotEnabledError,
    FeedbackRefusedError,
    LangSmithError,
    LangSmithNotFoundError,
    LangSmithTimeoutError,
)
from chainserve.schema import (
    Feedback,
    FeedbackCreateRequest,
    FeedbackCreateRequestTokenBased,
    FeedbackToken,
)
from chainserve.types import RunId
from chainserve.validation import input_error
from chainserve.version import __version__

if TYPE_CHECKING:
    import httpx

TOKEN_TIMEOUT = 2.0
"""Seconds in which LangSmith must give a token; an answer goes without it otherwise."""

ANSWER_TIMEOUT = 10.0
"""Seconds in which LangSmith must answer what a caller waits for."""

_PAUSES = (0.25, 0.5, 1.0, 2.0)
"""Seconds after which LangSmith is asked again about a run that it has not taken in yet."""

_MAX_CONNECTIONS = 20
_KEEPALIVE = 2.0
"""Seconds that an idle connection is used again: fewer than those after which servers close it."""

_SCORE_DIGITS = 4
"""How many digits of a score after the point LangSmith keeps."""

_SOURCE: Mapping[str, Any] = {"from_langserve": True}
"""What LangSmith shows of where feedback came from, in LangServe's word."""

_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Connection:
    """An HTTP client, and which LangSmith it asks."""

    http: "httpx.AsyncClient"
    api_url: str
    host_url: str


class _IngestToken(BaseModel):
    """What LangSmith answers who asks for a token."""

    url: str
    expires_at: datetime


class _Share(BaseModel):
    """What LangSmith answers who shares a run."""

    share_token: str


class LangSmith:
    """Asks LangSmith on behalf of callers, within bounds of time.

    Its address and key are those of the environment, as LangSmith's own clients read them; nothing
    happens before the first call. Neither the key nor a text of LangSmith's is logged or told.

    Args:
        log: Where it is noted what LangSmith did not do.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._connecting: asyncio.Task[_Connection] | None = None

    async def token(self, run_id: RunId, key: str) -> FeedbackToken | None:
        """Return a token for feedback on a run; None if LangSmith gives none in time."""
        body = {
            "run_id": run_id,
            "feedback_key": key,
            "id": str(uuid4()),
            "expires_in": {"days": 0, "hours": 3, "minutes": 0},
        }
        try:
            answer = await self._ask("POST", "/feedback/tokens", body, TOKEN_TIMEOUT)
            token = _read(_IngestToken, answer)
        except ChainServeError as error:
            self._log.warning("no feedback token", run_id=run_id, **_why(error))
            return None
        return FeedbackToken(key=key, token_url=token.url, expires_at=token.expires_at)

    async def create_feedback(self, asked: FeedbackCreateRequest) -> Feedback:
        """Send feedback on a run, and return it as it was sent.

        Raises:
            LangSmithNotFoundError: LangSmith does not know the run.
            FeedbackRefusedError: It does not take the feedback.
            LangSmithError: It failed.
        """
        now = datetime.now(UTC)
        said = asked.model_dump()
        if isinstance(asked.score, float):
            said["score"] = round(asked.score, _SCORE_DIGITS)
        feedback = Feedback(**said, id=uuid4(), created_at=now, modified_at=now)
        body = feedback.model_dump(mode="json", exclude_none=True)
        body["feedback_source"] = {"type": "api", "metadata": _SOURCE}
        await self._answer("POST", "/feedback", body, pauses=_PAUSES)
        return feedback

    async def create_feedback_from_token(self, asked: FeedbackCreateRequestTokenBased) -> None:
        """Send the feedback that a token allows.

        Raises:
            InvalidInputError: It is no token of the LangSmith that this server uses.
            LangSmithNotFoundError: LangSmith does not know the token.
            FeedbackRefusedError: It does not take the feedback.
            LangSmithError: It failed.
        """
        token = _token_of(asked.token_or_url)
        body = asked.model_dump(mode="json", exclude={"token_or_url"})
        body["metadata"] = {**(asked.metadata or {}), **_SOURCE}
        await self._answer("POST", f"/feedback/tokens/{token}", body)

    async def share_run(self, run_id: UUID) -> str:
        """Make the trace of a run public, and return its URL.

        Raises:
            LangSmithNotFoundError: LangSmith knows no such run.
            LangSmithError: It failed.
        """
        body = {"run_id": str(run_id), "share_token": str(uuid4())}
        answer = await self._answer("PUT", f"/runs/{run_id}/share", body, pauses=_PAUSES)
        share, connection = _read(_Share, answer), await self._connected()
        return f"{connection.host_url}/public/{share.share_token}/r"

    async def close(self) -> None:
        """Close the connections."""
        if self._connecting is not None:
            [made] = await asyncio.gather(self._connecting, return_exceptions=True)
            if isinstance(made, _Connection):
                await made.http.aclose()

    async def _answer(
        self, method: str, path: str, body: Mapping[str, Any], pauses: Sequence[float] = ()
    ) -> bytes:
        """Return the answer to what a caller waits for; a failure is noted."""
        try:
            return await self._ask(method, path, body, ANSWER_TIMEOUT, pauses)
        except LangSmithError as error:
            self._log.warning("LangSmith failed", **_why(error))
            raise

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        seconds: float,
        pauses: Sequence[float] = (),
    ) -> bytes:
        """Return what LangSmith answers in time; ask again after each pause while it is 404."""
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connected()
                response = await _send(connection, method, path, body)
                for pause in pauses:
                    if response.status_code != 404:
                        break
                    await asyncio.sleep(pause)
                    response = await _send(connection, method, path, body)
        except TimeoutError:
            raise LangSmithTimeoutError from None
        except ChainServeError:
            raise
        except Exception as error:
            # httpx's errors, and what becomes of an address or a key that no request can carry:
            # the texts of those may show the key.
            raise LangSmithError(type(error).__name__) from error
        if response.is_success:
            return response.content
        raise _failure(response.status_code)

    async def _connected(self) -> _Connection:
        """Return the one connection, which is made in a thread: that reads certificates."""
        if self._connecting is None:
            making = asyncio.to_thread(_connect)
            loop = asyncio.get_running_loop()
            self._connecting = loop.create_task(making, context=Context())
        return await asyncio.shield(self._connecting)


def tracing_is_on() -> bool:
    """Tell whether LangSmith traces what this request runs."""
    return bool(utils.tracing_is_enabled())


def require_tracing(*, enabled: bool, option: str) -> None:
    """Refuse a request that makes sense only where runs are traced and an option is set.

    Raises:
        FeedbackNotEnabledError: They are not, or it is not.
    """
    if not (enabled and tracing_is_on()):
        raise FeedbackNotEnabledError(option)


def _connect() -> _Connection:
    """Make the client for the LangSmith of the environment."""
    import httpx  # Here, so that servers that ask nothing do without it.

    headers = {
        "user-agent": f"chainserve/{__version__}",
        "content-type": "application/json",
        "x-api-key": utils.get_api_key(None),
        "x-tenant-id": utils.get_env_var("WORKSPACE_ID"),
    }
    http = httpx.AsyncClient(
        headers={name: value for name, value in headers.items() if value},
        timeout=None,  # Each call has one bound for all that belongs to it.
        limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEPALIVE),
    )
    api_url = utils.get_api_url(None)
    return _Connection(http, api_url, utils.get_host_url(None, api_url))


async def _send(
    connection: _Connection, method: str, path: str, body: Mapping[str, Any]
) -> "httpx.Response":
    url, content = connection.api_url + path, pydantic_core.to_json(body)
    return await connection.http.request(method, url, content=content)


def _failure(status: int) -> ChainServeError:
    """Return the error that a status of LangSmith's stands for."""
    if status in (404, 410):
        return LangSmithNotFoundError()
    if status in (400, 409, 413, 422):
        return FeedbackRefusedError(status)
    return LangSmithError(f"status {status}")


def _read(model: type[_Answer], answer: bytes) -> _Answer:
    """Return the members of an answer.

    Raises:
        LangSmithError: It lacks one.
    """
    try:
        return model.model_validate_json(answer)
    except ValueError:
        raise LangSmithError("an answer of another shape") from None


def _why(error: ChainServeError) -> dict[str, str]:
    """Return the fields of a log line that say why LangSmith did not do what it was asked."""
    fields = {"code": error.code}
    if isinstance(error, LangSmithError):
        fields["cause"] = error.cause
    return fields


def _token_of(token_or_url: UUID | str) -> UUID:
    """Return the token itself: a URL is never asked, whatever it is.

    Raises:
        InvalidInputError: It is no token, or the URL of one at another server.
    """
    text = str(token_or_url)
    own = urlsplit(utils.get_api_url(None))
    try:
        scheme, netloc, path, *_ = urlsplit(text)
        if (scheme, netloc) in (("", ""), (own.scheme, own.netloc)):
            return UUID(path.rstrip("/").rpartition("/")[2])
    except ValueError:
        pass
    message = "Input should be a token, or its URL, of the LangSmith that this server uses"
    raise input_error("invalid_token", ("body", "token_or_url"), message, text)
