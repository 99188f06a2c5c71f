"""What a client raises when a server did not answer as it should.

    ChainServeError
    └── RemoteError                  the remote run did not succeed, or nobody can tell
        ├── RemoteStatusError        the server says why; also an `httpx.HTTPStatusError`
        ├── StreamInterruptedError   a stream's terminal event never came; an `httpx.ReadError` too
        │   └── StreamGapError       the server no longer has all that follows in the stream
        └── UnexpectedAnswerError    what came is nothing that such a server answers

What keeps an answer from coming at all, such as a refused connection or a time-out, is raised as
httpx raises it. That, and "also", means httpx's and httpx2's error of that name at once, as far as
they are installed: `except` clauses that were written for LangServe's client go on working.
"""

from typing import Any

from chainserve.errors import RemoteError as RemoteError
from chainserve.transport import CUT_ERRORS, errors_named


class RemoteStatusError(RemoteError, *errors_named("HTTPStatusError")):  # type: ignore[misc]
    """The server answered with an error, or told of one in its stream.

    It is also httpx's `HTTPStatusError`, which LangServe's client raises. It can be pickled.

    Attributes:
        status_code: The HTTP status, or the one that the stream's event names.
        code: The server's stable name of the error; `http_error` if it has none.
        detail: What is wrong, as the server tells it; of an invalid input, the list of its errors.
        request: The request, without what may be secret in its headers and its URL.
        response: The response. Of an error in a stream, one that stands for it.
    """

    code = "http_error"

    def __init__(
        self, message: str, *, code: str | None, detail: Any, request: Any, response: Any
    ) -> None:
        Exception.__init__(self, message)
        self.status_code = response.status_code
        self.code = code or self.code  # type: ignore[misc]
        self._detail = detail
        self.request = request
        self.response = response

    @property
    def detail(self) -> Any:
        """What is wrong, as the server tells it."""
        return self._detail

    def __reduce__(self) -> tuple[Any, ...]:
        own = {"code": self.code, "detail": self.detail}
        own |= {"request": self.request, "response": self.response}
        return _rebuilt, (type(self), str(self), own)


def _rebuilt(cls: type[RemoteStatusError], message: str, own: dict[str, Any]) -> RemoteStatusError:
    return cls(message, **own)


class StreamInterruptedError(RemoteError, *CUT_ERRORS):  # type: ignore[misc]
    """The stream ended, and its terminal event never came: what was read may not be all.

    It is also what httpx raises for a connection that was cut: its `ReadError` and its
    `RemoteProtocolError`.
    """

    code = "stream_interrupted"

    def __init__(self, message: str, request: Any = None) -> None:
        Exception.__init__(self, message)
        self._request = request  # Which httpx's errors show as `request`.


class StreamGapError(StreamInterruptedError):
    """The server no longer has all that follows in the stream, so that it cannot be read on."""

    code = "stream_gap"


class UnexpectedAnswerError(RemoteError):
    """What came is nothing that such a server answers, such as a page of a proxy."""

    code = "unexpected_answer"
