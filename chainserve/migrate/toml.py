"""Requirements in TOML: a `pyproject.toml`, a `Pipfile`."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from chainserve.migrate.edits import Findings, apply
from chainserve.migrate.leftovers import LEFT, is_sure
from chainserve.migrate.names import THEIRS, is_theirs
from chainserve.migrate.requirements import RequirementsText, new_extras

TEMPLATE = "This table is read by LangServe's templates alone: leave it out."

_HEADER = re.compile(r"[ \t]*\[\[?(?P<table>[^\]\r\n]+)\]")
_KEY = re.compile(r"[ \t]*(?P<key>[\w.-]+|\"[^\"\r\n]*\"|'[^'\r\n]*')[ \t]*=[ \t]*")
_TOKEN = re.compile(r"#[^\r\n]*|\"(?:[^\"\\\r\n]|\\.)*\"?|'[^'\r\n]*'?|[\[\]{}]")
_LISTS = re.compile(
    r"project/dependencies|project\.optional-dependencies/.*|dependency-groups/.*"
    r"|build-system/requires|/([\w-]+-)?dependencies|tool\.(uv|pdm)(\.dev-dependencies)?/.*"
    r"|tool\.hatch\.envs\..*/(extra-)?dependencies"
)
_CONSTRAINTS = re.compile(
    r"(tool\.(uv|pdm)[\w.-]*)?/([\w-]*(constraint|override)[\w-]*|.*-package)"
)
_TABLES = re.compile(
    r"tool\.poetry\.((dev-)?dependencies|group\.[^.]+\.dependencies)"
    r"|(tool\.pixi\.|feature\.[^.]+\.)*pypi-dependencies|(dev-)?packages"
)
_ASKED_FOR = re.compile(r"dependencies|packages|overrides|sources|libraries")
_TASKS = re.compile(r".*\b(scripts|tasks|entry-points)(\..*)?")
_NAMES = re.compile(r".*/(markers|keywords)")
_VERSION = re.compile(r"(version[ \t]*=[ \t]*)(\"[^\"]*\"|'[^']*')")


def migrate_toml(text: str) -> Findings:
    """Return what changes in a `pyproject.toml` or a `Pipfile`."""
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Findings.failed(f"not TOML that can be read here ({error})")
    found = RequirementsText(text)
    table, key, depth = "", "", 0
    for start, end in _lines(text):
        if depth == 0 and (header := _HEADER.match(text, start, end)):
            table, key = header["table"].strip().replace('"', ""), ""
            _table(found, table, start)
            continue
        at = start
        if depth == 0 and (assignment := _KEY.match(text, start, end)):
            key, at = assignment["key"].strip("\"'"), assignment.end()
            if _LISTS.fullmatch(f"{table}/{key}"):
                found.settle(start)  # The name of an extra, or of a group, is the author's.
            elif _TASKS.fullmatch(table) and not is_sure(text[at:end]):
                found.settle(start)
            elif is_theirs(key.rpartition(".")[2].lower()):
                _assignment(found, table, key, assignment.span("key"), (at, end))
                continue
        if _NAMES.fullmatch(f"{table}/{key}"):
            found.settle(start)
        depth = _values(found, f"{table}/{key}", (at, end), depth)
    findings = found.findings()
    if not _is_what_was_meant(before, apply(text, findings.edits)):
        return Findings.failed("cannot be changed safely: exchange langserve for chainserve in it")
    return findings


def _lines(text: str) -> Iterator[tuple[int, int]]:
    for line in re.finditer(r"[^\r\n]+", text):
        yield line.span()


def _table(found: RequirementsText, table: str, start: int) -> None:
    if table == "tool.langserve":
        found.note(start, "by hand", TEMPLATE)
    elif table.split(".")[-1] == "langserve":
        if _ASKED_FOR.search(table):
            found.note(start, "by hand", LEFT)
        else:
            found.settle(start)  # A task, an environment or a group is called so.


def _assignment(
    found: RequirementsText, table: str, key: str, name: tuple[int, int], value: tuple[int, int]
) -> None:
    """Exchange `langserve = …` in a table of requirements."""
    start, end = value
    old = found.text[start:end].rstrip()
    new = _new_value(old) if _TABLES.fullmatch(table) and key.lower() == THEIRS else None
    if new is None:
        found.note(start, "by hand", LEFT)
        return
    quote = found.text[name[0]] if found.text[name[0]] in "\"'" else ""
    found.edit(*name, f"{quote}chainserve{quote}")
    found.edit(start, start + len(old), new)


def _new_value(text: str) -> str | None:
    """Return a requirement's value without its version and with its extras, or None."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    if isinstance(value, str):
        comment = text[text.index(value) + len(value) + 1 :]
        return f'{{ version = "*", extras = ["client", "server"] }}{comment}'
    if not isinstance(value, dict) or "version" not in value or "extras" not in value:
        return None
    kept = value.keys() <= {"version", "extras", "optional", "python", "markers"}
    return _VERSION.sub(r'\1"*"', text, count=1) if kept and new_extras(value["extras"]) else None


def _values(found: RequirementsText, place: str, span: tuple[int, int], depth: int) -> int:
    """Exchange the requirements among the values of a line; return how deep it ends."""
    for token in _TOKEN.finditer(found.text, *span):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif token[0][0] != "#":
            start, end = token.start() + 1, token.end() - 1
            if _LISTS.fullmatch(place):
                constrain = _CONSTRAINTS.fullmatch(place) is not None
                found.exchange(start, end, constrain=constrain)
            elif place.startswith("tool.poetry.extras/") and found.text[start:end] == "langserve":
                found.edit(start, end, "chainserve")
    return max(depth, 0)


def _is_what_was_meant(before: dict[str, Any], text: str) -> bool:
    """Tell whether nothing changed but what names langserve."""
    try:
        after = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return _others(before) == _others(after)


def _others(value: Any, place: str = "") -> dict[str, Any]:
    """Return the values by their places, without those that name either package."""
    if isinstance(value, dict):
        items = [(f"{place}/{key}", child) for key, child in value.items()]
    elif isinstance(value, list):
        items = [(f"{place}/{number}", child) for number, child in enumerate(value)]
    else:
        ours = re.search(r"(?i)/(lang|chain)serve\b|\b(lang|chain)serve\b", f"{place} {value}")
        return {} if ours else {place: value}
    return {name: leaf for at, child in items for name, leaf in _others(child, at).items()}
