"""How a run ends without success."""

from collections.abc import Mapping
from typing import Any

from chainserve.errors.base import ChainServeError, status_phrase


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
