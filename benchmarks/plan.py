"""Everything that can be measured, in the order of the table."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.cases import CASES, IDLE_BARE, IDLE_USUAL, PACED, REPLAYED, WORKED, Case
from benchmarks.contestants import OURS, THEIRS
from benchmarks.figures import Row
from benchmarks.growth import measure_growth
from benchmarks.latency import measure_latency
from benchmarks.measure import Effort, compare
from benchmarks.memory import measure_idle
from benchmarks.processes import Asked
from benchmarks.replay import measure_replay
from benchmarks.workers import measure_workers

Measure = Callable[[Asked, Effort], Iterator[Row]]


@dataclass(frozen=True)
class Item:
    """Something to measure.

    Attributes:
        name: What it is called on the command line.
        measure: Measures it.
    """

    name: str
    measure: Measure


def _measure_idle(case: Case, load: Asked, effort: Effort) -> Iterator[Row]:
    """Measure idle streams, and five times as many."""
    for many in (1, 5):
        yield from measure_idle(case, load, effort, many)


PLAN = (
    *(Item(case.name, partial(compare, [case])) for case in CASES),
    Item("growth", measure_growth),
    *(Item(case.name, partial(_measure_idle, case)) for case in (IDLE_BARE, IDLE_USUAL)),
    Item(PACED.name, partial(measure_latency, PACED)),
    Item(REPLAYED.name, partial(measure_replay, REPLAYED)),
    Item(WORKED.name, partial(measure_workers, WORKED)),
)


def chosen(names: Collection[str], *, quickly: bool) -> list[Item]:
    """Return what to measure: what has these names, or all of it where there are none.

    The quick run has a few cases, which share their processes.
    """
    if not quickly:
        return [item for item in PLAN if not names or item.name in names]
    cases = [case for case in CASES if case.quick and (not names or case.name in names)]
    return [Item("quick", partial(compare, cases, kinds=(OURS, THEIRS)))]
