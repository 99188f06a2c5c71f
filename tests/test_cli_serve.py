"""`chainserve serve`: a folder of chains, or an application, served by a process."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainserve.cli import main
from chainserve.cli.target import Application, Folder, parse_target
from tests._bridge import WAIT_SECONDS
from tests._command import chain_module, forgotten, run, serve, start
from tests._processes import HOST, ask, free_port

APPLICATION = """\
from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda

from chainserve import add_routes

app = FastAPI()
add_routes(app, RunnableLambda(lambda value: value), path="/own")


class Held:
    app = app
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "chains").mkdir()
    (folder / "chains" / "one.py").write_text(chain_module("one", "The first"))
    (folder / "chains" / "two.py").write_text(chain_module("two", "The second"))
    (folder / "deep").mkdir()
    (folder / "deep" / "my-server.py").write_text(APPLICATION)
    (folder / "own.py").write_text(APPLICATION)
    (folder / "file").touch()
    (folder / "empty").mkdir()
    (folder / "bad").mkdir()
    (folder / "bad" / "typo.py").write_text("retrun = nothing\n")
    (folder / "failing.py").write_text("import json\n\njson.loads('{')\n")
    (folder / "leaving.py").write_text("raise SystemExit(3)\n")
    (folder / "unfinished.py").write_text("app = (\n")
    return folder


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


def test_it_serves_the_folder_chains_and_says_where_and_what(project: Path) -> None:
    process = serve(project)
    try:
        port = process.port()
        process.until_printed("Ctrl-C stops it.\n")
        status, chains = ask(port, "GET", "/chains")
        assert status == 200
        assert [chain["path"] for chain in json.loads(chains)] == ["/one", "/two"]
        assert ask(port, "GET", "/one/runs")[0] == 403
        process.signal(signal.SIGINT)
        code, _ = process.wait(WAIT_SECONDS)
    finally:
        process.close()

    assert code == 0
    assert f" serves 2 chains at http://127.0.0.1:{port}\n" in process.output
    assert "  /one  The first\n  /two  The second\n" in process.output
    assert "Traceback" not in process.output


def test_it_serves_an_application_of_ones_own(project: Path) -> None:
    process = serve(project, "own:app", PORT="1")  # Which the option goes before.
    try:
        answer = ask(process.port(), "POST", "/own/invoke", {"input": "x"})
    finally:
        process.close()

    assert answer[0] == 200
    assert "serves own:app at " in process.output


@pytest.mark.parametrize("target", ["own:Held.app", "own.py:app", "deep/my-server.py:app"])
def test_an_application_is_named_by_its_module_or_its_file(
    target: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    with forgotten(project):
        app = parse_target(target).load().app

    assert "/own/invoke" in {route.path for route in app.routes}


def test_the_environment_says_where_without_an_option(project: Path) -> None:
    port = free_port()
    process = start("serve", folder=project, PORT=str(port), CHAINSERVE_LOG_FORMAT="json")
    try:
        assert process.port() == port
    finally:
        process.close()
    assert '{"chains": ["/one", "/two"]' in process.output


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("nowhere", "The folder 'nowhere' does not exist."),
        ("file", "The folder 'file' is no folder."),
        ("empty", "There is no chain in 'empty'. `chainserve new joke` writes a first chain."),
        ("bad", "bad/typo.py: cannot be imported: NameError: name 'nothing' is not defined."),
        ("nowhere.py:app", "There is no file 'nowhere.py'."),
        ("nowhere:app", "There is no module 'nowhere' in "),
        ("own:ap", "own has no 'ap'. Did you mean app?"),
        ("own:__name__", "own:__name__ is 'own', which is no application."),
        ("failing:app", "failing cannot be imported: JSONDecodeError: Expecting property name "),
        ("failing:app", "(failing.py, line 3). Mend it, or name another application."),
        ("leaving:app", "leaving cannot be imported: SystemExit: 3 (leaving.py, line 1)."),
        ("unfinished:app", "SyntaxError: '(' was never closed (unfinished.py, line 1)."),
    ],
)
def test_what_cannot_be_served_is_told_in_a_sentence(
    target: str,
    part: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    with forgotten(project):
        assert main(["serve", target, "--port", "0"]) == 1

    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("chainserve serve: ")
    assert part in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("reload", [[], ["--reload"]])
def test_a_port_in_use_is_told_with_what_to_do(
    reload: list[str],
    project: Path,
    taken: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    with forgotten(project):
        assert main(["serve", "--port", str(taken), *reload]) == 1

    assert capfd.readouterr().err == (
        f"chainserve serve: Port {taken} of 127.0.0.1 cannot be used: Address already in use. "
        "End what uses it, or choose another: --port 8001\n"
    )


def test_a_setting_that_cannot_be_used_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHAINSERVE_MAX_RUNS", "many")

    assert main(["serve", str(project)]) == 1
    assert "CHAINSERVE_MAX_RUNS is 'many'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--port", "99999"], ["--port", "x"], ["--reload-include", "*.md"]]
)
def test_bad_usage_is_told(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["serve", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))

    assert code == 2
    assert arguments[0] in capfd.readouterr().err


def test_an_application_whose_start_fails_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    raise RuntimeError('no database')\n"
        "    yield\n\napp = FastAPI(lifespan=lifespan)\n"
    )
    done = run("serve", "own:app", "--port", "0", folder=tmp_path)

    assert done.code == 1
    assert "no database" in done.err
    assert "serves" not in done.out


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("chains", Folder(Path("chains"))),
        (r"C:\mine\chains", Folder(Path(r"C:\mine\chains"))),
        ("server:app", Application("server", "app")),
        ("my.server:state.app", Application("my.server", "state.app")),
        (r"C:\mine\server.py:app", Application(r"C:\mine\server.py", "app")),
        ("C:/mine/server.py:app", Application("C:/mine/server.py", "app")),
    ],
)
def test_a_target_is_a_folder_or_an_application(text: str, meant: Folder | Application) -> None:
    assert parse_target(text) == meant
    assert str(meant) == text


def test_a_folder_whose_name_has_a_colon_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)

    assert parse_target("a:b") == Folder(Path("a:b"))
