"""What people install: the wheel, the lock files, the image, and what `make` says."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from chainserve.version import __version__
from tests._dockerfile import Replay, Stage
from tests._system import require_program

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60
STOP_SECONDS = 15
NEVER_SERVES = {"langserve", "sse-starlette"}

# Enough for the fixture that downloads, from a slow package index too.
installs = pytest.mark.timeout(300)


def locked_versions(name: str) -> dict[str, str]:
    pins = re.findall(
        r"^([\w.-]+)(?:\[[\w,.-]+\])?==(\S+)", (ROOT / name).read_text(), flags=re.MULTILINE
    )
    return {canonicalize_name(package): version for package, version in pins}


def run_module(name: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
    subprocess.run([sys.executable, "-m", name, *map(str, arguments)], env=env, check=True)


def run_python(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code away from this checkout, so that only what is installed can be imported."""
    return subprocess.run(
        [python, "-I", "-c", code], cwd=python.parent, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run_module("build", "--wheel", "--no-isolation", "--outdir", directory, ROOT)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel_requirements(wheel: Path) -> list[Requirement]:
    with ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    return [Requirement(text) for text in headers.get_all("Requires-Dist", [])]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything in requirements.lock: all that comes from the package index."""
    directory = tmp_path_factory.mktemp("packages")
    options = ("--quiet", "--no-input", "--no-deps", "--require-hashes", "--dest", directory)
    run_module("pip", "download", *options, "--requirement", ROOT / "requirements.lock")
    return directory


def from_packages(packages: Path) -> dict[str, str]:
    """The environment in which pip finds the locked versions and no others."""
    return {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages)}


def pip_install(venv: Path, requirement: str, packages: Path) -> Path:
    python = venv / "bin" / "python"
    options = ("--quiet", "--no-input", "--no-compile")
    env = from_packages(packages)
    run_module("pip", "--python", python, "install", *options, requirement, env=env)
    return python


@pytest.fixture(scope="module")
def base_python(wheel: Path, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with the wheel and no extra."""
    venv = tmp_path_factory.mktemp("base") / "venv"
    run_module("venv", "--without-pip", venv)
    return pip_install(venv, str(wheel), packages)


@pytest.fixture(scope="module")
def client_python(
    base_python: Path, wheel: Path, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The interpreter of a virtual environment with the wheel and the extra `client`."""
    venv = tmp_path_factory.mktemp("client") / "venv"
    shutil.copytree(base_python.parent.parent, venv, symlinks=True)
    return pip_install(venv, f"{wheel}[client]", packages)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())

    files = (path for path in (ROOT / "chainserve").rglob("*") if path.is_file())
    package = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert {"chainserve/py.typed", "chainserve/js/chainserve.js"} <= package
    assert {name for name in names if name.startswith("chainserve/")} == package
    assert {name.split("/")[0].split("-")[0] for name in names} == {"chainserve"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_npm_would_publish_the_client_with_the_version_of_the_server(tmp_path: Path) -> None:
    npm = require_program("npm", package="npm")
    folder = ROOT / "chainserve" / "js"
    command = [npm, "pack", "--dry-run", "--json", "--offline", f"--cache={tmp_path}", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    [packed] = json.loads(done.stdout)

    assert (packed["name"], packed["version"]) == ("chainserve", __version__)
    assert {file["path"] for file in packed["files"]} == {path.name for path in folder.iterdir()}


def test_the_wheel_brings_the_command(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        [entries] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        assert b"chainserve = chainserve.cli:main" in archive.read(entries)


def test_only_the_langserve_extra_asks_for_langserve(
    wheel_requirements: list[Requirement],
) -> None:
    asking = [each for each in wheel_requirements if canonicalize_name(each.name) in NEVER_SERVES]

    assert [str(each.marker) for each in asking] == ['extra == "langserve"']


def test_every_requirement_is_locked_at_a_version_it_allows(
    wheel_requirements: list[Requirement],
) -> None:
    locked = locked_versions("requirements.lock")

    for requirement in wheel_requirements:
        name = canonicalize_name(requirement.name)
        if name not in NEVER_SERVES | {"chainserve"}:
            assert requirement.specifier.contains(locked[name]), requirement


def test_the_lock_files_agree_and_only_the_tools_bring_langserve() -> None:
    runtime = locked_versions("requirements.lock")
    development = locked_versions("requirements-dev.lock")

    assert runtime.items() <= development.items()
    assert not NEVER_SERVES & runtime.keys()
    assert development.keys() >= NEVER_SERVES


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_hashes(name: str) -> None:
    entries = re.split(r"^(?=\S+==)", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]

    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_no_tracked_file_names_this_machine_or_a_package_index() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    patterns = [r"--(?:extra-)?index-url", r'"resolved":\s*"http']
    # A directory right below / has a name that any text may contain.
    places = (place for place in (ROOT, Path.home()) if len(place.parts) > 2)
    patterns += [rf"(?<![\w.-]){re.escape(str(place))}(?![\w-])" for place in places]
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in listing.stdout.split("\0") if name]

    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if path.is_file()
        for match in re.finditer("|".join(patterns), path.read_text(errors="replace"))
    ]

    assert found == []


@installs
@pytest.mark.network
def test_the_wheel_alone_is_enough_to_declare_a_chain(base_python: Path) -> None:
    result = run_python(base_python, "import chainserve; print(chainserve.Chain.__name__)")

    assert result.stdout == "Chain\n", result.stderr


@installs
@pytest.mark.network
def test_serving_without_the_server_extra_says_which_extra_is_missing(base_python: Path) -> None:
    result = run_python(base_python, "from chainserve import add_routes")

    last_line = result.stderr.rstrip().rpartition("\n")[2]
    assert last_line.startswith("ImportError: ")
    assert "chainserve[server]" in last_line


@installs
@pytest.mark.network
def test_the_client_extra_brings_httpx_and_no_web_framework(client_python: Path) -> None:
    names = ("httpx", "fastapi", "starlette", "uvicorn")
    code = f"from importlib.util import find_spec; print([n for n in {names} if find_spec(n)])"

    result = run_python(client_python, f"import chainserve; {code}")

    assert result.stdout == "['httpx']\n", result.stderr


@pytest.fixture(scope="module")
def image(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Replay(ROOT, tmp_path_factory.mktemp("image"), from_packages(packages)).build()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def succeeds(command: list[str], env: Mapping[str, str]) -> bool:
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Container:
    """The image's command, running on a free port of loopback."""

    process: subprocess.Popen[bytes]
    port: int


@pytest.fixture
def container(image: Stage, tmp_path: Path) -> Iterator[Container]:
    """Runs from the first health check that succeeds."""
    port = free_port()
    env = {**image.env, "CHAINSERVE_HOST": "127.0.0.1", "PORT": str(port)}
    assert not succeeds(image.healthcheck, env)
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            image.command, cwd=image.workdir, env=env, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not succeeds(image.healthcheck, env):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
        yield Container(process, port)
    finally:
        process.kill()
        process.wait()


@installs
@pytest.mark.network
def test_the_image_is_small_does_not_run_as_root_and_listens_on_every_address(
    image: Stage,
) -> None:
    packages = {path.name for path in image.path("/opt/venv").glob("lib/python3*/site-packages/*")}

    assert re.fullmatch(r"python:3\.\d+-slim", image.base)
    assert [command.split()[0] for command in image.left_out] == ["useradd"]
    assert image.user not in {"root", "0"}
    assert image.env["CHAINSERVE_HOST"] == "0.0.0.0"
    assert image.ports == [image.env["PORT"]]
    assert {path.name for path in image.workdir.iterdir()} == {"chains", "chainserve", "server.py"}
    assert "fastapi" in packages
    assert packages.isdisjoint({"langserve", "sse_starlette", "pytest", "pip"})


@installs
@pytest.mark.network
def test_the_image_starts_reports_its_health_serves_its_chains_and_stops(
    container: Container,
) -> None:
    response = httpx.get(f"http://127.0.0.1:{container.port}/chains", trust_env=False)
    assert response.status_code == 200

    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(timeout=STOP_SECONDS) in {0, -signal.SIGTERM}


def make_serve(directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    make = require_program("make", package="make")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(ROOT / name, directory)
    # Not the variables of the make that may be running these tests.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = [make, "serve", *(f"{name}={value}" for name, value in variables.items())]
    return subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, check=False
    )


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    result = make_serve(tmp_path, PYTHON="python2.7-or-none")

    assert result.returncode != 0
    assert "chainserve needs Python 3.11 or newer" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_names_the_package_that_a_python_without_ensurepip_lacks(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n')
    python.chmod(0o755)

    result = make_serve(tmp_path, PYTHON=str(python))

    assert result.returncode != 0
    assert "python3-venv" in result.stderr
    assert not (tmp_path / ".venv").exists()
