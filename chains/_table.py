"""Tables in CSV or JSON, read within bounds."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

# A table is read once while its request is validated, on the event loop: at most some 0.1 s.
MAX_BYTES = 250_000
MAX_ROWS = 5_000
MAX_COLUMNS = 50

_MAX_NAME_LENGTH = 60
_NOT_AVAILABLE = frozenset({"", "nan", "null", "n/a", "na", "#n/a", "inf", "infinity"})
_DELIMITERS = ",;\t|"

Table: TypeAlias = Mapping[str, Sequence[str]]
"""Columns by name, all of one length; a missing value is the empty text."""


class TableError(ValueError):
    """The data is no table that can be computed with; the message says what to change."""


def parse_table(data: str | Sequence[Mapping[str, Any]]) -> Table:
    """Return the table that a text in CSV or JSON, or a list of records, holds.

    The first line of CSV names the columns; short rows lack their last values. JSON is a list of
    objects or an object of lists.

    Raises:
        TableError: It holds no table, or one over `MAX_BYTES`, `MAX_ROWS` or `MAX_COLUMNS`.
    """
    if not isinstance(data, str):
        return _checked(_from_records(data))
    if len(data.encode(errors="surrogatepass")) > MAX_BYTES:
        raise TableError(f"The data is larger than {MAX_BYTES} bytes; send less.")
    text = data.removeprefix("\ufeff").strip()
    if not text:
        raise TableError("The data is empty; send CSV with a header line, or JSON.")
    return _checked(_from_json(text) if text[0] in "[{" else _from_csv(text))


def _from_records(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the columns of a list of objects; a key that an object lacks is a missing value."""
    if not records or not all(isinstance(record, Mapping) for record in records):
        raise TableError("A JSON list must hold objects, one for each row.")
    _check_size(len(records), 0)
    keys = list(dict.fromkeys(key for record in records for key in record))
    _check_size(len(records), len(keys))
    names = _distinct_names(keys)
    return {
        name: [_cell(record.get(key)) for record in records]
        for name, key in zip(names, keys, strict=True)
    }


def _from_json(text: str) -> dict[str, list[str]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableError(f"The data begins like JSON and is not valid JSON: {error}.") from None
    if isinstance(data, list):
        return _from_records(data)
    if not all(isinstance(column, list) for column in data.values()):
        raise TableError("A JSON object must hold lists, one for each column.")
    if len({len(column) for column in data.values()}) > 1:
        raise TableError("The lists of a JSON object must all have the same length.")
    _check_size(max(map(len, data.values()), default=0), len(data))
    names = _distinct_names(data)
    return {
        name: [_cell(value) for value in column]
        for name, column in zip(names, data.values(), strict=True)
    }


def _from_csv(text: str) -> dict[str, list[str]]:
    header, *rows = _csv_rows(text) or [[]]
    _check_size(len(rows), len(header))
    for number, row in enumerate(rows, start=1):
        if len(row) > len(header):
            raise TableError(
                f"Row {number} of the CSV has {len(row)} values for {len(header)} columns; "
                "put values that contain the separator in quotes."
            )
    padded = [row + [""] * (len(header) - len(row)) for row in rows]
    columns = zip(*padded, strict=True) if padded else ([] for _ in header)
    return {
        name: [_cell(value) for value in column]
        for name, column in zip(_distinct_names(header), columns, strict=True)
    }


def _csv_rows(text: str) -> list[list[str]]:
    """Return the rows that are not blank, without the empty values at their ends."""
    first_line = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [row for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise TableError(f"Line {reader.line_num} of the CSV cannot be read: {error}.") from None
    return [row[: _filled_length(row)] for row in rows]


def _filled_length(row: Sequence[str]) -> int:
    """Return the number of values up to the last that is not blank."""
    return max((number for number, cell in enumerate(row, start=1) if cell.strip()), default=0)


def _cell(value: Any) -> str:
    """Return a value as text, the empty text if it is missing."""
    if value is None:
        return ""
    text = value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "" if text.lstrip("+-").lower() in _NOT_AVAILABLE else text


def _distinct_names(names: Iterable[str]) -> list[str]:
    """Return names fit to show: on one line, none empty, no two the same."""
    distinct: dict[str, None] = {}
    for position, name in enumerate(names, start=1):
        base = " ".join(name.split())[:_MAX_NAME_LENGTH] or f"column {position}"
        unique, number = base, 1
        while unique in distinct:
            number += 1
            unique = f"{base} ({number})"
        distinct[unique] = None
    return list(distinct)


def _checked(table: dict[str, list[str]]) -> Table:
    if not table or not next(iter(table.values())):
        raise TableError("The data has no rows; send a header line and at least one row.")
    return table


def _check_size(rows: int, columns: int) -> None:
    if rows > MAX_ROWS:
        raise TableError(f"The data has {rows} rows; send at most {MAX_ROWS}.")
    if columns > MAX_COLUMNS:
        raise TableError(f"The data has {columns} columns; send at most {MAX_COLUMNS}.")
