"""What a stream that waits takes of a server's memory."""

from collections.abc import Iterator

from benchmarks.cases import Case
from benchmarks.contestants import OURS, THEIRS, Served, served
from benchmarks.figures import Row, ratios
from benchmarks.measure import Effort, rotated
from benchmarks.processes import Asked

_WARMING = 20

_PAGE_BYTES = 4096
"""The least that memory is seen to grow by."""


def measure_idle(case: Case, load: Asked, effort: Effort) -> Iterator[Row]:
    """Measure what a server grows by, for each stream: a fresh process every time."""
    costs: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for number in range(effort.rounds):
        for kind in rotated([*costs], number):
            with served(case, kind, load) as server:
                costs[kind].append(kilobytes_a_stream(server, load, effort.streams))
    yield Row(
        case=case.name,
        title=case.title,
        unit="KB",
        costs=costs,
        judged=ratios(costs[OURS], costs[THEIRS]),
        goal=case.goal,
    )


def kilobytes_a_stream(server: Served, load: Asked, streams: int) -> float:
    """Return what a server's memory grows by for a stream, after it has had a few."""
    server.ask("hold", streams=_WARMING)
    load.ask(do="release")
    before = server.resident_bytes()
    server.ask("hold", streams=streams)
    grown = max(server.resident_bytes() - before, _PAGE_BYTES)
    load.ask(do="release")
    return grown / streams / 1000
