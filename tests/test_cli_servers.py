"""`chainserve list` and `chainserve runs`: what a folder declares, and what a server tells."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chainserve.cli import main
from chainserve.cli.runs import age
from tests._command import Here, chain_module, forgotten, here as here, run, serve
from tests._elsewhere import elsewhere as elsewhere
from tests._processes import ROOT, ask, free_port

FAILING = "lambda value: 1 / value"
MESSAGE = "lambda value: __import__('langchain_core.messages').messages.AIMessage('An answer.')"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "chains").mkdir()
    (folder / "chains" / "ratio.py").write_text(chain_module("ratio", "Ratio", FAILING))
    (folder / "chains" / "message.py").write_text(chain_module("message", "Message", MESSAGE))
    return folder


@pytest.fixture(scope="module")
def port(project: Path) -> Iterator[int]:
    process = serve(project, CHAINSERVE_LIST_ALL_RUNS="true")
    yield process.port()
    process.close()


@pytest.fixture(scope="module")
def secretive_port(project: Path) -> Iterator[int]:
    process = serve(project)
    yield process.port()
    process.close()


@pytest.fixture(scope="module")
def plain_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an application whose routes are those of FastAPI alone."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "plain.py").write_text("from fastapi import FastAPI\n\napp = FastAPI()\n")
    process = serve(folder, "plain:app")
    yield process.port()
    process.close()


def started(port: int, path: str, input: Any) -> str:
    """Start a run, and return its id when it has ended."""
    body = {"input": input, "mode": "invoke"}
    run_id: str = json.loads(ask(port, "POST", f"{path}/runs", body)[1])["run_id"]
    while json.loads(ask(port, "GET", f"{path}/runs/{run_id}")[1])["status"] == "running":
        pass
    return run_id


TABLE = """\
/message  Message  -  whole  invoke batch stream stream_log stream_events runs
/ratio    Ratio    -  whole  invoke batch stream stream_log stream_events runs
"""


def test_the_chains_of_a_folder_and_of_its_server_are_listed_alike(
    project: Path, port: int, here: Here
) -> None:
    of_the_folder = run("list", folder=project)
    of_the_server = here("list", f"http://127.0.0.1:{port}/?a=/")

    assert of_the_folder.out == of_the_server.out == TABLE
    assert of_the_folder.code == of_the_server.code == 0


def test_as_json_they_are_what_the_server_answers(
    project: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    with forgotten(project):
        assert main(["list", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)

    assert told == json.loads(ask(port, "GET", "/chains")[1])
    assert main(["list", f"http://127.0.0.1:{port}", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == told


def test_the_shipped_chains_name_their_model_and_stream(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)

    assert main(["list"]) == 0
    shown = capfd.readouterr().out.splitlines()
    assert len(shown) == 7
    assert all(re.match(r"/\w+ +\w+ +\S+ +streams +invoke batch stream ", line) for line in shown)


@pytest.mark.parametrize(
    ("target", "code", "part"),
    [
        ("nowhere", 1, "The folder 'nowhere' does not exist."),
        ("{elsewhere}", 3, "Is it the URL of a chainserve?"),
        ("http://127.0.0.1:{free}", 3, "cannot be reached"),
        ("http://", 2, "'http://' is no URL of a server"),
        ("{elsewhere}/page", 3, "answered what no chainserve answers. Is it the right URL? <h1>"),
        ("localhost:{free}", 2, "no URL. Did you mean http://localhost:"),
        ("http://127.0.0.1:{plain}", 1, "/docs names the routes of any other."),
    ],
)
def test_what_cannot_be_listed_is_told(
    target: str,
    code: int,
    part: str,
    elsewhere: str,
    plain_port: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ports = {"free": free_port(), "plain": plain_port}

    assert main(["list", target.format(elsewhere=elsewhere, **ports)]) == code
    shown = capfd.readouterr()
    assert shown.out == ""
    assert part in shown.err


def test_runs_are_listed_with_status_mode_age_and_error(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = [started(port, "/ratio", input) for input in (4, 0)]
    url = f"http://127.0.0.1:{port}/ratio?a=/"

    assert main(["runs", url]) == 0
    failed, succeeded = capfd.readouterr().out.splitlines()
    assert re.fullmatch(rf"{ids[0]}  success    invoke         +\d+ s", succeeded)
    assert re.fullmatch(rf"{ids[1]}  error      invoke         +\d+ s  internal_error: .+", failed)

    assert main(["runs", url, "--json"]) == 0
    assert [one["run_id"] for one in json.loads(capfd.readouterr().out)["runs"]] == ids[::-1]


def test_a_run_is_shown_with_its_output(port: int, here: Here) -> None:
    run_id = started(port, "/message", 1)
    shown = here("runs", "message", run_id, PORT=str(port))

    assert (shown.code, shown.out) == (0, "An answer.\n")
    assert f"run_id: {run_id}\nstatus: success\nmode: invoke\n" in shown.err


def test_an_output_that_is_no_text_is_json(
    port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", str(port))
    run_id = started(port, "/ratio", 4)

    assert main(["runs", "ratio", "--json", run_id]) == 0
    assert json.loads(capfd.readouterr().out)["output"] == 0.25
    assert main(["runs", "ratio", run_id]) == 0
    assert capfd.readouterr().out == "0.25\n"


def test_a_chain_without_runs_says_so(
    secretive_port: int, port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{port}"
    ask(port, "POST", "/message/invoke", {"input": 1})
    for one in json.loads(ask(port, "GET", "/message/runs")[1])["runs"]:
        ask(port, "DELETE", f"/message/runs/{one['run_id']}")

    assert main(["runs", "message", "--url", url]) == 0
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "This chain has no runs that are kept.\n")


def test_a_server_that_does_not_list_runs_says_what_to_set(
    secretive_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", f"http://127.0.0.1:{secretive_port}/ratio"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("chainserve runs: 403 Forbidden for ")
    assert "CHAINSERVE_LIST_ALL_RUNS=true" in err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["ratoi"], 1, "Did you mean /ratio/runs? `chainserve list URL` lists the chains"),
        (["ratio", "no/such"], 1, "There is no"),
        (["ratio", "--url", "{elsewhere}"], 3, "Is it the URL of a chainserve?"),
        (["ratio", "--url", "nowhere"], 2, "'nowhere' is no URL of a server"),
        (["127.0.0.1:8000/ratio"], 2, "no URL. Did you mean http://127.0.0.1:8000/ratio?"),
        (["ratio", "--limit", "9"], 2, "chainserve runs: error: unrecognized arguments: --limit 9"),
    ],
)
def test_what_is_refused_is_told(
    arguments: list[str],
    code: int,
    part: str,
    port: int,
    elsewhere: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PORT", str(port))

    try:
        ended: object = main(["runs", *[one.format(elsewhere=elsewhere) for one in arguments]])
    except SystemExit as exit:  # By which argparse refuses an option.
        ended = exit.code
    assert ended == code
    assert part in capfd.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, shown: str) -> None:
    created_at = datetime.now(UTC) - timedelta(seconds=seconds, milliseconds=1)

    assert age(created_at.isoformat()) == shown
