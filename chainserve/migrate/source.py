"""A Python module that is being changed: its text, its tree, the edits and the notes."""

import ast
import re
import warnings
from collections.abc import Iterable

from chainserve.migrate.edits import Edit, Note, NoteKind, apply
from chainserve.migrate.lines import Lines
from chainserve.migrate.names import OURS, THEIRS

_PLAIN_LITERAL = re.compile(r"(\"\"\"|'''|\"|')(.*)\1", re.DOTALL)


def parse(text: str) -> ast.Module:
    """Parse source, without a word about what is only dubious in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def dotted(node: ast.AST) -> str | None:
    """Return a name, or attributes of a name, as a path; None for any other expression."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            path = dotted(value)
            return None if path is None else f"{path}.{attr}"
    return None


class Source:
    """One module.

    Who makes an edit in the text makes it in the tree as well, so that in the end the one can be
    held against the other.

    Args:
        text: The source.

    Attributes:
        text: The source as it was.
        tree: Its tree, with the edits made.
        nodes: All nodes of the tree.
        edits: What changes in the text.
        notes: What the author should know.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = parse(text)
        self.nodes = [*ast.walk(self.tree)]
        self.edits: list[Edit] = []
        self.notes: list[Note] = []
        self._lines = Lines(text)

    def start(self, node: ast.AST) -> int:
        """Return the character that a node begins with."""
        return self._lines.offset(getattr(node, "lineno", 1), getattr(node, "col_offset", 0))

    def rename_at(self, offset: int) -> None:
        """Exchange the package's name at a place."""
        self.edits.append(Edit(offset, offset + len(THEIRS), OURS))

    def note(self, node: ast.AST, kind: NoteKind, message: str) -> None:
        """Say something of the line of a node."""
        self.note_line(getattr(node, "lineno", 0), kind, message)

    def note_line(self, line: int, kind: NoteKind, message: str) -> None:
        """Say something of a line."""
        self.notes.append(Note(line, kind, message))

    def by_hand(self, node: ast.AST, *messages: str | None) -> bool:
        """Say what is left to do at a node, if anything is; tell whether it is."""
        told = [message for message in messages if message is not None]
        for message in told:
            self.note(node, "by hand", message)
        return bool(told)

    def exchange(self, node: ast.Constant, value: str) -> None:
        """Exchange the value of a string, or say so where it is not written as it is."""
        inner = self.inner_start(node)
        if inner is None:
            self.by_hand(node, f"Exchange {node.value!r} for {value!r}.")
            return
        self.edits.append(Edit(inner, inner + len(str(node.value)), value))
        node.value = value

    def inner_start(self, node: ast.Constant) -> int | None:
        """Return where a string's text begins, or None where it is not written as it is."""
        end = self._lines.offset(node.end_lineno or 1, node.end_col_offset or 0)
        found = _PLAIN_LITERAL.fullmatch(self.text, self.start(node), end)
        return found.start(2) if found and found[2] == node.value else None

    def line_within(self, node: ast.Constant, offset: int) -> int:
        """Return the line of a character of a string; where it is unknown, the string's first."""
        inner = self.inner_start(node)
        return node.lineno if inner is None else self._lines.number(inner + offset)

    def statements_of_text(self) -> list[ast.Constant]:
        """Return the strings that are statements of their own, as docstrings are."""
        return strings(node.value for node in self.nodes if isinstance(node, ast.Expr))

    def changed_text(self) -> str | None:
        """Return the text with the edits made, or None if that is not what was meant."""
        text = apply(self.text, self.edits)
        try:
            meant = ast.dump(parse(text)) == ast.dump(self.tree)
        except SyntaxError:
            return None
        return text if meant else None


def strings(nodes: Iterable[ast.AST]) -> list[ast.Constant]:
    """Return the nodes that are strings."""
    return [
        node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
