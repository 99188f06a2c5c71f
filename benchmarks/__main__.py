"""`python -m benchmarks`: measure, and print the table."""

import argparse
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path

from benchmarks import report
from benchmarks.figures import Row, missed
from benchmarks.measure import QUICK, Effort
from benchmarks.plan import PLAN, Item, quick
from benchmarks.processes import Asked, cores

RESULTS = Path(__file__).parent / "results"
WIDE = 0.6
"""The share of what a case must reach that is enough where machines are noisy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cases that are asked for; return 1 if one fails the check."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        parser.error("processor time of other processes is read as Linux has it")
    effort = _effort(options)
    machine = report.describe_machine()
    rows: list[Row] = []
    with Asked(["load"], cores()[1]) as load:
        load.pin()
        for item in _items(options):
            for row in item.measure(load, effort):
                print(f"measured: {row.title}", file=sys.stderr, flush=True)
                rows.append(row)
    print(report.table(rows))
    _write(options.results, rows, machine)
    failed = missed(rows, options.check) if options.check else []
    for title in failed:
        print(f"{title}: less than {options.check} of what it must be", file=sys.stderr)
    return 1 if failed else 0


def _items(options: argparse.Namespace) -> list[Item]:
    if options.case:
        return [item for item in PLAN if item.name in options.case]
    return [quick()] if options.quick else [*PLAN]


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
    usual = QUICK if options.quick else Effort()
    return Effort(
        rounds=options.rounds or usual.rounds,
        cpu_seconds=options.seconds or usual.cpu_seconds,
        connections=options.connections or usual.connections,
        streams=options.streams or usual.streams,
    )


def _write(folder: Path, rows: Sequence[Row], machine: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(dumps(report.document(rows, machine), indent=1) + "\n")
    (folder / "results.md").write_text(report.markdown(rows, machine))
    print(f"\nAll figures of all rounds: {folder}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
