"""From LangServe's imports to ours: text in, text out, and what a person has to look at.

Python is edited where its syntax tree says that a name stands, so all else stays byte for byte.
Requirements are edited line by line.
"""

import ast
import json
import re
from dataclasses import dataclass, field

MODULES = frozenset(
    {
        "api_handler",
        "callbacks",
        "client",
        "lzstring",
        "schema",
        "serialization",
        "server",
        "validation",
        "version",
    }
)
"""LangServe's modules that have a counterpart of the same name."""

_PYDANTIC = "write `from pydantic import …` instead: LangServe's was pydantic 1, ours is 2"
_GONE = {
    "pydantic_v1": _PYDANTIC,
    "playground": "the playground's pages are chainserve's own: mount them with add_routes",
    "server_sent_events": "use RemoteRunnable, or chainserve.wire.parser.EventParser",
    "packages": "there are no templates: `add_routes` each chain",
    "cli": "there is no such command line",
}
_MEND_OF_LZSTRING = "use chainserve.lzstring.compress and decompress in place of LZString's methods"


@dataclass(slots=True)
class Migrated:
    """What became of a file.

    Attributes:
        text: Its new text.
        notes: What a person has to look at: a line's number, counted from 1, and a sentence.
    """

    text: str
    notes: list[tuple[int, str]] = field(default_factory=list)


def migrate_python(text: str) -> Migrated:
    """Return a module with chainserve's imports in the place of LangServe's.

    Imports are changed wherever they stand, and so is the name `langserve` where it is what such an
    import binds; also the module's name in strings that are nothing but such a path. Comments and
    other strings stay.

    Raises:
        SyntaxError: The text is not Python.
    """
    tree = ast.parse(text)
    migration = _PythonMigration(text)
    migration.visit(tree)
    return migration.result()


class _PythonMigration(ast.NodeVisitor):
    """Collects the places to change, and what to tell."""

    def __init__(self, text: str) -> None:
        # Columns count bytes, and lines end where Python's do.
        self._lines = [line.encode() for line in _python_lines(text)]
        self._edits: list[tuple[int, int, int, bytes]] = []
        self._notes: list[tuple[int, str]] = []
        self._binds_package = _binds_package(ast.parse(text))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            package, _, module = alias.name.partition(".")
            if package == "langserve" and self._may(module, node):
                self._replace(alias, "langserve", "chainserve")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        package, _, module = (node.module or "").partition(".")
        if node.level or package != "langserve":
            return
        for alias in node.names:
            if not module and alias.name in _GONE:
                self._note(node, f"{alias.name}: {_GONE[alias.name]}")
                return
            if alias.name == "LZString":
                self._note(node, _MEND_OF_LZSTRING)
            elif alias.name.startswith("_"):
                self._note(node, f"{alias.name} is LangServe's own and not here")
        if self._may(module, node):
            self._replace(node, "langserve", "chainserve")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == "langserve" and self._binds_package:
            self._replace(node, "langserve", "chainserve")

    def visit_Constant(self, node: ast.Constant) -> None:
        if not isinstance(node.value, str) or node.end_lineno != node.lineno:
            return
        if re.fullmatch(r"langserve(\.\w+)+", node.value):
            if self._may(node.value.split(".")[1], node, is_path=True):
                self._replace(node, "langserve", "chainserve")
        elif node.value == "langserve":
            self._note(node, 'the string "langserve" stays: change it if it names the package')

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any("APIHandler" in ast.unparse(base) for base in node.bases):
            self._note(node, "a subclass of APIHandler: only its public methods are the same")
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        value = node.value.value if isinstance(node.value, ast.Constant) else None
        if node.arg == "id" and isinstance(value, str) and _SECRET.search(value):
            allowed = f"Chain(configurable=[{value!r}])"
            self._note(node.value, f"callers may not set {value}: {allowed} lets them")
        self.generic_visit(node)

    def _may(self, module: str, node: ast.stmt | ast.expr, *, is_path: bool = False) -> bool:
        """Tell whether a module has a counterpart, and what to do where it has none."""
        name = module.partition(".")[0]
        if name in _GONE:
            self._note(node, f"langserve.{name}: {_GONE[name]}")
            return False
        if name and name not in MODULES and not is_path:
            self._note(node, f"there is no chainserve.{name}")
            return False
        return True

    def _replace(self, node: ast.AST, old: str, new: str) -> None:
        """Change the first `old` inside of a node."""
        line, column = getattr(node, "lineno", 1) - 1, getattr(node, "col_offset", 0)
        last = getattr(node, "end_lineno", None) or line + 1
        for index in range(line, last):
            found = self._lines[index].find(old.encode(), column if index == line else 0)
            if found >= 0:
                self._edits.append((index, found, found + len(old), new.encode()))
                return

    def _note(self, node: ast.stmt | ast.expr, sentence: str) -> None:
        self._notes.append((node.lineno, sentence))

    def result(self) -> Migrated:
        """Return the text with its changes, the last place first."""
        for index, start, end, new in sorted(set(self._edits), reverse=True):
            line = self._lines[index]
            self._lines[index] = line[:start] + new + line[end:]
        return Migrated(b"".join(self._lines).decode(), sorted(set(self._notes)))


_SECRET = re.compile(r"api_?key|secret|token|password|base_?url|api_?base|endpoint", re.IGNORECASE)


def _python_lines(text: str) -> list[str]:
    """Return the lines of a module with their ends, as Python counts them."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


def _binds_package(tree: ast.AST) -> bool:
    """Tell whether the name `langserve` is the package somewhere in a module."""
    return any(
        (alias.asname or alias.name.partition(".")[0]) == "langserve"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.partition(".")[0] == "langserve"
    )


_REQUIREMENT = re.compile(
    r"""(?P<before>^|[\s"'=(,\[])langserve
    (?P<extras>\s*\[[\w\s,.-]*\])?
    (?P<version>\s*\(?(?:[~=!<>^]=?=?\s*[\w.*+!-]+(?:\s*,\s*[~=!<>]=?=?\s*[\w.*+!-]+)*)\)?)?
    (?=$|[\s"';,)\]\\@])""",
    re.VERBOSE | re.MULTILINE,
)
_TABLE_KEY = re.compile(r"^(\s*)(\"?)langserve(\"?)(\s*=\s*)(.+?)(\s*)$")
_SSE_PIN = re.compile(r"sse[-_]starlette\s*(?:\[[^\]]*\])?\s*[<=~]")


def migrate_requirements(text: str) -> Migrated:
    """Return a file of requirements with chainserve in the place of LangServe, without its version.

    It takes requirements files, the tables of `pyproject.toml` and `Pipfile`, `setup.cfg`,
    environment files and `pip install` in a Dockerfile or a script.
    """
    lines: list[str] = []
    notes: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        body = line.rstrip("\r\n")
        if body.lstrip().startswith("#"):
            lines.append(line)
            continue
        if _SSE_PIN.search(body):
            notes.append((number, "sse-starlette was pinned for LangServe; chainserve needs none"))
        if (entry := _TABLE_KEY.fullmatch(body)) is not None and _is_version(entry[5]):
            changed = (
                f"{entry[1]}{entry[2]}chainserve{entry[3]}{entry[4]}{_without_version(entry[5])}"
            )
        else:
            changed = _REQUIREMENT.sub(
                lambda m: f"{m['before']}chainserve{m['extras'] or ''}", body
            )
        if changed == body and re.search(r"\blangserve\b", body):
            notes.append((number, "this names langserve in a way that was not changed"))
        lines.append(changed + line[len(body) :])
    return Migrated("".join(lines), notes)


def _is_version(value: str) -> bool:
    """Tell whether the value of a table's entry is a requirement's."""
    return re.match(r"[\"'{]", value) is not None


def _without_version(value: str) -> str:
    """Return an entry's value that takes any version."""
    if value.startswith("{"):
        return re.sub(r"(version\s*=\s*)([\"'])[^\"']*\2", r"\1\2*\2", value)
    return f"{value[0]}*{value[0]}"


_MAGIC = re.compile(r"^\s*[%!]")


def migrate_notebook(text: str) -> Migrated:
    """Return a Jupyter notebook whose code cells have chainserve's imports.

    Raises:
        ValueError: The text is no notebook.
        SyntaxError: A cell is not Python.
    """
    notebook = json.loads(text)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("no cells")
    ending = text[len(text.rstrip()) :]
    if json.dumps(notebook, indent=1, ensure_ascii=False) + ending != text:
        notes = [(1, "change this notebook by hand: it is not laid out as Jupyter does")]
        return Migrated(text, notes if "langserve" in text else [])
    notes = []
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell.get("cell_type") == "code":
            migrated = _migrate_cell("".join(cell["source"]))
            cell["source"] = migrated.text.splitlines(keepends=True)
            notes += [(line, f"cell {number}: {told}") for line, told in migrated.notes]
    return Migrated(json.dumps(notebook, indent=1, ensure_ascii=False) + ending, notes)


def _migrate_cell(source: str) -> Migrated:
    """Return a cell; lines that are commands to Jupyter are read as those of a shell."""
    lines = source.splitlines(keepends=True)
    magics = {index for index, line in enumerate(lines) if _MAGIC.match(line)}
    code = [f"#{line}" if index in magics else line for index, line in enumerate(lines)]
    migrated = migrate_python("".join(code))
    new = migrated.text.splitlines(keepends=True)
    for index in magics:
        command = migrate_requirements(lines[index])
        new[index] = command.text
        migrated.notes += [(index + 1, told) for _, told in command.notes]
    return Migrated("".join(new), migrated.notes)
