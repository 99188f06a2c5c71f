"""The files of an application: found without leaving its folder, written whole."""

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chainserve.migrate import SCRIPT_BYTES, is_looked_at

MAX_FILE_BYTES = 1_048_576
"""Files larger than this are left alone; sources are not."""

SKIPPED_FOLDERS = frozenset(
    {
        ".eggs",
        ".nox",
        ".tox",
        ".venv",
        "build",
        "dist",
        "node_modules",
        "site-packages",
    }
)
"""Folders whose files are not the author's; those with a `pyvenv.cfg` are others."""

PASSED_OVER = frozenset(
    {".bzr", ".git", ".hg", ".svn"} | {".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__"}
)
"""Histories and caches: folders that nobody misses, so that they are skipped without a word."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or a folder that is not looked at, and why.

    Attributes:
        path: Where it is.
        reason: Why it is not looked at.
        failed: Whether it would have been, had it been readable.
    """

    path: Path
    reason: str
    failed: bool = False


def files_at(path: Path) -> Iterator[Path | Skipped]:
    """Yield a file, or the files of a folder that are looked at in order; and what is skipped.

    No symbolic link below the folder is followed. What cannot be read is told by itself, however
    deep it is; all else is there.
    """
    waiting = [path]
    while waiting:
        entry = waiting.pop()
        try:
            reason = None if entry is path else _why_skipped(entry)
            if reason is not None:
                yield Skipped(entry, reason)
            elif entry.is_dir():
                waiting += sorted(_below(entry), reverse=True)
            elif entry is path or is_looked_at(entry, start_of(entry)):
                yield _sized(entry)
        except OSError as error:
            yield Skipped(entry, error.strerror or "cannot be read", failed=True)


def start_of(path: Path) -> bytes:
    """Return what a file without an ending begins with; nothing where it is no file of that kind.

    Raises:
        OSError: It cannot be read.
    """
    if path.suffix or not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(SCRIPT_BYTES)


def _below(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name not in PASSED_OVER:
            yield entry


def _why_skipped(entry: Path) -> str | None:
    if entry.is_symlink():
        return "a symbolic link" if entry.is_dir() or is_looked_at(entry, start_of(entry)) else None
    if entry.is_dir() and (entry.name in SKIPPED_FOLDERS or (entry / "pyvenv.cfg").exists()):
        return "not the application's own"
    return None


def _sized(path: Path) -> Path | Skipped:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return Skipped(path, "no regular file")
    if status.st_size > MAX_FILE_BYTES:
        return Skipped(path, "over 1 MiB")
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Put new bytes in a file's place in one step, with the rights that it has.

    Raises:
        OSError: It cannot be written; the file is as it was.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
