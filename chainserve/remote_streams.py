"""What a client makes of the bytes of a stream; nothing here is I/O."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from langchain_core.messages.ai import UsageMetadata

from chainserve.answers import MAX_SHOWN, AnswerReader, without_secrets
from chainserve.client_errors import (
    RemoteStatusError,
    StreamGapError,
    StreamInterruptedError,
    UnexpectedAnswerError,
)
from chainserve.client_requests import shown_url
from chainserve.remote import RemoteRun
from chainserve.retries import Retries
from chainserve.types import RunStatus
from chainserve.wire.parser import EventParser, EventTooLargeError, ReceivedEvent

_log = logging.getLogger("chainserve.client")

_MAX_PIECE_BYTES = 2**16
"""How much is parsed at once: as much as is read of a connection, which may unpack to far more."""


_MAX_TOLD = 10
"""How many names of events that are ignored are told of."""

_PLACE = re.compile(r"[\x21-\x7e]{1,1024}")
"""What the id of an event must be to be sent in a header."""


class StreamReader:
    """Makes chunks of a stream's bytes, and knows whether all came.

    Args:
        answers: Reads the chunks.
        run: What is known of the run; kept up to date.
        retries: Told of what comes, and of when the server wants to be asked again.

    Attributes:
        ended: Whether the stream is complete; what follows counts for nothing.
        failed: Whether it has told of an error, with which it ends too.
        lost_place: Whether the last chunk has no id of its own, so that it would come twice if the
            stream were resumed.
    """

    def __init__(self, answers: AnswerReader, run: RemoteRun, retries: Retries) -> None:
        self.ended = False
        self.failed = False
        self.lost_place = False
        self._answers = answers
        self._run = run
        self._retries = retries
        self._unknown: set[str] = set()

    def connect(self, request: Any) -> None:
        """Begin to read a connection; what was left unfinished of the last one is forgotten.

        Args:
            request: The request that it answers, for errors.
        """
        self._request = request
        self._after = request.headers.get("last-event-id", "")
        self._parser = EventParser()
        self._run.status = "running"

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the chunks that the next bytes complete.

        Raises:
            RemoteStatusError: The stream tells of an error.
            StreamGapError: It tells that events are gone, or does not go on after the last one.
            UnexpectedAnswerError: An event cannot be read.
        """
        for event in self._events(data):
            self._heed(event)
            if event.event == "data":
                yield self._chunk(event.data or "")
            elif self.ended:
                return

    def _heed(self, event: ReceivedEvent) -> None:
        """Note where the stream is, and what an event tells that is no chunk."""
        if event.event == "gap":
            raise self._has_gap(event)
        self._note_place(event)
        match event.event:
            case "data":
                pass
            case "metadata":
                self._note(event, self._run.note_metadata)
            case "end":
                self._run.status = "success"
                self._note(event, self._note_end)
                self.ended = True
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
        if self._parser.retry_ms is not None:
            self._retries.retry_ms = self._parser.retry_ms

    def _note_place(self, event: ReceivedEvent) -> None:
        """Note from where the stream goes on after a cut; only what moves that is progress."""
        told, is_chunk = event.last_event_id, event.event == "data"
        if self._after and (event.event == "metadata" or (is_chunk and told in ("", self._after))):
            self._run.status = "lost"
            raise StreamGapError(
                f"The stream of {shown_url(self._request.url)} was cut, and what came then does "
                "not follow what was read.",
                without_secrets(self._request),
            )
        is_new = told != self._run.last_event_id and _PLACE.fullmatch(told) is not None
        if is_new:
            self._run.last_event_id = told
            self._retries.note_progress()
        if is_chunk:
            self.lost_place = not is_new

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
        self.failed = True
        error = self._answers.stream_error(event, self._request)
        self._run.status = _STATUS_OF.get(error.status_code, "error")
        return error

    def _has_gap(self, event: ReceivedEvent) -> StreamGapError:
        self._run.status = "lost"
        told: dict[str, Any] = {}
        self._note(event, told.update)
        return StreamGapError(
            f"The stream of {shown_url(self._request.url)} has a gap: the server no longer keeps "
            f"{told.get('lost', 'some')!s:.20} of its events.",
            without_secrets(self._request),
        )

    def _tell_unknown(self, name: str) -> None:
        if name not in self._unknown and len(self._unknown) < _MAX_TOLD:
            self._unknown.add(name)
            shown = name[:MAX_SHOWN]
            _log.warning("Events named %r are ignored: this client does not know them.", shown)


_STATUS_OF: Mapping[int, RunStatus] = {499: "cancelled", 503: "lost"}
"""How a run ended whose stream names this status; any other is an error."""
