"""What a server adds to the time of a token, at the pace at which models talk."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from benchmarks.cases import Case
from benchmarks.contestants import OURS, THEIRS, Served, Start, served
from benchmarks.figures import Row, ratios
from benchmarks.measure import Effort, rotated
from benchmarks.processes import Asked
from benchmarks.runnables import PAUSE_SECONDS

PARTS = (0.1, 0.5, 0.9)
"""Of the load at which LangServe has no processor time left."""

JUDGED = 0.5
_FEW = 10


def measure_latency(
    case: Case,
    load: Asked,
    effort: Effort,
    parts: Sequence[float] = PARTS,
    start: Start = served,
) -> Iterator[Row]:
    """Measure how long a token takes from the model to the client, with the same load for both."""
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(start(case, kind, load)) for kind in (OURS, THEIRS)}
        few = min(_FEW, effort.streams)
        for server in servers.values():
            delays(case, server, few)
        capacity = streams_at_capacity(case, servers[THEIRS], few)
        for part in parts:
            streams = max(1, min(round(part * capacity), effort.streams))
            yield from _rows(case, servers, part, streams, effort)


def _rows(
    case: Case, servers: dict[str, Served], part: float, streams: int, effort: Effort
) -> Iterator[Row]:
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in servers}
    for number in range(effort.rounds):
        for kind in rotated([*servers], number):
            found[kind].append(delays(case, servers[kind], streams))
    for rank in ("p50", "p99"):
        costs = {kind: [one[rank] * 1000 for one in taken] for kind, taken in found.items()}
        yield Row(
            case=case.name,
            title=f"{case.title}, {rank}, {streams} streams ({part:.0%} of capacity)",
            unit="ms",
            costs=costs,
            judged=ratios(costs[OURS], costs[THEIRS]),
            goal=case.goal if rank == "p99" and part == JUDGED else None,
        )


def delays(case: Case, server: Served, streams: int) -> dict[str, float]:
    """Read some streams at once, and return how late their tokens came, in seconds.

    All of them have begun when a third of the first one has passed.
    """
    start_seconds = case.chunks * PAUSE_SECONDS / 3
    return dict(server.ask("pace", streams=streams, start_seconds=start_seconds))


def streams_at_capacity(case: Case, server: Served, few: int) -> float:
    """Return how many streams take all of a core, by what a token of a few takes."""
    before = server.cpu_seconds()
    tokens = delays(case, server, few)["tokens"]
    cost = (server.cpu_seconds() - before) / tokens
    return PAUSE_SECONDS / cost
