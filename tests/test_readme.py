"""The README: what it shows works, and what there is, it describes."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chains import agent, analyst, assistant, chat, coder, tutor, writer
from chainserve import errors
from chainserve.settings import Settings
from chainserve.types import SERVED_ENDPOINTS
from tests._processes import ServerProcess, ask
from tests._system import require_program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
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
CURLS = [block for block in blocks("bash") if "/joke/" in block]


@pytest.fixture(scope="module")
def joke_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the README's server as its reader would, on another port; gives its address."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my_server.py").write_text(SERVER.replace("port=8000", "port=0"))
    process = ServerProcess(["my_server.py"], ENVIRONMENT, folder)
    yield f"127.0.0.1:{process.port()}"
    process.close()


def run(*command: str) -> str:
    """Run a command and return its output."""
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_shell(block: str, address: str) -> str:
    """Run shell commands against a server at another address; an HTTP error is a failure."""
    require_program("curl", package="curl")
    block = block.replace(DEFAULT_ADDRESS, address).replace("curl ", "curl -sS --fail ")
    return run("bash", "-ec", block)


def run_python(block: str) -> str:
    """Run Python code in a process of its own."""
    return run(sys.executable, "-c", block)


def test_the_server_has_no_more_lines_than_it_says() -> None:
    lines = [line for line in SERVER.splitlines() if line.strip()]

    assert len(lines) <= 15


@pytest.mark.parametrize("block", CURLS)
def test_a_curl_command_does_what_it_shows(block: str, joke_server: str) -> None:
    output = run_shell(block, joke_server)

    if "resumable" in block:
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


def test_every_setting_is_in_the_table() -> None:
    for name, field in Settings.model_fields.items():
        assert f"| `CHAINSERVE_{name.upper()}`" in README, name
        if isinstance(field.default, str):
            assert f"`{field.default}`" in README, name


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
        assert f"| `{cls.code}` | {status} |" in README, cls


def test_every_chain_and_endpoint_is_described() -> None:
    for module in (agent, analyst, assistant, chat, coder, tutor, writer):
        assert f"| `{module.chain.path}` |" in README
    for endpoint in SERVED_ENDPOINTS:
        assert endpoint in README


def test_every_extra_is_described() -> None:
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", section.partition("[dependency-groups]")[0], re.MULTILINE)

    assert {"server", "client"} <= set(extras)
    for extra in extras:
        assert f"| `{extra}` |" in README
