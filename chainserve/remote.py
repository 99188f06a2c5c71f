"""What a client makes of answers, and what it knows of runs: all of it that is no I/O."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from chainserve.client_errors import (
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.client_requests import shown_url
from chainserve.serialization import Serializer
from chainserve.transport import package_for
from chainserve.types import RunStatus
from chainserve.wire.parser import EventParser, EventTooLargeError, ReceivedEvent

_log = logging.getLogger("chainserve.client")

_SHOWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    }
)
"""Headers of a request that an error may show; any other may hold a key."""

_MAX_SHOWN = 500
"""How many characters of an answer that nobody expects are told."""

_MAX_MESSAGE = 2000
"""How many characters an error's message takes from the server."""

MAX_ANSWER_BYTES = 256 * 2**20
"""How large the answer to an invoke or a batch may be."""

MAX_ERROR_BYTES = 2**20
"""How much of an error's body is read."""


@dataclass(slots=True)
class RemoteRun:
    """What a client knows of a run on the server.

    Attributes:
        run_ids: Its ids, of a batch one for each input; empty while the server has told none.
        status: Its state, as far as the client can tell; `lost` of one that a stream broke off.
        usage: The tokens that its models counted, as LangChain's `UsageMetadata`, if that is known.
        feedback_tokens: With which feedback may be given, if the server gives such tokens.
    """

    run_ids: tuple[str, ...] = ()
    status: RunStatus = "pending"
    usage: UsageMetadata | None = None
    feedback_tokens: Sequence[Mapping[str, Any]] = ()

    @property
    def run_id(self) -> str | None:
        """Its id; of a batch the first, None while the server has told none."""
        return self.run_ids[0] if self.run_ids else None

    def note_output(self, output: Any) -> None:
        """Note that it succeeded, and what a message that it returned says of its tokens."""
        self.status = "success"
        self.note_chunk(output)

    def note_chunk(self, chunk: Any) -> None:
        """Note what a message, or a piece of one, says of the tokens of its model."""
        if isinstance(chunk, BaseMessage) and (usage := getattr(chunk, "usage_metadata", None)):
            self.usage = add_usage(self.usage, usage)

    def note_first(self, endpoint: str, value: Any, members: Mapping[str, Any]) -> None:
        """Note the run's id where no metadata tells it: it is in the first patch or event.

        Args:
            endpoint: The endpoint that sent it.
            value: The first patch of a log, or the first event.
            members: The filters that were asked for: with one, the first event may be of a step.
        """
        run_id: Any = None
        with suppress(KeyError, TypeError, IndexError, AttributeError):
            if endpoint == "stream_log":
                run_id = value["ops"][0]["value"]["id"]
            elif endpoint == "stream_events" and not any(members.values()):
                run_id = value["run_id"]
        self.run_ids = (run_id,) if isinstance(run_id, str) else ()

    def note_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Note what an answer's `metadata` says."""
        several, tokens = metadata.get("run_ids"), metadata.get("feedback_tokens")
        run_ids = several if isinstance(several, list) else [metadata.get("run_id")]
        self.run_ids = tuple(str(run_id) for run_id in run_ids if run_id)
        self.feedback_tokens = tuple(tokens) if isinstance(tokens, list) else ()


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
        return True

    def _unexpected(self, response: Any, body: bytes, what: str) -> UnexpectedAnswerError:
        shown = body[: 4 * _MAX_SHOWN].decode(errors="replace")[:_MAX_SHOWN]
        answered = f"{shown_url(response.request.url)} answered {what}. Is it the URL of a chain?"
        return UnexpectedAnswerError(f"{answered} {shown}".rstrip())

    def _status_error(self, response: Any, body: bytes) -> RemoteStatusError:
        """Return the error for a response: a problem document, LangServe's JSON, or text."""
        text = body.decode(errors="replace")
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            told = None
        members = told if isinstance(told, dict) else {}
        detail = members.get("detail", text[:_MAX_SHOWN])
        message = members.get("message") or detail
        if response.has_redirect_location:
            message = f"It is at {response.headers['location']}; redirects are not followed."
        status = f"{response.status_code} {response.reason_phrase}".strip()
        code = members.get("code")
        return RemoteStatusError(
            f"{status} for {shown_url(response.request.url)}: {_text(message)}".removesuffix(": "),
            code=code if isinstance(code, str) else None,
            detail=detail,
            request=_without_secrets(response.request),
            response=_response_like(response, body),
        )

    def stream_error(self, event: ReceivedEvent, request: Any) -> RemoteStatusError:
        """Return the error for a stream's `error` event."""
        try:
            told = json.loads(event.data or "")
            status, message = int(told["status_code"]), _text(told["message"])
            code = told.get("code")
        except (ValueError, KeyError, TypeError, RecursionError):
            status, message, code = 500, (event.data or "")[:_MAX_SHOWN], None
        shown = _without_secrets(request)
        response = package_for([request]).Response(status, text=message, request=shown)
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


def _text(told: Any) -> str:
    """Return what a server told as text for people."""
    return (told if isinstance(told, str) else json.dumps(told))[:_MAX_MESSAGE]


def _without_secrets(request: Any) -> Any:
    """Return the request as an error may show it."""
    headers = {
        name: value if name.lower() in _SHOWN_HEADERS else "<redacted>"
        for name, value in request.headers.items()
    }
    return package_for([request]).Request(request.method, shown_url(request.url), headers=headers)


def _response_like(response: Any, body: bytes) -> Any:
    """Return the response with its body, and with a request that may be shown."""
    return package_for([response]).Response(
        response.status_code,
        headers=_plain(response.headers),
        content=body,
        request=_without_secrets(response.request),
    )


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a response whose body was decoded."""
    framing = {"content-encoding", "content-length", "transfer-encoding"}
    return {name: value for name, value in headers.items() if name.lower() not in framing}


class StreamReader:
    """Makes chunks of a stream's bytes, and knows whether all came.

    Args:
        answers: Reads the chunks.
        run: What is known of the run; kept up to date.
        request: The request, for errors.

    Attributes:
        ended: Whether the terminal event has come; what follows counts for nothing.
    """

    def __init__(self, answers: AnswerReader, run: RemoteRun, request: Any) -> None:
        self.ended = False
        self._answers = answers
        self._run = run
        self._request = request
        self._parser = EventParser()
        self._unknown: set[str] = set()
        run.status = "running"

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the chunks that the next bytes complete.

        Raises:
            RemoteStatusError: The stream tells of an error.
            UnexpectedAnswerError: An event cannot be read.
        """
        try:
            events = self._parser.feed(data)
        except EventTooLargeError as error:
            raise UnexpectedAnswerError(f"{shown_url(self._request.url)}: {error}") from None
        for event in events:
            match event.event:
                case "data":
                    yield self._chunk(event.data or "")
                case "metadata":
                    self._note(event, self._run.note_metadata)
                case "end":
                    self._run.status = "success"
                    self._note(event, self._note_end)
                    self.ended = True
                    return
                case "error":
                    raise self._failed(event)
                case _:
                    self._tell_unknown(event.event)

    def finish(self) -> None:
        """Check that the stream is complete.

        Raises:
            StreamInterruptedError: It is not.
        """
        if not self.ended:
            self._run.status = "lost"
            raise StreamInterruptedError(
                f"The stream of {shown_url(self._request.url)} ended without its terminal event: "
                "the connection was cut, and what was read may not be all.",
                _without_secrets(self._request),
            )

    def _chunk(self, data: str) -> Any:
        try:
            chunk = self._answers.load(data)
        except (ValueError, RecursionError):
            raise UnexpectedAnswerError(
                f"{shown_url(self._request.url)} sent a chunk that cannot be read as JSON: "
                f"{data[:_MAX_SHOWN]}"
            ) from None
        self._run.note_chunk(chunk)
        return chunk

    def _note(self, event: ReceivedEvent, note: Any) -> None:
        try:
            told = json.loads(event.data or "{}")
        except (ValueError, RecursionError):
            return
        if isinstance(told, dict):
            note(told)

    def _note_end(self, told: Mapping[str, Any]) -> None:
        if isinstance(usage := told.get("usage"), dict):
            self._run.usage = cast("UsageMetadata", usage)

    def _failed(self, event: ReceivedEvent) -> RemoteStatusError:
        error = self._answers.stream_error(event, self._request)
        self._run.status = _STATUS_OF.get(error.status_code, "error")
        return error

    def _tell_unknown(self, name: str) -> None:
        if name not in self._unknown:
            self._unknown.add(name)
            _log.warning("Events named %r are ignored: this client does not know them.", name)


_STATUS_OF: Mapping[int, RunStatus] = {499: "cancelled", 503: "lost"}
"""How a run ended whose stream names this status; any other is an error."""
