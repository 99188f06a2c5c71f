"""The arithmetic: medians, ratios and whether a goal is met. No clock, no process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

COST = "ms CPU"
"""The unit of what a request costs: milliseconds of processor time."""


@dataclass(frozen=True)
class Goal:
    """What a figure has to be.

    Attributes:
        must: What it has to reach.
        moonshot: What would be far better.
        at_most: Whether less is better.
    """

    must: float
    moonshot: float
    at_most: bool = False

    def met_by(self, figure: float, share: float = 1) -> bool:
        """Tell whether a figure reaches that share of what it has to be."""
        return figure <= self.must / share if self.at_most else figure >= self.must * share


@dataclass(frozen=True)
class Spread:
    """The middle of some figures, and the farthest of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Self:
        """Return that of some figures, one at least."""
        return cls(median(figures), min(figures), max(figures))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratio of each round: what a round's noise does to both cancels out."""
    return [one / other for one, other in zip(above, below, strict=True)]


def percentile(figures: Sequence[float], percent: float) -> float:
    """Return the figure that so many percent do not exceed, by the nearest rank."""
    ordered = sorted(figures)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of a case: one figure a round, by who was measured.

    Attributes:
        case: The name of the case.
        title: What the table calls it.
        unit: Of `costs`.
        costs: What is compared, by server.
        judged: The figure of each round that the goal is about.
        goal: The goal.
        rates: Answers in a second, by server, as a clock on the wall sees it.
        firsts: Milliseconds to the first chunk, by server.
    """

    case: str
    title: str
    unit: str
    costs: Mapping[str, Sequence[float]]
    judged: Sequence[float]
    goal: Goal | None = None
    rates: Mapping[str, Sequence[float]] = field(default_factory=dict)
    firsts: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def figure(self) -> Spread | None:
        """The figure that is judged."""
        return Spread.of(self.judged) if self.judged else None

    def passes(self, share: float = 1) -> bool | None:
        """Tell whether the goal is met, or that share of it; None where there is none."""
        if self.goal is None or self.figure is None:
            return None
        return self.goal.met_by(self.figure.median, share)


def missed(rows: Sequence[Row], share: float) -> list[Row]:
    """Return the rows that do not reach this share of what they have to."""
    return [row for row in rows if row.passes(share) is False]


def replaced(rows: Sequence[Row], by: Sequence[Row]) -> list[Row]:
    """Return the rows, with those in place of others that have their titles."""
    newer = {row.title: row for row in by}
    return [newer.get(row.title, row) for row in rows]
