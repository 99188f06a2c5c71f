"""`chainserve serve --reload`: a change of a file, and the next server answers."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chainserve.cli.watch import Watch
from tests._bridge import WAIT_SECONDS
from tests._command import chain_module, serve
from tests._processes import ServerProcess, ask, asking

FOREVER = "60"
"""Seconds between two tokens: longer than any test waits."""

STREAMING = """\
from chainserve import Chain
from chainserve.demo import chat_model

chain = Chain(path="/one", runnable=chat_model(), title="{title}")
"""
BLOCKING = "lambda value: __import__('time').sleep(60)"
DYING = "lambda value: __import__('os')._exit(7)"


@pytest.fixture
def chains(tmp_path: Path) -> Path:
    folder = tmp_path / "chains"
    folder.mkdir()
    (folder / "one.py").write_text(STREAMING.format(title="Before"))
    return folder


@pytest.fixture
def process(chains: Path) -> Iterator[ServerProcess]:
    process = serve(chains.parent, "--reload", CHAINSERVE_DEMO_PAUSE=FOREVER)
    yield process
    process.close()


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
    port = process.port()
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


def test_a_change_that_changes_no_chain_is_told_in_a_line(
    process: ServerProcess, chains: Path
) -> None:
    process.port()
    (chains / "one.py").write_text(STREAMING.format(title="Before") + "\n# more\n")

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

    (chains / "one.py").write_text(STREAMING.format(title="Mended"))
    until(lambda: titles(port) == ["Mended"])


def test_a_server_may_begin_with_what_cannot_be_imported(chains: Path) -> None:
    (chains / "one.py").write_text("chain = (\n")
    process = serve(chains.parent, "--reload")
    try:
        process.until_printed("Waiting for a change…\n")
        (chains / "one.py").write_text(chain_module("one", "Mended"))
        assert titles(process.port()) == ["Mended"]
    finally:
        process.close()


def test_new_files_and_those_that_are_included_are_seen(chains: Path) -> None:
    (chains / "one.py").write_text(
        "from pathlib import Path\n"
        + chain_module("one").replace('"A chain"', 'Path("prompts/title.txt").read_text()')
    )
    prompts = chains.parent / "prompts"
    prompts.mkdir()
    (prompts / "title.txt").write_text("Before")
    process = serve(chains.parent, "--reload", "--reload-include", "prompts/*.txt")
    try:
        port = process.port()
        (prompts / "title.txt").write_text("After")
        until(lambda: titles(port) == ["After"])
        (chains / "two.py").write_text(chain_module("two", "The second"))
        until(lambda: titles(port) == ["After", "The second"])
        (chains / "two.py").unlink()
        until(lambda: titles(port) == ["After"])
    finally:
        process.close()


def test_an_application_of_ones_own_is_started_again(tmp_path: Path) -> None:
    text = "from chainserve import create_app\n" + chain_module("one", "Before")
    (tmp_path / "own.py").write_text(f"{text}app = create_app([chain])\n")
    process = serve(tmp_path, "own.py:app", "--reload")
    try:
        port = process.port()
        assert titles(port) == ["Before"]
        (tmp_path / "own.py").write_text(
            f"{text}app = create_app([chain])\n".replace("Before", "Change")  # Of the same size.
        )
        until(lambda: titles(port) == ["Change"])
    finally:
        process.close()


@pytest.mark.parametrize("function", [BLOCKING, DYING])
def test_no_chain_keeps_the_next_server_from_its_start(function: str, chains: Path) -> None:
    (chains / "one.py").write_text(chain_module("one", function=function))
    process = serve(chains.parent, "--reload")
    try:
        port = process.port()
        ask(port, "POST", "/one/runs", {"input": 1, "mode": "invoke"})
        if function == DYING:
            process.until_printed("The server's process has ended.")
        (chains / "one.py").write_text(chain_module("one", "After"))
        until(lambda: titles(port) == ["After"])
    finally:
        process.close()


def test_runs_are_listed_in_development_unless_a_setting_says_otherwise(chains: Path) -> None:
    for variables, status in (({}, 200), ({"CHAINSERVE_LIST_ALL_RUNS": "false"}, 403)):
        process = serve(chains.parent, "--reload", **variables)
        try:
            assert ask(process.port(), "GET", "/one/runs")[0] == status
        finally:
            process.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_its_processes(number: signal.Signals, process: ServerProcess) -> None:
    port = process.port()
    process.signal(number)
    code, _ = process.wait(WAIT_SECONDS)

    assert code == 0
    assert "Traceback" not in process.output
    with pytest.raises(ConnectionRefusedError):
        ask(port, "GET", "/livez")


def test_when_it_is_killed_its_processes_end_too(process: ServerProcess) -> None:
    port = process.port()
    process.signal(signal.SIGKILL)

    def is_refused() -> bool:
        try:
            ask(port, "GET", "/livez")
        except OSError:
            return True
        return False

    until(is_refused)


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
