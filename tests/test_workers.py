"""Several workers: how they are started and ended, and how they notice that they share no store."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from chainserve.cli import main
from chainserve.workers import SEVERAL_WORKERS
from tests._bridge import WAIT_SECONDS
from tests._command import chain_module, run, serve
from tests._processes import HOST, ROOT, START_SECONDS, ServerProcess, ask, asking

CHAIN = """\
import asyncio
import os
from pathlib import Path

from langchain_core.runnables import RunnableGenerator, RunnableLambda

from chainserve import Chain


async def held(inputs):
    async for _ in inputs:
        yield "begun"
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    yield "done"


held = Chain(path="/held", runnable=RunnableGenerator(held))
pid = Chain(path="/pid", runnable=RunnableLambda(lambda _: os.getpid()))
"""
APPLICATION = """\
import os

from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda

from chainserve import add_routes

app = FastAPI()
add_routes(app, RunnableLambda(lambda _: os.getpid()), path="/pid")
"""
BROKEN_LATER = """\
from pathlib import Path

if Path("broken").exists():
    raise RuntimeError("no model")
"""
LIFESPAN = """\
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no database")
    yield


app = FastAPI(lifespan=lifespan)
"""

_AT_ONCE = 8

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="others are noticed on Linux")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "chains").mkdir()
    (tmp_path / "chains" / "one.py").write_text(CHAIN)
    (tmp_path / "own.py").write_text(APPLICATION)
    (tmp_path / "made.py").write_text(
        "from chainserve import create_app, discover\n\napp = create_app(discover('chains'))\n"
    )
    return tmp_path


@contextmanager
def served(folder: Path, *arguments: str, **variables: str) -> Iterator[ServerProcess]:
    """Serve with two workers, and end them all in any case."""
    process = serve(folder, "--workers", "2", *arguments, **variables)
    try:
        yield process
    finally:
        process.signal(signal.SIGTERM)  # A supervisor that is killed leaves its workers behind.
        try:
            process.wait(WAIT_SECONDS)
        finally:
            process.close()


def who_answers(port: int) -> int | None:
    """Return which process answers; None while there is none, or as it ends."""
    with suppress(ConnectionError):
        pid: int = json.loads(ask(port, "POST", "/pid/invoke", {"input": 1})[1])["output"]
        return pid
    return None


def until_answered_by(port: int, others: int, *, than: Iterable[int] = ()) -> set[int]:
    """Ask until so many processes other than these have answered, and return which."""
    found: set[int] = set()
    deadline = time.monotonic() + START_SECONDS
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # One by one they might all go to the same one.
        while len(found) < others:
            assert time.monotonic() < deadline, found
            answered = {*pool.map(who_answers, [port] * _AT_ONCE)}
            found |= {pid for pid in answered if pid is not None} - {*than}
    return found


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


# `chainserve serve --workers`.


def test_each_worker_of_a_folder_answers_is_replaced_and_ends_after_its_streams(
    project: Path,
) -> None:
    grace = {"CHAINSERVE_SHUTDOWN_GRACE_PERIOD": "20"}
    with served(project, "--stateless", **grace) as process:
        port = process.port()
        first = until_answered_by(port, 2)
        os.kill(min(first), signal.SIGKILL)
        process.until_printed("died")
        second = until_answered_by(port, 2, than={min(first)})
        with asking(port, "POST", "/held/stream", {"input": 1}) as response:
            while b"begun" not in response.readline():
                pass
            process.signal(signal.SIGTERM)
            process.until_printed("Shutting down")
            (project / "go").touch()
            rest = response.read()
        code, _ = process.wait(WAIT_SECONDS)

    assert second > {max(first)}
    assert b'"done"' in rest
    assert b"event: end" in rest
    assert code == 0
    assert not any(map(lives, second))
    assert " serves 2 chains at " in process.output
    assert process.output.count("with 2 workers\n") == 1


def test_the_workers_of_an_application_end_by_ctrl_c(project: Path) -> None:
    with served(project, "own.py:app", CHAINSERVE_STATELESS="true") as process:
        workers = until_answered_by(process.port(), 2)
        process.signal(signal.SIGINT)
        code, _ = process.wait(WAIT_SECONDS)

    assert code == 0
    assert not any(map(lives, workers))
    assert " serves own.py:app at " in process.output
    assert "Traceback" not in process.output


def test_a_replacement_that_cannot_start_ends_the_command(project: Path) -> None:
    (project / "chains" / "two.py").write_text(BROKEN_LATER + chain_module("two"))
    with served(project, "--stateless") as process:
        workers = until_answered_by(process.port(), 2)
        (project / "broken").touch()
        os.kill(min(workers), signal.SIGKILL)
        code, _ = process.wait(START_SECONDS)

    assert code == 1
    assert "two.py: cannot be imported: RuntimeError: no model" in process.output
    assert not any(map(lives, workers))


def test_a_chain_that_cannot_be_imported_ends_all_workers_and_is_told_once(project: Path) -> None:
    (project / "chains" / "two.py").write_text("raise RuntimeError('no model')\n")
    done = run("serve", "--port", "0", "--workers", "2", "--stateless", folder=project)

    assert done.code == 1
    assert done.err.count("two.py: cannot be imported: RuntimeError: no model. Mend the") == 1
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("module", "says"),
    [(LIFESPAN, "no database"), ("import os\n\nos._exit(7)\n", "ended before it served")],
    ids=["start-up fails", "crash"],
)
def test_an_application_that_never_starts_is_not_tried_again(
    module: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(module)
    done = run("serve", "own:app", "--port", "0", "--workers", "2", "--stateless", folder=tmp_path)

    assert done.code == 1
    assert says in done.err
    assert "A worker has ended before it served." in done.err
    assert done.out == ""


def test_several_workers_that_keep_runs_are_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)

    assert main(["serve", "--workers", "2", "--port", "0"]) == 1
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", f"chainserve serve: {SEVERAL_WORKERS}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workers", "0"], "'0' is no number from 1 to 1000"),
        (["--workers", "many"], "'many' is no number from 1 to 1000"),
        (["--workers", "2", "--reload", "--stateless"], "--reload has one worker"),
        (["--workers", "1", "--reload"], "--reload has one worker"),
    ],
)
def test_bad_usage_is_told(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["serve", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))

    assert code == 2
    assert says in capfd.readouterr().err


# Workers that others start.


@contextmanager
def uvicorn(folder: Path, *arguments: str, **variables: str) -> Iterator[ServerProcess]:
    """Serve with uvicorn's own command, and end all of its processes in any case."""
    environment = {"PYTHONPATH": str(ROOT), **variables}
    command = ["-m", "uvicorn", "--port", "0", *arguments]
    process = ServerProcess(command, environment, folder)
    try:
        yield process
    finally:
        process.signal(signal.SIGTERM)
        try:
            process.wait(WAIT_SECONDS)
        finally:
            process.close()


@pytest.mark.parametrize("app", ["own:app", "made:app"])
def test_two_workers_of_uvicorn_that_keep_runs_do_not_start(app: str, project: Path) -> None:
    with uvicorn(project, app, "--workers", "2") as process:
        process.until_printed(SEVERAL_WORKERS)
        process.until_printed("Application startup failed")

    assert process.output.count(SEVERAL_WORKERS) == 1


def test_two_workers_of_uvicorn_that_keep_nothing_start(project: Path) -> None:
    with uvicorn(project, "made:app", "--workers", "2", CHAINSERVE_STATELESS="true") as process:
        assert len(until_answered_by(process.port(), 2)) == 2


def test_one_process_that_is_started_again_and_again_may_keep_runs(project: Path) -> None:
    with uvicorn(project, "own:app", "--reload") as process:
        port = process.port()
        before = until_answered_by(port, 1)
        (project / "own.py").write_text(f"{APPLICATION}\n")

        assert until_answered_by(port, 1, than=before)
    assert SEVERAL_WORKERS not in process.output


CLAIM = """\
import sys

from chainserve.errors import ConfigurationError
from chainserve.workers import refuse_second_worker

try:
    refuse_second_worker()
except ConfigurationError:
    print("refused", flush=True)
else:
    print("alone", flush=True)
sys.stdin.read()
"""


@contextmanager
def claiming(*sockets: socket.socket) -> Iterator[str]:
    """Return what a process says that was given these sockets, while it lives."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[one.fileno() for one in sockets],
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def test_a_bound_socket_belongs_to_one_process_as_long_as_that_lives(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket() as bound, socket.socket() as free, socket.socket(socket.AF_UNIX) as unix:
        bound.bind((HOST, 0))
        unix.bind(path)
        with claiming(bound) as first, claiming(free, unix) as other, claiming(bound) as second:
            assert (first, other, second) == ("alone", "alone", "refused")
            with claiming(unix) as third:
                assert third == "refused"
        with claiming(bound, unix) as next_one:
            assert next_one == "alone"


def test_connections_are_nobodys_own() -> None:
    with socket.create_server((HOST, 0)) as listener:
        connection = socket.create_connection(listener.getsockname()[:2])
        sockets = (connection, listener.accept()[0], *socket.socketpair())
    with claiming(*sockets) as first, claiming(*sockets) as second:
        assert (first, second) == ("alone", "alone")
    for one in sockets:
        one.close()
