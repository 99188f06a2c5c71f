"""How fast a finished run is read again. LangServe keeps none, so there is nothing to compare."""

from collections.abc import Iterator
from json import loads
from typing import Any

from benchmarks.cases import Case
from benchmarks.contestants import OURS, Served, Start, served
from benchmarks.figures import Row
from benchmarks.http import encode_request, joined_chunks
from benchmarks.measure import Effort
from benchmarks.processes import Asked, MeasuringError

_CONNECTIONS = 2


def measure_replay(case: Case, load: Asked, effort: Effort, start: Start = served) -> Iterator[Row]:
    """Measure how many events a second of processor time replays."""
    with start(case, OURS, load) as server:
        target = finished_run(case, server)
        check(case, server, target)
        rate(case, server, target, _CONNECTIONS)
        requests = max(
            _CONNECTIONS, round(rate(case, server, target, 10) * effort.cpu_seconds / case.chunks)
        )
        rates = [rate(case, server, target, requests) for _ in range(effort.rounds)]
    yield Row(
        case=case.name,
        title=case.title,
        unit="events/s CPU",
        costs={OURS: rates},
        judged=rates,
        goal=case.goal,
    )


def finished_run(case: Case, server: Served) -> str:
    """Start a run, wait for its end, and return the path of its stream."""
    headers = {"content-type": "application/json"}
    runs = f"{case.path}/runs"
    run = _asked(server, encode_request("POST", runs, headers, case.content))
    path = f"{runs}/{run['run_id']}"
    status = _asked(server, encode_request("GET", path, {"prefer": "wait=60"}))["status"]
    if status != "success":
        raise MeasuringError(f"the run that is to be replayed: {status}")
    return f"{path}/stream"


def check(case: Case, server: Served, target: str) -> None:
    """Read the run again once.

    Raises:
        MeasuringError: The events are not all there, or have no ids.
    """
    answer = server.ask("once", request=_read(target))
    body = joined_chunks(answer["received"].encode("latin-1").partition(b"\r\n\r\n")[2])
    events, ids = body.count(b"event: data\r\n"), body.count(b"id: ")
    if events != case.chunks or ids < events:
        raise MeasuringError(f"a replay has {events} events and {ids} ids")


def rate(case: Case, server: Served, target: str, requests: int) -> float:
    """Read the run again, and return how many events that were in a second of processor time."""
    before = server.cpu_seconds()
    server.ask(
        "many",
        request=_read(target),
        requests=requests,
        connections=_CONNECTIONS,
        ends_with="event: end",
    )
    return requests * case.chunks / (server.cpu_seconds() - before)


def _read(target: str) -> str:
    return encode_request("GET", target, {"accept": "text/event-stream"}).decode("latin-1")


def _asked(server: Served, request: bytes) -> Any:
    answer = server.ask("once", request=request.decode("latin-1"))
    return loads(answer["received"].partition("\r\n\r\n")[2])
