"""Whether a chunk of a long answer costs more than one of a short answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.cases import GROWTH, LONG, LONGER, SHORT, Case
from benchmarks.contestants import FLOOR, OURS, Field, field
from benchmarks.figures import Row, ratios
from benchmarks.measure import Effort, each, in_turns, row_of
from benchmarks.processes import Asked

CASES = (SHORT, LONGER, LONG)


def measure_growth(load: Asked, effort: Effort) -> Iterator[Row]:
    """Measure answers of growing length, one at a time, and how the cost of a chunk grows."""
    with field(CASES, load) as everybody:
        yield from growth_of(CASES, everybody, effort)


def growth_of(cases: Sequence[Case], everybody: Field, effort: Effort) -> Iterator[Row]:
    """Measure some cases, of which each is longer than the one before.

    How the cost grows is measured apart, with the shortest and the longest in turn: what disturbs
    one of two minutes is no part of their ratio then.
    """
    alone = replace(effort, connections=1)
    contestants = {case.name: everybody.contestants(case) for case in cases}
    for case in cases[1:]:
        yield replace(row_of(case, in_turns(contestants[case.name], alone)), goal=None)
    short, long = cases[0], cases[-1]
    turns = {
        f"{name}, {case.name}": contestants[case.name][name]
        for case in (short, long)
        for name in (FLOOR, OURS)
    }
    costs = each(in_turns(turns, alone.patient), lambda sample: sample.cost)
    growth = {
        name: [
            ratio * short.chunks / long.chunks
            for ratio in ratios(costs[f"{name}, {long.name}"], costs[f"{name}, {short.name}"])
        ]
        for name in (FLOOR, OURS)
    }
    yield Row(
        case="growth",
        title=f"growth of a chunk's cost, {short.chunks:,} to {long.chunks:,}",
        unit="times",
        costs=growth,
        judged=ratios(growth[OURS], growth[FLOOR]),
        goal=GROWTH,
    )
