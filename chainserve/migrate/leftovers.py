"""What is left to a person once all else has changed: the net below everything else."""

import re
from collections.abc import Container, Iterator

from chainserve.migrate.edits import Findings, Note
from chainserve.migrate.lines import Lines, contents
from chainserve.migrate.names import KNOWN

LEFT = "This names langserve: write chainserve where the package is meant."
OLD_PYTHON = "chainserve needs Python 3.11 or later: raise what is asked for here."
TEMPLATES = (
    "This is LangChain's command for LangServe's templates: "
    "start the server with uvicorn, as in: uvicorn app.server:app"
)

WORD = rf"""(?<![\w./@-])langserve(?![\w/@-]|:\w|\.(?!\*|(?:{"|".join(sorted(KNOWN))})\b))"""
"""The package or what is below it: no path of files, no host, no part of another name."""

_LEFT = re.compile(
    rf"(?<!\w\[)(?<!\.\[)(?<!,){WORD}"  # Between brackets it is an extra of another package.
    r"|langchain-ai/langserve\b|\blangserve-\d|(?<=\[mypy-)langserve\b"
)
_INSTALLER = re.compile(r"\b(?:pip[\d.]*x?|uvx?|poetry|pdm|pipenv|rye|conda|mamba|micromamba)\b")
_INSTALLS = re.compile(r"\b(?:install|add|uninstall|remove|download|show)\b")
_WITH = re.compile(r"--with[ =][\"']?langserve(?![\w.-])")
_BETWEEN = r"[\s\"',\\]+"

NO_PACKAGE = "".join(
    rf"(?<!{option}[ =])"
    for option in ("--extra", "--extras", "-E", "--group", "-G", "--with", "--only", "--name", "-n")
)
"""What does not come before a package in a command: options for extras, groups, environments."""

_PACKAGE = re.compile(rf"(?<=[\s\"']){NO_PACKAGE}langserve(?![\w@:/.-])")
_SURE = re.compile(
    rf"\bpython[\d.]*(?:{_BETWEEN}-[A-Za-z]+){{0,9}}?{_BETWEEN}-m{_BETWEEN}langserve\b"
    r"|\bimport[ \t]+langserve\b|\bfrom[ \t]+langserve(?:\.\w+)*[ \t]+import\b"
    r"|(?:distribution|files|find_spec|import_module|metadata|requires|version)"
    r"\(\\?[\"']langserve\\?[\"']"
    rf"|(?<![\w./@:-])langserve\.(?:{'|'.join(sorted(KNOWN))})\b(?![./])"
    r"|(?<![\w./@-])(?i:langserve)(?:[=~!<>]=|\[(?:all|client|server)\b)"
    r"|langchain-ai/langserve\b|\blangserve-\d+\.\d"
)
"""The package for sure, where the word may as well be a service, a target, a stage or a host."""

_YAML_KEY = re.compile(r"(?P<dashes>(?:-[ \t]+)*)[\"']?(?P<key>[\w.-]+)[\"']?[ \t]*:(?![^ \t])")
_YAML_LISTS = re.compile(
    r"(?:[\w-]+[_-])?(?:dependencies|requirements)|(?:pip|python)[_-]packages|loggers"
)
_YAML_PIP = re.compile(r"(?:ansible\.builtin\.)?pip")

_OWN_NAME = re.compile(
    r"(?i)(?:-[ \t]+)?[\"']?(?:name|description|keywords|title|summary|image|container_name)"
    r"[\"']?[ \t]*[:=]"
)
_OLD_PYTHON = re.compile(
    r"(?i)(?:from[ \t][^#]{0,200}?\bpython:"
    r"|(?:-[ \t]+)?[\"']?(?:python|requires[-_]python|python[-_](?:requires|version))"
    r"[\"']?[ \t]*[:=<>~^])"
    r"[^#]{0,200}?(?:(?<!!=)(?<!!=[ \t])(?<![\w.])3\.(?:\d|10)(?!\d)|<[ \t]*3\.11(?!\d))"
)
_OLD_VERSION = re.compile(r"(?i)(?:c?python[-@ ]?|pypy-?)?(?:2\.\d|3\.(?:\d|10)(?!\d))")
_TEMPLATES = re.compile(r"\blangchain[\"', \t]+serve\b")


def leftovers(text: str, settled: Container[int]) -> Iterator[Note]:
    """Yield what a text still says of langserve, and of what chainserve does not run with.

    Args:
        text: The text as it is after all changes.
        settled: The lines of which all was said.
    """
    for number, line in _lines(text, settled):
        if _LEFT.search(line) and not _OWN_NAME.match(line):
            yield Note(number, "by hand", LEFT)
        yield from _too_old(number, line)


def leftovers_of_commands(text: str, settled: Container[int]) -> Iterator[Note]:
    """Yield the same of a text with commands: most that is called langserve there is the author's.

    Services, targets, stages, hosts, images and labels are, and so are words that are printed.
    """
    for number, line in _lines(text, settled):
        if _means_package(line):
            yield Note(number, "by hand", LEFT)
        yield from _too_old(number, line)


def leftovers_of_yaml(text: str, settled: Container[int]) -> Iterator[Note]:
    """Yield the same of a YAML file, which may list what it depends on."""
    yield from leftovers_of_commands(text, settled)
    lines = Lines(text)
    above: list[tuple[int, str]] = []
    for line in contents(text):
        content, number = text[line.start : line.end], lines.number(line.start)
        is_item = content.startswith("-")
        while above and (
            above[-1][0] > line.indent or (above[-1][0] == line.indent and not is_item)
        ):
            above.pop()
        if (key := _YAML_KEY.match(content)) is not None:
            above.append((line.indent + len(key["dashes"]), key["key"]))
        if number not in settled and _LEFT.search(content) and _is_listed(content, above):
            yield Note(number, "by hand", LEFT)


def _is_listed(line: str, above: list[tuple[int, str]]) -> bool:
    """Tell whether what a line names is a package, by the keys that it is below."""
    if any(_YAML_PIP.fullmatch(key) for _, key in above):
        return True
    return any(_YAML_LISTS.fullmatch(key) for _, key in above) and not _OWN_NAME.match(line)


def is_sure(text: str) -> bool:
    """Tell whether a text is sure to mean the package, or starts it as LangChain's command does."""
    return _means_package(text) or _TEMPLATES.search(text) is not None


def _means_package(line: str) -> bool:
    return _SURE.search(line) is not None or any(map(_installs, re.split("[;&|]", line)))


def _installs(command: str) -> bool:
    """Tell whether a command is one that installs the package, or takes it away."""
    at = 0
    for part in (_INSTALLER, _INSTALLS, _PACKAGE):
        found = part.search(command, at)
        if found is None:
            return re.search(r"\buvx?\b", command) is not None and bool(_WITH.search(command))
        at = found.end()
    return True


def old_pythons(text: str) -> Iterator[Note]:
    """Yield the lines that ask for a Python, or allow one, that chainserve does not run with."""
    lines = Lines(text)
    for line in contents(text):
        if _OLD_PYTHON.match(text, line.start, line.end):
            yield Note(lines.number(line.start), "by hand", OLD_PYTHON)


def version_files(text: str) -> Findings:
    """Return which Pythons are too old in a `.python-version` or a `runtime.txt`."""
    notes = [
        Note(number, "by hand", OLD_PYTHON)
        for number, line in _lines(text, ())
        if _OLD_VERSION.match(line)
    ]
    return Findings.of((), notes)


def _lines(text: str, settled: Container[int]) -> Iterator[tuple[int, str]]:
    lines = Lines(text)
    for line in contents(text):
        number = lines.number(line.start)
        if number not in settled:
            yield number, text[line.start : line.end]


def _too_old(number: int, line: str) -> Iterator[Note]:
    if _OLD_PYTHON.match(line):
        yield Note(number, "by hand", OLD_PYTHON)
    if _TEMPLATES.search(line):
        yield Note(number, "by hand", TEMPLATES)
