"""What an exception of a chain means to a caller: the one border that foreign errors cross."""

import re
from json import JSONDecodeError
from typing import Any
from urllib.parse import urlsplit

from chainserve.errors import (
    ChainHTTPError,
    ChainServeError,
    RemoteError,
    RunFailedError,
    UpstreamAuthenticationError,
    UpstreamError,
    UpstreamRateLimitedError,
    UpstreamTimeoutError,
)

_PROVIDERS = frozenset(
    [
        "openai",
        "anthropic",
        "mistralai",
        "groq",
        "cohere",
        "google",
        "ollama",
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
    ]
)
"""Packages whose exceptions speak of a model's provider."""


def translate(error: BaseException) -> ChainServeError:
    """Return what an exception of the chain means to a caller.

    An error of a model's provider, or of a chain on another server, becomes an `UpstreamError`, one
    with an HTTP status and a detail (as `HTTPException` has) keeps them, any other becomes a
    `RunFailedError`.
    """
    if isinstance(error, ChainServeError) and not isinstance(error, RemoteError):
        return error
    names = {
        cls.__name__
        for cls in type(error).__mro__
        if str(cls.__module__).partition(".")[0] in _PROVIDERS
    }
    if names or isinstance(error, RemoteError):
        return _upstream_error(error, names)
    if isinstance(error, JSONDecodeError) and _raised_in_a_provider(error):
        return UpstreamError("The model's provider sent what is not JSON.")
    status, detail = getattr(error, "status_code", None), getattr(error, "detail", None)
    if isinstance(status, int) and 400 <= status < 600 and detail is not None:
        return ChainHTTPError(status, detail)
    return RunFailedError()


def _raised_in_a_provider(error: BaseException) -> bool:
    """Tell whether an exception passed through a provider's package."""
    traceback = error.__traceback__
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in _PROVIDERS:
            return True
        traceback = traceback.tb_next
    return False


def _upstream_error(error: BaseException, names: set[str]) -> UpstreamError:
    """Return the error for a provider's exception, by the status it carries or its name."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is None and not isinstance(error, RemoteError):
        status = getattr(error, "status_code", None)
    if status == 429:
        return UpstreamRateLimitedError(_retry_after(response))
    if status in (401, 403):
        return UpstreamAuthenticationError()
    if status in (408, 504) or any("Timeout" in name for name in names):
        return UpstreamTimeoutError()
    if isinstance(status, int):
        return UpstreamError(f"The model's provider answered with status {status}.")
    return UpstreamError("The model's provider could not be reached, or broke off its answer.")


def _retry_after(response: Any) -> str | None:
    """Return the provider's `Retry-After` if it is a number of seconds."""
    headers = getattr(response, "headers", None) or {}
    seconds = headers.get("retry-after")
    if not isinstance(seconds, str) or not (seconds.isascii() and seconds.isdigit()):
        return None
    return seconds


_MAX_CAUSE = 300
"""How many characters of a provider's own message are logged."""


def upstream_cause(error: BaseException) -> dict[str, str]:
    """Return what a log line may say of a provider's exception: never a key, a header or a query.

    Its members are `error` (the class), `cause` (the exception's message, cut) and, where the
    request is known, `upstream` (scheme, host and port).
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a provider's exception may be anything
        text = ""
    message = _SECRET.sub("***", " ".join(text.split()))
    if len(message) > _MAX_CAUSE:
        message = f"{message[: _MAX_CAUSE - 1]}…"
    fields = {"error": f"{type(error).__module__}.{type(error).__qualname__}"}
    if message:
        fields["cause"] = message
    if upstream := _origin_of_request(error):
        fields["upstream"] = upstream
    return fields


_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:sk|pk|gsk|key|xai|ant)[-_][A-Za-z0-9_*-]{6,}|AIza[A-Za-z0-9_-]{10,}"
    r"|(?<=[?&]key=)[^&\s'\"]+|(?i:(?<=bearer )\S+)"
)
"""Keys that providers repeat, such as in "Incorrect API key provided: sk-…"."""


def _origin_of_request(error: BaseException) -> str | None:
    """Return where the failed request went, without what else may be in its URL."""
    try:
        url = urlsplit(str(error.request.url))  # type: ignore[attr-defined]
        host, port = url.hostname, url.port
    except (AttributeError, RuntimeError, ValueError):  # httpx raises where there is no request.
        return None
    if not host:
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{host}" + (f":{port}" if port else "")
