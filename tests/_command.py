"""The command `chainserve` as a process: run to its end, or left running."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest

from chainserve.cli import main
from tests._processes import ROOT, START_SECONDS, ServerProcess

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "CHAINSERVE_DEMO_PAUSE": "0", "PYTHONUTF8": "1"}

CHAIN = """\
from langchain_core.runnables import RunnableLambda

from chainserve import Chain

chain = Chain(path="/{name}", runnable=RunnableLambda({function}), title="{title}")
"""


class Done(NamedTuple):
    """How a command has ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


Here: TypeAlias = Callable[..., Done]


def chain_module(name: str, title: str = "A chain", function: str = "lambda value: value") -> str:
    """Return a module that declares a chain."""
    return CHAIN.format(name=name, title=title, function=function)


def run(*arguments: str | Path, stdin: bytes = b"", folder: Path = ROOT, **variables: Any) -> Done:
    """Run the command in a folder to its end."""
    process = subprocess.run(
        [sys.executable, "-m", "chainserve", *map(str, arguments)],
        input=stdin,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, **variables},
        capture_output=True,
        timeout=START_SECONDS,
        check=False,
    )
    return Done(process.returncode, process.stdout.decode(), process.stderr.decode())


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """Run the command in this process, which has imported everything already."""

    def run_here(*arguments: str, stdin: bytes = b"", **variables: str) -> Done:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(str(ended.code))
        return Done(code, *capfd.readouterr())

    return run_here


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
