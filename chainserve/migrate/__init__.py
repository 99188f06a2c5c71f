"""From LangServe to chainserve: what changes in the files of an application.

`migrate` takes a file's bytes and returns what they become; `files` alone reads and writes.
"""

import io
import re
import tokenize
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias

from chainserve.migrate.commands import migrate_commands, migrate_yaml
from chainserve.migrate.differences import BROUGHT
from chainserve.migrate.edits import Findings, Note, NoteKind, apply
from chainserve.migrate.leftovers import old_pythons, version_files
from chainserve.migrate.lines import contents
from chainserve.migrate.notebooks import migrate_notebook
from chainserve.migrate.python import migrate_python
from chainserve.migrate.requirements import (
    LOCKED,
    migrate_constraints,
    migrate_environment,
    migrate_ini,
    migrate_requirements,
    requires,
)
from chainserve.migrate.toml import migrate_toml

__all__ = ["SCRIPT_BYTES", "Migrated", "Note", "NoteKind", "is_looked_at", "migrate", "required_by"]

_Migration: TypeAlias = Callable[[str], tuple[str, Findings]]

_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True, slots=True)
class Migrated:
    """What becomes of a file.

    Attributes:
        before: Its text, or nothing where it was not read.
        after: Its text with the changes.
        encoding: What a diff of the two is to be written in.
        data: Its bytes with the changes, in the encoding and with the line ends that it has.
        changes: The number of places that change.
        notes: What is left to do by hand, behaves differently, or could not be looked at.
    """

    before: str
    after: str
    encoding: str
    data: bytes
    changes: int = 0
    notes: tuple[Note, ...] = ()


SCRIPT_BYTES = 128
"""How much of a file without an ending says whether it is a script of Python's."""


def is_looked_at(path: PurePath, start: bytes = b"") -> bool:
    """Tell whether files of such a name are looked at.

    Args:
        path: Where it is.
        start: What is in it, or the first `SCRIPT_BYTES` of that.
    """
    return _kind(path, start) is not None


def required_by(path: PurePath, data: bytes) -> frozenset[str]:
    """Return which of the packages that came with LangServe a file requires by itself."""
    kind = _kind(path, data)
    if kind is None or not kind.declare:
        return frozenset()
    text = data.replace(b"\0", b"").decode(errors="replace")
    lines = [text[line.start : line.end] for line in contents(text)]
    packages = BROUGHT.values()
    return frozenset(name for name in packages if any(requires(name, line) for line in lines))


def migrate(path: PurePath, data: bytes, required: Container[str] = ()) -> Migrated:
    """Return what becomes of a file. What it is, its name says.

    The changes are pieces of the text: all other bytes stay. Where the outcome cannot be told for
    sure, nothing changes and a note says so. Migrating what was migrated changes nothing.

    Args:
        path: Where it is.
        data: What is in it.
        required: Which of the packages that came with LangServe are required by themselves.
    """
    kind = _kind(path, data)
    if kind is None or not kind.may_change(data):
        return _unchanged(data)
    if b"\0" in data and data[:2] not in _UTF16:
        return _unchanged(data, "binary, so left as it is")
    try:
        encoding = _encoding(path, data)
        text = data.decode(encoding)
        again = text.encode(encoding)
    except (SyntaxError, UnicodeError, LookupError):
        return _unchanged(data, "in no encoding that can be read here, so left as it is")
    if again != data:
        return _unchanged(data, "its encoding cannot be written as it was, so left as it is")
    mark = text[: text.startswith("\ufeff")]
    body = text.removeprefix(mark)
    try:
        after, findings = kind.migration(body)
    except (RecursionError, MemoryError):
        return _unchanged(data, "nested too deeply to be read here, so left as it is")
    new = (mark + after).encode(encoding)
    shown = "utf-8" if data[:2] in _UTF16 else encoding
    notes = tuple(note for note in findings.notes if note.unless_required not in required)
    return Migrated(text, mark + after, shown, new, len(findings.edits), notes)


def _unchanged(data: bytes, *failures: str) -> Migrated:
    notes = tuple(Note(0, "failed", message) for message in failures)
    return Migrated("", "", "utf-8", data, notes=notes)


def _encoding(path: PurePath, data: bytes) -> str:
    """Return what a file's text is encoded in; a byte order mark is a character of it.

    Raises:
        SyntaxError: It is none that is known.
    """
    if path.suffix in _PYTHON or _kind(path, data) is _SCRIPT:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return "utf-8" if encoding == "utf-8-sig" else encoding
    if data[:2] in _UTF16:
        return _UTF16[data[:2]]  # What PowerShell's `pip freeze > requirements.txt` writes.
    return "utf-8"


def _by_edits(find: Callable[[str], Findings]) -> _Migration:
    def migration(text: str) -> tuple[str, Findings]:
        findings = find(text)
        return apply(text, findings.edits), findings

    return migration


def _setup(text: str) -> Findings:
    found = migrate_python(text, declares_requirements=True)
    return Findings.of(found.edits, [*found.notes, *old_pythons(text)])


def _lock(text: str) -> Findings:
    return Findings(notes=(Note(0, "by hand", LOCKED),))


_PYTHON = frozenset({".py", ".pyi", ".pyw"})
_LOCKS = re.compile(r"[^/]*\.lock|pylock(\.[^/]+)?\.toml|([^/]*\.)?conda-lock\.ya?ml")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files that are looked at: by their paths, by what is in them, and what then becomes of them.

    Attributes:
        paths: What their paths are.
        migration: What becomes of their text.
        declare: Whether they say what is required.
    """

    paths: re.Pattern[str]
    migration: _Migration
    declare: bool

    def may_change(self, data: bytes) -> bool:
        """Tell whether there is anything in such a file to be said of at all."""
        mentions = _IN_DECLARATIONS if self.declare else _IN_CODE
        return mentions.search(data.replace(b"\0", b"")) is not None


_IN_CODE = re.compile(rb"(?i)langserve|sse_starlette|configurable_?field|pydantic[._]v1")
_IN_DECLARATIONS = re.compile(
    rb"(?im)%b|python[^\n]{0,100}3\.\d|^[ \t]*[23]\.\d|langchain\W+serve"
    % _IN_CODE.pattern.removeprefix(b"(?i)")
)
_KINDS = tuple(
    _Kind(re.compile(paths, re.IGNORECASE), migration, declare)
    for paths, migration, declare in (
        (r"(.*/)?(setup|noxfile)\.py", _by_edits(_setup), True),
        (r".*\.py[iw]?", _by_edits(migrate_python), False),
        (r".*\.ipynb", migrate_notebook, False),
        (r"(.*/)?[^/]*constraints[^/]*\.(txt|in)", _by_edits(migrate_constraints), True),
        (r"(.*/)?[^/]*requirements[^/]*\.(txt|in)", _by_edits(migrate_requirements), True),
        (r"(.*/)?(\.python-version|runtime\.txt)", _by_edits(version_files), True),
        (r"(.*/)?requirements/[^/]*\.(txt|in)", _by_edits(migrate_requirements), True),
        (rf"(.*/)?({_LOCKS.pattern})", _by_edits(_lock), False),
        (
            r"(.*/)?(pyproject|pixi|uv|poetry|pdm)\.toml|(.*/)?Pipfile",
            _by_edits(migrate_toml),
            True,
        ),
        (r".*\.(cfg|ini)", _by_edits(migrate_ini), True),
        (r"(.*/)?[^/]*environment[^/]*\.ya?ml", _by_edits(migrate_environment), True),
        (
            r"(.*/)?[^/]*(Docker|Container|Make|just|Proc)file[^/]*",
            _by_edits(migrate_commands),
            True,
        ),
        (r".*\.(sh|bash|zsh|mk)", _by_edits(migrate_commands), True),
        (r".*\.ya?ml", _by_edits(migrate_yaml), True),
    )
)


_SCRIPT = _Kind(re.compile(r"(.*/)?[^/.]+"), _by_edits(migrate_python), declare=False)
"""Scripts of Python's without an ending, which their first line starts with it."""

_STARTS_PYTHON = re.compile(rb"(?:\xef\xbb\xbf)?#![^\r\n]*(?:python|\buv run\b)")


def _kind(path: PurePath, start: bytes) -> _Kind | None:
    text = path.as_posix()
    named = next((kind for kind in _KINDS if kind.paths.fullmatch(text)), None)
    if named is None and _SCRIPT.paths.fullmatch(text):
        return _SCRIPT if _STARTS_PYTHON.match(start[:SCRIPT_BYTES]) else None
    return named
