"""A chain on a server whose streams are read event by event, as `chainserve call --json` does."""

import json
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote

from chainserve.calls import StreamCall
from chainserve.client import RemoteRunnable
from chainserve.remote_streams import StreamReader
from chainserve.wire.parser import ReceivedEvent


class StreamEvent(NamedTuple):
    """An event of a stream.

    Attributes:
        event: Its name.
        data: Its data; None where it has none, and a text where that is no JSON.
        id: Its id; None on the wires that have none.
    """

    event: str
    data: Any
    id: str | None


class RemoteChain(RemoteRunnable[Any, Any]):
    """A `RemoteRunnable` that gives whole events, too: what `stream` and `join` make chunks of.

    It resumes after cuts, and cancels what it has started when it is left, just as they do.
    """

    def events(self, input: Any, config: Any = None) -> Generator[StreamEvent]:
        """Run the chain once, and yield the events of its stream up to the terminal one.

        Raises:
            RemoteError: As the class says; the run's own error after its event.
        """
        call = _EventCall(
            "POST",
            "stream",
            self._body(input, config, {}),
            self._new_run(),
            self._retries(),
            self._answers,
            **self._options_of({}),
        )
        yield from self._exchanges.stream(call)

    def joined_events(self, run_id: str) -> Generator[StreamEvent]:
        """Yield the events of a run that was started before, as `events` does."""
        path, run = f"runs/{quote(run_id, safe='')}/stream", self._new_run()
        run.run_ids = (run_id,)
        call = _EventCall("GET", path, b"", run, self._retries(), self._answers, repeatable=True)
        yield from self._exchanges.stream(call)


class _EventCall(StreamCall):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._reader = _EventReader(self._answers, self.run, self._retries)


class _EventReader(StreamReader):
    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        for event in self._events(data):
            self._run.last_event_id = event.last_event_id
            yield _told(event)
            match event.event:
                case "metadata":
                    self._note(event, self._run.note_metadata)
                case "end":
                    self._run.status = "success"
                    self.ended = True
                    return
                case "error":
                    raise self._failed(event)


def _told(event: ReceivedEvent) -> StreamEvent:
    data: Any = event.data
    if event.data is not None:
        with suppress(ValueError, RecursionError):
            data = json.loads(event.data)
    return StreamEvent(event.event, data, event.last_event_id or None)
