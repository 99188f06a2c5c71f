"""The rounds: everybody in turn, again and again, so that what disturbs one disturbs all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import wrk
from benchmarks.cases import Case
from benchmarks.contestants import (
    CEILING,
    FLOOR,
    OURS,
    THEIRS,
    Contestant,
    Field,
    Sample,
    field,
)
from benchmarks.figures import COST, Goal, Row, ratios
from benchmarks.processes import Asked

Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: How often everybody has their turn.
        patience: How many times as often where noise is a large part of what is told: in costs
            that are small, or near each other as those of the chain's share.
        cpu_seconds: About how much processor time a turn takes.
        connections: How many requests are under way at once.
        longest: The most requests of a turn.
        streams: How many idle streams are held, and the most that run at a pace.
        wrk_seconds: How long wrk asks, where it is installed; 0 leaves it out.
    """

    rounds: int = 9
    patience: int = 3
    cpu_seconds: float = 0.5
    connections: int = 8
    longest: int = 5000
    streams: int = 1000
    wrk_seconds: int = 2

    @property
    def patient(self) -> "Effort":
        """The effort where noise is a large part of what is told."""
        return replace(self, rounds=self.patience * self.rounds)


QUICK = Effort(rounds=5, patience=1, cpu_seconds=0.1, connections=2, wrk_seconds=0)


def compare(
    cases: Sequence[Case],
    load: Asked,
    effort: Effort,
    kinds: Sequence[str] = (CEILING, OURS, THEIRS),
) -> Iterator[Row]:
    """Measure some cases with the same processes, and yield their rows."""
    with field(cases, load, kinds) as everybody:
        for case in cases:
            contestants = everybody.contestants(case)
            own = effort.patient if case.is_noisy else effort
            row = row_of(case, in_turns(contestants, own))
            yield replace(row, rates=wrk_rates(everybody, row, case, effort) or row.rates)
            if case.share is not None:
                pair = {name: contestants[name] for name in (FLOOR, OURS)}
                yield share_row(case, case.share, in_turns(pair, effort.patient))
                yield first_row(row)


def wrk_rates(everybody: Field, row: Row, case: Case, effort: Effort) -> dict[str, list[float]]:
    """Return how many answers a second wrk gets of both servers; none where it is left out.

    It asks long enough for several answers on each connection.
    """
    rates: dict[str, list[float]] = {}
    if effort.wrk_seconds and wrk.is_installed():
        for kind in (OURS, THEIRS, THEIRS, OURS):
            seconds = effort.wrk_seconds + round(4 * effort.connections / min(row.rates[kind]))
            answers, took = everybody.served(case, kind).ask_for(seconds, effort.connections)
            rates.setdefault(kind, []).append(answers / took)
    return rates


def in_turns(found: Mapping[str, Contestant], effort: Effort) -> dict[str, list[Sample]]:
    """Give everybody a turn in each round; another one begins each time."""
    requests = {name: enough_requests(one, effort) for name, one in found.items()}
    samples: dict[str, list[Sample]] = {name: [] for name in found}
    for number in range(effort.rounds):
        for name in rotated(list(found), number):
            samples[name].append(found[name].sample(requests[name], effort.connections))
    return samples


def enough_requests(one: Contestant, effort: Effort) -> int:
    """Return how many requests fill a turn; those that tell it warm the server up as well."""
    cost = one.sample(effort.connections, effort.connections).cost / 1000
    wanted = round(effort.cpu_seconds / max(cost, 1e-6))
    return max(effort.connections, min(wanted, effort.longest))


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Return the names, beginning with another one."""
    start = by % len(names)
    return [*names[start:], *names[:start]]


def row_of(case: Case, samples: Samples) -> Row:
    """Return what the samples of a case say: LangServe's cost over ours is what counts."""
    costs = each(samples, lambda sample: sample.cost)
    return Row(
        case=case.name,
        title=case.title,
        unit=COST,
        costs=costs,
        judged=ratios(costs[THEIRS], costs[OURS]),
        goal=case.goal,
        rates=each(samples, lambda sample: sample.rate),
        firsts={
            name: [sample.first * 1000 for sample in taken if sample.first is not None]
            for name, taken in samples.items()
            if name != FLOOR
        },
    )


def share_row(case: Case, goal: Goal, samples: Samples) -> Row:
    """Return which part of our cost is the chain's own."""
    costs = each(samples, lambda sample: sample.cost)
    return Row(
        case=case.name,
        title=f"{case.title}: the chain's share",
        unit=COST,
        costs=costs,
        judged=ratios(costs[FLOOR], costs[OURS]),
        goal=goal,
    )


def first_row(row: Row) -> Row:
    """Return how long the first chunk takes while all connections are busy."""
    firsts = {name: row.firsts[name] for name in (OURS, THEIRS)}
    return Row(
        case=row.case,
        title=f"{row.title}: time to the first under load",
        unit="ms",
        costs=firsts,
        judged=ratios(firsts[OURS], firsts[THEIRS]),
    )


def each(samples: Samples, figure: Callable[[Sample], float]) -> dict[str, list[float]]:
    """Return a figure of all samples, by server."""
    return {name: [figure(sample) for sample in taken] for name, taken in samples.items()}
