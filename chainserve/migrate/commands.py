"""Commands that install: in Dockerfiles, scripts, Makefiles, YAML files and notebooks."""

import re
from functools import reduce

from chainserve.migrate.edits import Findings
from chainserve.migrate.leftovers import NO_PACKAGE, leftovers_of_commands, leftovers_of_yaml
from chainserve.migrate.lines import Lines, without_comment
from chainserve.migrate.requirements import CONDA, HASHED, UNKNOWN, RequirementsText

QUOTES = 'Write "chainserve[client,server]" here, in quotes that what is around it leaves whole.'

_COMMENT_LINE = re.compile(r"(?m)^[ \t]*#")
_COMMAND = re.compile(
    r"(?<![\w.-])(?P<tool>pip[\d.]*|uv|poetry|pdm|pipenv|conda|mamba|micromamba)\b"
    r"(?:[^\\\r\n;&|#]|\\(?:\r\n|\n|.))*"
)
_INSTALLS = re.compile(r"[\s\"',](?:install|add)[\s\"',]")
_WORD = re.compile(
    r"(?P<quote>[\"'])(?P<quoted>langserve(?![\w-])[^\"'\r\n]*)(?P=quote)"
    rf"|(?<=\s){NO_PACKAGE}(?P<plain>langserve(?![\w-])(?:\[[\w,.-]*\])?(?:[=~]=[\w.*+!-]+)?)"
    r"(?P<more>[^\s\"'\])]*)",
    re.IGNORECASE,
)


def migrate_commands(text: str) -> Findings:
    """Return what changes in a `Dockerfile`, a shell script, or whatever else has commands."""
    return _migrated(text, in_yaml=False)


def migrate_yaml(text: str) -> Findings:
    """Return what changes in the commands of a YAML file."""
    return _migrated(text, in_yaml=True)


def _migrated(text: str, *, in_yaml: bool) -> Findings:
    found, around, lines = RequirementsText(text), _Around(text, in_yaml=in_yaml), Lines(text)
    comments = {lines.number(comment.end()) for comment in _COMMENT_LINE.finditer(text)}
    for command in _COMMAND.finditer(text):
        if not _INSTALLS.search(command[0]) or lines.number(command.start()) in comments:
            continue
        why_not = _why_not(command)
        for word in _WORD.finditer(text, command.start(), command.end()):
            quote = "" if word["quoted"] else around.quote_at(word.start())
            if why_not or word["more"]:
                found.note(word.start(), "by hand", why_not or UNKNOWN)
            elif quote is None:
                found.note(word.start(), "by hand", QUOTES)
            else:
                found.exchange(*word.span("quoted" if word["quoted"] else "plain"), quote=quote)
    return found.findings(leftovers_of_yaml if in_yaml else leftovers_of_commands)


def _why_not(command: re.Match[str]) -> str | None:
    if command["tool"].endswith(("conda", "mamba")):
        return CONDA
    return HASHED if "--hash" in command[0] else None


class _Around:
    """What is open around a place in a text: quotes and brackets of its line.

    A requirement with extras is quoted, since to a shell its brackets are a pattern, and to YAML a
    list.
    """

    def __init__(self, text: str, *, in_yaml: bool) -> None:
        self._in_yaml = in_yaml
        self._lines = Lines(text)
        self._goes_on: dict[int, bool] = {}
        self._tokens = re.finditer(r"\\.|[\r\n]|\S", text)
        self._next = next(self._tokens, None)
        self._last = ""
        self._quotes = ""
        self._brackets = 0

    def quote_at(self, offset: int) -> str | None:
        """Return the quote to put a word in, which is behind the last one; None if none is left."""
        while self._next is not None and self._next.start() < offset:
            self._read(self._next[0])
            self._next = next(self._tokens, None)
        cuts_words = self._in_yaml and self._brackets > 0 and not self._quotes
        if self._ends_in_quotes(self._lines.number(offset)) or (
            cuts_words and self._last not in "[,"
        ):
            return None
        return {"": '"', '"': "'", "'": '"'}.get(self._quotes)

    def _read(self, token: str) -> None:
        if token in "\r\n":
            self._quotes, self._brackets = "", 0
        elif token in "\"'":
            self._quotes = _with_quote(self._quotes, token)
        elif not self._quotes and token in "[]{}":
            self._brackets += 1 if token in "[{" else -1
        self._last = token

    def _ends_in_quotes(self, number: int) -> bool:
        """Tell whether a line opens quotes that it does not close, or the other way round."""
        if number not in self._goes_on:
            line = without_comment(self._lines.text(number))
            quotes = (found[0] for found in re.finditer(r"\\.|[\"']", line) if len(found[0]) == 1)
            self._goes_on[number] = reduce(_with_quote, quotes, "") != ""
        return self._goes_on[number]


def _with_quote(quotes: str, quote: str) -> str:
    """Return the quotes that are open once another is read, the outermost first."""
    before, found, _ = quotes.partition(quote)
    return before if found else before + quote
