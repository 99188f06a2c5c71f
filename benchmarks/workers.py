"""What a second worker brings: how many more answers, and at what cost."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from benchmarks import wrk
from benchmarks.cases import Case
from benchmarks.contestants import OURS, Served, Start, served
from benchmarks.figures import COST, Row, ratios
from benchmarks.measure import Effort, enough_requests, rotated
from benchmarks.processes import Asked

ONE, TWO = "1 worker", "2 workers"
_CONNECTIONS = 64
_ENOUGH_CORES = 3
"""For two workers and who asks them."""

_on_all_cores = partial(served, pinned=False)


@dataclass(frozen=True)
class Worked:
    """What some seconds under load took.

    Attributes:
        requests: How many answers came.
        seconds: Of the clock on the wall.
        cpu: Seconds of processor time, by process.
    """

    requests: int
    seconds: float
    cpu: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return self.requests / self.seconds

    @property
    def cost(self) -> float:
        """Milliseconds of processor time for one answer."""
        return sum(self.cpu) / self.requests * 1000

    @property
    def busiest(self) -> float:
        """Milliseconds of the busiest process for an answer: with a core each, it sets the rate."""
        return max(self.cpu) / self.requests * 1000


def measure_workers(
    case: Case, load: Asked, effort: Effort, start: Start = _on_all_cores
) -> Iterator[Row]:
    """Measure one worker and two in turn, both with all cores."""
    with ExitStack() as stack:
        servers = {kind: stack.enter_context(start(case, kind, load)) for kind in (ONE, TWO)}
        requests = {kind: enough_requests(one, effort) for kind, one in servers.items()}
        found: dict[str, list[Worked]] = {kind: [] for kind in servers}
        for number in range(effort.rounds):
            for kind in rotated([*servers], number):
                found[kind].append(work(servers[kind], requests[kind], effort))
    yield from rows_of(case, found[ONE], found[TWO], len(os.sched_getaffinity(0)))


def work(server: Served, requests: int, effort: Effort) -> Worked:
    """Have wrk ask for a while, or the usual load so many times."""
    before = server.cpu_seconds_of_each()
    if effort.wrk_seconds and wrk.is_installed():
        requests, seconds = server.ask_for(effort.wrk_seconds, _CONNECTIONS)
    else:
        seconds = server.sample(requests, _CONNECTIONS).seconds
    after = server.cpu_seconds_of_each()
    return Worked(requests, seconds, tuple(after[pid] - used for pid, used in before.items()))


def rows_of(case: Case, one: list[Worked], two: list[Worked], cores: int) -> Iterator[Row]:
    """Return what was measured; the clock on the wall is judged where there are cores for all."""
    by_the_clock = cores >= _ENOUGH_CORES
    rates = {ONE: [sample.rate for sample in one], OURS: [sample.rate for sample in two]}
    yield Row(
        case=case.name,
        title=f"{case.title}, answers a second",
        unit="1/s",
        costs=rates,
        judged=ratios(rates[OURS], rates[ONE]),
        goal=case.goal if by_the_clock else None,
    )
    yield Row(
        case=case.name,
        title=f"{case.title}, by processor time",
        unit=COST,
        costs={ONE: [sample.cost for sample in one], OURS: [sample.cost for sample in two]},
        judged=ratios([sample.busiest for sample in one], [sample.busiest for sample in two]),
        goal=None if by_the_clock else case.goal,
    )
