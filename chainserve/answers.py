"""What a client makes of the answers of a server; nothing here is I/O."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast, get_args

from langchain_core.messages.ai import UsageMetadata

from chainserve.client_errors import (
    RemoteStatusError,
    UnexpectedAnswerError,
)
from chainserve.client_requests import CODINGS, shown_url
from chainserve.remote import RemoteRun
from chainserve.serialization import Serializer
from chainserve.transport import PACKAGES, package_for
from chainserve.types import RunStatus
from chainserve.wire.parser import ReceivedEvent

_SHOWN_HEADERS = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"cache-control",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
    }
)
"""Headers of a request that an error may show; any other may hold a key."""

MAX_SHOWN = 500
"""How many characters of an answer that nobody expects are told."""

_MAX_MESSAGE = 2000
"""How many characters an error's message takes from the server."""

MAX_ANSWER_BYTES = 256 * 2**20
"""How large the answer to an invoke or a batch may be."""

MAX_ERROR_BYTES = 2**20
"""How much of an error's body is read."""


_STATUSES: tuple[RunStatus, ...] = get_args(RunStatus)


class Body:
    """Collects the body of a response within a bound.

    Args:
        response: A response of which nothing but the head has been read.

    Attributes:
        is_error: Whether the response is no success; then a part of its body will do.
    """

    def __init__(self, response: Any) -> None:
        self.is_error = not 200 <= response.status_code < 300
        self._url = response.request.url
        self._data = bytearray()

    def add(self, data: bytes) -> bool:
        """Add the next bytes; tell whether more are wanted.

        Raises:
            UnexpectedAnswerError: The answer is over the bound.
        """
        self._data += data
        if self.is_error:
            return len(self._data) < MAX_ERROR_BYTES
        if len(self._data) > MAX_ANSWER_BYTES:
            raise UnexpectedAnswerError(
                f"The answer of {shown_url(self._url)} is larger than {MAX_ANSWER_BYTES} bytes."
            )
        return True

    @property
    def content(self) -> bytes:
        """What has come."""
        return bytes(self._data[:MAX_ERROR_BYTES] if self.is_error else self._data)


def check_coding(response: Any) -> None:
    """Check that a body, which is not read yet, can be unpacked within bounds.

    Raises:
        UnexpectedAnswerError: It is in a content coding that was not asked for, or in several.
    """
    coding = response.headers.get("content-encoding", "")
    named = [one.strip().lower() for one in coding.split(",")]
    unpacked = [one for one in named if one in _UNPACKED]  # httpx passes others by.
    if len(unpacked) > 1 or not CODINGS.issuperset(unpacked):
        raise UnexpectedAnswerError(
            f"{shown_url(response.request.url)} answered in the content coding "
            f"{coding:.{MAX_SHOWN}}, which was not asked for."
        )


_UNPACKED = frozenset({"gzip", "deflate", "br", "zstd"})
"""The content codings that httpx unpacks, as far as it has a library for them."""


class AnswerReader:
    """Makes values, or errors, of what a server answers.

    Args:
        serializer: Reads outputs and chunks.
    """

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer

    def output(self, response: Any, body: bytes, run: RemoteRun) -> tuple[Any, Any]:
        """Return the output of an invoke and the callback events beside it.

        Raises:
            RemoteStatusError: The server answered with an error.
            UnexpectedAnswerError: The answer is no such output.
        """
        self.refuse(response, body, run)
        try:
            told = json.loads(body)
            output = self._serializer.loadd(told["output"])
        except RecursionError:
            raise self._unexpected(response, b"", "what is nested too deeply") from None
        except (ValueError, TypeError, KeyError):
            raise self._unexpected(response, body, "no JSON object with an output") from None
        if isinstance(metadata := told.get("metadata"), dict):
            run.note_metadata(metadata)
        run.note_output(output)
        return output, told.get("callback_events")

    def outputs(
        self, response: Any, body: bytes, run: RemoteRun, count: int
    ) -> tuple[list[Any], list[Any]]:
        """Return the outputs of a batch and the callback events of each.

        Args:
            response: The response.
            body: Its body.
            run: What is known of the run; brought up to date.
            count: How many inputs there were.

        Raises:
            RemoteStatusError: The server answered with an error.
            UnexpectedAnswerError: The answer is no list of so many outputs.
        """
        outputs, events = self.output(response, body, run)
        if not isinstance(outputs, list) or len(outputs) != count:
            raise self._unexpected(response, body, f"no list of {count} outputs")
        for output in outputs:
            run.note_chunk(output)
        return outputs, events if isinstance(events, list) else []

    def note_run(self, response: Any, body: bytes, run: RemoteRun) -> RemoteRun:
        """Note what the answer of a run route tells of a run, and return it.

        Raises:
            RemoteStatusError: The server answered with an error.
            UnexpectedAnswerError: The answer is none of a run.
        """
        self.refuse(response, body, run)
        told = _members(body.decode(errors="replace"))
        if told.get("status") not in _STATUSES or not isinstance(told.get("run_id"), str):
            raise self._unexpected(response, body, "no run")
        run.note_metadata({**told, "run_ids": None})
        run.status = told["status"]
        if isinstance(usage := told.get("usage"), dict):
            run.usage = cast("UsageMetadata", usage)
        if isinstance(error := told.get("error"), dict):
            run.error = error
        elif "output" in told:
            try:
                run.output, run.has_output = self._serializer.loadd(told["output"]), True
            except RecursionError:
                raise self._unexpected(response, b"", "what is nested too deeply") from None
        return run

    def note_left(self, response: Any, body: bytes, run: RemoteRun) -> None:
        """Note what is told of a run that was to be cancelled: it is, unless it had ended before.

        Raises:
            RemoteError: Nothing is told of it.
        """
        left = self.note_run(response, body, RemoteRun())
        run.status = "cancelled" if left.status in ("pending", "running") else left.status

    def refuse_run(self, run: RemoteRun, url: str) -> None:
        """Raise what a run that has ended says.

        Raises:
            RemoteStatusError: It did not succeed.
            UnexpectedAnswerError: Its output is not kept.
        """
        if run.status != "success":
            request = PACKAGES[0].Request("GET", shown_url(url))
            raise self._told_error(run.error or {}, f"The run ended as {run.status}.", request)
        if not run.has_output:
            raise UnexpectedAnswerError(
                f"The output of the run {run.run_id} is not kept by the server, for it is too "
                "large: join the run to read what it streamed."
            )

    def refuse(self, response: Any, body: bytes, run: RemoteRun) -> None:
        """Raise what a response that is no success says.

        Raises:
            RemoteStatusError: It is none.
        """
        if not 200 <= response.status_code < 300:
            run.status = "error"
            raise self._status_error(response, body)

    def is_stream(self, response: Any) -> bool:
        """Tell whether a response, whose body is not read yet, is a stream of events.

        Raises:
            UnexpectedAnswerError: It is a success, but of something else.
        """
        if not 200 <= response.status_code < 300:
            return False
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "text/event-stream":
            raise self._unexpected(response, b"", f"no event stream but {media_type or 'untyped'}")
        check_coding(response)
        return True

    def _unexpected(self, response: Any, body: bytes, what: str) -> UnexpectedAnswerError:
        shown = body[: 4 * MAX_SHOWN].decode(errors="replace")[:MAX_SHOWN]
        answered = f"{shown_url(response.request.url)} answered {what}. Is it the URL of a chain?"
        return UnexpectedAnswerError(f"{answered} {shown}".rstrip())

    def _status_error(self, response: Any, body: bytes) -> RemoteStatusError:
        """Return the error for a response: a problem document, LangServe's JSON, or text."""
        text = body.decode(errors="replace")
        members = _members(text)
        detail = members.get("detail", text[:MAX_SHOWN])
        message = members.get("message") or detail
        if response.has_redirect_location:
            message = (
                f"It is at {_location(response)}; redirects are followed to the same origin alone."
            )
        status = f"{response.status_code} {response.reason_phrase}".strip()
        code = members.get("code")
        return RemoteStatusError(
            f"{status} for {shown_url(response.request.url)}: {_text(message)}".removesuffix(": "),
            code=code if isinstance(code, str) else None,
            detail=detail,
            request=without_secrets(response.request),
            response=_response_like(response, body),
        )

    def stream_error(self, event: ReceivedEvent, request: Any) -> RemoteStatusError:
        """Return the error for a stream's `error` event."""
        text = event.data or ""
        return self._told_error(_members(text), text[:MAX_SHOWN], without_secrets(request))

    def _told_error(
        self, members: Mapping[str, Any], otherwise: str, shown: Any
    ) -> RemoteStatusError:
        """Return the error for what a server tells of a run that failed.

        Args:
            members: `status_code`, `message` and `code`, as far as it tells them.
            otherwise: The message, if there is none.
            shown: The request as the error may show it.
        """
        message = _text(members.get("message", otherwise))
        code = members.get("code")
        status = _status(members.get("status_code"))
        response = package_for([shown]).Response(status, text=message, request=shown)
        return RemoteStatusError(
            message,
            code=code if isinstance(code, str) else None,
            detail=message,
            request=shown,
            response=response,
        )

    def load(self, data: str) -> Any:
        """Return what a chunk's JSON stands for."""
        return self._serializer.loads(data.encode("utf-8", "surrogatepass"))


def _location(response: Any) -> str:
    """Return where a redirect leads, without what may be secret."""
    try:
        return shown_url(response.headers["location"])
    except ValueError:
        return "no URL of the web"


def _members(text: str) -> dict[str, Any]:
    """Return the members of a JSON object; none of what is no such object."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _status(told: Any) -> int:
    """Return the status that a server told; 500 if it is none of HTTP's."""
    return int(told) if re.fullmatch("[1-5][0-9][0-9]", str(told)) else 500


def _text(told: Any) -> str:
    """Return what a server told as text for people, which any terminal or log can show."""
    text = told if isinstance(told, str) else json.dumps(told)
    return text[:_MAX_MESSAGE].encode(errors="replace").decode()


def without_secrets(request: Any) -> Any:
    """Return the request as an error may show it."""
    headers = [
        (name, value if name.lower() in _SHOWN_HEADERS else b"<redacted>")
        for name, value in request.headers.raw
    ]
    return package_for([request]).Request(request.method, shown_url(request.url), headers=headers)


def _response_like(response: Any, body: bytes) -> Any:
    """Return the response with its body, and with a request that may be shown."""
    return package_for([response]).Response(
        response.status_code,
        headers=_plain(response.headers),
        content=body,
        request=without_secrets(response.request),
    )


def _plain(headers: Any) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response whose body was decoded, as the bytes that they came in."""
    framing = {b"content-encoding", b"content-length", b"transfer-encoding"}
    return [(name, value) for name, value in headers.raw if name.lower() not in framing]
