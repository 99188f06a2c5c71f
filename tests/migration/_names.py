"""The public names that a module defines itself, read from its source: aliases have no module."""

import ast
import importlib
import inspect
from collections.abc import Iterator


def own_names(module: str) -> set[str]:
    """Return the names that a module's own statements bind, without those that it imports."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return {name for name in _bound(tree.body) if not name.startswith("_")}


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.Try(body=inner) | ast.If(body=inner):
                yield from _bound(inner)  # What takes the place of an import is another's name.
