"""The figures of a table: pure functions."""

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chains._table import Table

_MAX_SHOWN_LENGTH = 60
_MAX_CATEGORIES = 5
_MAX_GROUPS = 20
_MAX_GROUPINGS = 6
# Beyond this the squares of a standard deviation leave the range of a float.
_LARGEST = 1e100

_NUMBER = re.compile(
    r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d{1,3})?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class NumberFigures:
    """The figures of a column's numbers; `deviation` is the sample's, None for a single number."""

    sum: float
    mean: float
    median: float
    min: float
    max: float
    deviation: float | None


@dataclass(frozen=True, slots=True)
class ColumnFigures:
    """What is known of one column.

    Attributes:
        name: Its name.
        count: How many values it has.
        missing: How many rows have none; NaN and the infinities count as none.
        distinct: How many of its values are different.
        percent: Whether its numbers are written as percentages.
        numbers: The figures of its numbers, if most of its values are numbers.
        unreadable: How many values are no numbers, in a column of numbers.
        top: The most frequent values and how often they occur, in a column of text.
    """

    name: str
    count: int
    missing: int
    distinct: int
    percent: bool = False
    numbers: NumberFigures | None = None
    unreadable: int = 0
    top: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class GroupSums:
    """The sums of a column of numbers for each value of another column, the largest first."""

    number: str
    category: str
    sums: Mapping[str, float]


def column_figures(name: str, cells: Sequence[str]) -> ColumnFigures:
    """Return the figures of one column."""
    values = [cell for cell in cells if cell]
    percent = bool(values) and all(value.endswith("%") for value in values)
    numbers = [number for value in values if (number := parse_number(value, percent)) is not None]
    are_numbers = 2 * len(numbers) > len(values)
    return ColumnFigures(
        name=name,
        count=len(values),
        missing=len(cells) - len(values),
        distinct=len(set(values)),
        percent=percent and are_numbers,
        numbers=_number_figures(numbers) if are_numbers else None,
        unreadable=len(values) - len(numbers) if are_numbers else 0,
        top=() if are_numbers else tuple(Counter(values).most_common(_MAX_CATEGORIES)),
    )


def parse_number(text: str, percent: bool = False) -> float | None:
    """Return the number that a cell holds, None if it holds none.

    A comma is read as a thousands separator, and only where one can stand. `12%` is 12 when
    `percent` is true, and else no number.
    """
    digits = text.replace("\u2212", "-")
    if percent:
        digits = digits.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(digits):
        return None
    number = float(digits.replace(",", ""))
    return number if abs(number) <= _LARGEST else None


def group_sums(table: Table, number: str, category: str) -> GroupSums:
    """Return the sums of one column for each value of another; rows lacking either do not count."""
    percent = column_figures(number, table[number]).percent
    groups: dict[str, list[float]] = {}
    for group, cell in zip(table[category], table[number], strict=True):
        value = parse_number(cell, percent)
        if group and value is not None:
            groups.setdefault(group, []).append(value)
    sums = {group: math.fsum(values) for group, values in groups.items()}
    return GroupSums(number, category, dict(sorted(sums.items(), key=lambda item: -item[1])))


def asked_groups(table: Table, columns: Iterable[ColumnFigures], question: str) -> list[GroupSums]:
    """Return the sums that a question asks for by naming columns.

    A question that names a category and no column of numbers gets the sums of them all. Sums of
    percentages mean nothing, and are not given.
    """
    columns = list(columns)
    numbers = [column for column in columns if column.numbers and not column.percent]
    categories = [column for column in columns if not column.numbers]
    named = [column for column in numbers if _names(question, column.name)] or numbers
    pairs = [
        (number.name, category.name)
        for category in categories
        if _names(question, category.name)
        for number in named
    ]
    return [group_sums(table, number, category) for number, category in pairs[:_MAX_GROUPINGS]]


def figures_text(table: Table, question: str = "") -> str:
    """Return all figures of a table, a line each, the sums that the question asks for last."""
    columns = [column_figures(name, cells) for name, cells in table.items()]
    rows = len(next(iter(table.values())))
    return "\n".join(
        [
            f"- Rows: {rows}. Columns: {len(columns)}.",
            *map(_column_line, columns),
            *map(_group_line, asked_groups(table, columns, question)),
        ]
    )


def _number_figures(numbers: Sequence[float]) -> NumberFigures:
    return NumberFigures(
        sum=math.fsum(numbers),
        mean=statistics.fmean(numbers),
        median=statistics.median(numbers),
        min=min(numbers),
        max=max(numbers),
        deviation=statistics.stdev(numbers) if len(numbers) > 1 else None,
    )


def _names(question: str, column: str) -> bool:
    """Tell whether a question names a column, perhaps in the plural."""
    parts = [part for part in re.split(r"[\s_-]+", column) if part]
    if not parts:
        return False
    words = r"[\s_-]+".join(map(re.escape, parts))
    return re.search(rf"(?<!\w){words}(?:e?s)?(?!\w)", question, re.IGNORECASE) is not None


def _column_line(column: ColumnFigures) -> str:
    kind = "text" if column.numbers is None else "percentages" if column.percent else "numbers"
    line = f"- {column.name} ({kind}): {column.count} values, {column.missing} missing"
    if column.unreadable:
        line += f", {column.unreadable} not readable as numbers and left out"
    return f"{line}, {column.distinct} distinct; {_main_figures(column)}"


def _main_figures(column: ColumnFigures) -> str:
    if column.numbers is None:
        top = ", ".join(f"{_short(value)} ({count})" for value, count in column.top)
        return f"most frequent: {top or 'none'}"
    numbers = column.numbers
    unit = "%" if column.percent else ""
    shown = {
        "mean": numbers.mean,
        "median": numbers.median,
        "min": numbers.min,
        "max": numbers.max,
        "standard deviation": numbers.deviation,
    }
    if not column.percent:
        shown = {"sum": numbers.sum, **shown}
    return ", ".join(
        f"{name} {_number_text(number)}{unit}"
        for name, number in shown.items()
        if number is not None
    )


def _group_line(groups: GroupSums) -> str:
    shown = list(groups.sums.items())[:_MAX_GROUPS]
    sums = ", ".join(f"{_short(group)} {_number_text(value)}" for group, value in shown)
    left = len(groups.sums) - len(shown)
    more = f" and {left} more" if left else ""
    return f"- Sum of {groups.number} by {groups.category}: {sums or 'none'}{more}"


def _number_text(number: float) -> str:
    """Return a number with up to four decimals; six digits if it is very small or very large."""
    if number == 0 or 0.001 <= abs(number) < 1e15:
        return f"{number:.4f}".rstrip("0").rstrip(".")
    return f"{number:.6g}"


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _MAX_SHOWN_LENGTH else f"{line[:_MAX_SHOWN_LENGTH]}…"
