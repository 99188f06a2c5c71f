"""The command `chainserve` as a process: run to its end, or left running."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests._processes import ROOT, START_SECONDS, ServerProcess

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "CHAINSERVE_DEMO_PAUSE": "0", "PYTHONUTF8": "1"}

CHAIN = """\
from langchain_core.runnables import RunnableLambda

from chainserve import Chain

chain = Chain(path="/{name}", runnable=RunnableLambda({function}), title="{title}")
"""


def chain_module(name: str, title: str = "A chain", function: str = "lambda value: value") -> str:
    """Return a module that declares a chain."""
    return CHAIN.format(name=name, title=title, function=function)


def run(
    *arguments: str | Path, stdin: bytes = b"", folder: Path = ROOT, **variables: Any
) -> "Done":
    """Run the command in a folder to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "chainserve", *map(str, arguments)],
        input=stdin,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, **variables},
        capture_output=True,
        timeout=START_SECONDS,
        check=False,
    )
    return Done(done)


def start(*arguments: str, folder: Path, **variables: str) -> ServerProcess:
    """Start the command in a folder."""
    return ServerProcess(["-m", "chainserve", *arguments], {**ENVIRONMENT, **variables}, folder)


def serve(folder: Path, *arguments: str, **variables: str) -> ServerProcess:
    """Start `chainserve serve` on a free port."""
    return start("serve", "--port", "0", *arguments, folder=folder, **variables)


@contextmanager
def forgotten(folder: Path) -> Iterator[None]:
    """Undo what a command does that runs in this process and imports from a folder."""
    path, environment = [*sys.path], {**os.environ}
    try:
        yield
    finally:
        sys.path[:] = path
        for name, module in [*sys.modules.items()]:
            places = getattr(module, "__path__", None) or [getattr(module, "__file__", "") or ""]
            if Path(next(iter(places))).is_relative_to(folder):
                del sys.modules[name]
        os.environ.clear()
        os.environ.update(environment)


class Done:
    """A command that has ended.

    Attributes:
        code: Its exit code.
        out: What it wrote on standard output.
        err: What it wrote on standard error.
    """

    def __init__(self, process: "subprocess.CompletedProcess[bytes]") -> None:
        self.code = process.returncode
        self.out = process.stdout.decode()
        self.err = process.stderr.decode()

    def __repr__(self) -> str:
        return f"Done({self.code}, {self.out!r}, {self.err!r})"
