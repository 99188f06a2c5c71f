"""What in an application's code behaves differently on purpose once it is migrated."""

import ast
from collections.abc import Iterable, Iterator
from typing import Any

from chainserve.migrate.edits import Note
from chainserve.migrate.source import dotted, strings
from chainserve.sensitive import is_sensitive

SUBCLASS = (
    "The endpoints of APIHandler are LangServe's, what is private in it is not: "
    "a subclass may override its endpoints alone."
)
BROUGHT = {"sse_starlette": "sse-starlette"}
"""The modules of packages that came with LangServe and do not come with chainserve."""

NOT_BROUGHT = (
    "{package} came with LangServe and does not come with chainserve: require it yourself."
)
PYDANTIC_V1 = (
    "A model of pydantic 1 cannot be the type of a chain's input or output: "
    "write: from pydantic import BaseModel, Field"
)
ANY_FIELD = (
    'With configurable_fields="any" a caller may set the fields alone that are listed: '
    "serve Chain(path=…, runnable=…, configurable=[…])."
)
FIELD = (
    "No caller may set {name!r}, unless you list it: "
    "serve Chain(path=…, runnable=…, configurable=[{name!r}])."
)
CONFIG_KEY = "config_keys must not name {name!r}, which is the server's own: leave it out."

_PYDANTIC_V1 = frozenset({"pydantic.v1", "langchain_core.pydantic_v1", "langchain.pydantic_v1"})
_FIELDS = frozenset({"ConfigurableField", "ConfigurableFieldSpec"})
_SERVERS_OWN = frozenset({"run_name", "callbacks"})


def differences(tree: ast.Module) -> Iterator[Note]:
    """Yield what the author of a module should know of."""
    handlers = {"APIHandler", *_other_names(tree, "APIHandler")}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for message in _differences_of(node, handlers):
            yield Note(line, "differs", message)
        for package in {BROUGHT[name] for name in _packages(node) if name in BROUGHT}:
            message = NOT_BROUGHT.format(package=package)
            yield Note(line, "by hand", message, unless_required=package)


def _packages(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name.partition(".")[0] for name in names)
        case ast.ImportFrom(module=str(module), level=0):
            yield module.partition(".")[0]


def _other_names(tree: ast.Module, name: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.alias) and node.name == name and node.asname is not None:
            yield node.asname


def _differences_of(node: ast.AST, handlers: set[str]) -> Iterator[str]:
    match node:
        case ast.ClassDef(bases=bases):
            if not handlers.isdisjoint(map(_last_name, bases)):
                yield SUBCLASS
        case ast.Import(names=names):
            yield from _of_modules(name.name for name in names)
        case ast.ImportFrom(module=str(module), level=0, names=names):
            yield from _of_modules([module, *(f"{module}.{name.name}" for name in names)])
        case ast.Call(func=func) if _last_name(func) in _FIELDS:
            ids = [word.value for word in node.keywords if word.arg == "id"] or node.args[:1]
            yield from _of_fields(ids)
        case ast.Call(keywords=keywords):
            yield from _of_options((word.arg, word.value) for word in keywords)
        case ast.Dict(keys=keys, values=values):
            options = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            yield from _of_options(zip(options, values, strict=True))


def _of_modules(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name in _PYDANTIC_V1:
            yield PYDANTIC_V1


def _of_options(options: Iterable[tuple[Any, ast.expr]]) -> Iterator[str]:
    for option, value in options:
        if option not in ("configurable_fields", "config_keys"):
            continue
        names = [str(constant.value) for constant in strings(ast.walk(value))]
        if option == "configurable_fields":
            yield from [ANY_FIELD] if names == ["any"] else _of_fields([value])
        else:
            yield from (CONFIG_KEY.format(name=name) for name in names if name in _SERVERS_OWN)


def _of_fields(ids: Iterable[ast.AST]) -> Iterator[str]:
    for constant in (constant for node in ids for constant in strings(ast.walk(node))):
        if is_sensitive(str(constant.value)):
            yield FIELD.format(name=constant.value)


def _last_name(node: ast.AST) -> str:
    return (dotted(node) or "").rpartition(".")[2]
