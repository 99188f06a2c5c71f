"""What a Python module still says of langserve once it has changed: the net below all rules.

Comments and strings that are statements, as docstrings are, are prose and stay as they are.
"""

import ast
import re
from collections.abc import Iterator

from chainserve.migrate.leftovers import LEFT
from chainserve.migrate.names import KNOWN, THEIRS
from chainserve.migrate.source import Source, dotted, strings

_CODE = re.compile(
    rf"(?m)^(?>[^\n]*?(?:install|\badd)\s)[^\n]*?\blangserve(?![\w-])"
    rf"|\b(?:from|import)\s+langserve\b|(?:\bpython[\d.]*|\A)\s+-m\s+langserve\b"
    rf"|(?<![\w-])langserve\.(?:{'|'.join(sorted(KNOWN))})\b"
)
_PATH = re.compile(r"\^?(?:\w+\.)*langserve(?:(?:\.\w+)*|(?:\\?\.|\(|\\b|\$).*)")
"""A path of modules, or a pattern of such paths as `warnings.filterwarnings` takes it."""

_BY_NAME = frozenset(
    {"delattr", "delitem", "dict", "getattr", "hasattr", "import_module", "object", "patch"}
    | {"setattr", "setitem"}
)
"""Functions that are given the name of a module or of an attribute."""

_OF_PACKAGES = frozenset(
    {"files", "find_loader", "get_data", "get_loader", "require", "requires"}
    | {"resource_filename", "resource_stream", "resource_string", "run_module"}
)
"""Functions of the standard library's modules, and of setuptools', that are given a package."""

_PACKAGING = frozenset(
    {"importlib", "importlib_metadata", "importlib_resources", "metadata"}
    | {"pkg_resources", "pkgutil", "resources", "runpy"}
)
_TABLES_OF_MODULES = frozenset({"globals", "packages_distributions", "vars"})
_COMMAND_WORDS = frozenset({"add", "install", "uninstall"})


def tell_mentions(source: Source) -> None:
    """Tell of each place that still names langserve, where nothing was said of its line."""
    settled = {note.line for note in source.notes if note.kind == "by hand"}
    for line in {*_names(source), *_strings(source)} - settled:
        source.note_line(line, "by hand", LEFT)


def _names(source: Source) -> Iterator[int]:
    """Yield the lines with the name where this module does not give it its meaning.

    An attribute may be anything, but for one of a module.
    """
    own, imported = THEIRS in _bound(source), {*_imported(source)}
    for node in source.nodes:
        match node:
            case ast.Name(id=name, lineno=line) if name == THEIRS and not own:
                yield line
            case ast.Attribute(attr=name, lineno=line) if name == THEIRS:
                path = dotted(node) or ""
                if path.partition(".")[0] in imported and not path.startswith("pytest.mark."):
                    yield line


def _bound(source: Source) -> Iterator[str]:
    for node in source.nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name) | ast.ExceptHandler(name=str(name)):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
    yield from _imported(source)


def _imported(source: Source) -> Iterator[str]:
    for node in source.nodes:
        if isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]


def _strings(source: Source) -> Iterator[int]:
    prose = {id(node) for node in source.statements_of_text()}
    words = {id(node) for node in _words(source)}
    for node in strings(source.nodes):
        value = str(node.value)
        if id(node) in words and _PATH.fullmatch(value):
            yield node.lineno
        elif id(node) not in prose:
            for found in _CODE.finditer(value):
                yield source.line_within(node, found.start())


def _words(source: Source) -> Iterator[ast.AST]:
    """Yield what stands where the name of a module or of its attribute may stand."""
    imported = {*_imported(source)}
    for node in source.nodes:
        match node:
            case ast.Call(func=func, args=args, keywords=keywords):
                yield from _arguments(dotted(func) or "", args, imported)
                if _is_modules(func):
                    yield from args
                elif (dotted(func) or "").endswith("filterwarnings"):
                    yield from [*args[3:4], *(key.value for key in keywords if key.arg == "module")]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                if _COMMAND_WORDS & {str(item.value) for item in strings(items)}:
                    yield from items
                yield from _started(items)
            case _:
                yield from _looked_up(node)


def _looked_up(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is looked up among modules, and the plugins that pytest is to import."""
    match node:
        case ast.Subscript(value=ast.Attribute(attr="modules"), slice=key):
            yield key
        case ast.Subscript(value=ast.Call(func=func), slice=key):
            if (dotted(func) or "").rpartition(".")[2] in _TABLES_OF_MODULES:
                yield key
        case ast.Compare(left=left, comparators=[ast.Attribute(attr="modules")]):
            yield left
        case ast.Compare(left=left, comparators=[ast.Name(id="modules")]):
            yield left
        case (
            ast.Assign(targets=[ast.Name(id="pytest_plugins")], value=ast.expr() as value)
            | ast.AnnAssign(target=ast.Name(id="pytest_plugins"), value=ast.expr() as value)
        ):
            yield from ast.walk(value)


def _is_modules(func: ast.expr) -> bool:
    match func:
        case ast.Attribute(value=ast.Attribute(attr="modules")):
            return True
    return False


def _arguments(called: str, args: list[ast.expr], imported: set[str]) -> Iterator[ast.expr]:
    """Yield the arguments of a function that is given the name of a module."""
    root, name = called.partition(".")[0], called.rpartition(".")[2]
    if name in _BY_NAME and _may_be_module(args, imported):
        yield from [*args, *_keys(args)]
    elif name in _OF_PACKAGES and (root in imported or root in _PACKAGING):
        yield from args


def _may_be_module(args: list[ast.expr], imported: set[str]) -> bool:
    """Tell whether what a function is given first may be a module, or all modules."""
    match args:
        case [ast.Name() | ast.Attribute() as first, *_]:
            return (dotted(first) or "").partition(".")[0] in imported
        case [ast.Constant() | ast.Call(), *_]:
            return True
    return False


def _started(items: list[ast.expr]) -> Iterator[ast.expr]:
    """Yield the modules that a command starts: `-m` says so to Python, to pytest a marker."""
    for python, option, module in zip(items, items[1:], items[2:], strict=False):
        word = str(python.value) if isinstance(python, ast.Constant) else "python"
        if isinstance(option, ast.Constant) and option.value == "-m" and "python" in word:
            yield module


def _keys(nodes: list[ast.expr]) -> Iterator[ast.expr]:
    for node in nodes:
        if isinstance(node, ast.Dict):
            yield from (key for key in node.keys if key is not None)
