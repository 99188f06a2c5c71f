"""Every error of chainserve, with its stable code and HTTP status.

    ChainServeError
    ├── ConfigurationError               the server is set up wrongly: raised at start
    │   └── DiscoveryError
    ├── RequestError                     the caller can mend the request
    │   ├── InvalidJSONError             422
    │   ├── InvalidInputError            422
    │   ├── InvalidConfigError           422
    │   ├── UnsupportedMediaTypeError    415
    │   ├── BodyTooLargeError            413
    │   ├── BatchTooLargeError           413
    │   ├── RunIdInUseError              409
    │   ├── RunNotFoundError             404
    │   ├── RunNotEndedError             409
    │   ├── InvalidCursorError           400
    │   ├── LogExpiredError              410
    │   ├── OutputNotKeptError           410
    │   ├── FeedbackNotEnabledError      400
    │   ├── FeedbackRefusedError         422
    │   ├── LangSmithNotFoundError       404
    │   ├── InvalidIdempotencyKeyError   400
    │   ├── IdempotencyKeyReusedError    422
    │   ├── InvalidConfigHashError       400
    │   ├── NotAcceptableError           406
    │   ├── CrossSiteError               403
    │   └── PrincipalRequiredError       403
    ├── RemoteError                      a client's: what a server answered it (client_errors)
    └── RunError                         the run ended without success
        ├── RunFailedError               500
        ├── ChainHTTPError               as the chain says
        ├── OutputNotSerializableError   500
        ├── RunCancelledError            499
        ├── RunTimeoutError              504
        ├── LogEvictedError              500
        ├── RecordedRunError             as it was
        └── UpstreamError                502
            ├── UpstreamAuthenticationError  502
            ├── UpstreamRateLimitedError     429
            ├── UpstreamTimeoutError         504
            └── LangSmithError               502
                └── LangSmithTimeoutError    504

Outside a stream an error is answered as a problem document (RFC 9457); inside one it is the
terminal `error` event. Both are made from the same two attributes, `code` and `status_code`. The
text of an unexpected exception goes to the log alone.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

PROBLEM_MEDIA_TYPE = "application/problem+json"
"""The media type of an error's body (RFC 9457)."""


class ChainServeError(Exception):
    """Base class: every subclass has a stable `code` and an HTTP status."""

    code: ClassVar[str] = "internal_error"
    status_code: int = 500

    @property
    def message(self) -> str:
        """The sentence for the caller."""
        return str(self)

    @property
    def detail(self) -> Any:
        """The `detail` member of the problem document: the message, unless there is more to say."""
        return self.message

    @property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers that belong to the answer."""
        return {}

    def problem(self) -> dict[str, Any]:
        """The problem document, with `message` beside `detail` for clients that print only that."""
        return problem_document(
            self.status_code, code=self.code, message=self.message, detail=self.detail
        )

    def event(self) -> dict[str, Any]:
        """The data of the terminal `error` event; its message can be written as UTF-8."""
        message = _encodable(self.message)
        return {"status_code": self.status_code, "message": message, "code": self.code}


def problem_document(
    status_code: int, *, code: str, message: str, detail: Any = None
) -> dict[str, Any]:
    """Return the members of a problem document (RFC 9457, section 3.1)."""
    return {
        "type": "about:blank",
        "title": status_phrase(status_code),
        "status": status_code,
        "detail": _encodable(message if detail is None else detail),
        "code": code,
        "message": _encodable(message),
    }


def _encodable(value: Any) -> Any:
    """Return a text that can be written as UTF-8, and any other value as it is."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def status_phrase(status_code: int) -> str:
    """Return a status in words, the same on every version of Python."""
    if status_code in _PHRASES:
        return _PHRASES[status_code]
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return "Error"


_PHRASES = {
    413: "Content Too Large",
    422: "Unprocessable Content",
    499: "Client Closed Request",
}
"""The names of RFC 9110 where older Pythons have others, and nginx's, which is in no registry."""


class ConfigurationError(ChainServeError, ValueError):
    """A chain, an option or a setting cannot work as given."""

    code = "configuration_error"


class DiscoveryError(ConfigurationError):
    """Declared chains that cannot be served; the message lists every one with its mend."""

    code = "discovery_error"


class RequestError(ChainServeError):
    """The request cannot be carried out as it is; the message says what to change."""

    code = "bad_request"
    status_code = 400


class InvalidJSONError(RequestError):
    """The body is not JSON that this server accepts."""

    code = "invalid_json"
    status_code = 422

    @property
    def detail(self) -> list[str]:
        """LangServe's `detail` for a body that cannot be parsed."""
        return ["Invalid JSON body"]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The error in pydantic's shape, as FastAPI gives it to an application's own handler."""
        return [{"type": "json_invalid", "loc": ["body"], "msg": self.message, "input": {}}]


class InvalidInputError(RequestError):
    """A part of the body has the wrong type; `errors` is pydantic's list.

    Args:
        errors: The errors, each with a place as LangServe gives it.
        within: The member of the body that those places are in, for the message.
        hint: A sentence that says how a request looks.
    """

    code = "invalid_input"
    status_code = 422

    def __init__(
        self, errors: Sequence[Mapping[str, Any]], *, within: str = "", hint: str = ""
    ) -> None:
        super().__init__(_first_error(errors, within) + (f". {hint}" if hint else ""))
        self.errors = list(errors)

    @property
    def detail(self) -> list[Mapping[str, Any]]:
        """Pydantic's errors, as FastAPI and LangServe answer them."""
        return self.errors


def _first_error(errors: Sequence[Mapping[str, Any]], within: str) -> str:
    """Say what is wrong first, and how much more there is."""
    if not errors:
        return "The request does not fit the chain's schema."
    first = errors[0]
    parts = [within] if within else []
    place = ".".join([*parts, *(str(part) for part in first.get("loc", ()))]) or "body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {first.get('msg', 'invalid')}{more}"


class InvalidConfigError(RequestError):
    """The request's config cannot be used."""

    code = "invalid_config"
    status_code = 422


class UnsupportedMediaTypeError(RequestError):
    """The body is not declared as JSON, or is compressed."""

    code = "unsupported_media_type"
    status_code = 415


class BodyTooLargeError(RequestError):
    """The body is over the chain's bound; the rest of it was not read."""

    code = "body_too_large"
    status_code = 413

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(
            f"The body is larger than {max_body_bytes} bytes. "
            "Send less, or raise max_body_bytes on the server."
        )

    @property
    def headers(self) -> Mapping[str, str]:
        """The connection cannot be used again: an unread body is still on it."""
        return {"connection": "close"}


class BatchTooLargeError(RequestError):
    """The batch has more inputs than the chain's bound."""

    code = "batch_too_large"
    status_code = 413

    def __init__(self, size: int, max_batch_size: int) -> None:
        super().__init__(
            f"The batch has {size} inputs, over the bound of {max_batch_size}. "
            "Send several smaller batches, or raise max_batch_size on the server."
        )


class RunIdInUseError(RequestError):
    """The caller chose the id of a run that has not ended, or that is somebody else's."""

    code = "run_id_in_use"
    status_code = 409

    def __init__(self, run_id: str) -> None:
        super().__init__(f"The run id {run_id} is in use. Send another, or none.")


class RunNotFoundError(RequestError):
    """There is no such run, or it is another caller's: nobody can tell which."""

    code = "run_not_found"
    status_code = 404

    def __init__(self) -> None:
        super().__init__(
            "There is no such run here. Use the path of the chain that started it; or it was "
            "forgotten, or the server was restarted."
        )


class RunNotEndedError(RequestError):
    """The run has not ended, so it cannot be forgotten."""

    code = "run_not_ended"
    status_code = 409

    def __init__(self, run_id: str) -> None:
        super().__init__(f"The run {run_id} has not ended. Cancel it first.")


class InvalidCursorError(RequestError):
    """The `Last-Event-ID` is none that this run's events have."""

    code = "invalid_cursor"

    def __init__(self) -> None:
        super().__init__(
            "The Last-Event-ID is not the id of an event of this run. Send the part after "
            '"id: " of an event of this run, or none to read from the start.'
        )


class LogExpiredError(RequestError):
    """The run is known, but its events were dropped."""

    code = "log_expired"
    status_code = 410

    def __init__(self) -> None:
        super().__init__("The events of this run are no longer kept. Its record still is.")


class FeedbackNotEnabledError(RequestError):
    """The endpoint needs LangSmith's tracing and an option, and one of them is not set."""

    code = "feedback_not_enabled"
    status_code = 400

    def __init__(self, option: str) -> None:
        super().__init__(
            "This is possible only where the server traces its runs with LangSmith "
            f"(LANGSMITH_TRACING=true and LANGSMITH_API_KEY) and the chain has {option}."
        )


class FeedbackRefusedError(RequestError):
    """LangSmith does not take the feedback as it is."""

    code = "feedback_refused"
    status_code = 422

    def __init__(self, status: int) -> None:
        super().__init__(
            f"LangSmith refused this with status {status}. Look at the key and the score."
        )


class LangSmithNotFoundError(RequestError):
    """LangSmith knows no such run, or no such token."""

    code = "langsmith_not_found"
    status_code = 404

    def __init__(self) -> None:
        super().__init__(
            "LangSmith knows no such run or token. It knows a run a few seconds after the run "
            "began, and a token until it expires."
        )


class OutputNotKeptError(RequestError):
    """The run that this idempotency key started has ended, and its output is not kept."""

    code = "output_not_kept"
    status_code = 410

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"The run {run_id} was started with this Idempotency-Key and has ended, but its output "
            "is not, or no longer, kept. Send another key to run again."
        )


class InvalidIdempotencyKeyError(RequestError):
    """The idempotency key is empty, too long, or holds more than printable ASCII."""

    code = "invalid_idempotency_key"

    def __init__(self) -> None:
        super().__init__(
            "The idempotency key must be 1 to 255 printable ASCII characters, such as a UUID."
        )


class IdempotencyKeyReusedError(RequestError):
    """Another request was sent with this idempotency key before."""

    code = "idempotency_key_reused"
    status_code = 422

    def __init__(self) -> None:
        super().__init__(
            "This idempotency key was used for another request. Send a new key for a new request."
        )


class InvalidConfigHashError(RequestError):
    """The config in the URL cannot be decoded."""

    code = "invalid_config_hash"

    def __init__(self) -> None:
        super().__init__("Invalid config hash")


class NotAcceptableError(RequestError):
    """The caller accepts none of the media types in which a run can be read."""

    code = "not_acceptable"
    status_code = 406

    def __init__(self) -> None:
        super().__init__(
            "Accept text/event-stream, application/x-ndjson or text/plain: nothing else is sent."
        )


class CrossSiteError(RequestError):
    """A page of another site, an image or a navigation asked for what only our pages may."""

    code = "cross_site_request"
    status_code = 403


class PrincipalRequiredError(RequestError):
    """Runs can be listed only where the server knows whose they are."""

    code = "principal_required"
    status_code = 403

    def __init__(self) -> None:
        super().__init__(
            "This server does not know whose runs are whose, so it lists none. It can, with "
            "Chain(principal=...), create_app(principal=...) or CHAINSERVE_LIST_ALL_RUNS=true."
        )


class RemoteError(ChainServeError):
    """A remote run did not succeed, or nobody can tell: what a `RemoteRunnable` raises.

    In a chain that is served itself it is an error of what is behind that server.
    """

    code = "remote_error"


class RunError(ChainServeError):
    """The run ended without success."""

    code = "run_error"


class RunFailedError(RunError):
    """An unexpected exception; its text is in the server's log and nowhere else."""

    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("Internal Server Error")


class ChainHTTPError(RunError):
    """The chain raised an exception with an HTTP status of its own, such as `HTTPException`."""

    code = "http_error"

    def __init__(self, status_code: int, detail: Any) -> None:
        text = detail if isinstance(detail, str) else ""
        super().__init__(text or status_phrase(status_code))
        self.status_code = status_code


class OutputNotSerializableError(RunError):
    """A chunk or the output holds an object that has no JSON form; the message names its place."""

    code = "output_not_serializable"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"The output cannot be written as JSON: {path} {reason}. "
            "Turn it into text, numbers, lists, dicts, dataclasses or pydantic models."
        )
        self.path = path
        self.reason = reason


class RunCancelledError(RunError):
    """The run was cancelled."""

    code = "cancelled"
    status_code = 499

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(f"The run was cancelled{_WHY_CANCELLED.get(reason, '')}.")


_WHY_CANCELLED: dict[str | None, str] = {
    "client_disconnect": ": its client left",
    "requested": " on request",
    "shutdown": ": the server is shutting down",
}


class RunTimeoutError(RunError):
    """A deadline of the run passed."""

    code = "timeout"
    status_code = 504

    def __init__(self, deadline: str, seconds: float) -> None:
        super().__init__(f"The run passed its {deadline} of {seconds:g} s.")


class LogEvictedError(RunError):
    """The reader fell behind a log that had to drop its oldest events."""

    code = "log_evicted"

    def __init__(self) -> None:
        super().__init__("The stream was read too slowly: its oldest events are gone.")


class RecordedRunError(RunError):
    """The run ended without success before; `code`, status and message are those of its record."""

    code = "recorded_error"

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error["message"]))
        self.status_code = error["status_code"]
        self.recorded_code = error["code"]

    def problem(self) -> dict[str, Any]:
        """The problem document of the error that was recorded."""
        return {**super().problem(), "code": self.recorded_code}

    def event(self) -> dict[str, Any]:
        """The data of the `error` event that was recorded."""
        return {**super().event(), "code": self.recorded_code}


class UpstreamError(RunError):
    """The model's provider failed or could not be reached."""

    code = "upstream_error"
    status_code = 502

    def __init__(self, message: str = "The model's provider failed.") -> None:
        super().__init__(message)


class UpstreamAuthenticationError(UpstreamError):
    """The provider refused the server's key."""

    code = "upstream_authentication"

    def __init__(self) -> None:
        super().__init__("The model's provider refused this server's credentials.")


class UpstreamRateLimitedError(UpstreamError):
    """The provider limits this server's rate; `retry_after` is the provider's `Retry-After`."""

    code = "upstream_rate_limited"
    status_code = 429

    def __init__(self, retry_after: str | None = None) -> None:
        super().__init__("The model's provider limits the rate. Try again later.")
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        """`Retry-After`, if the provider sent one."""
        return {"retry-after": self.retry_after} if self.retry_after else {}


class UpstreamTimeoutError(UpstreamError):
    """The provider did not answer in time."""

    code = "upstream_timeout"
    status_code = 504

    def __init__(self) -> None:
        super().__init__("The model's provider did not answer in time.")


class LangSmithError(UpstreamError):
    """LangSmith failed, could not be reached, or refused this server; `cause` is for the log."""

    code = "langsmith_error"

    def __init__(self, cause: str) -> None:
        super().__init__("LangSmith failed or could not be reached. Try again later.")
        self.cause = cause


class LangSmithTimeoutError(LangSmithError):
    """LangSmith did not answer in time."""

    code = "langsmith_timeout"
    status_code = 504

    def __init__(self) -> None:
        super().__init__("no answer in time")

    @property
    def message(self) -> str:
        """The sentence for the caller."""
        return "LangSmith did not answer in time. Try again later."
