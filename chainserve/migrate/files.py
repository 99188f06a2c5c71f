"""The files of an application: found without leaving its folder, written whole."""

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chainserve.migrate import is_looked_at

MAX_FILE_BYTES = 1_048_576
"""Files larger than this are left alone; sources are not."""

SKIPPED_FOLDERS = frozenset(
    {
        ".bzr",
        ".eggs",
        ".git",
        ".hg",
        ".nox",
        ".svn",
        ".tox",
        ".venv",
        "build",
        "dist",
        "node_modules",
        "site-packages",
    }
)
"""Folders whose files are not the author's; those with a `pyvenv.cfg` are others."""

CACHES = frozenset({".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__"})
"""Folders that nobody misses, so that they are skipped without a word."""


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

    No symbolic link below the folder is followed.
    """
    try:
        if path.is_dir():
            for entry in sorted(path.iterdir()):
                yield from _entry(entry)
        else:
            yield _sized(path)
    except OSError as error:
        yield Skipped(path, error.strerror or "cannot be read", failed=True)


def _entry(entry: Path) -> Iterator[Path | Skipped]:
    if entry.is_symlink():
        if entry.is_dir() or is_looked_at(entry):
            yield Skipped(entry, "a symbolic link")
    elif entry.is_dir() and entry.name not in CACHES:
        if entry.name in SKIPPED_FOLDERS or (entry / "pyvenv.cfg").exists():
            yield Skipped(entry, "not the application's own")
        else:
            yield from files_at(entry)
    elif is_looked_at(entry) and not entry.is_dir():
        yield from files_at(entry)


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
