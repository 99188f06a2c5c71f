"""What a stream that waits takes of a server's memory."""

from collections.abc import Iterator

from benchmarks.cases import Case
from benchmarks.contestants import OURS, THEIRS, Served, Start, served
from benchmarks.figures import Row, ratios
from benchmarks.measure import Effort, rotated
from benchmarks.processes import Asked, raise_open_files

_WARMING = 20
_OTHER_FILES = 100

_PAGE_BYTES = 4096
"""The least that memory is seen to grow by."""


def measure_idle(
    case: Case, load: Asked, effort: Effort, many: int = 1, start: Start = served
) -> Iterator[Row]:
    """Measure what a server grows by, for each stream: a fresh process every time.

    Args:
        case: The chain that waits.
        load: Who opens the streams.
        effort: How many streams there are, and three times how many rounds.
        many: How many times as many streams; there is one round of more than once as many.
        start: Starts the servers.
    """
    costs: dict[str, list[float]] = {OURS: [], THEIRS: []}
    streams = effort.streams * many
    allowed = min(streams, raise_open_files(streams + _OTHER_FILES) - _OTHER_FILES)
    for number in range(max(1, effort.rounds // 3) if many == 1 else 1):
        for kind in rotated([*costs], number):
            with start(case, kind, load) as server:
                costs[kind].append(kilobytes_a_stream(server, load, allowed))
    fewer = "" if allowed == streams else f" (of {streams:,}: no more files may be open here)"
    yield Row(
        case=case.name,
        title=f"{case.title}, {allowed:,} streams{fewer}",
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
