"""The table, as text, Markdown and JSON."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contestants import CEILING, FLOOR, OURS, THEIRS
from benchmarks.figures import COST, Row, Spread

_SHOWN = (FLOOR, CEILING, OURS, THEIRS)
_PACKAGES = (
    "chainserve", "langserve", "langchain-core", "langgraph", "langchain-openai", "fastapi",
    "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "orjson",
)  # fmt: skip
HEADINGS = (
    "case", "unit", *_SHOWN, "judged", "least to most", "of the least", "must", "verdict",
    "wall clock: ours", "theirs",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return a row's cells."""
    figure = row.figure
    return [
        row.title,
        row.unit,
        *(_median(row.costs.get(name)) for name in _SHOWN),
        "" if figure is None else _short(figure.median),
        "" if figure is None else f"{_short(figure.least)} to {_short(figure.most)}",
        _of_the_least(row),
        "" if row.goal is None else f"{'≤' if row.goal.at_most else '≥'} {_short(row.goal.must)}",
        {True: "pass", False: "fail", None: ""}[row.passes()],
        *(_rate(row.rates.get(name)) for name in (OURS, THEIRS)),
    ]


def table(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    lines = [list(HEADINGS), *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row], machine: Mapping[str, Any]) -> str:
    """Return the table as Markdown, and below it where it was measured."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    about = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    return f"# Benchmarks\n\n{text}\n\n{about}\n"


def document(rows: Sequence[Row], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return all figures of all rounds, for JSON."""
    return {"machine": machine, "rows": [{**asdict(row), "passes": row.passes()} for row in rows]}


def describe_machine() -> dict[str, Any]:
    """Return what one has to know of a machine to read its figures."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _of_the_least(row: Row) -> str:
    """Return the ratio of the least costs of both servers, which were disturbed least."""
    if row.unit != COST or not {OURS, THEIRS} <= row.costs.keys():
        return ""
    return _short(min(row.costs[THEIRS]) / min(row.costs[OURS]))


def _median(figures: Sequence[float] | None) -> str:
    return _short(Spread.of(figures).median) if figures else ""


def _rate(figures: Sequence[float] | None) -> str:
    return f"{_median(figures)}/s" if figures else ""


def _short(figure: float) -> str:
    """Return a figure with three digits that count."""
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"
