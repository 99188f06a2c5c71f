"""The lines of a text, whatever ends them."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

_LINE_END = re.compile(r"\r\n|\r|\n")
_COMMENT = re.compile(r"(?<![^ \t])#")


class Lines:
    """Where the lines of a text begin."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._columns: dict[int, list[int]] = {}
        self.starts = [0, *(found.end() for found in _LINE_END.finditer(text))]

    def number(self, offset: int) -> int:
        """Return the line, from 1, that a character is in."""
        return bisect_right(self.starts, offset)

    def text(self, line: int) -> str:
        """Return a line with what ends it."""
        end = self.starts[line] if line < len(self.starts) else len(self._text)
        return self._text[self.starts[line - 1] : end]

    def offset(self, line: int, utf8_column: int) -> int:
        """Return the character at a position as `ast` gives it."""
        if line not in self._columns:
            sizes = (len(character.encode()) for character in self.text(line))
            self._columns[line] = [*accumulate(sizes)]
        return self.starts[line - 1] + bisect_right(self._columns[line], utf8_column)


@dataclass(frozen=True, slots=True)
class Line:
    """What is in a line beside blanks around it and a comment behind it.

    Attributes:
        start: The first character.
        end: The one behind the last.
        indent: How many blanks come before it.
    """

    start: int
    end: int
    indent: int


def without_comment(line: str) -> str:
    """Return a line without the comment behind it, which `#` begins."""
    comment = _COMMENT.search(line)
    return line if comment is None else line[: comment.start()]


def contents(text: str) -> Iterator[Line]:
    """Yield the lines that hold more than blanks and a comment."""
    for line in re.finditer(r"[^\r\n]+", text):
        content = without_comment(line[0])
        indent = len(content) - len(content.lstrip())
        if indent < len(content):
            yield Line(line.start() + indent, line.start() + len(content.rstrip()), indent)
