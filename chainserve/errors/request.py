"""Errors of a request that its caller can mend; each message says what to change."""

from collections.abc import Mapping, Sequence
from typing import Any

from chainserve.errors.base import ChainServeError


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
