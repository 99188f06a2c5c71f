"""Whether a chunk of a long answer costs more than one of a short answer."""

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.cases import GROWTH, LONG, LONGER, SHORT, Case
from benchmarks.contestants import FLOOR, OURS, field
from benchmarks.figures import Row, ratios
from benchmarks.measure import Effort, in_turns, row_of
from benchmarks.processes import Asked


def measure_growth(
    load: Asked, effort: Effort, cases: tuple[Case, ...] = (SHORT, LONGER, LONG)
) -> Iterator[Row]:
    """Measure answers of growing length, one at a time, and how the cost of a chunk grows."""
    alone = replace(effort, connections=1)
    with field(cases, load) as everybody:
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
