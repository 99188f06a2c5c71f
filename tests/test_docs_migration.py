"""`docs/migration.md`: its steps are done, and its table names tests that there are."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import langserve
import pytest
from langserve.server import KNOWN_ENDPOINTS

from chainserve.cli import main
from tests._bridge import request
from tests._langserve_remote import langserve_invoke
from tests.test_migrated_servers import load

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "migration.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(blocks("python")[0])
    (tmp_path / "requirements.txt").write_text("langserve[all]>=0.3\n")
    return tmp_path


def test_the_command_shows_the_change_that_the_document_shows(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", str(project)]) == 0

    shown = capsys.readouterr().out
    for line in blocks("diff")[0].splitlines():
        assert line in shown


@pytest.mark.anyio
async def test_the_changed_application_answers(project: Path) -> None:
    assert main(["migrate", "--write", str(project)]) == 0
    app: Any = load(project / "app.py").app

    asked: Any = {"json": {"input": {"topic": "cats"}}, "headers": {"x-user": "ann"}}
    assert (await request(app, "POST", "/tale/invoke", **asked)).json()["output"] == "Well."
    refused = await request(app, "POST", "/tale/invoke", json={"input": {"topic": "cats"}})
    assert (refused.status, refused.json()["detail"]) == (401, "Who are you?")
    assert await langserve_invoke(app, "/tale", {"topic": "cats"}, {"x-user": "ann"}) == "Well."


def rows() -> list[str]:
    return re.findall(r"^\|.*\|\s*`(test_\w+\.py)`\s*\|$", TEXT, re.MULTILINE)


def test_every_row_is_held_by_tests_that_there_are() -> None:
    tables = [line for line in TEXT.splitlines() if line.startswith("|")]
    heads = [line for line in tables if line.startswith(("| LangServe |", "|---"))]

    assert len(rows()) == len(tables) - len(heads)
    for name in rows():
        assert "def test_" in (ROOT / "tests" / name).read_text(), name


def test_every_option_and_endpoint_of_langserves_has_a_row() -> None:
    options = set(inspect.signature(langserve.add_routes).parameters) - {"app", "runnable"}
    for name in options | (set(KNOWN_ENDPOINTS) - {"config_hashes"}):
        assert name in TEXT, name


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "chainserve"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("chainserve ")
