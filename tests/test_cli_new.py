"""`chainserve new`: a chain and its test, which work at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainserve.cli import main
from chainserve.cli.new import RESERVED
from chainserve.registry import SERVER_ROUTES
from tests._command import ENVIRONMENT, Here, here as here, run, serve
from tests._processes import START_SECONDS, ask


def tools(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, "OPENAI_API_KEY": "sk-unused"},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which two chains were made."""
    folder = tmp_path_factory.mktemp("empty")
    done = run("new", "joke", folder=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Wrote chains/joke.py and tests/test_joke.py.\n")
    for step in ("chainserve serve --reload", 'chainserve call joke "Why?"', "-m pytest"):
        assert step in done.out
    assert run("new", "travel_plan", "--folder", "app\\it's more/chains", folder=folder).code == 0
    return folder


def test_the_tests_pass_at_once_and_offline(project: Path) -> None:
    done = tools(project, "pytest", "-q", "-p", "no:cacheprovider")

    assert "2 passed" in done.stdout, done.stdout


def test_the_chain_is_served_and_answers_a_call(project: Path, here: Here) -> None:
    process = serve(project)
    try:
        port = process.port()
        assert ask(port, "GET", "/joke/input_schema")[0] == 200
        done = here("call", "joke", "Why?", "--url", f"http://127.0.0.1:{port}")
    finally:
        process.close()

    assert done.code == 0
    assert "Why?" in done.out
    assert "/joke  Joke (offline-demo)" in process.output


def test_what_is_written_is_as_the_tools_want_it(project: Path) -> None:
    options = ("--isolated", "--config", "line-length = 100", ".")
    for tool in (("check", "--extend-select", "I,UP,B"), ("format", "--check")):
        done = tools(project, "ruff", *tool, *options)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("joke-teller", "Perhaps 'joke_teller'?"),
        ("Joke", "Perhaps 'joke'?"),
        ("2nd", "begins with a letter. Perhaps 'nd'?"),
        ("../joke", "Perhaps 'joke'?"),
        ("-", "begins with a letter.\n"),
        ("class", "is a word of Python's"),
        ("docs", "/docs belongs to the server itself."),
        ("é", "begins with a letter.\n"),
    ],
)
def test_a_bad_name_is_refused(
    name: str,
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["new", name]) == 2
    assert part in capfd.readouterr().err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("folder", ["..", "/somewhere", "a/../..", ".", "", "tests"])
def test_a_folder_that_is_not_below_this_one_is_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["new", "joke", "--folder", folder]) == 2
    assert f"{folder!r} is no folder for chains below this one." in capfd.readouterr().err


@pytest.mark.parametrize("name", ["chains/joke.py", "tests/test_joke.py"])
def test_a_file_that_is_there_stays_and_no_other_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text("mine")

    assert main(["new", "joke"]) == 1
    assert capfd.readouterr().err.startswith(f"chainserve new: There is {name} already")
    assert path.read_text() == "mine"
    assert [*tmp_path.iterdir()] == [path.parent]


def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").touch()

    assert main(["new", "joke"]) == 1
    assert "tests: File exists." in capfd.readouterr().err
    assert not (tmp_path / "chains" / "joke.py").exists()


def test_the_reserved_names_are_the_servers_own() -> None:
    assert {name for name in SERVER_ROUTES if name.isidentifier()} == RESERVED
