"""Servers in processes of their own, as a user starts them."""

import asyncio
import contextlib
import os
import socket
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_SECONDS = 30.0
STOP_SECONDS = 20.0


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without a key, in which the repository can be imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "CHAINSERVE_"))}
    ours = {"PYTHONPATH": str(ROOT), "CHAINSERVE_DEMO_PAUSE": "0"}
    return {**kept, **ours, **(variables or {})}


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str], port: int, cwd: Path, variables: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """Run a server until the block is left; yields its URL once it listens.

    Raises:
        RuntimeError: It ended before it listened; the message is what it wrote.
        TimeoutError: It does not listen, or does not end, in time.
    """
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment(variables), stdout=PIPE, stderr=STDOUT
    )
    output = asyncio.create_task(process.communicate())
    try:
        async with asyncio.timeout(START_SECONDS):
            await _until_listening(port, output)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await output


async def _until_listening(port: int, output: asyncio.Task[tuple[bytes, bytes]]) -> None:
    while not output.done():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.wait([output], timeout=0.05)  # A process has no event for this.
        else:
            writer.close()
            await writer.wait_closed()
            return
    written, _ = await output
    raise RuntimeError(written.decode(errors="replace"))
