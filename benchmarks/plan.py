"""Everything that can be measured, in the order of the table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.cases import CASES, IDLE_BARE, IDLE_USUAL, PACED, REPLAYED, Case
from benchmarks.figures import Row
from benchmarks.growth import measure_growth
from benchmarks.latency import measure_latency
from benchmarks.measure import Effort, compare
from benchmarks.memory import measure_idle
from benchmarks.processes import Asked
from benchmarks.replay import measure_replay

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


PLAN = (
    *(Item(case.name, partial(compare, [case])) for case in CASES),
    Item("growth", measure_growth),
    *(Item(case.name, partial(measure_idle, case)) for case in (IDLE_BARE, IDLE_USUAL)),
    Item(PACED.name, partial(measure_latency, PACED)),
    Item(REPLAYED.name, partial(measure_replay, REPLAYED)),
)


def quick(cases: tuple[Case, ...] = CASES) -> Item:
    """Return what the quick run has: a few cases, which share their processes."""
    return Item("quick", partial(compare, [case for case in cases if case.quick]))
