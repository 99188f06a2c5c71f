"""Requirements: what they become, in pip's files, ini files, conda's environments and commands."""

import re

from chainserve.migrate.edits import Edit, Findings, Lines, Note, NoteKind

_SPECIFIER = r"(?:===?|~=|!=|<=?|>=?)\s*[\w.*+!-]+"
_REQUIREMENT = re.compile(
    rf"""langserve
    (?:\s*\[(?P<extras>[\w\s,.-]*)\])?
    (?:\s*\(?\s*{_SPECIFIER}(?:\s*,\s*{_SPECIFIER})*(?:\s*,)?(?:\s*\))?)?
    (?P<rest>\s*(?:;.*)?)""",
    re.IGNORECASE | re.VERBOSE,
)
_NAMES_LANGSERVE = re.compile(r"(?i)(?<![\w./-])langserve(?![\w-])")
_EXTRAS = frozenset({"all", "client", "server"})

UNKNOWN = "Write the requirement of chainserve yourself: its extras are all, client and server."
NOT_PUBLISHED = "chainserve is not on PyPI yet: install it from a clone, as its README shows."
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


def new_extras(names: list[str]) -> str | None:
    """Return the extras in place of LangServe's; None if there is another."""
    extras = {name.strip().lower() for name in names} - {""}
    return ",".join(sorted(extras)) if extras and extras <= _EXTRAS else None


class RequirementsText:
    """A text with requirements in it, while they are exchanged."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = Lines(text)
        self._edits: list[Edit] = []
        self._notes: list[Note] = []

    def exchange(self, start: int, end: int) -> None:
        """Exchange a requirement, which is all that is between two characters."""
        old = self.text[start:end]
        new = new_requirement(old)
        if new is not None:
            self.edit(start, end, new)
            if "[" not in old:
                self.note(start, "differs", WITHOUT_EXTRA)
        elif _NAMES_LANGSERVE.match(old):
            self.note(start, "by hand", UNKNOWN)

    def edit(self, start: int, end: int, new: str) -> None:
        """Exchange a piece of text for the requirement of chainserve, or for a part of it."""
        self._edits.append(Edit(start, end, new))
        self.note(start, "differs", NOT_PUBLISHED)

    def note(self, offset: int, kind: NoteKind, message: str) -> None:
        """Say something of the line that a character is in."""
        self._notes.append(Note(self._lines.number(offset), kind, message))

    def findings(self) -> Findings:
        """Return what changes; requirements that were there for LangServe alone are named."""
        if self._edits:
            for found in re.finditer(r"(?im)^[^#\n]*?\bsse[-_.]starlette\b(?!-)", self.text):
                self.note(found.end(), "differs", SSE_STARLETTE)
        return Findings.of(self._edits, self._notes)


_PIP_LINE = re.compile(r"(?m)^[ \t]*(?P<line>[^#\s][^\r\n]*?)(?P<comment>(?:[ \t]+#[^\r\n]*)?)\r?$")


def migrate_requirements(text: str) -> Findings:
    """Return what changes in a file of pip's, such as `requirements.txt`."""
    found = RequirementsText(text)
    for line in _PIP_LINE.finditer(text):
        if line["line"].endswith("\\") or " --hash" in line["line"]:
            if _NAMES_LANGSERVE.match(line["line"]):
                found.note(line.start("line"), "by hand", LOCKED)
        elif _NAMES_LANGSERVE.match(line["line"]):
            found.exchange(line.start("line"), line.end("line"))
        elif re.search(r"[#&]egg=langserve\b|/langserve(\.git)?(@|$)", line["line"]):
            found.note(line.start("line"), "by hand", UNKNOWN)
    return found.findings()


_INI_LINE = re.compile(
    r"(?m)^(?:\[(?P<section>[^\]\r\n]+)\]|(?P<key>[\w.-]+)[ \t]*[=:][ \t]*|[ \t]+)"
    r"(?P<value>[^#\r\n]*?)[ \t]*(?:#[^\r\n]*)?\r?$"
)
_INI_KEYS = frozenset(
    {"deps", "install_requires", "requires", "setup_requires", "tests_require", "dependencies"}
)


def migrate_ini(text: str) -> Findings:
    """Return what changes in a `setup.cfg` or a `tox.ini`."""
    found, section, key = RequirementsText(text), "", ""
    for line in _INI_LINE.finditer(text):
        section, key = line["section"] or section, line["key"] or key
        if section == "options.extras_require" or key in _INI_KEYS:
            found.exchange(line.start("value"), line.end("value"))
    return found.findings()


_YAML_ITEM = re.compile(
    r"(?m)^(?P<indent>[ \t]*)-[ \t]+(?P<quote>[\"']?)(?P<value>[^\"'#\r\n]*?)(?P=quote)"
    r"[ \t]*(?:#[^\r\n]*)?\r?$"
)


def migrate_environment(text: str) -> Findings:
    """Return what changes in an `environment.yml` of conda's."""
    found = RequirementsText(text)
    below_pip = -1
    for item in _YAML_ITEM.finditer(text):
        indent = len(item["indent"])
        if item["value"] == "pip:":
            below_pip = indent
        elif below_pip >= 0 and indent > below_pip:
            found.exchange(item.start("value"), item.end("value"))
        else:
            below_pip = -1
            if _NAMES_LANGSERVE.match(item["value"].rpartition("::")[2]):
                found.note(item.start("value"), "by hand", CONDA)
    return found.findings()


_COMMAND = re.compile(
    r"(?<![\w.-])(?P<tool>pip[\d.]*|uv|poetry|pdm|pipenv|conda|mamba|micromamba)\b"
    r"(?:[^\\\r\n;&|#]|\\(?:\r\n|\n|.))*"
)
_INSTALLS = re.compile(r"[\s\"',](?:install|add)[\s\"',]")
_WORD = re.compile(
    r"(?P<quote>[\"'])(?P<quoted>langserve(?![\w-])[^\"'\r\n]*)(?P=quote)"
    r"|(?<![\w./@\"'-])(?P<plain>langserve(?![\w-])(?:\[[\w,.-]*\])?(?:[=~]=[\w.*+!-]+)?)"
    r"(?P<more>[^\s\"'\])]*)",
    re.IGNORECASE,
)


def migrate_commands(text: str) -> Findings:
    """Return what changes in a `Dockerfile`, a shell script, or whatever else has commands."""
    found = RequirementsText(text)
    for command in _COMMAND.finditer(text):
        if not _INSTALLS.search(command[0]) or _is_comment(text, command.start()):
            continue
        for word in _WORD.finditer(text, command.start(), command.end()):
            if command["tool"].endswith(("conda", "mamba")):
                found.note(word.start(), "by hand", CONDA)
            elif word["more"]:
                found.note(word.start(), "by hand", UNKNOWN)
            else:
                group = "quoted" if word["quoted"] else "plain"
                found.exchange(word.start(group), word.end(group))
    return found.findings()


def _is_comment(text: str, offset: int) -> bool:
    return text[text.rfind("\n", 0, offset) + 1 : offset].lstrip().startswith("#")
