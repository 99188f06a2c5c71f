"""Example servers of LangServe's, run by LangServe and, after the command alone, by chainserve."""

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chainserve.cli import main
from tests.migration._requests import REQUESTS, Ask
from tests.migration._servers import EXAMPLES, Answer, ask_all, serving

pytestmark = pytest.mark.timeout(180)  # A slow machine imports LangChain for ten seconds.

NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples in a folder of their own, after `chainserve migrate --write` and no more."""
    folder = tmp_path_factory.mktemp("migrated") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert main(["migrate", "--write", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def answers(migrated: Path) -> Iterator[Mapping[str, Mapping[str, list[Answer]]]]:
    """What each package's servers answer, by the package's and the example's name."""
    folders = {"langserve": EXAMPLES, "chainserve": migrated}
    with ThreadPoolExecutor() as threads:
        yield dict(zip(folders, threads.map(all_answers, folders.items()), strict=True))


def all_answers(served: tuple[str, Path]) -> dict[str, list[Answer]]:
    package, folder = served
    with serving(folder, package, NAMES) as ports:
        return {name: ask_all(port, REQUESTS[name]) for name, port in ports.items()}


def is_the_same(asked: Ask, theirs: Answer, ours: Answer) -> bool:
    """Tell whether two answers are the same, but for what an error's body says beside `detail`."""
    if asked.difference is not None:
        told = asked.difference.theirs in theirs.text and asked.difference.ours in ours.text
        return told and theirs != ours
    if asked.side_by_side:
        return theirs.in_no_order() == ours.in_no_order()
    if theirs.status < 400:
        return theirs == ours
    return (theirs.status, theirs.detail) == (ours.status, ours.detail)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_answers_the_same_after_the_command(
    name: str, answers: Mapping[str, Mapping[str, list[Answer]]]
) -> None:
    pairs = zip(answers["langserve"][name], answers["chainserve"][name], strict=True)
    for asked, (theirs, ours) in zip(REQUESTS[name], pairs, strict=True):
        assert is_the_same(asked, theirs, ours), f"{asked}\n{theirs}\n{ours}"


def test_the_examples_are_asked_what_they_can_do(
    answers: Mapping[str, Mapping[str, list[Answer]]],
) -> None:
    assert len(NAMES) >= 12
    for name in NAMES:
        statuses = [answer.status for answer in answers["langserve"][name]]
        assert statuses.count(200) >= 5, name
        assert not [status for status in statuses if status >= 500], name


def test_the_command_changed_nothing_but_the_name(migrated: Path) -> None:
    for name in NAMES:
        before, after = ((folder / f"{name}.py").read_text() for folder in (EXAMPLES, migrated))
        assert "chainserve" not in before
        assert "langserve" not in after.replace('"""', "")
        assert after.replace("chainserve", "langserve") == before


def test_there_is_nothing_left_to_change(migrated: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--check", str(migrated)]) == 0
    assert capfd.readouterr().out == ""
