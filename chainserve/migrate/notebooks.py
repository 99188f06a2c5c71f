"""Jupyter notebooks: their code cells, read as one module, since they share their names."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from chainserve.migrate.commands import migrate_commands
from chainserve.migrate.edits import Edit, Findings, Note, apply
from chainserve.migrate.lines import Lines
from chainserve.migrate.python import migrate_python
from chainserve.migrate.source import parse

_MAGIC = re.compile(r"(?m)^([ \t]*)[%!?][^\r\n]*")


@dataclass(frozen=True, slots=True)
class _Cell:
    """A code cell: its number among all cells, and its source."""

    number: int
    content: dict[str, Any]
    text: str


def migrate_notebook(text: str) -> tuple[str, Findings]:
    """Return the notebook with what changes in its code, and the findings.

    Nothing else in the file changes. One that this cannot write as it was written is left alone.
    """
    try:
        notebook = json.loads(text)
        cells = [*_code_cells(notebook)]
    except (ValueError, KeyError, TypeError):
        return text, Findings.failed("not a notebook that can be read here")
    findings, changed = _migrate_cells(cells)
    if not changed:
        return text, findings
    write = _writer_of(notebook, text)
    if write is None:
        message = "cannot be written as it was: exchange langserve for chainserve in it"
        return text, Findings.failed(message)
    for cell, new in changed:
        source = cell.content["source"]
        cell.content["source"] = new if isinstance(source, str) else new.splitlines(keepends=True)
    return write(notebook), findings


def _code_cells(notebook: dict[str, Any]) -> Iterator[_Cell]:
    for number, content in enumerate(notebook["cells"], start=1):
        if content["cell_type"] == "code":
            source = content["source"]
            yield _Cell(number, content, source if isinstance(source, str) else "".join(source))


def _migrate_cells(cells: list[_Cell]) -> tuple[Findings, list[tuple[_Cell, str]]]:
    """Return the findings of all cells, and the cells that change with their new source."""
    readable, notes = [], []
    for cell in cells:
        if cell.text.lstrip().startswith("%%"):
            readable.append(_blank(cell.text))
            continue
        python = _readable(cell.text)
        if python is None and "langserve" in cell.text:
            message = "This cell is not Python that can be read here: change it by hand."
            notes.append(Note(1, "by hand", message, cell.number))
        readable.append(_blank(cell.text) if python is None else python)
    whole = "\n".join(readable)
    findings = migrate_python(whole)
    edits, found = _by_cell(cells, whole, findings)
    changed = []
    for cell, of_cell in zip(cells, edits, strict=True):
        commands = migrate_commands(_only_magics(cell.text))
        of_cell += commands.edits
        found += [replace(note, cell=cell.number) for note in commands.notes]
        if of_cell:
            changed.append((cell, apply(cell.text, of_cell)))
    all_edits = [edit for of_cell in edits for edit in of_cell]
    return Findings(tuple(all_edits), tuple(sorted({*notes, *found}))), changed


def _by_cell(
    cells: list[_Cell], whole: str, findings: Findings
) -> tuple[list[list[Edit]], list[Note]]:
    """Return the edits of each cell, and the notes as they are counted in cells."""
    edits: list[list[Edit]] = [[] for _ in cells]
    lines, start = Lines(whole), 0
    notes: list[Note] = []
    for cell, of_cell in zip(cells, edits, strict=True):
        end = start + len(cell.text)
        for edit in findings.edits:
            if start <= edit.start <= end:
                of_cell.append(Edit(edit.start - start, edit.end - start, edit.text))
        first, last = lines.number(start), lines.number(end)
        notes += [
            replace(note, line=note.line - first + 1, cell=cell.number)
            for note in findings.notes
            if first <= note.line <= last
        ]
        start = end + 1
    return edits, [*notes, *(note for note in findings.notes if note.line == 0)]


def _readable(text: str) -> str | None:
    """Return a cell as Python, with its magics out of the way; None if it is none."""
    for candidate in (text, _MAGIC.sub(_as_statement, text)):
        try:
            parse(candidate)
        except (SyntaxError, ValueError):
            continue
        return candidate
    return None


def _as_statement(magic: re.Match[str]) -> str:
    """Return a statement as long as the line of a magic or of a shell command."""
    length = len(magic[0]) - len(magic[1])
    return magic[1] + ("pass".ljust(length) if length >= len("pass") else "0".ljust(length))


def _blank(text: str) -> str:
    """Return comments and empty lines in place of a text that is no Python."""
    return re.sub(r"(?m)^[^\r\n]", "#", text)


def _only_magics(text: str) -> str:
    """Return the lines that are commands, and all others as blanks, each where it was."""
    if text.lstrip().startswith("%%"):
        return text
    return re.sub(r"(?m)^(?![ \t]*[%!])[^\r\n]+", lambda line: " " * len(line[0]), text)


def _writer_of(notebook: Any, text: str) -> Callable[[Any], str] | None:
    """Return what writes the notebook as this file was written; None if nothing here does."""
    end = text[len(text.rstrip()) :]
    line_end = "\r\n" if "\r\n" in text else "\n"  # A string of JSON has none, so all are the same.
    for form in _FORMS:

        def write(value: Any, form: dict[str, Any] = form) -> str:
            return json.dumps(value, **form).replace("\n", line_end) + end

        if write(notebook) == text:
            return write
    return None


_SPACES: list[dict[str, Any]] = [
    *({"indent": indent} for indent in (1, 2, 4, "\t", None)),
    {"separators": (",", ":")},
]
_FORMS = [
    {**spaces, "ensure_ascii": ascii_only} for spaces in _SPACES for ascii_only in (False, True)
]
"""How programs write notebooks; the first is Jupyter's own."""
