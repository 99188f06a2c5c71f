"""`python -m benchmarks`: measure, and print the table."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path

from benchmarks import report
from benchmarks.figures import Row, missed, replaced
from benchmarks.measure import QUICK, Effort
from benchmarks.plan import PLAN, Item, chosen
from benchmarks.plots import draw
from benchmarks.processes import Asked, cores

RESULTS = Path(__file__).parent / "results"
WIDE = 0.5
"""The share of what a case must reach that is enough where machines are noisy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cases that are asked for; return 1 if one fails the check, twice."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        parser.error("processor time of other processes is read as Linux has it")
    effort, quickly = _effort(options), options.quick and not options.case
    machine = report.describe_machine()
    with Asked(["load"], cores()[1]) as load:
        load.pin()
        rows = _measured(chosen(options.case or (), quickly=quickly), load, effort)
        failed = missed(rows, options.check) if options.check else []
        if failed:  # By chance, where others were busy; more rounds tell.
            longer = replace(effort, rounds=2 * effort.rounds)
            again = chosen({row.case for row in failed}, quickly=quickly)
            rows = replaced(rows, _measured(again, load, longer))
            failed = missed(rows, options.check)
    print(report.table(rows))
    _write(options.results, rows, machine)
    for row in failed:
        print(f"{row.title}: less than {options.check} of what it must be", file=sys.stderr)
    return 1 if failed else 0


def _measured(items: Sequence[Item], load: Asked, effort: Effort) -> list[Row]:
    rows: list[Row] = []
    for item in items:
        for row in item.measure(load, effort):
            print(f"measured: {row.title}", file=sys.stderr, flush=True)
            rows.append(row)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few cases and rounds, for CI")
    parser.add_argument(
        "--case", action="append", choices=[item.name for item in PLAN], help="only these cases"
    )
    parser.add_argument("--rounds", type=int, help="turns of everybody (9)")
    parser.add_argument("--seconds", type=float, help="processor time of a turn (0.5)")
    parser.add_argument("--connections", type=int, help="requests at once (8)")
    parser.add_argument("--streams", type=int, help="idle streams (1000), and the most at once")
    parser.add_argument(
        "--check",
        type=float,
        nargs="?",
        const=WIDE,
        metavar="SHARE",
        help=f"exit with 1 where a case misses this share of what it must reach ({WIDE})",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    return parser


def _effort(options: argparse.Namespace) -> Effort:
    asked = {
        "rounds": options.rounds,
        "cpu_seconds": options.seconds,
        "connections": options.connections,
        "streams": options.streams,
    }
    usual = QUICK if options.quick else Effort()
    return replace(usual, **{name: value for name, value in asked.items() if value})


def _write(folder: Path, rows: Sequence[Row], machine: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(dumps(report.document(rows, machine), indent=1) + "\n")
    (folder / "results.md").write_text(report.markdown(rows, machine))
    print(f"\nAll figures of all rounds: {folder}", file=sys.stderr)
    if not draw(folder, rows):
        print("No plots: matplotlib is not installed (pip install --group bench).", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
