"""Processes that are measured, and those that measure: started, pinned, asked, ended."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from json import dumps, loads
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
START_SECONDS = 60.0
ANSWER_SECONDS = 600.0
_POLL_SECONDS = 0.02
_CPU_CLOCK = 2
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class MeasuringError(Exception):
    """Something that should be measured did not do what it has to."""


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children, those that have ended too.

    The kernel's clock of a process counts nanoseconds, for all its threads, living or not; what
    `/proc` shows are hundredths of a second.
    """
    ended = sum(int(ticks) for ticks in _stat(pid)[13:15]) / _TICKS_A_SECOND
    return _own_cpu_seconds(pid) + ended + sum(cpu_seconds(child) for child in _children(pid))


def cpu_seconds_of_each(pid: int) -> dict[int, float]:
    """Return the processor time of a process, and of each of its children."""
    return {one: _own_cpu_seconds(one) for one in (pid, *_children(pid))}


def _own_cpu_seconds(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process and its children that is in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    own = pages * os.sysconf("SC_PAGE_SIZE")
    return own + sum(resident_bytes(child) for child in _children(pid))


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def raise_open_files(wanted: int) -> int:
    """Let this process, and those that it starts, have so many files open, and return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


def cores() -> tuple[int | None, int | None]:
    """Return the core of what is measured and that of what measures: none where there is one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


class Process:
    """A module of this package as a process; it starts anywhere, and is pinned to a core later.

    Args:
        arguments: The module's name, and what follows it.
        core: The core it runs on, with all its threads.
        environment: More variables. Of this process's own it gets the search path alone, so that
            nothing set for other purposes is measured.
        logs: Whether what it prints on standard error is shown, or thrown away.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        core: int | None,
        environment: Mapping[str, str] | None = None,
        *,
        logs: bool = True,
    ) -> None:
        module, *rest = arguments
        self.name = " ".join(arguments)
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *rest],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if logs else subprocess.DEVNULL,
            stderr=None if logs else subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        self._core = core

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in [*_children(self.pid)] if self._process.poll() is None else []:
            with suppress(ProcessLookupError):  # It may be about to end.
                os.kill(child, signal.SIGKILL)  # Workers outlive a supervisor that is killed.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def pin(self) -> None:
        """Keep all its threads on its core: those that there are, and those that they start."""
        if self._core is not None:
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {self._core})

    def check(self) -> None:
        """Raise a `MeasuringError` if it has ended."""
        if self._process.poll() is not None:
            raise MeasuringError(f"{self.name} ended with {self._process.returncode}")


class Asked(Process):
    """A process that answers each line of JSON with another."""

    def ask(self, **question: Any) -> Any:
        """Return the answer to a question.

        Raises:
            MeasuringError: There was none, or it told of a failure.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(dumps(question).encode() + b"\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], ANSWER_SECONDS)
        line = stdout.readline() if ready else b""
        if not line:
            self.check()
            raise MeasuringError(f"{self.name} did not answer {question}")
        answer = loads(line)
        if isinstance(answer, dict) and "failed" in answer:
            raise MeasuringError(f"{self.name}: {answer['failed']}")
        return answer


class Server(Process):
    """A server of some cases on a port of its own."""

    def __init__(
        self,
        kind: str,
        cases: Sequence[str],
        core: int | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.port = _free_port()
        arguments = ["serve", kind, str(self.port), *cases]
        super().__init__(arguments, core, environment, logs=False)

    def wait(self) -> None:
        """Wait until it takes connections.

        Raises:
            MeasuringError: It has ended, or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            try:
                socket.create_connection((HOST, self.port), 1).close()
            except OSError:
                time.sleep(_POLL_SECONDS)
            else:
                return
        raise MeasuringError(f"{self.name} does not listen")


def _free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
