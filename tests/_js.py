"""Node, and the packages that scripts in `tests/js` use."""

import fcntl
import subprocess
from pathlib import Path

from tests._system import require_program

FOLDER = Path(__file__).parent / "js"


def require_node() -> str:
    """Return the program, after its packages were installed as they are locked."""
    program = require_program("node", package="nodejs")
    with (FOLDER / "package-lock.json").open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)  # Tests may run in several processes.
        _install()
    return program


def _install() -> None:
    locked, installed = FOLDER / "package-lock.json", FOLDER / "node_modules/.package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= locked.stat().st_mtime:
        return
    npm = require_program("npm", package="npm")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
