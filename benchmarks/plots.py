"""The figures as pictures, where matplotlib is installed."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.contestants import CEILING, FLOOR, OURS, THEIRS
from benchmarks.figures import COST, Row, Spread

_COLOURS = {CEILING: "tab:gray", FLOOR: "tab:olive", OURS: "tab:blue", THEIRS: "tab:orange"}


def draw(folder: Path, rows: Sequence[Row]) -> bool:
    """Write `ratios.png`, `costs.png` and `latency.png`, each if there is something to show.

    Returns:
        Whether matplotlib is installed; nothing is written otherwise.
    """
    try:
        import_module("matplotlib").use("Agg")
        pyplot = import_module("matplotlib.pyplot")
    except ImportError:
        return False
    ratios = [row for row in rows if row.goal and row.judged and len(row.costs) > 1]
    costs = [row for row in rows if row.unit == COST and THEIRS in row.costs]
    delays = [row for row in rows if row.unit == "ms"]
    for name, shown, plot in (
        ("ratios", ratios, _ratios),
        ("costs", costs, _costs),
        ("latency", delays, _delays),
    ):
        if shown:
            figure, axes = pyplot.subplots(figsize=(10, 1.5 + 0.5 * len(shown)), layout="tight")
            plot(axes, shown)
            axes.set_yticks(range(len(shown)), [row.title for row in shown])
            axes.invert_yaxis()
            figure.savefig(folder / f"{name}.png", dpi=120)
            pyplot.close(figure)
    return True


def _ratios(axes: Any, rows: Sequence[Row]) -> None:
    """Draw how much of what it must be each figure is, least to most, and where the goals are."""
    for place, row in enumerate(rows):
        assert row.goal is not None
        spread, must = Spread.of(row.judged), row.goal.must
        shares = [_share(row, figure) for figure in (spread.least, spread.median, spread.most)]
        axes.plot([shares[0], shares[2]], [place, place], color=_COLOURS[OURS], linewidth=2)
        axes.plot(shares[1], place, "o", color=_COLOURS[OURS])
        axes.plot(_share(row, row.goal.moonshot), place, "*", color="tab:green")
        axes.annotate(
            f"{spread.median:.2f} of {'at most ' if row.goal.at_most else ''}{must:g}",
            (shares[1], place),
            textcoords="offset points",
            xytext=(0, 6),
            fontsize=8,
        )
    axes.axvline(1, color="tab:red", label="must")
    axes.plot([], [], "*", color="tab:green", label="moonshot")
    axes.set_xlim(left=0)
    axes.set_xlabel("share of what it must be; right is better")
    axes.legend(loc="lower right")


def _share(row: Row, figure: float) -> float:
    """Return which part of what it must be a figure is; more is better."""
    assert row.goal is not None
    return row.goal.must / figure if row.goal.at_most else figure / row.goal.must


def _costs(axes: Any, rows: Sequence[Row]) -> None:
    """Draw what a request costs, by layer."""
    _bars(axes, rows, (CEILING, FLOOR, OURS, THEIRS))
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds of processor time for a request; the median")


def _delays(axes: Any, rows: Sequence[Row]) -> None:
    """Draw how long chunks take."""
    _bars(axes, rows, (OURS, THEIRS))
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds; the median of the rounds")


def _bars(axes: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        found = [(place, row.costs[name]) for place, row in enumerate(rows) if row.costs.get(name)]
        if not found:
            continue
        axes.barh(
            [place + (number - (len(names) - 1) / 2) * height for place, _ in found],
            [Spread.of(costs).median for _, costs in found],
            height,
            label=name,
            color=_COLOURS[name],
        )
    axes.legend()
