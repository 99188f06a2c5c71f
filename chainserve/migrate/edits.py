"""What a migration does to a text, and what it says of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

NoteKind: TypeAlias = Literal["by hand", "differs", "failed"]
"""What is left to do, what behaves differently on purpose, and what could not be looked at."""


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """A piece of a text, by its characters, and what takes its place."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """What a reader should know of a line.

    Attributes:
        line: The line, from 1; 0 is the file as a whole.
        kind: What kind of note it is.
        message: A sentence that says what to do.
        cell: In a notebook the cell that the line is counted in, from 1.
        once: Whether it is told of the first place alone.
        unless_required: The package that, where it is required, leaves nothing to say.
    """

    line: int
    kind: NoteKind
    message: str
    cell: int = 0
    once: bool = False
    unless_required: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """The changes of a text, and the notes on it."""

    edits: tuple[Edit, ...] = ()
    notes: tuple[Note, ...] = ()

    @classmethod
    def of(cls, edits: Iterable[Edit], notes: Iterable[Note]) -> "Findings":
        """Return them in order, each once."""
        return cls(tuple(sorted({*edits})), tuple(sorted({*notes})))

    @classmethod
    def failed(cls, message: str, line: int = 0) -> "Findings":
        """Return the one note that the text could not be looked at."""
        return cls(notes=(Note(line, "failed", message),))


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Return the text with all edits made; they must not overlap."""
    pieces, at = [], 0
    for edit in sorted(edits):
        pieces += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*pieces, text[at:]])
