"""One call on a server, over as many requests as it takes; nothing here is I/O."""

import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID, uuid4

from chainserve.answers import AnswerReader, without_secrets
from chainserve.client_errors import (
    RemoteError,
    RemoteStatusError,
    StreamGapError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.client_requests import EVENT_STREAM_HEADERS, shown_url
from chainserve.remote import RemoteRun
from chainserve.remote_streams import StreamReader
from chainserve.retries import Retries
from chainserve.transport import CONNECTION_ERRORS, SILENCE_ERRORS

REPEATED_ERRORS: tuple[type[Any], ...] = (
    *CONNECTION_ERRORS,
    StreamInterruptedError,
    RemoteStatusError,
)
"""What is raised of an attempt after which there may be another one."""

_GATEWAY_STATUSES = frozenset({502, 503, 504})
"""What proxies answer for a server that they do not reach, or that restarts."""

_WAITING_STATUSES = _GATEWAY_STATUSES | {429, 500}
"""What is waited out by one who only reads on."""

_SILENCES = 2
"""After so many connections in a row that stayed silent it is the chain that is."""


class Call:
    """A call that answers once, and what is sent for it.

    Args:
        method: The HTTP method.
        path: What follows the chain's URL.
        body: What is sent.
        run: What is known of the run; kept up to date.
        retries: Says when it is made again.
        prefer: What the request prefers (RFC 7240).
        timeout: Seconds for each step of a request; that of the client when None.
        key: The idempotency key of a start; None where the server must be chainserve, or of a
            client that makes no call again.

    Attributes:
        repeatable: Whether the server does the same once if it is asked twice. None while nobody
            knows: LangServe would start a second run.
    """

    streams = False

    def __init__(
        self,
        method: str,
        path: str,
        body: bytes,
        run: RemoteRun,
        retries: Retries,
        *,
        prefer: Sequence[str] = (),
        timeout: float | None = None,
        key: str | None = None,
        repeatable: bool | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.run = run
        self.key = key
        self.repeatable = repeatable
        self.timeout = timeout
        self._prefer = prefer
        self._retries = retries

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the next request, beside those of every request."""
        headers = {"content-type": "application/json"} if self.body else {}
        if self.key is not None:
            headers["idempotency-key"] = self.key
        if self._prefer:
            headers["prefer"] = ", ".join(self._prefer)
        return headers

    @property
    def is_over(self) -> bool:
        """Whether the run is known to have ended, so that nothing is left to be cancelled."""
        return False

    def delay_after(self, error: Any) -> float | None:
        """Return the seconds after which to ask again; None if there is no use in it any more."""
        if self.is_over or self.repeatable is False or not self._may_pass(error):
            return None
        return self._retries.next_delay(_retry_after(error))

    def is_left_running(self, error: BaseException) -> bool:
        """Tell whether the run has to be cancelled, now that its caller goes with this error.

        A run whose connection was lost is not: its caller may come back to it by its id. Nor is one
        that was refused, or that nobody knows to be on a chainserve.
        """
        if self.key is None or self.is_over or self.repeatable is False:
            return False
        if isinstance(error, SILENCE_ERRORS):
            return True
        if isinstance(error, RemoteError) and self.repeatable is None:
            return False
        lost = (RemoteStatusError, StreamInterruptedError, *CONNECTION_ERRORS)
        return not isinstance(error, lost)

    def _may_pass(self, error: Any) -> bool:
        """Tell whether what went wrong may be over soon."""
        if isinstance(error, RemoteStatusError):
            return _is_of_a_gateway(error, _GATEWAY_STATUSES)
        return not isinstance(error, SILENCE_ERRORS)


class StreamCall(Call):
    """A call that streams, and goes on after a cut with what follows the last event that came."""

    streams = True

    def __init__(
        self,
        method: str,
        path: str,
        body: bytes,
        run: RemoteRun,
        retries: Retries,
        answers: AnswerReader,
        reader: type[StreamReader] = StreamReader,
        **options: Any,
    ) -> None:
        super().__init__(method, path, body, run, retries, **options)
        if self.key is not None:
            self._prefer = (*self._prefer, "resumable")
        self._answers = answers
        self._reader = reader(answers, run, retries)
        self._has_begun = False
        self._silences = 0

    @property
    def ended(self) -> bool:
        """Whether the stream is complete; what follows counts for nothing."""
        return self._reader.ended

    @property
    def is_over(self) -> bool:
        """Whether the terminal event has come."""
        return self._reader.ended or self._reader.failed

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the next request; the id of the last event that came among them."""
        headers = {**super().headers, **EVENT_STREAM_HEADERS}
        if self.repeatable and self.run.last_event_id:
            headers["last-event-id"] = self.run.last_event_id
        return headers

    def begins(self, response: Any) -> bool:
        """Take the head of an answer; tell whether it is a stream, which is read from now on.

        Raises:
            UnexpectedAnswerError: It is a success, but of something else.
            StreamGapError: What answers now cannot go on.
        """
        if response.status_code == 204 and self.run.last_event_id:
            self._take_no_content(response)
            return True
        try:
            if not self._answers.is_stream(response):
                return False
        except UnexpectedAnswerError as error:
            if not self._has_begun:
                raise
            raise self._cannot_go_on(response, str(error)) from error
        self._note_head(response)
        self._has_begun = True
        self._reader.connect(response.request)
        return True

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield what the next bytes complete.

        Raises:
            RemoteError: As `RemoteRunnable` says.
        """
        self._silences = 0
        return self._reader.feed(data)

    def finish(self) -> None:
        """Check that the stream is complete.

        Raises:
            StreamInterruptedError: It is not.
        """
        self._reader.finish()

    def interrupted(self, error: Exception) -> StreamInterruptedError | None:
        """Return what a caller is told instead of the error with which a call is given up.

        It is the error itself that is told of a stream that never began, or has told of it.
        """
        never = self.is_over or not self._has_begun or not self.repeatable
        if never or isinstance(error, (StreamInterruptedError, *SILENCE_ERRORS)):
            return None
        self.run.status = "lost"
        request: Any = getattr(error, "request", None)
        what = f"The stream of {shown_url(request.url)}" if request is not None else "The stream"
        return StreamInterruptedError(
            f"{what} was cut, and could not be resumed ({error or type(error).__name__}): what "
            "was read may not be all.",
            None if request is None else without_secrets(request),
        )

    def _take_no_content(self, response: Any) -> None:
        """Take it that nothing follows the last event, which is right if the caller named it."""
        if self._has_begun:
            raise self._cannot_go_on(
                response,
                "The server says that nothing follows what was read, though its end is not in it.",
            )
        self._reader.ended = True

    def _note_head(self, response: Any) -> None:
        """Note whether the stream can be resumed, and of which run it is."""
        applied = response.headers.get("preference-applied", "")
        if self.repeatable and self._has_begun and self.key and "resumable" not in applied:
            raise self._cannot_go_on(response, "What answers there now has no ids to go on from.")
        if self.key is not None:
            self.repeatable = "resumable" in applied
        told = response.headers.get("location", "").rpartition("/")[2]
        if self.repeatable and not self.run.run_ids and _is_run_id(told):
            self.run.run_ids = (told,)

    def _may_pass(self, error: Any) -> bool:
        if isinstance(error, StreamGapError) or self._reader.lost_place:
            return False
        if isinstance(error, SILENCE_ERRORS):
            self._silences += 1
            return (self._has_begun or self.repeatable is True) and self._silences < _SILENCES
        if isinstance(error, RemoteStatusError) and self._has_begun:
            return _is_of_a_gateway(error, _WAITING_STATUSES)
        return super()._may_pass(error)

    def _cannot_go_on(self, response: Any, reason: str) -> StreamGapError:
        self.run.status = "lost"
        request = without_secrets(response.request)
        return StreamGapError(f"The stream of {shown_url(request.url)} was cut. {reason}", request)


def new_key() -> str:
    """Return an idempotency key that nobody has used."""
    return str(uuid4())


def is_problem(response: Any) -> bool:
    """Tell whether an answer is the server's own word, and not that of a proxy before it."""
    return "problem+json" in response.headers.get("content-type", "")


def _is_of_a_gateway(error: RemoteStatusError, statuses: frozenset[int]) -> bool:
    """Tell whether an answer is no word of the server itself, which would say it again."""
    return error.status_code in statuses and not is_problem(error.response)


def _retry_after(error: Any) -> float:
    """Return the seconds for which an answer asks to be left alone."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    told = headers.get("retry-after", "")
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        return parsedate_to_datetime(told).timestamp() - time.time()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _is_run_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
