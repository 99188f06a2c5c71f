"""Whether a chunk of a long answer costs more than one of a short answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks.cases import GROWTH, LONG, LONGER, SHORT, Case
from benchmarks.contestants import FLOOR, OURS, Field, field
from benchmarks.figures import Row, ratios
from benchmarks.measure import Effort, in_turns, row_of
from benchmarks.processes import Asked

CASES = (SHORT, LONGER, LONG)


def measure_growth(load: Asked, effort: Effort) -> Iterator[Row]:
    """Measure answers of growing length, one at a time, and how the cost of a chunk grows."""
    with field(CASES, load) as everybody:
        yield from growth_of(CASES, everybody, effort)


def growth_of(cases: Sequence[Case], everybody: Field, effort: Effort) -> Iterator[Row]:
    """Measure some cases, of which each is longer than the one before."""
    alone = replace(effort, connections=1)
    rows = [row_of(case, in_turns(everybody.contestants(case), alone)) for case in cases]
    yield from (replace(row, goal=None) for row in rows[1:])
    longer = cases[-1].chunks / cases[0].chunks
    growth = {
        name: [ratio / longer for ratio in ratios(rows[-1].costs[name], rows[0].costs[name])]
        for name in rows[0].costs
    }
    yield Row(
        case="growth",
        title=f"growth of a chunk's cost, {cases[0].chunks:,} to {cases[-1].chunks:,}",
        unit="times",
        costs=growth,
        judged=ratios(growth[OURS], growth[FLOOR]),
        goal=GROWTH,
    )
