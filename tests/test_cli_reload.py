"""`chainserve serve --reload`: a change of a file, and the next server answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chainserve.cli import main
from chainserve.cli.reload import Reloader, Report
from chainserve.cli.watch import Watch
from tests._bridge import WAIT_SECONDS
from tests._command import chain_module, forgotten, serve, start
from tests._processes import HOST, ROOT, ServerProcess, ask, asking, free_port

FOREVER = "60"
"""Seconds between two tokens: longer than any test waits."""

STREAMING = """\
from chainserve import Chain
from chainserve.demo import chat_model

chain = Chain(path="/one", runnable=chat_model(), title="{title}")
"""
IMPORTING = "print('importing', flush=True)\n__import__('time').sleep(60)\n"
BLOCKING = "lambda value: __import__('time').sleep(60)"
DYING = "lambda value: __import__('os')._exit(7)"


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of chains of the server that most tests change, each as it was left."""
    folder = tmp_path_factory.mktemp("project") / "chains"
    folder.mkdir()
    (folder / "one.py").write_text(STREAMING.format(title="Before"))
    return folder


@pytest.fixture(scope="module")
def process(chains: Path) -> Iterator[ServerProcess]:
    options = ("--reload", "--reload-include", "prompts/*.txt")
    process = serve(chains.parent, *options, CHAINSERVE_DEMO_PAUSE=FOREVER)
    yield process
    process.close()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of chains for a server of a test's own."""
    folder = tmp_path / "chains"
    folder.mkdir()
    return folder


def served(process: ServerProcess, chains: Path, text: str, title: str) -> int:
    """Have the server serve another chain, and return its port when it does."""
    port = process.port()
    (chains / "one.py").write_text(text)
    until(lambda: titles(port) == [title])
    return port


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that other processes make true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def titles(port: int) -> list[str]:
    """Return the titles of the served chains; none while one server ends and the next begins."""
    try:
        status, body = ask(port, "GET", "/chains")
    except OSError:
        return []
    return [chain["title"] for chain in json.loads(body)] if status == 200 else []


def test_a_change_ends_the_open_streams_and_is_served(process: ServerProcess, chains: Path) -> None:
    port = served(process, chains, STREAMING.format(title="Streaming"), "Streaming")
    with asking(port, "POST", "/one/stream", {"input": "Why?"}) as stream:
        assert stream.readline() == b"event: metadata\r\n"
        (chains / "one.py").write_text(STREAMING.format(title="After"))
        rest = stream.read()

    # The model would have gone on for minutes.
    assert rest.count(b"event: error") == 1
    until(lambda: titles(port) == ["After"])
    process.until_printed("chains/one.py changed.\n")
    process.until_printed("/one  After\n")
    assert "Traceback" not in process.output
    assert "ERROR" not in process.output

    # One that changes no chain is told in a line.
    (chains / "one.py").write_text(STREAMING.format(title="After") + "\n# more\n")
    process.until_printed("Started again after ")


def test_what_cannot_be_imported_is_told_and_the_next_change_is_waited_for(
    process: ServerProcess, chains: Path
) -> None:
    port = process.port()
    (chains / "one.py").write_text("chain = Chian()\n")
    process.until_printed("Waiting for a change…\n")
    with asking(port, "GET", "/chains") as answer:
        problem = json.load(answer)

    reason = "chains/one.py: cannot be imported: NameError: name 'Chian' is not defined."
    assert (answer.status, problem["code"]) == (503, "configuration_error")
    assert reason in problem["message"]
    assert reason in process.output
    assert "Traceback" not in process.output

    served(process, chains, STREAMING.format(title="Mended"), "Mended")


def test_new_files_and_those_that_are_included_are_seen(
    process: ServerProcess, chains: Path
) -> None:
    prompts = chains.parent / "prompts"
    prompts.mkdir()
    (prompts / "title.txt").write_text("First")
    text = chain_module("one").replace('"A chain"', 'Path("prompts/title.txt").read_text()')
    port = served(process, chains, f"from pathlib import Path\n{text}", "First")

    (prompts / "title.txt").write_text("Second")
    until(lambda: titles(port) == ["Second"])
    (chains / "two.py").write_text(chain_module("two", "Another"))
    until(lambda: titles(port) == ["Second", "Another"])
    (chains / "two.py").unlink()
    until(lambda: titles(port) == ["Second"])


def test_no_chain_keeps_the_next_server_from_its_start(
    process: ServerProcess, chains: Path
) -> None:
    for function in (BLOCKING, DYING):
        port = served(process, chains, chain_module("one", function, function), function)
        ask(port, "POST", "/one/runs", {"input": 1, "mode": "invoke"})
    process.until_printed("The server's process has ended.")

    served(process, chains, chain_module("one", "Good"), "Good")


def test_ctrl_c_of_a_terminal_is_for_the_process_that_ends_the_server(
    process: ServerProcess, chains: Path
) -> None:
    # The terminal sends it to both, and the server would end itself while the other one waits.
    interrupted = "lambda value: __import__('os').kill(__import__('os').getpid(), 2) or value"
    port = served(process, chains, chain_module("one", "Interrupted", interrupted), "Interrupted")

    for _ in range(2):
        assert ask(port, "POST", "/one/invoke", {"input": 1})[0] == 200


@pytest.mark.parametrize(
    ("options", "setting", "is_listed"),
    [([], None, "true"), ([], "false", "false"), (["--host", "0.0.0.0"], None, None)],
    ids=["unless", "a setting says otherwise", "or others can reach it"],
)
def test_who_may_list_runs_in_development(
    options: list[str],
    setting: str | None,
    is_listed: str | None,
    own: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if setting is not None:
        monkeypatch.setenv("CHAINSERVE_LIST_ALL_RUNS", setting)
    with socket.create_server(("0.0.0.0", 0)) as taken, forgotten(own):
        port = str(taken.getsockname()[1])
        assert main(["serve", str(own), "--reload", "--port", port, *options]) == 1
        assert os.environ.get("CHAINSERVE_LIST_ALL_RUNS") == is_listed


def test_a_server_may_begin_with_what_cannot_be_imported_and_sigterm_ends_it(own: Path) -> None:
    (own / "one.py").write_text("chain = (\n")
    process = serve(own.parent, "--reload")
    try:
        process.until_printed("Waiting for a change…\n")
        (own / "one.py").write_text(chain_module("one", "Mended"))
        assert titles(process.port()) == ["Mended"]
        assert_all_of_it_ends(process, signal.SIGTERM)
    finally:
        process.close()


def test_an_application_of_ones_own_is_started_again_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    text = "from chainserve import create_app\n" + chain_module("one", "Before")
    hidden = tmp_path / ".hidden"  # What is served is watched even so.
    hidden.mkdir()
    (hidden / "own.py").write_text(f"{text}app = create_app([chain])\n")
    process = serve(tmp_path, ".hidden/own.py:app", "--reload")
    try:
        port = process.port()
        assert titles(port) == ["Before"]
        (hidden / "own.py").write_text(
            f"{text}app = create_app([chain])\n".replace("Before", "Change")  # Of the same size.
        )
        until(lambda: titles(port) == ["Change"])
        assert_all_of_it_ends(process, signal.SIGINT)
    finally:
        process.close()


def assert_all_of_it_ends(process: ServerProcess, number: signal.Signals) -> None:
    """Check that a signal ends a server with all of its processes."""
    port = process.port()
    process.signal(number)
    code, _ = process.wait(WAIT_SECONDS)

    assert code == 0
    assert "Traceback" not in process.output
    assert is_refused(port)


@pytest.mark.parametrize("text", [chain_module("one"), IMPORTING], ids=["serves", "imports"])
def test_when_it_is_killed_its_processes_end_too(text: str, own: Path) -> None:
    (own / "one.py").write_text(text)
    port = free_port()
    process = start("serve", "--reload", "--port", str(port), folder=own.parent)
    try:
        process.until_printed("importing" if text == IMPORTING else "Ctrl-C stops it.")
        process.signal(signal.SIGKILL)
        until(lambda: is_refused(port))
    finally:
        process.close()


def is_refused(port: int) -> bool:
    try:
        socket.create_connection((HOST, port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # It was in the queue of a socket that has just gone.
    return False


def test_what_watches_imports_nothing_of_what_it_serves() -> None:
    # A server's report, too, is read without it.
    watching = "from chainserve.cli.reload import Report; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", watching], cwd=ROOT, capture_output=True, check=True, text=True
    )

    assert Report.__module__ == Reloader.__module__
    assert not {"chainserve.app", "fastapi", "langchain_core"} & {*done.stdout.split()}


def test_what_is_not_the_projects_own_is_not_watched(tmp_path: Path) -> None:
    for name in (".git", "node_modules", "__pycache__", "venv", "lib/site-packages"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    watch = Watch([tmp_path, tmp_path / "lib"], ["*.md", "prompts/*.txt"])
    for path in tmp_path.glob("**/"):
        if path != tmp_path:
            (path / "some.py").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.txt").touch()
    (tmp_path / "README.md").touch()

    changed = [os.path.relpath(path, tmp_path) for path in watch.changed()]
    assert changed == ["README.md", "lib/some.py", "prompts/a.txt"]
    assert watch.changed() == []

    (tmp_path / "README.md").write_text("more")
    (tmp_path / "lib" / "some.py").unlink()
    assert len(watch.changed()) == 2
