"""What every error has, its problem document, and the errors that are no answer to a request."""

from collections.abc import Mapping
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


class RemoteError(ChainServeError):
    """A remote run did not succeed, or nobody can tell: what a `RemoteRunnable` raises.

    In a chain that is served itself it is an error of what is behind that server.
    """

    code = "remote_error"
