"""`chainserve migrate`: what it changes, what it leaves, and what it says."""

# ruff: noqa: E501 - A row of a table is a line.

import ast
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainserve.cli import main
from chainserve.migrate import migrate_notebook, migrate_python, migrate_requirements

PYTHON = {
    "import langserve\n": "import chainserve\n",
    "import langserve as ls; ls.add_routes\n": "import chainserve as ls; ls.add_routes\n",
    "import os, langserve.client, sys\n": "import os, chainserve.client, sys\n",
    "import langserve.client as c\n": "import chainserve.client as c\n",
    "from langserve import add_routes, APIHandler as H\n": "from chainserve import add_routes, APIHandler as H\n",
    "from langserve import *\n": "from chainserve import *\n",
    "from langserve.client import RemoteRunnable\n": "from chainserve.client import RemoteRunnable\n",
    "from   langserve . schema import (\n  A, # langserve\n)\n": "from   chainserve . schema import (\n  A, # langserve\n)\n",
    "from langserve \\\n  import add_routes\n": "from chainserve \\\n  import add_routes\n",
    "if x:\n\timport langserve\n\tlangserve.add_routes(langserve)\n": "if x:\n\timport chainserve\n\tchainserve.add_routes(chainserve)\n",
    "def f():\n    from langserve import add_routes\n": "def f():\n    from chainserve import add_routes\n",
    "é = 'ü'; import langserve; ö = langserve.x\n": "é = 'ü'; import chainserve; ö = chainserve.x\n",
    "import langserve\r\nx = 1\r\n": "import chainserve\r\nx = 1\r\n",
    "import langserve\rx = 1\r": "import chainserve\rx = 1\r",
    "x = 'a\x0cb\x1cc\u2028d'; import langserve\n": "x = 'a\x0cb\x1cc\u2028d'; import chainserve\n",
    "import langserve\npatch('langserve.client.httpx')\n": "import chainserve\npatch('chainserve.client.httpx')\n",
    "import_module(\"langserve.schema\")\n": "import_module(\"chainserve.schema\")\n",
}  # fmt: skip

UNCHANGED = [
    "# import langserve\n",
    '"""from langserve import x"""\n',
    "import langserve_extras\nfrom my.langserve import x\nfrom . import langserve\n",
    "langserve = 1\nprint(langserve)\n",
    "from langserve.pydantic_v1 import BaseModel\n",
    "import langserve.playground\n",
    "x = 'see langserve.client for more'\n",
    "",
]


@pytest.mark.parametrize(("old", "new"), PYTHON.items())
def test_imports_are_changed_and_all_else_stays(old: str, new: str) -> None:
    migrated = migrate_python(old)

    assert migrated.text == new
    ast.parse(migrated.text)
    assert migrate_python(new).text == new


@pytest.mark.parametrize("text", UNCHANGED)
def test_what_is_no_import_of_langserves_stays(text: str) -> None:
    assert migrate_python(text).text == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nfrom langserve.pydantic_v1 import BaseModel\n", (2, "from pydantic import")),
        ("from langserve import pydantic_v1\n", (1, "pydantic_v1")),
        ("import langserve.playground\n", (1, "playground")),
        ("from langserve.lzstring import LZString\n", (1, "chainserve.lzstring.compress")),
        ("from langserve.nowhere import x\n", (1, "there is no chainserve.nowhere")),
        ("from langserve.api_handler import _unpack_input\n", (1, "_unpack_input")),
        ("from langserve import APIHandler\nclass A(APIHandler): ...\n", (2, "subclass")),
        ('ConfigurableField(id="openai_api_key")\n', (1, "configurable=['openai_api_key']")),
        ('version("langserve")\n', (1, "stays")),
    ],
)
def test_what_a_person_must_look_at_is_said_with_its_line(text: str, said: tuple[int, str]) -> None:
    notes = migrate_python(text).notes

    assert [line for line, sentence in notes if said[1] in sentence] == [said[0]]


names = st.sampled_from(["langserve", "os", "langserve.client", "é", "x"])


@given(
    lines=st.lists(st.sampled_from([*PYTHON, *UNCHANGED]), max_size=6),
    text=st.text(st.characters(exclude_characters="\r\n\\\0'"), max_size=20),
)
def test_a_changed_module_means_the_same_but_for_the_names(lines: list[str], text: str) -> None:
    source = f"t = '{text}'\n" + "".join(lines)
    try:
        before = ast.dump(ast.parse(source))
    except (SyntaxError, ValueError):
        return
    after = ast.dump(ast.parse(migrate_python(source).text))

    assert after.replace("chainserve", "langserve") == before.replace("chainserve", "langserve")


REQUIREMENTS = {
    "langserve": "chainserve",
    "langserve[all]>=0.0.30": "chainserve[all]",
    "langserve[server]==0.3.3": "chainserve[server]",
    "langserve >=0.1, <0.4 ; python_version > '3.8'": "chainserve ; python_version > '3.8'",
    '    "langserve[client]~=0.3",': '    "chainserve[client]",',
    "dependencies = ['langserve', 'x']": "dependencies = ['chainserve', 'x']",
    'langserve = "^0.3"': 'chainserve = "*"',
    'langserve = {extras = ["server"], version = ">=0.0.30"}': 'chainserve = {extras = ["server"], version = "*"}',
    'RUN pip install "langserve[all]==0.3.*" uvicorn': 'RUN pip install "chainserve[all]" uvicorn',
    "  - langserve": "  - chainserve",
    "pip install langserve\\": "pip install chainserve\\",
    "my-langserve-app": "my-langserve-app",
    "langserve-extras==1": "langserve-extras==1",
    "# langserve": "# langserve",
    "uvicorn": "uvicorn",
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), REQUIREMENTS.items())
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_requirements_are_changed_and_lose_their_version(old: str, new: str, end: str) -> None:
    assert migrate_requirements(old + end).text == new + end


def test_a_pin_that_was_for_langserve_is_pointed_out() -> None:
    assert migrate_requirements("sse-starlette<2\n").notes


def notebook(*cells: str) -> str:
    content = {
        "cells": [
            {"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells
        ],
        "nbformat": 4,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def test_a_notebooks_code_is_changed_and_its_layout_stays() -> None:
    old = notebook("!pip install langserve[all]\nimport langserve\n%time é\n", "# langserve")
    new = notebook("!pip install chainserve[all]\nimport chainserve\n%time é\n", "# langserve")

    assert migrate_notebook(old).text == new
    assert migrate_notebook(json.dumps(json.loads(old))).notes


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_bytes(b"# -*- coding: latin-1 -*-\nimport langserve  # \xe9\r\n")
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbfimport langserve\n")
    (tmp_path / "requirements.txt").write_text("langserve[all]\n")
    (tmp_path / "README.md").write_text("langserve\n")
    (tmp_path / "same.py").write_text("import os\n")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "x.py").write_text("import langserve\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "x.py").write_text("import langserve\n")
    (tmp_path / "app.py").chmod(0o750)
    return tmp_path


def test_nothing_is_written_unless_it_is_asked_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*.*") if path.is_file()}

    assert main(["migrate", str(project)]) == 0
    shown = capsys.readouterr()

    assert {path: path.read_bytes() for path in before} == before
    assert "-import langserve" in shown.out
    assert "+import chainserve" in shown.out
    assert "+chainserve[all]" in shown.out
    assert "3 of 4 files would change: add --write to do it." in shown.err


def test_what_is_written_keeps_encoding_line_ends_and_mode(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--check", str(project)]) == 1
    assert main(["migrate", "--write", str(project)]) == 0

    app = project / "app.py"
    assert app.read_bytes() == b"# -*- coding: latin-1 -*-\nimport chainserve  # \xe9\r\n"
    assert stat.S_IMODE(app.stat().st_mode) == 0o750
    assert (project / "bom.py").read_bytes() == b"\xef\xbb\xbfimport chainserve\n"
    for untouched in ("node_modules/x.py", ".venv/x.py", "README.md"):
        assert "langserve" in (project / untouched).read_text()
    assert main(["migrate", "--check", str(project)]) == 0
    assert "Nothing to change." in capsys.readouterr().err
    assert not [path for path in project.iterdir() if path.name.startswith(".app")]


def test_no_link_is_followed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.py"
    outside.write_text("import langserve\n")
    (project / "link.py").symlink_to(outside)
    (project / "folder").symlink_to(outside.parent)

    assert main(["migrate", "--write", str(project)]) == 0
    assert outside.read_text() == "import langserve\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.py", b"import langserve (\n"),
        ("bad.py", b"import langserve\n\xff\n"),
        ("bad.py", b"# coding: nonsense\nimport langserve\n"),
        ("bad.ipynb", b"{langserve"),
        ("bad.py", b"import langserve\n" + b"#" * 2**20),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_changed(
    project: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / name).write_bytes(content)

    assert main(["migrate", "--write", str(project)]) == 2
    assert f"{name}: left alone" in capsys.readouterr().err
    assert (project / name).read_bytes() == content
    assert b"chainserve" in (project / "app.py").read_bytes()


@pytest.mark.parametrize("path", ["/nowhere/at/all", "README.md"])
def test_a_path_that_makes_no_sense_is_refused(
    project: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", str(project / path)]) == 2
    assert capsys.readouterr().err


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chainserve", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


def test_it_is_a_filter_too() -> None:
    done = run("migrate", "-", text="from langserve import add_routes  # é\n")

    assert (done.returncode, done.stdout) == (0, "from chainserve import add_routes  # é\n")
    assert run("migrate", "-", text="from (").returncode == 2


def test_the_command_says_what_it_can_do() -> None:
    assert "migrate" in run("--help").stdout
    assert "--write" in run("migrate", "--help").stdout
    assert run("--version").stdout.startswith("chainserve ")
    assert run().returncode == 2
    assert run("migrate", "--write", "--check", ".").returncode == 2
