"""Strings that are paths below langserve, as in `mock.patch("langserve.client.…")`."""

import ast
import re

from chainserve.migrate.imports import annotation_strings
from chainserve.migrate.names import OURS, THEIRS, is_known, is_theirs, renamed, why_not
from chainserve.migrate.requirements import new_requirement
from chainserve.migrate.source import Source, dotted, strings

_PATH = re.compile(r"langserve(\.\w+)+(?=(:\w+)?\Z)")
_IMPORTERS = frozenset(
    {"__import__", "distribution", "find_spec", "import_module", "importorskip", "metadata"}
    | {"version"}
)
"""Functions whose argument is the name of a module or of a distribution."""


def change_strings(source: Source, *, declare_requirements: bool) -> None:
    """Exchange the paths that are arguments of calls, and tell of others.

    Args:
        source: The module.
        declare_requirements: Whether its strings may be requirements, as those of a `setup.py`.
    """
    arguments = _arguments(source)
    parts = _parts(source)
    quiet = {id(node) for node in [*annotation_strings(source), *source.statements_of_text()]}
    for node in strings(source.nodes):
        value = str(node.value)
        if THEIRS not in value.lower() or id(node) in quiet:
            continue
        if id(node) in parts:
            if is_theirs(value.rstrip(".")) and value != THEIRS:
                source.by_hand(node, f"This makes a path below {THEIRS}: exchange it by hand.")
        elif not _requirement(source, node, declare=declare_requirements):
            _path(source, node, arguments.get(id(node)))


def _arguments(source: Source) -> dict[int, str]:
    """Return the nodes that are arguments of calls, with the name of what is called."""
    return {
        id(value): (dotted(node.func) or "").rpartition(".")[2]
        for node in source.nodes
        if isinstance(node, ast.Call)
        for value in [*node.args, *(keyword.value for keyword in node.keywords)]
    }


def _parts(source: Source) -> set[int]:
    """Return the strings that are only a part of one that is put together."""
    parts: set[int] = set()
    for node in source.nodes:
        match node:
            case ast.JoinedStr(values=values):
                parts.update(map(id, values))
            case ast.BinOp(left=left, right=right):
                parts |= {id(left), id(right)}
    return parts


def _requirement(source: Source, node: ast.Constant, *, declare: bool) -> bool:
    """Exchange or tell of a requirement; tell whether it is one."""
    value = str(node.value)
    requirement = new_requirement(value)
    if requirement is None or (value == THEIRS and not declare):
        return False
    if declare:
        source.exchange(node, requirement)
    else:
        source.by_hand(node, f"This asks for {value!r}: write {requirement!r}.")
    return True


def _path(source: Source, node: ast.Constant, called: str | None) -> None:
    value = str(node.value)
    found = _PATH.match(value)
    if value == THEIRS and called in _IMPORTERS:
        source.exchange(node, OURS)
    elif value == THEIRS and called == "getLogger":
        source.by_hand(node, f"The logger of chainserve is called {OURS!r}.")
    elif found is not None:
        reason = why_not(found[0])
        if called is not None and reason is None:
            source.exchange(node, renamed(value))
        elif is_known(found[0]) or called in _IMPORTERS:
            source.by_hand(node, reason or f"This names {value!r}: write {renamed(value)!r}.")
