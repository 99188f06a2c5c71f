"""Strings that are paths below langserve, as in `mock.patch("langserve.client.…")`."""

import ast
import re
from collections.abc import Iterator

from chainserve.migrate.imports import annotation_strings
from chainserve.migrate.names import OURS, THEIRS, is_known, is_theirs, renamed, why_not
from chainserve.migrate.requirements import new_requirement
from chainserve.migrate.source import Source, dotted, strings

_PATH = re.compile(r"langserve(\.\w+)+(?=(:\w+)?\Z)")
_IMPORTERS = frozenset(
    {
        "__import__",
        "distribution",
        "find_spec",
        "get_distribution",
        "import_module",
        "importorskip",
        "metadata",
        "version",
    }
)
"""Functions whose argument is the name of a module or of a distribution."""

_FORM_OF_REQUIREMENT = re.compile(
    r"[^;]*[\[=<>~!]|[^;]*;.*\b(?:python_\w*version|(?:sys_)?platform|os_name|extra)",
    re.DOTALL,
)
"""What tells a requirement from a word: extras, versions, a marker."""

_REQUIRES = re.compile(r"\w+_requires?|requires")
_INSTALLS = frozenset({"install", "add"})


def change_strings(source: Source, *, declare_requirements: bool) -> None:
    """Exchange the paths that are arguments of calls, and tell of others.

    Args:
        source: The module.
        declare_requirements: Whether its strings may be requirements, as those of a `setup.py`.
    """
    arguments = _arguments(source)
    parts = _parts(source)
    required = {id(node) for node in _required(source, declare=declare_requirements)}
    quiet = {id(node) for node in [*annotation_strings(source), *source.statements_of_text()]}
    for node in strings(source.nodes):
        value = str(node.value)
        if THEIRS not in value.lower() or id(node) in quiet:
            continue
        if id(node) in parts:
            if is_theirs(value.rstrip(".")) and value != THEIRS:
                source.by_hand(node, f"This makes a path below {THEIRS}: exchange it by hand.")
            continue
        may_be = id(node) in required or _FORM_OF_REQUIREMENT.match(value) is not None
        if not (may_be and _requirement(source, node, declare=declare_requirements)):
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


def _required(source: Source, *, declare: bool) -> Iterator[ast.Constant]:
    """Yield the strings that are requirements by where they stand, whatever is in them.

    Args:
        source: The module.
        declare: Whether it is one that says what is required, as a `setup.py` does.
    """
    lists = [node for node in source.nodes if _is_install(node)]
    if declare:
        lists += _declared(source)
        asked = {
            node.id for list_ in lists for node in ast.walk(list_) if isinstance(node, ast.Name)
        }
        lists += [value for name, value in _given(source) if name in asked]
    for list_ in lists:
        yield from strings(_items(list_))


def _is_install(node: ast.AST) -> bool:
    """Tell whether a list, or a call with such arguments, is a command that installs."""
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Call(args=items):
            return not _INSTALLS.isdisjoint(str(item.value) for item in strings(items))
    return False


def _declared(source: Source) -> Iterator[ast.AST]:
    """Yield what is given as requirements: to `setup(install_requires=…)`, `session.install(…)`."""
    for node in source.nodes:
        match node:
            case ast.keyword(arg=str(name), value=value) if _REQUIRES.fullmatch(name):
                yield value
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and _REQUIRES.fullmatch(str(key.value)):
                        yield value
            case ast.Call(func=ast.Attribute(attr="install")):
                yield node


def _given(source: Source) -> Iterator[tuple[str, ast.AST]]:
    """Yield the values that names are given, and what is added to them."""
    for node in source.nodes:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                | ast.AugAssign(target=ast.Name(id=name), value=value)
            ):
                yield name, value
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append" | "extend")):
                yield name, node


def _items(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in a list, in a table's values or in what a call is given."""
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            inner = items
        case ast.Dict(values=items) | ast.Call(args=items):
            inner = items
        case ast.BinOp(left=left, right=right):
            inner = [left, right]
        case _:
            yield node
            return
    for item in inner:
        yield from _items(item)


def _requirement(source: Source, node: ast.Constant, *, declare: bool) -> bool:
    """Exchange or tell of a requirement; tell whether it is one."""
    value = str(node.value)
    requirement = new_requirement(value)
    if requirement is None:
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
