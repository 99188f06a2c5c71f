"""Requirements: what they become, in pip's files, ini files and conda's environments."""

import re
from collections.abc import Callable, Container, Iterable
from typing import TypeAlias

from chainserve.migrate.edits import Edit, Findings, Note, NoteKind, apply
from chainserve.migrate.leftovers import leftovers, leftovers_of_yaml
from chainserve.migrate.lines import Lines, contents

Net: TypeAlias = Callable[[str, Container[int]], Iterable[Note]]

_SPECIFIER = r"(?:===?|~=|!=|<=?|>=?)\s*[\w.*+!-]+"
_REQUIREMENT = re.compile(
    rf"""langserve
    (?:\s*\[(?P<extras>[\w\s,.-]*)\])?
    (?:(?:\s*\()?\s*{_SPECIFIER}(?:\s*,\s*{_SPECIFIER})*(?:\s*,)?(?:\s*\))?)?
    (?P<rest>\s*(?:;.*)?)""",
    re.IGNORECASE | re.VERBOSE,
)
_NAMES_LANGSERVE = re.compile(r"(?i)(?<![\w./-])langserve(?![\w-])")
_EXTRAS = frozenset({"all", "client", "server"})

UNKNOWN = "Write the requirement of chainserve yourself: its extras are all, client and server."
NOT_PUBLISHED = "chainserve is not on PyPI yet: install it from a clone, as its README shows."
HASHED = (
    "This installs one file of langserve's by its hash: take its hash out, or find chainserve's."
)
LOCKED = "Make this file again from its requirements: it holds versions and hashes."
WITHOUT_EXTRA = (
    "langserve had no extra here: chainserve[client,server] can do all of it, "
    "chainserve[client] is enough where nothing is served."
)
SSE_STARLETTE = "chainserve needs no sse-starlette: leave it out unless your own code imports it."
CONDA = "chainserve is no conda package: require it below pip, as - chainserve[all]."


def new_requirement(text: str) -> str | None:
    """Return the requirement of chainserve in place of one of langserve, without its versions.

    Returns:
        None if it is no requirement of langserve, or one that cannot be exchanged as it is.
    """
    found = _REQUIREMENT.fullmatch(text)
    extras = new_extras((found["extras"] or "client,server").split(",")) if found else None
    return f"chainserve[{extras}]{found['rest']}" if found and extras else None


def new_constraint(text: str) -> str | None:
    """Return the same without extras, which pip refuses in a constraint."""
    new = new_requirement(text)
    return None if new is None else re.sub(r"\[[^\]]*\]", "", new, count=1)


def new_extras(names: list[str]) -> str | None:
    """Return the extras in place of LangServe's; None if there is another."""
    extras = {name.strip().lower() for name in names} - {""}
    return ",".join(sorted(extras)) if extras and extras <= _EXTRAS else None


def requires(package: str, line: str) -> bool:
    """Tell whether a line names a package, however it is spelt."""
    name = package.replace("-", "[-_.]")
    return re.search(rf"(?i)\b{name}\b(?!-)", line) is not None


class RequirementsText:
    """A text with requirements in it, while they are exchanged."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = Lines(text)
        self._edits: list[Edit] = []
        self._notes: list[Note] = []
        self._settled: set[int] = set()

    def exchange(self, start: int, end: int, quote: str = "", *, constrain: bool = False) -> None:
        """Exchange a requirement, or a constraint, which is all that is between two characters."""
        old = self.text[start:end]
        new = new_constraint(old) if constrain else new_requirement(old)
        if new is not None:
            self.edit(start, end, f"{quote}{new}{quote}")
            if "[" not in old and not constrain:
                self.note(start, "differs", WITHOUT_EXTRA)
        elif _NAMES_LANGSERVE.match(old):
            self.note(start, "by hand", UNKNOWN)

    def edit(self, start: int, end: int, new: str) -> None:
        """Exchange a piece of text for the requirement of chainserve, or for a part of it."""
        self._edits.append(Edit(start, end, new))
        self.note(start, "differs", NOT_PUBLISHED, once=True)

    def note(self, offset: int, kind: NoteKind, message: str, *, once: bool = False) -> None:
        """Say something of the line that a character is in."""
        self._notes.append(Note(self._lines.number(offset), kind, message, once=once))
        if kind == "by hand":
            self.settle(offset)

    def settle(self, offset: int) -> None:
        """Leave out the line that a character is in where what is left is looked for."""
        self._settled.add(self._lines.number(offset))

    def findings(self, net: Net = leftovers) -> Findings:
        """Return what changes, and what is left; requirements for LangServe alone are named.

        Args:
            net: What is looked for in the text once it has changed.
        """
        if self._edits:
            for line in contents(self.text):
                if requires("sse-starlette", self.text[line.start : line.end]):
                    self.note(line.start, "differs", SSE_STARLETTE)
        left = net(apply(self.text, self._edits), self._settled)
        return Findings.of(self._edits, [*self._notes, *left])


def migrate_constraints(text: str) -> Findings:
    """Return what changes in a `constraints.txt` of pip's."""
    return migrate_requirements(text, constrain=True)


def migrate_requirements(text: str, *, constrain: bool = False) -> Findings:
    """Return what changes in a file of pip's, such as `requirements.txt`.

    Args:
        text: The file.
        constrain: Whether its lines are constraints, which have no extras.
    """
    found = RequirementsText(text)
    for line in contents(text):
        content = text[line.start : line.end]
        if not _NAMES_LANGSERVE.match(content):
            if re.search(r"[#&]egg=langserve\b|/langserve(\.git)?(@|$)", content):
                found.note(line.start, "by hand", UNKNOWN)
        elif content.endswith("\\") or " --hash" in content:
            found.note(line.start, "by hand", LOCKED)
        else:
            found.exchange(line.start, line.end, constrain=constrain)
    return found.findings()


_INI_KEY = re.compile(r"(?P<key>[\w.-]+)[ \t]*[=:][ \t]*")
_INI_KEYS = frozenset(
    {"deps", "install_requires", "requires", "setup_requires", "tests_require", "dependencies"}
)
_INI_NAMES = frozenset({"markers", "keywords", "envlist", "env_list"})
"""Keys of words that are the author's own."""


def migrate_ini(text: str) -> Findings:
    """Return what changes in a `setup.cfg`, a `tox.ini` and the like."""
    found, section, key = RequirementsText(text), "", ""
    for line in contents(text):
        at, assignment = line.start, None
        if text[at] == ";":
            found.settle(at)  # A comment of ini files.
            continue
        if line.indent == 0:
            if text[at] == "[":
                if not text.startswith("[mypy-", at):
                    found.settle(at)
                section, key = text[at + 1 : line.end].rstrip("]"), ""
                continue
            assignment = _INI_KEY.match(text, at, line.end)
        if assignment is not None:
            key, at = assignment["key"], assignment.end()
        if key in _INI_NAMES:
            found.settle(line.start)
        if section == "options.extras_require" or key in _INI_KEYS:
            found.exchange(at, line.end)
            if assignment is not None:
                found.settle(line.start)
    return found.findings()


_ITEM = re.compile(r"-[ \t]+(?P<quote>[\"']?)(?P<value>[^\"']*)(?P=quote)")


def migrate_environment(text: str) -> Findings:
    """Return what changes in an `environment.yml` of conda's."""
    found = RequirementsText(text)
    below_pip = -1
    for line in contents(text):
        item = _ITEM.fullmatch(text, line.start, line.end)
        if item is None:
            continue
        if item["value"] == "pip:":
            below_pip = line.indent
        elif below_pip >= 0 and line.indent > below_pip:
            found.exchange(*item.span("value"))
        else:
            below_pip = -1
            if _NAMES_LANGSERVE.match(item["value"].rpartition("::")[2]):
                found.note(line.start, "by hand", CONDA)
    return found.findings(leftovers_of_yaml)
