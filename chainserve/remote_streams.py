"""What a client makes of the bytes of a stream; nothing here is I/O."""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

from langchain_core.messages.ai import UsageMetadata

from chainserve.answers import MAX_SHOWN, AnswerReader, without_secrets
from chainserve.client_errors import (
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.client_requests import shown_url
from chainserve.remote import RemoteRun
from chainserve.types import RunStatus
from chainserve.wire.parser import EventParser, EventTooLargeError, ReceivedEvent

_log = logging.getLogger("chainserve.client")

_MAX_PIECE_BYTES = 2**16
"""How much is parsed at once: as much as is read of a connection, which may unpack to far more."""


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
        for event in self._events(data):
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

    def _events(self, data: bytes) -> Iterator[ReceivedEvent]:
        """Yield the events that the next bytes complete, with few of them in memory at once."""
        try:
            for start in range(0, len(data), _MAX_PIECE_BYTES):
                yield from self._parser.feed(data[start : start + _MAX_PIECE_BYTES])
        except EventTooLargeError as error:
            raise UnexpectedAnswerError(f"{shown_url(self._request.url)}: {error}") from None

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
                without_secrets(self._request),
            )

    def _chunk(self, data: str) -> Any:
        try:
            chunk = self._answers.load(data)
        except (ValueError, RecursionError):
            raise UnexpectedAnswerError(
                f"{shown_url(self._request.url)} sent a chunk that cannot be read as JSON: "
                f"{data[:MAX_SHOWN]}"
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
