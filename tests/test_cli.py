"""The command `chainserve`, as a process and as a function."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import chainserve
from chainserve.cli import main
from chainserve.migrate import Migrated, migrate
from chainserve.migrate.files import MAX_FILE_BYTES
from tests._processes import ROOT

BEFORE = "from langserve import add_routes\n"
AFTER = "from chainserve import add_routes\n"
BY_HAND = "from langserve.playground import serve_playground\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An application with a server and its requirements; it is the current folder."""
    app = tmp_path / "app"
    (app / "app").mkdir(parents=True)
    (app / "app" / "server.py").write_text(f"import os\n\n{BEFORE}\n\nos.getcwd()\n")
    (app / "requirements.txt").write_text("fastapi\nlangserve[all]>=0.3\n")
    (app / "README.md").write_text("pip install langserve\n")
    monkeypatch.chdir(app)
    return app


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "chainserve", *arguments],
        input=stdin,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=50,
        check=False,
    )


def test_it_shows_a_diff_and_writes_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)

    assert main(["migrate", "."]) == 0
    shown = capfd.readouterr()
    assert contents(folder) == before
    assert shown.out == (
        "--- a/app/server.py\n+++ b/app/server.py\n@@ -1,6 +1,6 @@\n import os\n \n"
        f"-{BEFORE}+{AFTER} \n \n os.getcwd()\n"
        "--- a/requirements.txt\n+++ b/requirements.txt\n@@ -1,2 +1,2 @@\n fastapi\n"
        "-langserve[all]>=0.3\n+chainserve[all]\n"
    )
    assert "requirements.txt:2: differs: chainserve is not on PyPI yet" in shown.err
    assert shown.err.endswith(
        "2 files would change in 2 places; 0 places left to do by hand. --write changes them.\n"
    )


def test_what_holds_for_all_files_is_told_once(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "dev-requirements.txt").write_text("langserve[client]\nlangserve[server]\n")

    assert main(["migrate", "."]) == 0
    told = capfd.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in told if "PyPI" in line] == [
        "dev-requirements.txt:1"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requirements.txt", "sse_starlette<2  # for events\n"),
        ("deep/pyproject.toml", '[project]\ndependencies = ["SSE-Starlette"]\n'),
        ("Dockerfile", "RUN pip install sse-starlette\n"),
    ],
)
def test_a_package_that_came_with_langserve_alone_is_to_be_required(
    name: str, text: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "app" / "events.py").write_text("from sse_starlette import EventSourceResponse\n")
    (folder / "poetry.lock").write_text('name = "sse-starlette"\n')
    (folder / "requirements.in").write_text("# sse-starlette\nsse-starlette-more\n")

    assert main(["migrate", "--write", "."]) == 3
    assert "app/events.py:1: by hand: sse-starlette came with LangServe" in capfd.readouterr().err

    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    assert main(["migrate", "."]) == 0
    assert "came with LangServe" not in capfd.readouterr().err


def test_it_writes_what_it_shows(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = "import langserve\r\n\x0c# \x85\r\n# é"
    (folder / "odd.py").write_bytes(f"# coding: latin-1\n{odd}".encode("latin-1"))
    (folder / "mark.py").write_bytes(b"\xef\xbb\xbfimport langserve\n")
    copy = shutil.copytree(folder, folder.parent / "copy")
    shown = run("migrate", ".").stdout
    applying = ["git", "apply", "--whitespace=nowarn"]
    subprocess.run(applying, input=shown, cwd=copy, check=True)

    assert main(["migrate", "--write", "."]) == 0
    assert capfd.readouterr().out == (
        "app/server.py: 1 place\nmark.py: 1 place\nodd.py: 1 place\nrequirements.txt: 1 place\n"
    )
    written = {name.replace(str(folder), ""): data for name, data in contents(folder).items()}
    assert written == {name.replace(str(copy), ""): data for name, data in contents(copy).items()}


def test_what_was_written_needs_no_more(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["migrate", "--write", str(folder)])
    written = contents(folder)
    capfd.readouterr()

    assert main(["migrate", "--write", str(folder)]) == 0
    assert main(["migrate", "--check", str(folder)]) == 0
    assert contents(folder) == written
    shown = capfd.readouterr()
    assert shown.out == ""
    assert set(shown.err.splitlines()) == {
        "0 files changed in 0 places; 0 places left to do by hand.",
        "0 files would change in 0 places; 0 places left to do by hand.",
    }


def test_check_tells_by_its_exit_code_that_something_would_change(folder: Path) -> None:
    before = contents(folder)

    assert main(["migrate", "--check", "."]) == 1
    assert contents(folder) == before


@pytest.mark.parametrize("options", [[], ["--write"], ["--check"]])
def test_what_is_left_by_hand_is_told_by_line_and_exit_code(
    options: list[str], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / "left.py"
    path.write_text(f"\n{BY_HAND}")

    assert main(["migrate", *options, "left.py"]) == 3
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("left.py:2: by hand: langserve.playground has no counterpart: ")
    assert path.read_text() == f"\n{BY_HAND}"


def test_a_file_that_cannot_be_read_is_a_failure_and_the_others_are_changed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "old.py").write_text("print 'langserve'\n")

    assert main(["migrate", "--write", "."]) == 2
    assert "old.py:1: failed: not Python that can be read here" in capfd.readouterr().err
    assert (folder / "app" / "server.py").read_text().count(AFTER) == 1


def test_no_file_ends_the_whole_run_whatever_is_in_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(path: Path, data: bytes, required: frozenset[str]) -> Migrated:
        if path.name == "odd.py":
            raise ZeroDivisionError("odd")
        return migrate(path, data, required)

    (folder / "app" / "odd.py").write_text(BEFORE)
    monkeypatch.setattr("chainserve.cli.migrate.migrate", failing)

    assert main(["migrate", "--write", "."]) == 2
    assert "app/odd.py: failed: ZeroDivisionError('odd')" in capfd.readouterr().err
    assert (folder / "app" / "server.py").read_text().count(AFTER) == 1


def test_a_folders_name_need_not_be_in_the_encoding_of_a_file(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for name in ("é", os.fsdecode(b"\xff")):
        (folder / name).mkdir()
        (folder / name / "x.py").write_text(f"# coding: ascii\n{BEFORE}")

    assert main(["migrate", "."]) == 0
    shown = capfdbinary.readouterr().out
    assert b"+++ b/\xff/x.py\n" in shown
    assert "+++ b/é/x.py\n".encode() in shown


def test_a_file_is_found_however_deep_it_is(folder: Path) -> None:
    path = folder.joinpath(*"d" * 300, "deep.py")
    path.parent.mkdir(parents=True)
    path.write_text(BEFORE)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        assert main(["migrate", "--write", "."]) == 0
    finally:
        sys.setrecursionlimit(limit)

    assert path.read_text() == AFTER


def test_a_folder_that_cannot_be_read_is_the_only_one_that_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def exists(path: Path, **options: bool) -> bool:
        if path.parent.name == "locked":  # What a folder without any rights does.
            raise PermissionError(13, "Permission denied")
        return os.path.exists(path)

    (folder / "app" / "locked").mkdir()
    monkeypatch.setattr(Path, "exists", exists)

    assert main(["migrate", "--write", "."]) == 2
    shown = capfd.readouterr()
    assert [line for line in shown.err.splitlines() if "failed" in line] == [
        "app/locked: failed: Permission denied"
    ]
    assert shown.out == "app/server.py: 1 place\nrequirements.txt: 1 place\n"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("nowhere", "nowhere: no such file or folder. Give one, or - for standard input."),
        ("nowhere.py", "nowhere.py: no such file or folder. Give one, or - for standard input."),
        ("x" * 300, "x" * 300 + ": File name too long."),
        ("README.md", "README.md: not a kind of file that is looked at"),
    ],
)
def test_a_path_that_cannot_be_is_refused(
    path: str, part: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", path]) == 2
    assert capfd.readouterr().err.startswith(f"chainserve migrate: {part}")


def test_a_script_without_an_ending_is_looked_at_and_nothing_else_without_one(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = folder / "serve"
    script.write_text(f"#!/usr/bin/env python3\n{BEFORE}")
    (folder / "LICENSE").write_text(BEFORE)
    (folder / "broken").symlink_to("nowhere")
    (folder / "link").symlink_to(script)
    os.mkfifo(folder / "pipe")

    assert main(["migrate", "--write", "."]) == 0
    assert script.read_text().endswith(AFTER)
    assert (folder / "LICENSE").read_text() == BEFORE
    shown = capfd.readouterr()
    assert "serve: 1 place\n" in shown.out
    assert [line for line in shown.err.splitlines() if "skipped" in line] == [
        "link: skipped: a symbolic link"
    ]
    assert (folder / "link").is_symlink()
    assert main(["migrate", "--check", "serve"]) == 0
    assert main(["migrate", "--check", "LICENSE"]) == 2
    assert main(["migrate", "--check", "pipe"]) == 2


def test_what_is_not_the_applications_own_is_left_alone_and_told(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "server.py").write_text(BEFORE)
    folders = (".git", ".venv", "node_modules", "own", "__pycache__")
    left = [folder / name / "server.py" for name in folders]
    for path in left:
        path.parent.mkdir()
        path.write_text(BEFORE)
    (folder / "own" / "pyvenv.cfg").touch()
    (folder / "link.py").symlink_to(outside / "server.py")
    (folder / "linked").symlink_to(outside, target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "gone.py").symlink_to(outside / "gone.py")
    (folder / "large.py").write_text(BEFORE + "#" * MAX_FILE_BYTES)
    (folder / "data.py").write_bytes(b"\0" + BEFORE.encode())
    os.mkfifo(folder / "pipe.py")

    assert main(["migrate", "--write", "."]) == 2  # For the binary file alone.
    assert all(path.read_text() == BEFORE for path in [*left, outside / "server.py"])
    told = capfd.readouterr().err.splitlines()
    assert [line for line in told if "skipped" in line or "failed" in line] == [
        ".venv: skipped: not the application's own",
        "data.py: failed: binary, so left as it is",
        "gone.py: skipped: a symbolic link",
        "large.py: skipped: over 1 MiB",
        "link.py: skipped: a symbolic link",
        "linked: skipped: a symbolic link",
        "loop: skipped: a symbolic link",
        "node_modules: skipped: not the application's own",
        "own: skipped: not the application's own",
        "pipe.py: skipped: no regular file",
    ]


def test_a_link_that_is_given_by_name_is_followed_and_stays_a_link(folder: Path) -> None:
    path = folder.parent / "real.py"
    path.write_text(BEFORE)
    (folder / "link.py").symlink_to(path)

    assert main(["migrate", "--write", str(folder / "link.py")]) == 0
    assert (folder / "link.py").is_symlink()
    assert path.read_text() == AFTER


@pytest.mark.parametrize("mode", [0o755, 0o640, 0o444])
def test_a_file_keeps_its_rights_and_nothing_is_left_beside_it(mode: int, folder: Path) -> None:
    path = folder / "app" / "server.py"
    path.chmod(mode)

    main(["migrate", "--write", "."])
    assert path.stat().st_mode & 0o777 == mode
    assert [*path.parent.iterdir()] == [path]


def test_a_file_that_cannot_be_written_stays_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = contents(folder)

    assert main(["migrate", "--write", "."]) == 2
    assert contents(folder) == before
    assert "app/server.py: failed: No space left on device" in capfd.readouterr().err


def test_standard_input_goes_to_standard_output_as_it_came() -> None:
    done = run("migrate", "--write", "-", stdin=b"import langserve\r\n# \xc3\xa9")

    assert (done.returncode, done.stdout) == (0, b"import chainserve\r\n# \xc3\xa9")


def test_standard_input_has_the_kind_that_its_name_says() -> None:
    options = ("--check", "--stdin-name", "requirements.txt")
    done = run("migrate", "-", *options, stdin=b"langserve[all]")

    assert done.returncode == 1
    assert done.stdout.splitlines()[-4:] == [
        b"-langserve[all]",
        b"\\ No newline at end of file",
        b"+chainserve[all]",
        b"\\ No newline at end of file",
    ]


def test_it_needs_no_server_and_says_its_version() -> None:
    blocked = "import sys; sys.modules['fastapi'] = sys.modules['httpx'] = None; "
    code = f"{blocked}from chainserve.cli import main; main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, text=True
    )

    assert (done.returncode, done.stdout) == (0, f"chainserve {chainserve.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["migrate"], ["migrate", "--write", "--check", "."]]
)
def test_bad_usage_is_told(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("usage: chainserve")


def test_the_help_names_every_command_option_and_exit_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    shown = ""
    for arguments in (["--help"], ["migrate", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        shown += capfd.readouterr().out

    assert "migrate   change an application of LangServe's" in shown
    for option in ("--write", "--check", "--stdin-name", "--version", "PATH"):
        assert option in shown
    assert re.findall(r"^  (\d)  ", shown, re.MULTILINE) == ["0", "1", "2", "3"]


def test_who_reads_no_more_ends_it_without_a_traceback(folder: Path) -> None:
    for number in range(200):
        (folder / f"{number}.py").write_text(BEFORE)
    process = subprocess.Popen(
        [sys.executable, "-m", "chainserve", "migrate", "."],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    _, told = process.communicate(timeout=50)

    assert process.returncode == 2
    assert b"Traceback" not in told
