"""Runs over HTTP: start one, ask for its log on a wire from a position, and read the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from json import loads
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from fastapi import FastAPI
from langchain_core.runnables import Runnable
from starlette.types import ASGIApp

from chainserve import add_routes, add_stream_route
from chainserve.hooks import Principal
from chainserve.runtime import runtimes_on
from chainserve.settings import Settings
from chainserve.stores.memory import MemoryStore
from tests._asgi import RequestOptions
from tests._bridge import Response, open_stream, request
from tests._sse import EventDecoder, ReceivedEvent

Wire = Literal["id", "ndjson", "text events"]

ACCEPT: dict[Wire, str] = {
    "id": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "text events": "text/event-stream",
}
LAST_EVENT_ID = "Last-Event-ID"
UNKNOWN_RUN = "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"
"""The id of a run that nobody started: the same each time, as the name of a test is."""


class LogEvent(NamedTuple):
    """An event as a wire shows it; the data is JSON that was decoded, or the text of a chunk."""

    id: str
    event: str
    data: Any

    @property
    def seq(self) -> int:
        """The position that the id names."""
        return int(self.id.rpartition(".")[2])


@dataclass(frozen=True)
class Asked:
    """A request, for `ask` or for a socket's `send_request`."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None


@dataclass(frozen=True)
class Started:
    """A run that was started, and what its cursors begin with."""

    run_id: str
    prefix: str

    def cursor(self, seq: int) -> str:
        """Return the cursor of a position; -1 is before the first event."""
        return f"{self.prefix}.{seq}"


@dataclass(frozen=True)
class Way:
    """One of the ways in which a reader resumes.

    Attributes:
        start: Where a run that can be resumed in this way is started by GET.
        method: The method of the request that resumes.
        path: Its path; `{run_id}` stands for the run's id.
        sends: Whether the cursor is sent in the header or as the parameter.
        wires: The wires that can be resumed in this way.
    """

    start: str
    method: str
    path: str
    sends: Literal["header", "parameter"]
    wires: tuple[Wire, ...]

    def ask(self, run: Started, cursor: str | None, wire: Wire | None = None) -> Asked:
        """Return the request that goes on behind a cursor; None is a reader that has none.

        A cursor in the header is sent as it is, one in the parameter is escaped.
        """
        wire = wire or self.wires[0]
        headers = {"accept": ACCEPT[wire]}
        query = []
        if wire == "text events" and self.start == CHAIN:
            query.append("format=text")
        if cursor is not None and self.sends == "header":
            headers[LAST_EVENT_ID] = cursor
        if cursor is not None and self.sends == "parameter":
            query.append(f"last_event_id={quote(cursor, safe='')}")
        target = self.path.format(run_id=run.run_id)
        if query:
            target += f"?{'&'.join(query)}"
        return Asked(self.method, target, headers, {"input": 1} if self.method == "POST" else None)


CHAIN, PLAIN = "/chain/stream", "/stream_chat"
_ALL: tuple[Wire, ...] = ("id", "ndjson", "text events")
_OF_A_POST: tuple[Wire, ...] = ("id", "ndjson")
_OF_A_PLAIN_ROUTE: tuple[Wire, ...] = ("text events", "ndjson")

WAYS = {
    "the run by header": Way(CHAIN, "GET", "/chain/runs/{run_id}/stream", "header", _ALL),
    "the run by parameter": Way(CHAIN, "GET", "/chain/runs/{run_id}/stream", "parameter", _ALL),
    "GET stream by header": Way(CHAIN, "GET", CHAIN, "header", _ALL),
    "GET stream by parameter": Way(CHAIN, "GET", CHAIN, "parameter", _ALL),
    "POST stream": Way(CHAIN, "POST", CHAIN, "header", _OF_A_POST),
    "plain GET by header": Way(PLAIN, "GET", PLAIN, "header", _OF_A_PLAIN_ROUTE),
    "plain GET by parameter": Way(PLAIN, "GET", PLAIN, "parameter", _OF_A_PLAIN_ROUTE),
    "plain POST": Way(PLAIN, "POST", PLAIN, "header", _OF_A_PLAIN_ROUTE),
}


def app_with_every_way(
    runnable: Runnable[Any, Any],
    settings: Settings | None = None,
    principal: Principal | None = None,
) -> FastAPI:
    """Return an application that serves a runnable at `/chain` and at the plain route."""
    app = FastAPI()
    runtimes_on(app.router, settings or Settings(), principal)
    add_routes(app, runnable, path="/chain")
    add_stream_route(app, runnable, PLAIN)
    return app


def use_store(app: FastAPI, store: MemoryStore) -> None:
    """Let an application that has had no request yet keep its runs in this store."""
    runtime = runtimes_on(app.router).current()
    runtime.store = runtime.executor.store = store


async def start_run(app: ASGIApp, value: Any = 1, *, path: str = "/chain", **members: Any) -> str:
    """Start a run by `POST runs` and return its id; `members` are added to the body."""
    response = await request(app, "POST", f"{path}/runs", json={"input": value, **members})
    assert response.status in (200, 202), response.text
    return str(response.json()["run_id"])


async def start(
    app: ASGIApp, stream: str = CHAIN, *, headers: dict[str, str] | None = None
) -> Started:
    """Start a run by GET, read its first event and leave; the run goes on."""
    target = f"{stream}?input=1&on_disconnect=continue"
    async with open_stream(app, "GET", target, headers=headers or {}) as response:
        metadata = await response.next_event()
    assert metadata is not None
    assert metadata.id is not None, response.sends
    return Started(metadata.json()["run_id"], metadata.id.rpartition(".")[0])


async def ask(app: ASGIApp, asked: Asked) -> Response:
    """Send a request and return the complete response."""
    return await request(app, asked.method, asked.target, **options_of(asked))


def options_of(asked: Asked) -> RequestOptions:
    """Return what `request` and `open_stream` are given beside the method and the target."""
    options = RequestOptions(headers=asked.headers)
    if asked.json is not None:
        options["json"] = asked.json
    return options


async def read_log(
    app: ASGIApp, run_id: str, wire: Wire = "id", *, path: str = "/chain", after: str | None = None
) -> list[LogEvent]:
    """Return the events of a run behind a cursor, or all, once it has ended."""
    way = Way(f"{path}/stream", "GET", f"{path}/runs/{{run_id}}/stream", "header", (wire,))
    response = await ask(app, way.ask(Started(run_id, ""), after))
    assert response.status == 200, response.text
    return decode(wire, response.body)


def decode(wire: Wire, body: bytes) -> list[LogEvent]:
    """Return the complete events of a body; what a heartbeat adds is left out."""
    if wire == "ndjson":
        lines = body.split(b"\n")[:-1]
        return [LogEvent(**loads(line)) for line in lines if line]
    return [_shown(event) for event in EventDecoder().feed(body) if event.data is not None]


def _shown(event: ReceivedEvent) -> LogEvent:
    assert event.id is not None, event.raw
    data = event.data if event.event == "message" else event.json()
    return LogEvent(event.id, event.event, data)
