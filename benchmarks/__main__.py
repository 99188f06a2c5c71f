"""`python -m benchmarks`: measure, and print the table."""

import argparse
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path

from benchmarks import report
from benchmarks.cases import CASES
from benchmarks.figures import Row
from benchmarks.measure import QUICK, Effort, compare
from benchmarks.processes import Asked, cores

RESULTS = Path(__file__).parent / "results"
WIDE = 0.6
"""The share of what a case must reach that is enough where machines are noisy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cases that are asked for; return 1 if one fails the check."""
    options = _parser().parse_args(arguments)
    effort = _effort(options)
    wanted = options.case or [case.name for case in CASES if case.quick or not options.quick]
    cases = [case for case in CASES if case.name in wanted]
    machine = report.describe_machine()
    rows: list[Row] = []
    with Asked(["load"], cores()[1]) as load:
        load.pin()
        for group in [cases] if options.quick else [[case] for case in cases]:
            for row in compare(group, load, effort):
                print(f"{row.title}: measured", file=sys.stderr, flush=True)
                rows.append(row)
    print(report.table(rows))
    _write(options.results, rows, machine)
    failed = [row.title for row in rows if options.check and row.passes(options.check) is False]
    for title in failed:
        print(f"{title}: less than {options.check} of what it must be", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few cases and rounds, for CI")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only these cases"
    )
    parser.add_argument("--rounds", type=int, help="turns of everybody (5)")
    parser.add_argument("--seconds", type=float, help="processor time of a turn (1)")
    parser.add_argument("--connections", type=int, help="requests at once (8)")
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
    )


def _write(folder: Path, rows: Sequence[Row], machine: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(dumps(report.document(rows, machine), indent=1) + "\n")
    (folder / "results.md").write_text(report.markdown(rows, machine))
    print(f"\nAll figures of all rounds: {folder}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
