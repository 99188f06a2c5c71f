"""What `chainserve migrate` does to files with requirements, and to notebooks."""

import importlib
import json
import re
import tomllib
from pathlib import PurePath
from typing import Any

import pytest

from chainserve.migrate import Migrated, is_looked_at, migrate
from chainserve.migrate.requirements import NOT_PUBLISHED
from tests._processes import ROOT


def migrated(name: str, text: str) -> Migrated:
    return migrate(PurePath(name), text.encode())


def by_hand(result: Migrated) -> list[str]:
    return [f"{note.line}: {note.message}" for note in result.notes if note.kind == "by hand"]


PIP = {
    "langserve[all]": "chainserve[all]",
    "langserve[server]==0.3.3": "chainserve[server]",
    "LangServe [ client ]>=0.1,<0.4": "chainserve[client]",
    "langserve[server,client]~=0.3": "chainserve[client,server]",
    "langserve": "chainserve[client,server]",
    'langserve[all]>=0.3 ; python_version > "3.8"  # serves': (
        'chainserve[all] ; python_version > "3.8"  # serves'
    ),
    "  langserve[all]  ": "  chainserve[all]  ",
    "langserve-extras==1\nlangserve_x\nmy-langserve": None,
    "# langserve[all]\n-c langserve.txt": None,
}


@pytest.mark.parametrize(("before", "after"), PIP.items())
@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-dev.in", "requirements/base.txt"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_requirement_keeps_extras_and_marker_and_loses_its_versions(
    before: str, after: str | None, name: str, end: str
) -> None:
    text = f"fastapi>=0.1{end or chr(10)}{before}{end}"
    result = migrated(name, text)

    assert result.data.decode() == text.replace(before, before if after is None else after)
    assert by_hand(result) == []


CONSTRAINTS = [
    ("constraints.txt", "{}==0.3.3 ; python_version > '3.8'  # pinned\n"),
    ("requirements/dev-constraints.in", "{}[all]<0.4 ; python_version > '3.8'\n"),
    ("pyproject.toml", "[tool.uv]\nconstraint-dependencies = ['{}==0.3', 'x']\n"),
    ("pyproject.toml", "[tool.uv]\noverride-dependencies = ['{}[all]']\n"),
    ("pyproject.toml", "[tool.uv]\nno-binary-package = [\n  '{}',\n]\n"),
    ("uv.toml", "constraint-dependencies = ['{}==0.3']\nbuild-constraint-dependencies = ['{}']"),
]


@pytest.mark.parametrize(("name", "text"), CONSTRAINTS)
def test_a_constraint_gets_no_extras_which_pip_refuses(name: str, text: str) -> None:
    result = migrated(name, text.replace("{}", "langserve"))
    versions = re.compile(r"\[all\]|[=<]=?0\.[\d.]+")

    assert result.data.decode() == versions.sub("", text).replace("{}", "chainserve")
    assert {note.message for note in result.notes} == {NOT_PUBLISHED}


PIP_BY_HAND = {
    "langserve==0.3 \\\n    --hash=sha256:0": "it holds versions and hashes",
    "langserve==0.3 --hash=sha256:0": "it holds versions and hashes",
    "langserve[spam]": "its extras are all, client and server",
    "langserve @ git+https://github.com/langchain-ai/langserve": "Write the requirement",
    "-e git+https://github.com/langchain-ai/langserve.git@main#egg=langserve": "Write the",
    "git+https://github.com/langchain-ai/langserve": "Write the requirement",
}


@pytest.mark.parametrize(("text", "part"), PIP_BY_HAND.items())
def test_a_requirement_that_is_more_than_a_name_stays(text: str, part: str) -> None:
    result = migrated("requirements.txt", text)

    assert result.data.decode() == text
    [note] = by_hand(result)
    assert part in note


def test_a_requirement_that_was_there_for_langserve_alone_is_named() -> None:
    result = migrated("requirements.txt", "langserve[all]\nsse-starlette<2\n# sse_starlette\n")

    notes = [(note.line, note.message) for note in result.notes if note.kind == "differs"]
    assert [line for line, message in notes if "needs no sse-starlette" in message] == [2]
    assert [line for line, message in notes if "not on PyPI yet" in message] == [1]


def test_an_extra_that_was_not_there_is_told() -> None:
    notes = migrated("requirements.txt", "langserve\n").notes

    assert any("chainserve[client] is enough where nothing is served" in n.message for n in notes)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_what_a_windows_shell_wrote_is_read(codec: str) -> None:
    before, after = (f"\ufeffx==1\r\n{name}[all]\r\n" for name in ("langserve", "chainserve"))
    result = migrate(PurePath("requirements.txt"), before.encode(codec))

    assert result.data == after.encode(codec)


@pytest.mark.parametrize(
    "name",
    [
        *("poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock", "requirements.lock"),
        *("pylock.toml", "pylock.dev.toml", "pixi.lock", "conda-lock.yml"),
    ],
)
def test_a_lock_is_to_be_made_again(name: str) -> None:
    result = migrated(name, 'name = "langserve"')

    assert (result.changes, len(by_hand(result))) == (0, 1)


@pytest.mark.parametrize("name", ["pixi.toml", "uv.toml", "poetry.toml", "pdm.toml"])
def test_what_a_tool_is_told_is_no_lock(name: str) -> None:
    before = "[feature.x.pypi-dependencies]\nlangserve = { version = '1', extras = ['all'] }\n"
    result = migrated(name, "[pypi-dependencies]\nx = '*'\n" + before)

    assert "\nchainserve = { version = \"*\", extras = ['all'] }\n" in result.data.decode()
    assert by_hand(result) == []


PYPROJECT = """\
[project]
name = "langserve-app"  # langserve
keywords = ["langserve-app"]
dependencies = [
    "fastapi>=0.1",
    'langserve[all]>=0.3',  # langserve
    "langserve[client]; extra == 'x'",
]

[project.optional-dependencies]
serve = ["langserve[server]~=0.3.0", "uvicorn"]

[dependency-groups]
dev = [{ include-group = "x" }, "langserve"]

[tool.poetry.dependencies]
python = "^3.11"
langserve = "^0.3"

[tool.poetry.group.dev.dependencies]
langserve = { version = "^0.3.3", extras = ["all"], optional = true }

[tool.poetry.extras]
serve = ["langserve", "uvicorn"]

[tool.uv]
dev-dependencies = ["langserve[all]"]
"""


def test_a_pyproject_is_changed_in_its_requirements_alone() -> None:
    result = migrated("pyproject.toml", PYPROJECT)
    after = result.data.decode()

    assert after == (
        PYPROJECT.replace("'langserve[all]>=0.3'", "'chainserve[all]'")
        .replace('"langserve[client]; ', '"chainserve[client]; ')
        .replace('"langserve[server]~=0.3.0"', '"chainserve[server]"')
        .replace('}, "langserve"]', '}, "chainserve[client,server]"]')
        .replace(
            'langserve = "^0.3"',
            'chainserve = { version = "*", extras = ["client", "server"] }',
        )
        .replace('langserve = { version = "^0.3.3"', 'chainserve = { version = "*"')
        .replace('["langserve", "uvicorn"]', '["chainserve", "uvicorn"]')
        .replace('["langserve[all]"]', '["chainserve[all]"]')
    )
    assert tomllib.loads(after)
    assert by_hand(result) == []
    assert migrated("pyproject.toml", after).data.decode() == after


TOML_BY_HAND = {
    '[tool.langserve]\nexport_module = "x"\n': "1: This table is read by LangServe's templates",
    "[tool.poetry.dependencies.langserve]\nversion = '1'": "1: This names langserve",
    '[tool.poetry.dependencies]\nlangserve = {git = "https://x/langserve"}': "2: This names",
    '[tool.poetry.dependencies]\nlangserve = {version = "1", extras = ["spam"]}': "2: This names",
    '[tool.poetry]\ndependencies.langserve = "^0.3"': "2: This names langserve",
    '[[tool.mypy.overrides]]\nmodule = ["langserve.*"]': "2: This names langserve",
    '[project]\ndependencies = ["langserve @ https://x/y.whl"]': "2: Write the requirement",
}


@pytest.mark.parametrize(("text", "part"), TOML_BY_HAND.items())
def test_what_cannot_be_changed_in_toml_is_told(text: str, part: str) -> None:
    result = migrated("pyproject.toml", text)

    assert result.data.decode() == text
    [note] = by_hand(result)
    assert note.startswith(part)


def test_toml_that_cannot_be_read_stays() -> None:
    result = migrated("pyproject.toml", "[project\nlangserve = ")

    assert [note.kind for note in result.notes] == ["failed"]


OTHERS = {
    "Pipfile": (
        '[packages]\nlangserve = {extras = ["all"], version = "*"}\nfastapi = "*"\n',
        '[packages]\nchainserve = {extras = ["all"], version = "*"}\nfastapi = "*"\n',
    ),
    "pyproject.toml": (
        '[project.optional-dependencies]\nlangserve = ["langserve[all]"]\n'
        '[tool.poetry.dependencies]\nLangServe = "^0.3"\n',
        '[project.optional-dependencies]\nlangserve = ["chainserve[all]"]\n'
        "[tool.poetry.dependencies]\n"
        'chainserve = { version = "*", extras = ["client", "server"] }\n',
    ),
    "setup.cfg": (
        "[metadata]\nname = langserve\n[options]\ninstall_requires =\n    fastapi\n"
        "    langserve[all]>=0.3  # x\n[options.extras_require]\nserve = langserve[server]\n",
        "[metadata]\nname = langserve\n[options]\ninstall_requires =\n    fastapi\n"
        "    chainserve[all]  # x\n[options.extras_require]\nserve = chainserve[server]\n",
    ),
    "tox.ini": (
        "[testenv]\ndeps =\n  langserve[client]\ncommands = pytest langserve_app\n",
        "[testenv]\ndeps =\n  chainserve[client]\ncommands = pytest langserve_app\n",
    ),
    "setup.py": (
        "setup(name='x', install_requires=['langserve[all]>=0.3', \"fastapi\", 'langserve'])",
        "setup(name='x', install_requires=['chainserve[all]', \"fastapi\", "
        "'chainserve[client,server]'])",
    ),
    "environment.yml": (
        "name: langserve\ndependencies:\n  - python\n  - pip:\n      - langserve[all]==0.3.3\n"
        '      - "langserve[client]"  # x\n  - numpy\n',
        "name: langserve\ndependencies:\n  - python\n  - pip:\n      - chainserve[all]\n"
        '      - "chainserve[client]"  # x\n  - numpy\n',
    ),
    "Dockerfile": (
        "FROM python\n# pip install langserve\nRUN pip install --no-cache-dir \\\n"
        '    fastapi "langserve[all]>=0.3" && echo done\n'
        'RUN ["pip", "install", "langserve[server]"]\nCMD ["uvicorn", "langserve_app:app"]\n',
        "FROM python\n# pip install langserve\nRUN pip install --no-cache-dir \\\n"
        '    fastapi "chainserve[all]" && echo done\n'
        'RUN ["pip", "install", "chainserve[server]"]\nCMD ["uvicorn", "langserve_app:app"]\n',
    ),
    "deploy/start.sh": (
        "python -m pip install -U langserve[all]==0.3.3\nuv add 'langserve[server]'; ls\n",
        "python -m pip install -U \"chainserve[all]\"\nuv add 'chainserve[server]'; ls\n",
    ),
    ".github/workflows/test.yml": (
        "steps:\n  - run: pip install langserve[all] pytest\n",
        'steps:\n  - run: pip install "chainserve[all]" pytest\n',
    ),
    "Makefile": (
        "install:\n\tpip3 install langserve\n",
        'install:\n\tpip3 install "chainserve[client,server]"\n',
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_changed_in_their_requirements_alone(name: str) -> None:
    before, after = OTHERS[name]
    result = migrated(name, before)

    assert result.data.decode() == after
    assert by_hand(result) == []
    assert migrated(name, after).changes == 0


DECLARED = [
    "setup(install_requires=['{}'])",
    "setup(extras_require={{'x': ['{}']}})",
    "asked = ['{}']\nmore: list[str] = []\nmore += ['{}']\nsetup(install_requires=asked + more)",
    "asked = []\nasked.append('{}')\nsetup(install_requires=asked)",
    "setup(**{{'install_requires': ['{}']}})",
    "session.install('-U', '{}')",
    "DEPS = ('{}',)\nsession.install(*DEPS)",
    "session.run('pip', 'install', '{}')",
    "run(['pip', 'install', '{}'])",
]


@pytest.mark.parametrize("text", DECLARED)
@pytest.mark.parametrize("word", ["langserve", "LangServe"])
@pytest.mark.parametrize("name", ["setup.py", "noxfile.py"])
def test_a_bare_word_is_exchanged_where_a_requirement_stands(
    name: str, word: str, text: str
) -> None:
    result = migrated(name, text.format(word, word))

    assert result.data.decode() == text.format(*["chainserve[client,server]"] * 2)
    assert by_hand(result) == []


OTHERS_BY_HAND = [
    ("environment.yml", "dependencies:\n  - conda-forge::langserve=0.3\n", "2: chainserve is no"),
    ("install.sh", "conda install langserve\n", "1: chainserve is no conda package"),
    ("Dockerfile", "RUN pip install langserve@git+https://x\n", "1: Write the requirement"),
    ("Dockerfile", "RUN pip install langserve --hash=sha256:a\n", "1: This installs one file of"),
    ("setup.cfg", "[options]\ninstall_requires =\n  langserve[spam]\n", "3: Write the requirement"),
    ("a.yml", "run: [pip install langserve]\n", '1: Write "chainserve[client,server]" here'),
    ("a.yml", 'x: "a &&\n  pip install langserve"\n', '2: Write "chainserve[client,server]" here'),
    ("a.sh", "sh -c \"sh -c 'pip install langserve'\"\n", '1: Write "chainserve[client,server]"'),
    ("Dockerfile", 'RUN python -c "import langserve"\n', "1: This names langserve"),
    ("Dockerfile", 'CMD ["python", "-m", "langserve"]\n', "1: This names langserve"),
    ("Dockerfile", "RUN pip uninstall langserve\n", "1: This names langserve"),
    ("Dockerfile", "RUN pip install https://x/langserve-0.3.3-py3-none-any.whl\n", "1: This names"),
    ("Dockerfile", 'CMD ["langchain", "serve"]\n', "1: This is LangChain's command"),
    (
        "pyproject.toml",
        '[tool.poe.tasks]\nx = "langchain serve"\n',
        "2: This is LangChain's command",
    ),
    ("Procfile", "web: langchain serve --port=$PORT\n", "1: This is LangChain's command"),
    ("start.sh", "\nlangchain serve --port=80\n", "2: This is LangChain's command"),
    ("start.sh", "uvicorn langserve.server:app\n", "1: This names langserve"),
    ("requirements.txt", "https://x/langserve-0.3.3-py3-none-any.whl\n", "1: This names langserve"),
    ("setup.cfg", "[mypy-langserve.*]\nignore_missing_imports = True\n", "1: This names langserve"),
    ("mypy.ini", "[mypy-langserve]\n", "1: This names langserve"),
    ("pytest.ini", "[pytest]\naddopts = --cov=langserve\n", "2: This names langserve"),
    ("tox.ini", "[testenv]\ncommands = pytest --pyargs langserve\n", "2: This names langserve"),
    ("play.yml", "- pip: {name: langserve}\n", "1: This names langserve"),
    ("play.yml", "- pip:\n    name: langserve\n", "2: This names langserve"),
    (".pre-commit-config.yaml", "additional_dependencies: [langserve]\n", "1: This names"),
    ("a.yml", "dependencies:\n- x\n- langserve\n", "3: This names langserve"),
    ("a.sh", "echo langserve==0.3 >> requirements.txt\n", "1: This names langserve"),
    ("a.sh", "uv run --with langserve app.py\n", "1: This names langserve"),
    ("a.sh", "python -c 'from importlib.metadata import *; version(\"langserve\")'\n", "1: This"),
    ("a.sh", "git clone https://github.com/langchain-ai/langserve\n", "1: This names"),
    ("pyproject.toml", "[tool.poe.tasks]\nx = 'python -m langserve'\n", "2: This names"),
    ("pyproject.toml", "[tool.uv.sources]\nlangserve = { path = 'x' }\n", "2: This names"),
    ("logging.yml", "loggers:\n  langserve:\n    level: INFO\n", "2: This names langserve"),
]


@pytest.mark.parametrize(("name", "text", "part"), OTHERS_BY_HAND)
def test_what_cannot_be_changed_in_other_files_is_told(name: str, text: str, part: str) -> None:
    result = migrated(name, text)

    assert result.data.decode() == text
    [note] = by_hand(result)
    assert note.startswith(part)


NAMES_OF_OTHERS = [
    ("setup.cfg", "[metadata]\nname = langserve\ndescription = a langserve app\n"),
    ("setup.cfg", "[options.extras_require]\nlangserve = fastapi\n"),
    ("setup.py", "setup(name='langserve', keywords=['LangServe'], packages=['langserve'])"),
    ("setup.py", "setup(extras_require={'langserve': ['fastapi']}, title='LangServe')"),
    ("noxfile.py", "session.run('pytest', 'LangServe'); tags = ['langserve']"),
    ("tox.ini", "[testenv]\ndeps =\n  fastapi\n; pytest langserve\n  ; langserve\n"),
    ("pyproject.toml", '[project.optional-dependencies]\nlangserve = ["fastapi"]\n'),
    ("pyproject.toml", '[project]\nname = "langserve"\n'),
    ("compose.yml", "image: langserve\nx: y/langserve:1\nz: langserve:2\nv: langserve-app\n"),
    ("Dockerfile", 'RUN pip install -e ".[langserve]" "mine[dev,langserve]"\n'),
    ("start.sh", "# import langserve\ncat langserve.log https://langserve.example.com\n"),
    ("start.sh", "cd ./langserve && ls  # langserve\n"),
    (
        "compose.yml",
        "services:\n  langserve:\n    container_name: langserve\n    networks: [langserve]\n"
        "    volumes: ['langserve:/data']\n    hostname: langserve\n  x:\n    depends_on:\n"
        "    - langserve\nnetworks:\n  langserve: {}\nvolumes:\n  langserve:\n",
    ),
    (
        "k8s.yaml",
        "metadata:\n  labels:\n    app: langserve\n    app.kubernetes.io/name: langserve\n"
        "spec:\n  selector: {app: langserve}\n",
    ),
    ("Chart.yaml", "dependencies:\n  - name: langserve\n    version: 1\n"),
    ("ci.yml", "jobs:\n  langserve:\n    strategy:\n      matrix:\n        x: [langserve, y]\n"),
    ("ci.yml", "x:\n  dependencies:\n    - y\n  needs: [langserve]\nservices: [langserve]\n"),
    ("Makefile", ".PHONY: langserve\nlangserve: x\n\t$(MAKE) langserve\n\tpytest -m langserve\n"),
    ("Dockerfile", "FROM x AS langserve\nFROM langserve\nCOPY --from=langserve /x /y\n"),
    ("Dockerfile", "LABEL name=langserve\nUSER langserve\nHEALTHCHECK CMD curl langserve:80\n"),
    ("a.sh", "systemctl restart langserve\ndocker run --name langserve x\nssh langserve-1\n"),
    ("a.sh", 'echo "starting langserve"\nhelm install langserve ./chart\nkill langserve\n'),
    ("a.sh", "poetry install --with langserve -E langserve\nuv sync --extra langserve\n"),
    ("a.sh", "git remote add langserve x; conda install -n langserve numpy\n"),
    ("pytest.ini", "[pytest]\nmarkers =\n    langserve: asks a server\n"),
    ("tox.ini", "[tox]\nenvlist = langserve\n[testenv:langserve]\ndeps = x\n"),
    (
        "pyproject.toml",
        '[tool.pytest.ini_options]\nmarkers = [\n  "langserve: asks a server",\n]\n',
    ),
    ("pyproject.toml", '[tool.poe.tasks]\nlangserve = "uvicorn app:app"\n'),
    ("pyproject.toml", "[tool.hatch.envs.langserve]\nskip-install = true\n"),
    ("requirements.txt", "chainserve[langserve]\nmine[langserve]\n"),
]


@pytest.mark.parametrize(("name", "text"), NAMES_OF_OTHERS)
def test_what_has_the_word_as_a_name_of_its_own_stays_without_a_word(name: str, text: str) -> None:
    result = migrated(name, text)

    assert (result.data.decode(), result.notes) == (text, ())


QUOTED = [
    ("x: {}", "pip install langserve", 'pip install "chainserve[client,server]"'),
    ("x: {}", "[pip, install, langserve]", '[pip, install, "chainserve[client,server]"]'),
    ("x: {}", '"pip install langserve"', "\"pip install 'chainserve[client,server]'\""),
    ("x: {}", "'pip install langserve'", "'pip install \"chainserve[client,server]\"'"),
    ("x: {}", '["sh", "-c", "uv add langserve"]', "\"uv add 'chainserve[client,server]'\"]"),
    ("x:\n  - {}", "pip install -q langserve[all]~=0.3 y", 'pip install -q "chainserve[all]" y'),
    ("x: |\n  {}", "# don't\n  pip install langserve", 'install "chainserve[client,server]"'),
    ("x:\n  - {}", "pip install langserve  # don't pin", 'install "chainserve[client,server]"  #'),
    ("x: |\n  {}", "[ -d y ] || pip install langserve", '|| pip install "chainserve'),
]


@pytest.mark.parametrize(("around", "before", "after"), QUOTED)
def test_a_requirement_in_a_command_is_quoted_so_that_all_around_it_stays_whole(
    around: str, before: str, after: str
) -> None:
    yaml: Any = importlib.import_module("yaml")
    result = migrated("compose.yml", around.format(before))
    new = result.data.decode()

    assert after in new
    assert (by_hand(result), new.count("chainserve")) == ([], 1)
    assert str(yaml.safe_load(new)).count("chainserve") == 1


OLD_PYTHONS = [
    ("Dockerfile", "FROM --platform=linux/amd64 python:3.10-slim AS base\n"),
    ("Dockerfile", "from docker.io/python:3.8\n"),
    (".python-version", "# ours\n3.10.4\n"),
    (".python-version", "3.12\n3.9\n"),
    (".python-version", "2.7\n"),
    (".python-version", "cpython-3.10\n"),
    ("app/runtime.txt", "python-3.8.18"),
    ("pyproject.toml", '[project]\nrequires-python = ">=3.9,<4"\n'),
    ("pyproject.toml", '[project]\nrequires-python = "<3.11"\n'),
    ("pyproject.toml", '[tool.poetry.dependencies]\npython = "^3.8.1"\n'),
    ("Pipfile", '[requires]\npython_version = "3.10"\n'),
    ("setup.cfg", "[options]\npython_requires = >=3.8\n"),
    ("setup.py", "setup(\n    python_requires='>=3.8',\n)\n"),
    ("environment.yml", "dependencies:\n  - python=3.10\n"),
    ("environment.yml", 'dependencies:\n  - "python>=3.9"\n'),
    (".github/workflows/test.yml", "python-version: ['3.10', '3.11']\n"),
]


@pytest.mark.parametrize(("name", "text"), OLD_PYTHONS)
def test_a_python_that_is_too_old_is_told(name: str, text: str) -> None:
    result = migrated(name, text)

    [note] = by_hand(result)
    assert note.endswith("chainserve needs Python 3.11 or later: raise what is asked for here.")
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["requires-python"] == ">=3.11"


NEW_PYTHONS = [
    ("Dockerfile", "FROM python:3.11-alpine3.10\nFROM python:3\nFROM python:3.13\n"),
    ("pyproject.toml", '[project]\nrequires-python = ">=3.11,!=3.9.7,<3.14"\n'),
    ("requirements.txt", 'fastapi; python_version >= "3.8"\n'),
    (".python-version", "3.11\n3\nmine-3.9\n"),
    ("runtime.txt", "python-3.11.4\n"),
    ("environment.yml", "dependencies:\n  - python=3.12\n  - python-dateutil=3.9\n"),
]


@pytest.mark.parametrize(("name", "text"), NEW_PYTHONS)
def test_a_python_that_is_new_enough_is_not_told(name: str, text: str) -> None:
    assert migrated(name, text).notes == ()


LONG = 500_000
ENDLESS = [
    ("requirements.txt", "langserve{}x"),
    ("requirements.txt", "langserve=={}x"),
    ("requirements.txt", "x{}langserve"),
    ("setup.cfg", "[options]\ninstall_requires = langserve{}x"),
    ("environment.yml", "- langserve{}x"),
    ("environment.yml", "- pip:\n  - 'langserve{}x"),
    ("pyproject.toml", "[tool.'{}x']\n[project]\ndependencies = ['langserve{}x']"),
    ("a.sh", "pip install langserve{}x"),
    ("a.sh", "{}pip install langserve"),
    ("setup.py", "x = 'langserve{}x'"),
]


@pytest.mark.parametrize(("name", "text"), ENDLESS)
def test_a_line_of_any_length_comes_to_an_end(name: str, text: str) -> None:
    migrated(name, text.replace("{}", " " * LONG))


REPEATED = [
    ("a.sh", "pip install langserve; "),
    ("a.sh", "pip install langserve_ "),
    ("a.sh", "uv --with "),
    ("a.sh", "python -u "),
    ("a.yml", "- dependencies: "),
    ("a.yml", "pip:\n "),
    ("a.sh", "pip install langserve "),
    ("a.sh", "pip install langserve"),
    ("a.yml", "[pip, install, langserve], "),
    ("a.py", "langserve.add_routes;"),
    ("a.py", "é;langserve.add_routes;"),
    ("a.py", "'add langserve_';"),
    ("b.py", "add langserve_"),
    ("pyproject.toml", '\\"'),
]


@pytest.mark.parametrize(("name", "text"), REPEATED)
def test_a_line_of_many_words_comes_to_an_end(name: str, text: str) -> None:
    text = text * (LONG // 2 // len(text))
    around = {
        "a.py": ("import langserve;", ""),
        "b.py": ("x = '", "'"),
        "pyproject.toml": ("x = '''\n", "'''"),
    }
    before, after = around.get(name, ("", ""))
    migrated(name, f"{before}{text}{after}# langserve")


def test_a_module_of_many_imports_comes_to_an_end() -> None:
    lines = [f"import langserve.client as c{number}" for number in range(9999)]

    assert migrated("a.py", "\n".join(lines)).changes == len(lines)


@pytest.mark.parametrize("name", ["README.md", "app.js", "client.ts", "package.json", "x.txt"])
def test_no_other_file_is_looked_at(name: str) -> None:
    assert not is_looked_at(PurePath(name))
    assert migrated(name, "pip install langserve").changes == 0


# Notebooks.


def notebook(*cells: Any, indent: int | str | None = 1, ascii_only: bool = False) -> str:
    content = {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["from langserve import é\n"]},
            *(
                {"cell_type": "code", "execution_count": 1.0, "outputs": [], "source": cell}
                for cell in cells
            ),
        ],
        "nbformat": 4,
    }
    return json.dumps(content, indent=indent, ensure_ascii=ascii_only) + "\n"


CELLS: tuple[Any, ...] = (
    ["%pip install langserve[all]==0.3\n", "!ls\n", "import langserve  # é"],
    ["langserve.add_routes(app, chain)\n", "if x:\n", "    %time f()\n"],
    "from langserve import RemoteRunnable\n",
    ["%%bash\n", "pip install 'langserve[client]'\n"],
    [],
)
NEW_CELLS: tuple[Any, ...] = (
    ['%pip install "chainserve[all]"\n', "!ls\n", "import chainserve  # é"],
    ["chainserve.add_routes(app, chain)\n", "if x:\n", "    %time f()\n"],
    "from chainserve import RemoteRunnable\n",
    ["%%bash\n", "pip install 'chainserve[client]'\n"],
    [],
)


@pytest.mark.parametrize("indent", [1, 2, 4, "\t", None])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(("line_end", "end"), [("\n", ""), ("\n", "\n\n"), ("\r\n", "\r\n")])
def test_a_notebooks_code_is_changed_and_its_form_stays(
    indent: int | str | None, ascii_only: bool, line_end: str, end: str
) -> None:
    before, after = (
        notebook(*cells, indent=indent, ascii_only=ascii_only).replace("\n", line_end) + end
        for cells in (CELLS, NEW_CELLS)
    )
    result = migrated("a.ipynb", before)

    assert result.data.decode() == after
    assert by_hand(result) == []
    assert migrated("a.ipynb", after).changes == 0


def test_a_notebook_without_spaces_stays_without_them() -> None:
    before, after = (
        json.dumps(json.loads(notebook(*cells)), separators=(",", ":"))
        for cells in (CELLS, NEW_CELLS)
    )

    assert migrated("a.ipynb", before).data.decode() == after


def test_a_note_names_the_cell_and_its_line() -> None:
    text = notebook(
        ["import os\n"], ["x = 1\n", "from langserve.playground import y\n"], ["langserve is\n"]
    )
    result = migrated("a.ipynb", text)

    assert result.data.decode() == text
    assert [(note.cell, note.line, note.kind) for note in result.notes] == [
        (4, 1, "by hand"),
        (3, 2, "by hand"),
    ]


def test_a_notebook_that_cannot_be_written_as_it_was_stays() -> None:
    text = notebook("import langserve").replace('"nbformat": 4', '"nbformat":    4')
    result = migrated("a.ipynb", text)

    assert result.data.decode() == text
    assert ["cannot be written as it was" in note.message for note in result.notes] == [True]


def test_a_notebook_that_is_nested_too_deeply_stays() -> None:
    for text in (notebook("import langserve\nx = 1" + "+1" * 50_000), "[" * 99_999 + "langserve"):
        result = migrated("a.ipynb", text)

        assert result.data.decode() == text
        assert ["nested too deeply" in note.message for note in result.notes] == [True]


@pytest.mark.parametrize("text", ["{langserve", '"langserve"', '{"langserve": [1]}'])
def test_what_is_no_notebook_stays(text: str) -> None:
    result = migrated("a.ipynb", text)

    assert result.data.decode() == text
    assert [note.kind for note in result.notes] == ["failed"]
