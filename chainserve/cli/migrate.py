"""`chainserve migrate`: shows or writes what an application of LangServe's becomes."""

import argparse
import difflib
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from chainserve.migrate import Migrated, is_looked_at, migrate, required_by
from chainserve.migrate.files import Skipped, files_at, start_of, write_whole

DONE = 0
WOULD_CHANGE = 1
FAILED = 2
LEFT_BY_HAND = 3

_MIGRATE_HELP = """\
Change an application of LangServe's into one of chainserve's.

PATH is a folder, a file, or - for standard input. Without --write nothing is
written: what would change is shown as a unified diff on standard output, which
patch and git apply read. What is left to do by hand, and what these files show
of what differs on purpose, is told on standard error, a line each:

  app/server.py:12: by hand: langserve.playground has no counterpart: …

What options and endpoints do otherwise on purpose, docs/migration.md tells.

What changes: imports of langserve in Python files, scripts without an ending
that Python runs, and notebooks, with the uses of what they bind; paths below
langserve in strings such as those of mock.patch; and requirements of langserve
in requirements*.txt, pyproject.toml, Pipfile, setup.cfg, setup.py, tox.ini,
environment.yml, Dockerfiles, and the commands of shell scripts, Makefiles,
Procfiles and YAML files. Every other byte stays. What names langserve in them
even so is left to do by hand; in commands and YAML that is what is sure to be
the package, for a service or a host may well be called so.

Not looked at: comments, docstrings, README and other prose; JavaScript, for
clients keep working as they are; symbolic links, files over 1 MiB, binary
files, virtual environments, .git, node_modules and the like.
"""
_EXIT_CODES = f"""\
exit codes:
  {DONE}  nothing is left to do: what there was to change was written, or is shown
  {WOULD_CHANGE}  with --check: something would change
  {FAILED}  a path or a file could not be read, understood or written, or bad usage
  {LEFT_BY_HAND}  something is left to do by hand
"""


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    parser.description, parser.epilog = _MIGRATE_HELP, _EXIT_CODES
    parser.add_argument("path", metavar="PATH", help="a folder, a file, or - for standard input")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="write the changes; with - to stdout")
    how.add_argument("--check", action="store_true", help="exit with 1 if something would change")
    parser.add_argument(
        "--stdin-name",
        metavar="NAME",
        default="stdin.py",
        help="with -: the file's name, which says what it is (default: %(default)s)",
    )
    parser.set_defaults(command=_migrate, when_unread=FAILED, when_failed=FAILED)


@dataclass
class _Totals:
    """What a migration has met so far."""

    files: int = 0
    places: int = 0
    by_hand: int = 0
    failed: int = 0
    told: set[str] = field(default_factory=set)
    required: frozenset[str] = frozenset()

    def add(self, migrated: Migrated) -> None:
        self.files += migrated.changes > 0
        self.places += migrated.changes
        self.by_hand += sum(note.kind == "by hand" for note in migrated.notes)
        self.failed += sum(note.kind == "failed" for note in migrated.notes)

    def exit_code(self, *, check: bool) -> int:
        if self.failed:
            return FAILED
        if check and self.files:
            return WOULD_CHANGE
        return LEFT_BY_HAND if self.by_hand else DONE

    def sentence(self, *, written: bool) -> str:
        verb = "changed" if written else "would change"
        end = "" if written or not self.files else " --write changes them."
        return (
            f"{_count(self.files, 'file')} {verb} in {_count(self.places, 'place')}; "
            f"{_count(self.by_hand, 'place')} left to do by hand.{end}"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _migrate(options: argparse.Namespace) -> int:
    is_stdin = options.path == "-"
    name = options.stdin_name if is_stdin else options.path
    path = Path(name)
    refusal = _why_refused(path, is_stdin=is_stdin)
    if refusal is not None:
        return _fail(f"{name}: {refusal}")
    totals = _Totals()
    if is_stdin:
        migrated = migrate(PurePath(name), sys.stdin.buffer.read())
        _show(name, migrated, migrated.data if options.write else _diff(name, migrated), totals)
    else:
        _migrate_all(path, totals, write=options.write)
        _tell(totals.sentence(written=options.write))
    return totals.exit_code(check=options.check)


def _why_refused(path: Path, *, is_stdin: bool) -> str | None:
    try:
        if not is_stdin and not path.exists():
            return "no such file or folder. Give one, or - for standard input."
        if is_looked_at(path, b"" if is_stdin else start_of(path)) or path.is_dir():
            return None
    except OSError as error:
        return f"{error.strerror}."
    return "not a kind of file that is looked at; --help lists them."


def _migrate_all(path: Path, totals: _Totals, *, write: bool) -> None:
    entries = [*files_at(path)]
    for entry in entries:
        if isinstance(entry, Path):
            totals.required |= _required(entry)
    for entry in entries:
        if isinstance(entry, Skipped):
            totals.failed += entry.failed
            _tell(f"{entry.path}: {'failed' if entry.failed else 'skipped'}: {entry.reason}")
        else:
            _migrate_file(entry, totals, write=write)


def _required(path: Path) -> frozenset[str]:
    try:
        return required_by(path, path.read_bytes())
    except OSError:
        return frozenset()  # It is told when the file's turn has come.


def _migrate_file(path: Path, totals: _Totals, *, write: bool) -> None:
    try:
        migrated = migrate(path, path.read_bytes(), totals.required)
        if write and migrated.changes:
            write_whole(path.resolve(), migrated.data)
    except Exception as error:  # noqa: BLE001 - no file, whatever is in it, ends the whole run
        totals.failed += 1
        _tell(f"{path}: failed: {getattr(error, 'strerror', None) or repr(error)}")
        return
    line = f"{path}: {_count(migrated.changes, 'place')}\n" if migrated.changes else ""
    output = os.fsencode(line) if write else _diff(str(path), migrated)
    _show(str(path), migrated, output, totals)


def _diff(name: str, migrated: Migrated) -> bytes:
    """Return what changes as patch reads it: its lines in the encoding of the file."""
    before, after = _lines(migrated.before), _lines(migrated.after)
    place = PurePath(name).as_posix().lstrip("/")
    lines = [*difflib.unified_diff(before, after, f"a/{place}", f"b/{place}")]
    whole = [line if line.endswith("\n") else f"{line}{_NO_NEWLINE}" for line in lines]
    names, hunks = "".join(whole[:2]), "".join(whole[2:])
    return os.fsencode(names) + hunks.encode(migrated.encoding)


_NO_NEWLINE = "\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """Return the lines as patch counts them: form feeds and their like end none."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _show(name: str, migrated: Migrated, output: bytes, totals: _Totals) -> None:
    """Write the output, and below it what is to be said of the file."""
    totals.add(migrated)
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()
    for note in migrated.notes:
        if note.once and note.message in totals.told:
            continue
        totals.told.add(note.message)
        cell = f":cell {note.cell}" if note.cell else ""
        line = f":{note.line}" if note.line else ""
        _tell(f"{name}{cell}{line}: {note.kind}: {note.message}")


def _tell(message: str) -> None:
    print(message, file=sys.stderr)


def _fail(message: str) -> int:
    _tell(f"chainserve migrate: {message}")
    return FAILED
