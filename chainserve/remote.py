"""What a client sends and what it makes of answers: all of it that is no I/O."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from uuid import UUID

import orjson
from langchain_core.messages import BaseMessage

from chainserve.client_errors import (
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.serialization import Serializer
from chainserve.types import RunStatus
from chainserve.wire.parser import EventParser, EventTooLargeError, ReceivedEvent

_log = logging.getLogger("chainserve.client")

EVENT_STREAM_HEADERS = {"accept": "text/event-stream", "cache-control": "no-store"}

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
    usage: Mapping[str, Any] | None = None
    feedback_tokens: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def run_id(self) -> str | None:
        """Its id; of a batch the first, None while the server has told none."""
        return self.run_ids[0] if self.run_ids else None

    def note_output(self, output: Any) -> None:
        """Note that it succeeded, and what a message that it returned says of its tokens."""
        self.status = "success"
        if self.usage is None and isinstance(output, BaseMessage):
            self.usage = getattr(output, "usage_metadata", None)

    def note_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Note what an answer's `metadata` says."""
        run_ids = metadata.get("run_ids") or [metadata.get("run_id")]
        self.run_ids = tuple(str(run_id) for run_id in run_ids if run_id)
        self.feedback_tokens = metadata.get("feedback_tokens") or ()


def request_body(
    name: str, inputs: bytes, config: Any, kwargs: Mapping[str, Any], members: Mapping[str, Any]
) -> bytes:
    """Return the JSON of a request.

    Args:
        name: `input` or `inputs`.
        inputs: JSON of what is sent under that name.
        config: A config, or a list of configs; what JSON cannot hold is left out.
        kwargs: More arguments for the runnable.
        members: More members of the body.

    Raises:
        TypeError: An argument for the runnable cannot be sent.
    """
    sent = [_sendable(one) for one in config] if isinstance(config, list) else _sendable(config)
    try:
        rest = orjson.dumps({"config": sent, "kwargs": dict(kwargs), **members})
    except TypeError as error:
        raise TypeError(f"The arguments {', '.join(kwargs)} cannot be sent: {error}") from None
    return b'{"%b":%b,%b' % (name.encode(), inputs, rest[1:])


def _sendable(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a config without what is of use to this process alone, such as callbacks."""
    kept: dict[str, Any] = _json_data(
        {key: value for key, value in (config or {}).items() if key != "callbacks"}
    )
    return kept


_UNSENDABLE: Any = object()


def _json_data(value: Any) -> Any:
    """Return what of a value JSON can hold."""
    if isinstance(value, dict):
        items = {k: _json_data(item) for k, item in value.items() if isinstance(k, str)}
        return {key: item for key, item in items.items() if item is not _UNSENDABLE}
    if isinstance(value, list | tuple):
        return [item for item in map(_json_data, value) if item is not _UNSENDABLE]
    if isinstance(value, UUID):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else _UNSENDABLE


class AnswerReader:
    """Makes values, or errors, of what a server answers.

    Args:
        package: httpx or httpx2, whose objects errors show.
        serializer: Reads outputs and chunks.
    """

    def __init__(self, package: ModuleType, serializer: Serializer) -> None:
        self._package = package
        self._serializer = serializer

    def refuse(self, response: Any, body: bytes) -> None:
        """Raise what a response that is no success says.

        Raises:
            RemoteStatusError: It is none.
        """
        if not 200 <= response.status_code < 300:
            raise self._status_error(response, body)

    def output(self, response: Any, run: RemoteRun) -> tuple[Any, Any]:
        """Return the output of an invoke, or those of a batch, and the callback events beside it.

        Raises:
            RemoteStatusError: The server answered with an error.
            UnexpectedAnswerError: The answer is no such output.
        """
        self.refuse(response, response.content)
        try:
            body = json.loads(response.content)
        except ValueError:
            body = None
        if not isinstance(body, dict) or "output" not in body:
            raise self._unexpected(response, response.content, "no JSON object with an output")
        if isinstance(metadata := body.get("metadata"), dict):
            run.note_metadata(metadata)
        output = self._serializer.loadd(body["output"])
        run.note_output(output)
        return output, body.get("callback_events") or []

    def expect_events(self, response: Any) -> None:
        """Check that a response, whose body is not read yet, is a stream of events.

        Raises:
            UnexpectedAnswerError: It is something else.
        """
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "text/event-stream":
            raise self._unexpected(response, b"", f"no event stream but {media_type or 'untyped'}")

    def _unexpected(self, response: Any, body: bytes, what: str) -> UnexpectedAnswerError:
        shown = body.decode(errors="replace")[:_MAX_SHOWN]
        answered = f"{response.request.url} answered {what}. Is it the URL of a chain?"
        return UnexpectedAnswerError(f"{answered} {shown}".rstrip())

    def _status_error(self, response: Any, body: bytes) -> RemoteStatusError:
        """Return the error for a response: a problem document, LangServe's JSON, or text."""
        text = body.decode(errors="replace")
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        members = told if isinstance(told, dict) else {}
        detail = members.get("detail", text[:_MAX_SHOWN])
        message = members.get("message") or (
            detail if isinstance(detail, str) else json.dumps(detail)
        )
        if response.has_redirect_location:
            message = f"It is at {response.headers['location']}; redirects are not followed."
        status = f"{response.status_code} {response.reason_phrase}".strip()
        request = self._without_secrets(response.request)
        shown = self._package.Response(
            response.status_code, headers=_plain(response.headers), content=body, request=request
        )
        return RemoteStatusError(
            f"{status} for {request.url}: {message}".removesuffix(": "),
            code=members.get("code"),
            detail=detail,
            request=request,
            response=shown,
        )

    def stream_error(self, event: ReceivedEvent, request: Any) -> RemoteStatusError:
        """Return the error for a stream's `error` event."""
        try:
            told = json.loads(event.data or "")
            status, message = int(told["status_code"]), str(told["message"])
            code = told.get("code")
        except (ValueError, KeyError, TypeError):
            status, message, code = 500, (event.data or "")[:_MAX_SHOWN], None
        request = self._without_secrets(request)
        response = self._package.Response(status, text=message, request=request)
        return RemoteStatusError(
            message, code=code, detail=message, request=request, response=response
        )

    def _without_secrets(self, request: Any) -> Any:
        """Return the request as an error may show it."""
        headers = {
            name: value if name.lower() in _SHOWN_HEADERS else "<redacted>"
            for name, value in request.headers.items()
        }
        return self._package.Request(request.method, request.url, headers=headers)

    def load(self, data: str) -> Any:
        """Return what a chunk's JSON stands for."""
        return self._serializer.loads(data.encode("utf-8", "surrogatepass"))


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
            raise UnexpectedAnswerError(f"{self._request.url}: {error}") from None
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
                f"The stream of {self._request.url} ended without its terminal event: the "
                "connection was cut, and what was read may not be all."
            )

    def _chunk(self, data: str) -> Any:
        try:
            return self._answers.load(data)
        except ValueError:
            raise UnexpectedAnswerError(
                f"{self._request.url} sent a chunk that is no JSON: {data[:_MAX_SHOWN]}"
            ) from None

    def _note(self, event: ReceivedEvent, note: Any) -> None:
        try:
            told = json.loads(event.data or "{}")
        except ValueError:
            return
        if isinstance(told, dict):
            note(told)

    def _note_end(self, told: Mapping[str, Any]) -> None:
        if isinstance(usage := told.get("usage"), dict):
            self._run.usage = usage

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
