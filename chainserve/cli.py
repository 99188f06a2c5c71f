"""The command line: `chainserve migrate`."""

import argparse
import os
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from tempfile import NamedTemporaryFile

from chainserve.migrate import (
    Migrated,
    migrate_notebook,
    migrate_python,
    migrate_requirements,
)
from chainserve.version import __version__

MAX_FILE_BYTES = 2**20
"""A larger file is left alone, and said to be."""

_SKIPPED = {
    "__pycache__",
    "build",
    "dist",
    "node_modules",
    "site-packages",
    "venv",
}
"""Folders that hold what nobody wrote; so do those whose names begin with a dot."""

_REQUIREMENTS = (
    "*requirements*.txt",
    "*requirements*.in",
    "constraints*.txt",
    "pyproject.toml",
    "Pipfile",
    "setup.cfg",
    "environment*.yml",
    "environment*.yaml",
    "*Dockerfile*",
    "*.sh",
)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one file."""

    path: Path
    old: str
    new: str
    notes: Sequence[tuple[int, str]]
    encoding: str = "utf-8"

    @property
    def is_changed(self) -> bool:
        return self.old != self.new

    def diff(self) -> str:
        """Return the change as a patch."""
        lines = unified_diff(
            self.old.splitlines(keepends=True),
            self.new.splitlines(keepends=True),
            f"a/{self.path}",
            f"b/{self.path}",
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 when all is well; 1 with `migrate --check` when something would change; 2 when the arguments
    are wrong or a file cannot be read or written.
    """
    parser = argparse.ArgumentParser(
        prog="chainserve", description="Serves LangChain runnables over HTTP."
    )
    parser.add_argument("--version", action="version", version=f"chainserve {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_migrate(commands)
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _add_migrate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "migrate",
        help="change LangServe's imports and requirements to chainserve's",
        description="Changes LangServe's imports and requirements to chainserve's, below a folder "
        "or in a file. It shows the changes as a patch and writes nothing, unless --write is "
        "given. What it cannot do, and what a person should look at, is listed last.",
        epilog="Exit code: 0; 1 with --check when something would change; 2 when a file cannot be "
        "read, parsed or written. Clients need no change: the wire is the same.",
    )
    parser.add_argument("path", metavar="PATH", help="a folder, a file, or - for standard input")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="write the changes")
    how.add_argument("--check", action="store_true", help="exit with 1 if there are changes")
    parser.set_defaults(command=_migrate)


def _migrate(options: argparse.Namespace) -> int:
    if options.path == "-":
        return _migrate_stdin()
    root = Path(options.path)
    if not root.exists():
        print(
            f"There is no {root}. Name a folder, a file, or - for standard input.", file=sys.stderr
        )
        return 2
    outcomes: list[_Outcome] = []
    failures: list[str] = []
    for path in _files(root):
        try:
            outcomes.append(_outcome(path))
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            failures.append(f"{path}: left alone, it cannot be read: {error}")
    changed = [outcome for outcome in outcomes if outcome.is_changed]
    for outcome in changed:
        if options.write:
            try:
                _write(outcome)
            except OSError as error:
                failures.append(f"{outcome.path}: it cannot be written: {error}")
        sys.stdout.write(outcome.diff())
    _report(changed, outcomes, failures, written=options.write)
    if failures:
        return 2
    return 1 if options.check and changed else 0


def _report(
    changed: Sequence[_Outcome],
    outcomes: Sequence[_Outcome],
    failures: Sequence[str],
    *,
    written: bool,
) -> None:
    """Say on standard error what was done and what is left to do."""
    say = sys.stderr.write
    notes = [(outcome.path, *note) for outcome in outcomes for note in outcome.notes]
    if notes:
        say("To be looked at:\n")
        for path, line, sentence in notes:
            say(f"  {path}:{line}: {sentence}\n")
    for failure in failures:
        say(f"{failure}\n")
    if not changed:
        say("Nothing to change.\n")
    elif written:
        say(f"Changed {len(changed)} of {len(outcomes)} files.\n")
    else:
        say(f"{len(changed)} of {len(outcomes)} files would change: add --write to do it.\n")


def _migrate_stdin() -> int:
    try:
        migrated = migrate_python(sys.stdin.read())
    except (SyntaxError, ValueError, RecursionError) as error:
        print(f"Standard input is no Python: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(migrated.text)
    for line, sentence in migrated.notes:
        print(f"-:{line}: {sentence}", file=sys.stderr)
    return 0


def _files(root: Path) -> Iterator[Path]:
    """Yield the files that may name LangServe, in order; no link is followed."""
    if root.is_file():
        yield root
        return
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in _SKIPPED and not n.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if not path.is_symlink() and _kind(path) is not None:
                yield path


def _kind(path: Path) -> Callable[[str], Migrated] | None:
    """Return what changes a file, None for one that is left alone."""
    if path.suffix in (".py", ".pyi"):
        return migrate_python
    if path.suffix == ".ipynb":
        return migrate_notebook
    return migrate_requirements if any(map(path.match, _REQUIREMENTS)) else None


def _outcome(path: Path) -> _Outcome:
    migrate = _kind(path)
    if migrate is None:
        raise ValueError("it is no Python, no notebook and no file of requirements")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    data = path.read_bytes()
    if b"langserve" not in data.lower():
        return _Outcome(path, "", "", ())
    encoding = "utf-8"
    if path.suffix in (".py", ".pyi"):
        with path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
    text = data.decode(encoding)
    migrated = migrate(text)
    if migrate is migrate_python and migrated.text != text:
        compile(migrated.text, str(path), "exec", dont_inherit=True)
    return _Outcome(path, text, migrated.text, migrated.notes, encoding)


def _write(outcome: _Outcome) -> None:
    """Put the new text in the place of the old one, in one step, with the file's mode."""
    path = outcome.path
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            new.write(outcome.new.encode(outcome.encoding))
            new.flush()
            os.chmod(new.name, path.stat().st_mode)
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise


if __name__ == "__main__":
    sys.exit(main())
