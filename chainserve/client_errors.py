"""What a client raises when a server did not answer as it should.

    ChainServeError
    └── RemoteError                  the remote run did not succeed, or nobody can tell
        ├── RemoteStatusError        the server says why; also an `httpx.HTTPStatusError`
        ├── StreamInterruptedError   the stream ended, and its terminal event never came
        └── UnexpectedAnswerError    what came is nothing that such a server answers

What keeps an answer from coming at all, such as a refused connection or a time-out, is raised as
httpx raises it.
"""

from typing import Any

from chainserve.errors import ChainServeError
from chainserve.transport import PACKAGES

_STATUS_ERRORS: tuple[type[Any], ...] = tuple(package.HTTPStatusError for package in PACKAGES)


class RemoteError(ChainServeError):
    """The remote run did not succeed, or nobody can tell."""

    code = "remote_error"


class RemoteStatusError(RemoteError, *_STATUS_ERRORS):  # type: ignore[misc]
    """The server answered with an error, or told of one in its stream.

    It is also the `HTTPStatusError` of httpx, and of httpx2, as far as they are installed, which
    LangServe's client raises.

    Attributes:
        status_code: The HTTP status, or the one that the stream's event names.
        code: The server's stable name of the error; `http_error` if it has none.
        detail: What is wrong, as the server tells it; of an invalid input, the list of its errors.
        request: The request, without what its headers may keep secret.
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


class StreamInterruptedError(RemoteError):
    """The stream ended, and its terminal event never came: what was read may not be all."""

    code = "stream_interrupted"


class UnexpectedAnswerError(RemoteError):
    """What came is nothing that such a server answers, such as a page of a proxy."""

    code = "unexpected_answer"
