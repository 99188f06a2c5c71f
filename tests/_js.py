"""Node, and the scripts in `tests/js`: those that need packages, and those that need none."""

import asyncio
import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

from tests._system import require_program

FOLDER = Path(__file__).parent / "js"
_SECONDS = 50.0
"""How long a script may take; some go through thousands of streams."""


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


async def run_node(script: str | Path, *arguments: Any, given: bytes = b"") -> Any:
    """Run a script, which prints one JSON document, to its end, and return what it printed.

    A rejection that nobody handles, and a timer or socket that is left, fail it: Node ends with an
    error, or not at all.

    Args:
        script: A file in `tests/js`, or an absolute path.
        arguments: Strings as they are, all else as JSON.
        given: What it can read from its standard input.
    """
    program = require_program("node", package="nodejs")
    process = await asyncio.create_subprocess_exec(
        program,
        str(FOLDER / script),
        *(one if isinstance(one, str) else json.dumps(one) for one in arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, complaints = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, complaints.decode()) == (0, "")
    return json.loads(output)
