"""From LangServe to chainserve: what changes in the files of an application.

`migrate` takes a file's bytes and returns what they become; `files` alone reads and writes.
"""

import io
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias

from chainserve.migrate.commands import migrate_commands, migrate_yaml
from chainserve.migrate.edits import Findings, Note, NoteKind, apply
from chainserve.migrate.notebooks import migrate_notebook
from chainserve.migrate.python import migrate_python
from chainserve.migrate.requirements import (
    LOCKED,
    migrate_environment,
    migrate_ini,
    migrate_requirements,
)
from chainserve.migrate.toml import migrate_toml

__all__ = ["Migrated", "Note", "NoteKind", "is_looked_at", "migrate"]

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


def is_looked_at(path: PurePath) -> bool:
    """Tell whether files of such a name are looked at."""
    return _kind(path) is not None


def migrate(path: PurePath, data: bytes) -> Migrated:
    """Return what becomes of a file. What it is, its name says.

    The changes are pieces of the text: all other bytes stay. Where the outcome cannot be told for
    sure, nothing changes and a note says so. Migrating what was migrated changes nothing.
    """
    kind = _kind(path)
    if kind is None or not kind.mentions.search(data.replace(b"\0", b"")):
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
    return Migrated(text, mark + after, shown, new, len(findings.edits), findings.notes)


def _unchanged(data: bytes, *failures: str) -> Migrated:
    notes = tuple(Note(0, "failed", message) for message in failures)
    return Migrated("", "", "utf-8", data, notes=notes)


def _encoding(path: PurePath, data: bytes) -> str:
    """Return what a file's text is encoded in; a byte order mark is a character of it.

    Raises:
        SyntaxError: It is none that is known.
    """
    if path.suffix in _PYTHON:
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
    return migrate_python(text, declares_requirements=True)


def _lock(text: str) -> Findings:
    return Findings(notes=(Note(0, "by hand", LOCKED),))


_PYTHON = frozenset({".py", ".pyi", ".pyw"})
_LOCKS = re.compile(r"(poetry|uv|pdm|Pipfile|pixi|pylock(\.\w+)?)\.(lock|toml)|conda-lock\.ya?ml")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files that are looked at: by their paths, by what is in them, and what then becomes of them.

    Attributes:
        paths: What their paths are.
        migration: What becomes of their text.
        mentions: What is in them if anything is to be said of them at all.
    """

    paths: re.Pattern[str]
    migration: _Migration
    mentions: re.Pattern[bytes]


_IN_CODE = re.compile(rb"(?i)langserve|sse_starlette|configurable_?field|pydantic[._]v1")
_IN_OTHERS = re.compile(rb"(?i)langserve|python[^\n]{0,100}3\.\d|langchain\W+serve")
_KINDS = tuple(
    _Kind(re.compile(paths, re.IGNORECASE), migration, mentions)
    for paths, migration, mentions in (
        (r"(.*/)?(setup|noxfile)\.py", _by_edits(_setup), _IN_CODE),
        (r".*\.py[iw]?", _by_edits(migrate_python), _IN_CODE),
        (r".*\.ipynb", migrate_notebook, _IN_CODE),
        (
            r"(.*/)?([^/]*requirements|[^/]*constraints)[^/]*\.(txt|in)",
            _by_edits(migrate_requirements),
            _IN_OTHERS,
        ),
        (r"(.*/)?requirements/[^/]*\.(txt|in)", _by_edits(migrate_requirements), _IN_OTHERS),
        (rf"(.*/)?({_LOCKS.pattern})", _by_edits(_lock), _IN_CODE),
        (r"(.*/)?(pyproject|pixi)\.toml|(.*/)?Pipfile", _by_edits(migrate_toml), _IN_OTHERS),
        (r".*\.(cfg|ini)", _by_edits(migrate_ini), _IN_OTHERS),
        (r"(.*/)?[^/]*environment[^/]*\.ya?ml", _by_edits(migrate_environment), _IN_OTHERS),
        (
            r"(.*/)?[^/]*(Docker|Container|Make|just)file[^/]*",
            _by_edits(migrate_commands),
            _IN_OTHERS,
        ),
        (r".*\.(sh|bash|zsh|mk)", _by_edits(migrate_commands), _IN_OTHERS),
        (r".*\.ya?ml", _by_edits(migrate_yaml), _IN_OTHERS),
    )
)


def _kind(path: PurePath) -> _Kind | None:
    text = path.as_posix()
    return next((kind for kind in _KINDS if kind.paths.fullmatch(text)), None)
