"""What `chainserve` says of itself, and what it does where an extra is not installed."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from chainserve.cli import COMMANDS, main
from tests._command import Here, here as here, run, serve
from tests._processes import ROOT

CODES = {
    "serve": {0, 1, 2},
    "list": {0, 1, 2, 3},
    "call": {0, 1, 2, 3, 4, 130},
    "runs": {0, 1, 2, 3},
    "new": {0, 1, 2},
    "migrate": {0, 1, 2, 3},
}
SERVER = ("fastapi", "pydantic_settings", "starlette", "structlog", "uvicorn")
CLIENT = ("httpx", "httpx2")


def help_of(*arguments: str) -> str:
    """Return what a command tells of itself, in a terminal of the usual width."""
    done = run(*arguments, "--help", COLUMNS="80")
    assert (done.code, done.err) == (0, "")
    return done.out


def without(packages: tuple[str, ...], *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands where some packages are not installed; the exit code is the highest."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages})); "
    return subprocess.run(
        [
            sys.executable,
            "-c",
            f"{blocked}from chainserve.cli import main; sys.exit(max(map(main, {[*commands]})))",
        ],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_names_its_exit_codes(command: str) -> None:
    codes = help_of(command).partition("exit codes:\n")[2]

    found = {int(line.split()[0]) for line in codes.splitlines() if line.split()[:1]}
    assert found == CODES[command]


@pytest.mark.parametrize("command", [*COMMANDS])
def test_the_help_of_a_command_begins_with_a_sentence_and_fits_a_terminal(command: str) -> None:
    lines = help_of(command).splitlines()

    assert lines[0].startswith(f"usage: chainserve {command}")
    assert all(len(line) <= 80 for line in lines)
    assert command == "migrate" or "examples:" in lines


def test_the_help_names_every_command() -> None:
    shown = help_of()

    assert all(f"    {name:8}  {summary}" in shown for name, summary in COMMANDS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described_in_the_readme_and_the_reference(command: str) -> None:
    for document in ("README.md", "docs/reference.md"):
        assert f"chainserve {command}" in (ROOT / document).read_text()


def test_every_option_and_exit_code_is_in_the_reference() -> None:
    section = (ROOT / "docs" / "reference.md").read_text()
    section = section.partition("## The command\n")[2].partition("\n## ")[0]
    for command, codes in CODES.items():
        options = {word for word in help_of(command).split() if word.startswith("--")}
        for option in {word.strip("],.:'()") for word in options} - {"--help", "--"}:
            assert command == "migrate" or f"`{option}" in section, option
        assert command == "migrate" or all(f"| `{code}` |" in section for code in codes)


def test_what_the_readme_shows_of_the_command_works_in_an_empty_folder(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## The command\n")[2].partition("\n## ")[0]
    new, start, *others = [
        shlex.split(line.removeprefix("$ chainserve "))
        for line in section.splitlines()
        if line.startswith("$ chainserve ")
    ]
    monkeypatch.chdir(tmp_path)
    assert here(*new).code == 0
    process = serve(tmp_path, *start[1:])
    try:
        port = str(process.port())
        done = {
            words[0]: here(*[word.replace("8000", port) for word in words], PORT=port)
            for words in others
        }
    finally:
        process.close()

    assert {name: one.code for name, one in done.items()} == {"list": 0, "call": 0, "runs": 0}
    assert done["list"].out.startswith("/joke  Joke  offline-demo  streams  ")
    assert "Why did the cat sit on the keyboard?" in done["call"].out
    assert "  success    stream " in done["runs"].out


@pytest.mark.parametrize("command", [[], ["serve"], ["call"], ["new"]], ids=" ".join)
def test_help_needs_neither_langchain_nor_an_extra(command: list[str]) -> None:
    done = without((*SERVER, *CLIENT, "langchain_core", "pydantic"), [*command, "--help"])

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("packages", "commands", "extra"),
    [
        (SERVER, [["serve"], ["list"]], "server"),
        (CLIENT, [["list", "http://127.0.0.1:1"], ["runs", "x"], ["call", "x", "y"]], "client"),
    ],
    ids=["server", "client"],
)
def test_an_extra_that_is_missing_is_told_with_the_command_that_brings_it(
    packages: tuple[str, ...], commands: list[list[str]], extra: str
) -> None:
    done = without(packages, *commands)

    assert done.returncode == 2
    told = done.stderr.splitlines()
    for line, command in zip(told, commands, strict=True):
        assert line.startswith(f"chainserve {command[0]}: This needs ")
        assert f'pip install "chainserve[{extra}]"' in line


def test_call_and_runs_need_no_server_extra() -> None:
    nowhere = "http://127.0.0.1:1"
    commands = [["call", f"{nowhere}/x", "y"], ["runs", f"{nowhere}/x"], ["list", nowhere]]
    done = without(SERVER, *commands)

    assert done.returncode == 3
    assert done.stderr.count("cannot be reached") == len(commands)


def test_migrate_and_new_need_no_extra(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import langserve\n")

    assert without((*SERVER, *CLIENT), ["migrate", str(tmp_path)]).returncode == 0
    assert without((*SERVER, *CLIENT), ["new", "class"]).returncode == 2


def test_ctrl_c_ends_any_command_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chainserve.cli.new._below_here", interrupted)

    assert main(["new", "joke"]) == 130
    assert capfd.readouterr().err == ""
