"""The README and the reference: what they show works, and what there is, they describe."""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from chains import agent, analyst, assistant, chat, coder, tutor, writer
from chainserve import errors
from chainserve.settings import Settings
from chainserve.types import ENDPOINT_NAMES
from tests._apps import make_app
from tests._bridge import request
from tests._processes import ServerProcess, ask
from tests._system import require_program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
DEFAULT_ADDRESS = "127.0.0.1:8000"
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "CHAINSERVE_DEMO_PAUSE": "0"}


def blocks(language: str) -> list[str]:
    """Return the README's code in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def only(candidates: list[str], *words: str) -> str:
    """Return the one block that has all the words."""
    [block] = [block for block in candidates if all(word in block for word in words)]
    return block


SERVER = only(blocks("python"), "add_routes", "uvicorn.run")
CLIENTS = [block for block in blocks("python") if DEFAULT_ADDRESS in block]
REST = [block for block in blocks("python") if block != SERVER and block not in CLIENTS]
CURLS = [block for block in blocks("bash") if "/joke/" in block and "$run" not in block]
OF_A_RUN = [block for block in blocks("bash") if "$run" in block]


@pytest.fixture(scope="module")
def joke_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the README's server as its reader would, on another port; gives its address."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "jokes.py").write_text(SERVER.replace("port=8000", "port=0"))
    process = ServerProcess(["jokes.py"], ENVIRONMENT, folder)
    yield f"127.0.0.1:{process.port()}"
    process.close()


def run(*command: str, **variables: str) -> str:
    """Run a command and return its output."""
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_shell(block: str, address: str, **variables: str) -> str:
    """Run shell commands against a server at another address; an HTTP error is a failure."""
    require_program("curl", package="curl")
    block = block.replace(DEFAULT_ADDRESS, address).replace("curl ", "curl -sS --fail ")
    return run("bash", "-ec", block, **variables)


def run_python(block: str) -> str:
    """Run Python code in a process of its own."""
    return run(sys.executable, "-c", block)


def test_the_server_has_no_more_lines_than_it_says() -> None:
    lines = [line for line in SERVER.splitlines() if line.strip()]

    assert len(lines) <= 15


@pytest.mark.parametrize("block", CURLS)
def test_a_curl_command_does_what_it_shows(block: str, joke_server: str) -> None:
    output = run_shell(block, joke_server)

    if "resumable" in block or "--data-urlencode" in block:
        assert output.startswith("event: metadata\n")
        assert 'event: end\ndata: {"status": "success"' in output
    elif "/stream" in block:
        assert output.startswith("event: metadata\n")
        assert output.endswith("event: end\n\n")
    elif "/runs" in block:
        assert " 202 Accepted\n" in output
        assert '"stream_url":"runs/' in output
    else:
        assert '"output"' in output or '"properties"' in output


def test_a_run_is_started_read_waited_for_and_cancelled_again(joke_server: str) -> None:
    started = run_shell(only(CURLS, "/joke/runs"), joke_server)
    run_id = json.loads(started.splitlines()[-1])["run_id"]
    log, state, cancelled = (run_shell(block, joke_server, run=run_id) for block in OF_A_RUN)

    assert log.startswith("event: metadata\n")
    assert "event: end\n" in log
    assert json.loads(state)["status"] == "success"
    assert "offline demo" in json.loads(state)["output"]
    assert json.loads(cancelled)["status"] == "success"  # It had ended, so nothing was left to do.


@pytest.mark.parametrize("block", CLIENTS)
def test_a_client_does_what_it_shows(block: str, joke_server: str) -> None:
    output = run_python(block.replace(DEFAULT_ADDRESS, joke_server))

    assert "offline demo" in output


@pytest.mark.parametrize("block", REST)
def test_other_python_code_runs(block: str) -> None:
    run_python(block)


def test_the_shipped_server_answers_the_first_command_and_the_pages_it_names() -> None:
    process = ServerProcess(["server.py"], {**ENVIRONMENT, "PORT": "0"})
    try:
        port = process.port()
        answer = run_shell(only(blocks("bash"), "/assistant/"), f"127.0.0.1:{port}")
        for path in ("/", "/chains", "/docs", "/openapi.json", "/livez", "/readyz"):
            assert ask(port, "GET", path)[0] == 200, path
    finally:
        process.close()

    assert "offline" in answer
    assert answer.endswith("event: end\n\n")


def settings_below(heading: str) -> set[str]:
    """Return the settings in the table that follows a sentence of the reference."""
    table = REFERENCE.partition(heading)[2].partition("\n\n")[2].partition("\n\n")[0]
    return {name.lower() for name in re.findall(r"(?m)^\| `CHAINSERVE_(\w+)`", table)}


def test_every_setting_is_in_a_table() -> None:
    of_the_server = settings_below("These are about the server as a whole")
    everywhere = settings_below("These hold everywhere:")

    assert of_the_server | everywhere == set(Settings.model_fields)
    assert not of_the_server & everywhere
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, str):
            assert f"`{field.default}`" in REFERENCE, name


class NotingSettings(Settings):
    """Settings that note which of them are read."""

    read: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in Settings.model_fields:
            NotingSettings.read.add(name)
        return super().__getattribute__(name)


async def test_what_holds_everywhere_holds_with_add_routes_too() -> None:
    app = make_app(str.upper, settings=NotingSettings(), input_type=str)
    NotingSettings.read.clear()
    for verb, body in (("batch", {"inputs": ["a"]}), ("runs", {"input": "a"})):
        await request(app, "POST", f"/chain/{verb}", json=body, headers={"prefer": "wait=5"})
    for verb in ("stream?input=%22a%22", "runs"):
        await request(app, "GET", f"/chain/{verb}")

    # Of the origins it counts there who may start runs, and nothing else.
    assert NotingSettings.read - {"cors_origins"} == settings_below("These hold everywhere:")


def test_every_error_code_is_in_the_table_with_its_status() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value)
        and issubclass(value, errors.RequestError | errors.RunError)
        and not value.__subclasses__()
        and value is not errors.RecordedRunError  # It repeats the code of another.
    ]
    assert len(classes) > 25
    for cls in [*classes, errors.UpstreamError]:
        status = "its own" if cls is errors.ChainHTTPError else str(cls.status_code)
        assert f"| `{cls.code}` | {status} |" in REFERENCE, cls


def test_every_chain_and_endpoint_is_described() -> None:
    for module in (agent, analyst, assistant, chat, coder, tutor, writer):
        assert f"| `{module.chain.path}` |" in README
    for endpoint in ENDPOINT_NAMES:
        assert endpoint in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_between_the_documents_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
        assert (document.parent / target).is_file(), target


def test_every_extra_is_described() -> None:
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", section.partition("[dependency-groups]")[0], re.MULTILINE)

    assert {"server", "client"} <= set(extras)
    for extra in extras:
        assert f"| `{extra}` |" in README
