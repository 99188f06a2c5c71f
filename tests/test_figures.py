"""The analyst's tables and figures."""

import math
from typing import Any

import pytest

from chains._figures import (
    GroupSums,
    asked_groups,
    column_figures,
    figures_text,
    group_sums,
    parse_number,
)
from chains._table import MAX_BYTES, MAX_COLUMNS, MAX_ROWS, TableError, parse_table

SALES = "region,month,sales\nNorth,May,120\nSouth,May,80\nNorth,June,9\nSouth,June,150"


@pytest.mark.parametrize(
    ("data", "table"),
    [
        ("a,b\n1,2\n3,4", {"a": ["1", "3"], "b": ["2", "4"]}),
        ("\ufeffa;b\r\n1;2\r\n", {"a": ["1"], "b": ["2"]}),
        ("a\tb\n1\t2", {"a": ["1"], "b": ["2"]}),
        ('name,says\n"Doe, Jo","a ""b"""', {"name": ["Doe, Jo"], "says": ['a "b"']}),
        ('a,b\n"two\nlines",2', {"a": ["two\nlines"], "b": ["2"]}),
        ("a,b,c\n1\n\n2,,,,\n,,3", {"a": ["1", "2", ""], "b": ["", "", ""], "c": ["", "", "3"]}),
        ("a,a,,a (2)\n1,2,3,4", {"a": ["1"], "a (2)": ["2"], "column 3": ["3"],
         "a (2) (2)": ["4"]}),
        ("a\nNaN\n-inf\nN/A\n-\nnull\nx", {"a": ["", "", "", "", "", "x"]}),
        ('[{"a": 1, "b": "x"}, {"a": null, "c": true}]',
         {"a": ["1", ""], "b": ["x", ""], "c": ["", "true"]}),
        ('{"a": [1, NaN], "b": [[2], "ü"]}', {"a": ["1", ""], "b": ["[2]", "ü"]}),
        ([{"a": 1.5}, {"a": " 2 "}], {"a": ["1.5", "2"]}),
    ],
)  # fmt: skip
def test_a_table_is_read(data: Any, table: dict[str, list[str]]) -> None:
    assert parse_table(data) == table


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "empty"),
        ("\ufeff \n", "empty"),
        ("just one line", "no rows"),
        ("a,b\n,\n", "no rows"),
        (",,,", "no rows"),
        ("{}", "no rows"),
        ('{"a": []}', "no rows"),
        ("a,b\n1,2,3", "Row 1 .* 3 values for 2 columns"),
        ('a,b\n"1"2,3', "Line 2"),
        ('a\n"open', "Line 2"),
        ("[1, 2", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('[{"a": ' + "9" * 5000 + "}]", "not valid JSON"),
        ("[]", "must hold objects"),
        ("[1, 2]", "must hold objects"),
        ('{"a": 1}', "must hold lists"),
        ('{"a": [1], "b": [1, 2]}', "same length"),
        ([], "must hold objects"),
        ("x" * (MAX_BYTES + 1), "bytes"),
        ("ü" * (MAX_BYTES // 2 + 1), "bytes"),
        ("a\n" + "1\n" * (MAX_ROWS + 1), "rows"),
        ([{"a": 1}] * (MAX_ROWS + 1), "rows"),
        ("a," * MAX_COLUMNS + "a\n1", "columns"),
        ([{str(n): 1 for n in range(MAX_COLUMNS + 1)}], "columns"),
        ("a\n" + "," * (MAX_BYTES - 10), "no rows"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(data: Any, says: str) -> None:
    with pytest.raises(TableError, match=says):
        parse_table(data)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("-1,234,567.5", -1234567.5),
        ("\u22123", -3),
        ("+.5", 0.5),
        ("1e3", 1000),
        ("12,34", None),
        ("1,2345", None),
        ("12%", None),
        ("e5", None),
        ("1.", None),
        ("", None),
        ("0x10", None),
        ("1_000", None),
        ("١٢", None),
        ("nan", None),
        ("1e400", None),
    ],
)
def test_a_cell_is_a_number_only_if_it_is_written_as_one(text: str, number: float | None) -> None:
    assert parse_number(text) == number


def test_the_figures_of_numbers() -> None:
    column = column_figures("x", ["1,000", "-2", "", "4", "4"])
    assert (column.count, column.missing, column.distinct, column.unreadable) == (4, 1, 3, 0)
    assert column.numbers is not None
    assert column.numbers.sum == 1006
    assert column.numbers.mean == 251.5
    assert column.numbers.median == 4
    assert (column.numbers.min, column.numbers.max) == (-2, 1000)
    assert column.numbers.deviation == pytest.approx(499.0080159677)
    assert column.top == ()


def test_a_single_number_has_no_deviation() -> None:
    column = column_figures("x", ["5"])
    assert column.numbers is not None
    assert column.numbers.deviation is None


def test_sums_of_decimals_are_exact() -> None:
    column = column_figures("x", ["0.1"] * 10)
    assert column.numbers is not None
    assert column.numbers.sum == 1


def test_percentages_are_numbers_only_among_themselves() -> None:
    column = column_figures("x", ["10%", "", "20 %"])
    assert column.percent
    assert column.numbers is not None
    assert column.numbers.mean == 15
    mixed = column_figures("x", ["10%", "20", "30"])
    assert not mixed.percent
    assert mixed.numbers is not None
    assert mixed.numbers.sum == 50
    assert mixed.unreadable == 1


def test_a_column_is_text_unless_most_of_it_are_numbers() -> None:
    column = column_figures("x", ["b", "a", "b", "1", "2", "3"])
    assert column.numbers is None
    assert column.top[0] == ("b", 2)
    assert column_figures("x", ["", ""]).numbers is None
    assert column_figures("x", ["100 %", "x%"]).percent is False


def test_the_largest_numbers_do_no_harm() -> None:
    column = column_figures("x", ["1e100", "-1e100", "1e100", "1e101"])
    assert column.numbers is not None
    assert column.numbers.deviation is not None
    assert math.isfinite(column.numbers.deviation)
    assert column.unreadable == 1


def test_sums_for_each_group_leave_out_what_is_missing() -> None:
    table = parse_table("team,hours\nA,1\nB,2\nA,3.5\n,9\nB,\nB,many")
    assert group_sums(table, "hours", "team") == GroupSums("hours", "team", {"A": 4.5, "B": 2})


@pytest.mark.parametrize(
    ("question", "pairs"),
    [
        ("Which REGION sold most?", [("sales", "region")]),
        ("sales by month and regions", [("sales", "region"), ("sales", "month")]),
        ("What are the sales?", []),
        ("In which regional office?", []),
    ],
)
def test_a_question_names_columns(question: str, pairs: list[tuple[str, str]]) -> None:
    table = parse_table(SALES)
    columns = [column_figures(name, cells) for name, cells in table.items()]
    groups = asked_groups(table, columns, question)
    assert [(group.number, group.category) for group in groups] == pairs


def test_percentages_are_not_summed() -> None:
    text = figures_text(parse_table("team,rate\nA,10%\nB,20%"), "rate by team")
    assert "- rate (percentages): 2 values, 0 missing, 2 distinct; mean 15%, median 15%" in text
    assert "sum" not in text.casefold()


def test_the_text_has_a_line_for_each_figure() -> None:
    assert figures_text(parse_table(SALES), "sales by region?").splitlines() == [
        "- Rows: 4. Columns: 3.",
        "- region (text): 4 values, 0 missing, 2 distinct; most frequent: North (2), South (2)",
        "- month (text): 4 values, 0 missing, 2 distinct; most frequent: May (2), June (2)",
        "- sales (numbers): 4 values, 0 missing, 4 distinct; sum 359, mean 89.75, median 100, "
        "min 9, max 150, standard deviation 60.9939",
        "- Sum of sales by region: South 230, North 129",
    ]


def test_the_text_stays_short_for_any_table() -> None:
    records = [{f"c{n}": "long " * 100 for n in range(50)} | {"who": str(n)} for n in range(3)]
    assert len(figures_text(parse_table([dict(list(r.items())[-50:]) for r in records]))) < 20_000
    many = parse_table("who,n\n" + "\n".join(f"w{n},{n}" for n in range(100)))
    assert "w80 80 and 80 more" in figures_text(many, "n by who")
    odd = figures_text(parse_table("a,b\nx,0.00001\ny,1e20\nz,maybe"))
    assert "1 not readable as numbers and left out" in odd
    assert "min 1e-05, max 1e+20" in odd
