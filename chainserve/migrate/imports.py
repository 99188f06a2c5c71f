"""Imports of langserve, and the names that they bind.

A binding is changed with all its uses or not at all, so that each name is one package's.
Nothing but the word itself is exchanged.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from chainserve.migrate.edits import Edit
from chainserve.migrate.names import OURS, THEIRS, TOP_LEVEL, is_theirs, renamed, why_not
from chainserve.migrate.source import Source, dotted, strings

_BEFORE_MODULE = re.compile(r"from(?:\s|\\(?:\r\n|\r|\n))*(?=langserve\b)")
_WORD_IN_ANNOTATION = re.compile(r"(?<![\w.])langserve\b")


def change_imports(source: Source) -> None:
    """Change the imports that can be changed, with the uses of what they bind."""
    binders, paths = _binders(source), _paths(source)
    for node in source.nodes:
        match node:
            case ast.ImportFrom(level=0, module=str(module)) if is_theirs(module):
                _import_from(source, node, module)
            case ast.ImportFrom(names=names) if any(name.name == THEIRS for name in names):
                source.by_hand(node, f"Import {OURS} itself, not {THEIRS} from another module.")
            case ast.Import(names=names):
                for name in names:
                    if name.asname is not None and is_theirs(name.name):
                        other = name.asname in binders
                        _import_as(source, name, [] if other else paths[name.asname])
    names = [name for name in _imported(source) if name.asname is None and is_theirs(name.name)]
    if names and not _is_blocked(source, names, binders, paths[THEIRS]):
        _plain_imports(source, names)


def _import_from(source: Source, node: ast.ImportFrom, module: str) -> None:
    if source.by_hand(node, *_why_not_from(node, module)):
        return
    found = _BEFORE_MODULE.match(source.text, source.start(node))
    source.rename_at(found.end() if found else source.start(node))
    node.module = renamed(module)
    if node.names[0].name == "*":
        _star(source, node)


def _why_not_from(node: ast.ImportFrom, module: str) -> list[str | None]:
    if node.names[0].name == "*":
        return [why_not(module)]
    if module == f"{THEIRS}.pydantic_v1":
        names = ", ".join(ast.unparse(name) for name in node.names)
        return [f"There is no pydantic_v1: write: from pydantic import {names}"]
    return [why_not(f"{module}.{name.name}") for name in node.names]


def _star(source: Source, node: ast.ImportFrom) -> None:
    """Write the names that a star brought: ours would bring more, which could hide others."""
    if node.module != OURS:
        message = f"{node.module} does not have the names that LangServe's module imported itself."
        source.note(node, "differs", message)
        return
    star = source.text.index("*", source.start(node))
    before = "" if source.text[star - 1].isspace() else " "
    source.edits.append(Edit(star, star + 1, before + ", ".join(TOP_LEVEL)))
    node.names = [ast.alias(name) for name in TOP_LEVEL]


def _import_as(source: Source, name: ast.alias, uses: list[tuple[ast.AST, str]]) -> None:
    """Change an import under another name; its uses stay, and are only looked at."""
    if source.by_hand(name, why_not(name.name)):
        return
    blocked = False
    for use, path in uses:
        blocked |= source.by_hand(use, why_not(name.name + path.removeprefix(name.asname or "")))
    if not blocked:
        source.rename_at(source.start(name))
        name.name = renamed(name.name)


def _plain_imports(source: Source, names: list[ast.alias]) -> None:
    """Change `import langserve` and `import langserve.client`, with all uses of the name."""
    for name in names:
        source.rename_at(source.start(name))
        name.name = renamed(name.name)
    for node in source.nodes:
        if isinstance(node, ast.Name) and node.id == THEIRS:
            source.rename_at(source.start(node))
            node.id = OURS
    for node, _ in _annotations(source):
        _exchange_in_annotation(source, node)


def _is_blocked(
    source: Source,
    names: list[ast.alias],
    binders: dict[str, list[ast.AST]],
    uses: list[tuple[ast.AST, str]],
) -> bool:
    """Say why the name cannot be exchanged everywhere, if it cannot."""
    blocked = False
    for bound in (THEIRS, OURS):
        for node in binders.get(bound, ()):
            message = f"{bound} is something else here too: exchange {THEIRS} for {OURS} by hand."
            blocked |= source.by_hand(node, message)
    for name in names:
        blocked |= source.by_hand(name, why_not(name.name))
    for use, path in uses:
        blocked |= source.by_hand(use, why_not(path))
    for constant, paths in _annotations(source):
        blocked |= source.by_hand(constant, *map(why_not, paths))
    return blocked


def _imported(source: Source) -> Iterator[ast.alias]:
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from node.names


def _binders(source: Source) -> dict[str, list[ast.AST]]:
    """Return what gives a name another meaning than that of an import of the package, by name."""
    binders: dict[str, list[ast.AST]] = defaultdict(list)
    for node in source.nodes:
        for name in _names_bound_by(node):
            binders[name].append(node)
    for constant in _exported(source):
        binders[str(constant.value)].append(constant)
    return binders


def _names_bound_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names
        case ast.alias(name=name, asname=asname):
            if asname == OURS or (asname == THEIRS and not is_theirs(name)):
                yield asname
        case ast.Name(id=name, ctx=ast.Store()) if name != THEIRS:
            yield name
        case ast.ClassDef(name=name, body=body):
            yield from {name, *_attributes(body)}
        case ast.arg(arg=str(name)) | ast.keyword(arg=str(name)):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name
        case ast.MatchStar(name=str(name)):
            yield name


def _attributes(body: list[ast.stmt]) -> set[str]:
    """Return the names that a class's body gives a value: others find them on the class."""
    return {
        node.id
        for statement in body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _exported(source: Source) -> Iterator[ast.Constant]:
    """Yield the strings in `__all__`: under these names other modules import."""
    for node in source.nodes:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")])
                | ast.AugAssign(target=ast.Name(id="__all__"))
            ):
                yield from strings(ast.walk(node.value))
            case ast.AnnAssign(target=ast.Name(id="__all__")):
                yield from strings(ast.walk(node))
            case ast.Call(func=ast.Attribute(value=ast.Name(id="__all__"))):
                yield from strings(ast.walk(node))


def _paths(source: Source) -> dict[str, list[tuple[ast.AST, str]]]:
    """Return the dotted paths, each at its longest, by the name that they begin with."""
    paths: dict[str, list[tuple[ast.AST, str]]] = defaultdict(list)
    inner = {id(node.value) for node in source.nodes if isinstance(node, ast.Attribute)}
    for node in source.nodes:
        if id(node) not in inner and isinstance(node, ast.Attribute | ast.Name):
            path = dotted(node)
            if path is not None:
                paths[path.partition(".")[0]].append((node, path))
    return paths


def annotation_strings(source: Source) -> Iterator[ast.Constant]:
    """Yield the strings in annotations."""
    for node in source.nodes:
        match node:
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=annotation):
                found: ast.AST | None = annotation
            case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns):
                found = returns
            case _:
                continue
        if found is not None:
            yield from strings(ast.walk(found))


def _annotations(source: Source) -> Iterator[tuple[ast.Constant, list[str]]]:
    """Yield the annotations that are strings and name langserve, with the paths in them."""
    for constant in annotation_strings(source):
        try:
            expression = ast.parse(str(constant.value), mode="eval")
        except SyntaxError:
            continue
        found = [dotted(node) for node in ast.walk(expression) if isinstance(node, ast.Attribute)]
        paths = [path for path in found if path is not None and is_theirs(path)]
        if paths:
            yield constant, paths


def _exchange_in_annotation(source: Source, node: ast.Constant) -> None:
    inner = source.inner_start(node)
    if inner is None:
        source.by_hand(node, f"Exchange {THEIRS} for {OURS} in this annotation.")
        return
    for found in _WORD_IN_ANNOTATION.finditer(str(node.value)):
        source.rename_at(inner + found.start())
    node.value = _WORD_IN_ANNOTATION.sub(OURS, str(node.value))
