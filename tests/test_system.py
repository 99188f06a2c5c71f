"""The tool that finds the programs tests need."""

from pathlib import Path

import pytest

from tests._system import require_program


@pytest.fixture(autouse=True)
def only_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    return program


def test_a_program_that_is_there_is_returned_with_its_path(only_program: Path) -> None:
    assert require_program("redis-server", package="redis-server") == str(only_program)


def test_a_missing_program_skips_and_names_its_package() -> None:
    with pytest.raises(pytest.skip.Exception, match="Debian package chromium-driver"):
        require_program("chromedriver", package="chromium-driver")


def test_a_missing_program_fails_in_ci_and_names_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="Debian package chromium-driver"):
        require_program("chromedriver", package="chromium-driver")
