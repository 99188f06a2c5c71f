"""Which files of a project have changed since the last look."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
_PYTHON = "*.py"


class Watch:
    """Looks at the files below folders, and tells which are new, changed or gone.

    Virtual environments, hidden folders and what tools install are not looked at.

    Args:
        folders: Where to look.
        patterns: Names beside `*.py`, such as `*.txt` or `prompts/*.md`.
    """

    def __init__(self, folders: Iterable[Path], patterns: Sequence[str] = ()) -> None:
        self._folders = {folder.resolve() for folder in folders}
        self._patterns = (_PYTHON, *patterns)
        self._seen = self._look()

    def changed(self) -> list[str]:
        """Return the paths of what has changed since the last call."""
        before, self._seen = self._seen, self._look()
        return sorted({path for path, _ in before.items() ^ self._seen.items()})

    def _look(self) -> dict[str, tuple[int, int]]:
        seen = {}
        for folder in self._folders:
            for entry in _files(folder):
                if any(PurePath(entry.path).match(pattern) for pattern in self._patterns):
                    try:
                        status = entry.stat()
                    except OSError:  # It was there a moment ago.
                        continue
                    seen[entry.path] = (status.st_mtime_ns, status.st_size)
        return seen


def _files(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Yield the files below a folder, but for what is not the project's own."""
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                entries = [*found]
        except OSError:  # It is gone, or not ours to read.
            continue
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry
            elif entry.name not in _SKIPPED and not entry.name.startswith("."):
                folders.append(entry.path)
