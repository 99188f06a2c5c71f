"""The events of a stream, as they come: what `chainserve call --json` writes, and `--run-id` reads.

`RemoteRunnable` gives chunks; this is for who wants to see the rest of a stream as well.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from chainserve.answers import AnswerReader, Body
from chainserve.client_errors import StreamInterruptedError
from chainserve.client_requests import EVENT_STREAM_HEADERS, shown_url
from chainserve.exchanges import CONNECT_TIMEOUT, SEND_TIMEOUT, STREAM_TIMEOUT
from chainserve.remote import RemoteRun
from chainserve.serialization import WellKnownLCSerializer
from chainserve.transport import CUT_ERRORS, caught_as_any
from chainserve.types import TERMINAL_EVENTS
from chainserve.wire.parser import EventParser, ReceivedEvent

_HEADERS = {**EVENT_STREAM_HEADERS, "prefer": "resumable"}


class StreamEvent(NamedTuple):
    """An event of a stream.

    Attributes:
        event: Its name.
        data: Its data; None where it has none.
        id: Its id; None on the wires that have none.
    """

    event: str
    data: Any
    id: str | None


def events_of(
    client: Any, method: str, path: str, *, timeout: float | None, json: Any = None
) -> Iterator[StreamEvent]:
    """Send a request, and yield the events of its stream, the terminal one among them.

    Args:
        client: An httpx client whose base URL is that of the chain.
        method: The request's method.
        path: Its path below the chain's URL.
        timeout: Seconds between two signs of life; the client's own bound when None.
        json: Its body.

    Raises:
        RemoteStatusError: The server refused.
        StreamInterruptedError: The stream ended without its terminal event.
        UnexpectedAnswerError: What came is no stream of events.
    """
    answers, parser, ended = AnswerReader(WellKnownLCSerializer()), EventParser(), False
    bounds = (CONNECT_TIMEOUT, STREAM_TIMEOUT, SEND_TIMEOUT, STREAM_TIMEOUT)
    options = {"headers": _HEADERS, "timeout": bounds if timeout is None else timeout}
    with caught_as_any(), client.stream(method, path, json=json, **options) as response:
        if not answers.is_stream(response):
            answers.refuse(response, _body_of(response), RemoteRun())
        with suppress(*CUT_ERRORS):  # The body was left unfinished, which is said below.
            for data in response.iter_bytes():
                for event in parser.feed(data):
                    ended = event.event in TERMINAL_EVENTS
                    yield _told(event)
                if ended:
                    return
    raise StreamInterruptedError(
        f"The stream of {shown_url(response.request.url)} ended without its terminal event: the "
        "connection was cut, and what was read may not be all."
    )


def _body_of(response: Any) -> bytes:
    """Return the body of an error, as much as came within a bound."""
    body = Body(response)
    with suppress(*CUT_ERRORS):
        for data in response.iter_bytes():
            if not body.add(data):
                break
    return body.content


def _told(event: ReceivedEvent) -> StreamEvent:
    """Return an event with its data read; what is no JSON stays a text."""
    data: Any = event.data
    if event.data is not None:
        with suppress(ValueError, RecursionError):
            data = json.loads(event.data)
    return StreamEvent(event.event, data, event.last_event_id or None)
