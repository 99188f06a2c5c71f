"""What in an application's code behaves differently on purpose once it is migrated."""

import ast
from collections.abc import Iterable, Iterator

from chainserve.migrate.edits import Note
from chainserve.migrate.source import dotted, strings
from chainserve.sensitive import is_sensitive

SUBCLASS = (
    "The endpoints of APIHandler are LangServe's, what is private in it is not: "
    "a subclass may override its endpoints alone."
)
SSE_STARLETTE = (
    "sse-starlette came with LangServe and does not come with chainserve: require it yourself."
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
    for node in ast.walk(tree):
        for message in _differences_of(node):
            yield Note(getattr(node, "lineno", 0), "differs", message)


def _differences_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.ClassDef(bases=bases):
            if "APIHandler" in map(_last_name, bases):
                yield SUBCLASS
        case ast.Import(names=names):
            yield from _of_modules(name.name for name in names)
        case ast.ImportFrom(module=str(module), level=0, names=names):
            yield from _of_modules([module, *(f"{module}.{name.name}" for name in names)])
        case ast.Call(func=func) if _last_name(func) in _FIELDS:
            ids = [word.value for word in node.keywords if word.arg == "id"] or node.args[:1]
            yield from _of_fields(ids)
        case ast.Call(keywords=keywords):
            yield from _of_options(keywords)


def _of_modules(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name.partition(".")[0] == "sse_starlette":
            yield SSE_STARLETTE
        if name in _PYDANTIC_V1:
            yield PYDANTIC_V1


def _of_options(keywords: list[ast.keyword]) -> Iterator[str]:
    for keyword in keywords:
        names = [str(constant.value) for constant in strings(ast.walk(keyword.value))]
        if keyword.arg == "configurable_fields":
            yield from [ANY_FIELD] if names == ["any"] else _of_fields([keyword.value])
        elif keyword.arg == "config_keys":
            yield from (CONFIG_KEY.format(name=name) for name in names if name in _SERVERS_OWN)


def _of_fields(ids: Iterable[ast.AST]) -> Iterator[str]:
    for constant in (constant for node in ids for constant in strings(ast.walk(node))):
        if is_sensitive(str(constant.value)):
            yield FIELD.format(name=constant.value)


def _last_name(node: ast.AST) -> str:
    return (dotted(node) or "").rpartition(".")[2]
