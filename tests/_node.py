"""Scripts in Node, which print one JSON document and end by themselves."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests._system import require_program

FOLDER = Path(__file__).parent / "js"
_SECONDS = 50.0
"""How long a script may take; some go through thousands of streams."""


async def run_node(script: str | Path, *arguments: Any, given: bytes = b"") -> Any:
    """Run a script to its end and return what it printed.

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
