"""What is left to a person once all else has changed: the net below everything else."""

import re
from collections.abc import Container, Iterator

from chainserve.migrate.edits import Note
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
_TEMPLATES = re.compile(r"\blangchain[\"', \t]+serve\b")


def leftovers(text: str, settled: Container[int]) -> Iterator[Note]:
    """Yield what a text still says of langserve, and of what chainserve does not run with.

    Args:
        text: The text as it is after all changes.
        settled: The lines of which all was said.
    """
    lines = Lines(text)
    for line in contents(text):
        number = lines.number(line.start)
        if number not in settled:
            for message in _of_line(text[line.start : line.end]):
                yield Note(number, "by hand", message)


def old_pythons(text: str) -> Iterator[Note]:
    """Yield the lines that ask for a Python, or allow one, that chainserve does not run with."""
    lines = Lines(text)
    for line in contents(text):
        if _OLD_PYTHON.match(text, line.start, line.end):
            yield Note(lines.number(line.start), "by hand", OLD_PYTHON)


def _of_line(line: str) -> Iterator[str]:
    if _LEFT.search(line) and not _OWN_NAME.match(line):
        yield LEFT
    if _OLD_PYTHON.match(line):
        yield OLD_PYTHON
    if _TEMPLATES.search(line):
        yield TEMPLATES
