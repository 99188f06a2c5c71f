"""The layers: a module imports only from lower levels, and what is public is a list."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import chainserve
from chainserve import errors

ROOT = Path(chainserve.__file__).parent

LEVEL = {
    "version": 0,
    "types": 0,
    "errors": 0,
    "settings": 1,
    "workers": 1,
    "hooks": 1,
    "lzstring": 1,
    "wire": 1,
    "schema": 1,
    "well_known": 0,
    "roles": 1,
    "graphs": 1,
    "json_text": 1,
    "serialization": 2,
    "callback_events": 1,
    "pydantic_v1": 0,
    "bodies": 2,
    "validation": 3,
    "demo": 2,
    "demo_answers": 1,
    "chain": 3,
    "stores": 2,
    "problems": 2,
    "cors": 2,
    "cross_site": 2,
    "log_lines": 3,
    "observability": 4,
    "registry": 4,
    "flow": 4,
    "queries": 4,
    "config": 4,
    "callbacks": 3,
    "fast_paths": 4,
    "cancellation": 4,
    "translation": 4,
    "transports": 3,
    "connection": 4,
    "hook_calls": 4,
    "pacing": 4,
    "declared_types": 4,
    "execution": 5,
    "work": 6,
    "feedback": 5,
    "opening": 5,
    "intermediate": 7,
    "runs": 7,
    "log_writer": 8,
    "executor": 9,
    "responses": 10,
    "runtime": 10,
    "openapi": 10,
    "routes": 11,
    "mounting": 13,
    "handover": 12,
    "api_handler": 12,
    "migrate": 1,
    "cli": 16,
    "__main__": 17,
    "server": 14,
    "transport": 1,
    "client_errors": 2,
    "client_requests": 3,
    "remote": 2,
    "answers": 4,
    "remote_streams": 5,
    "totals": 3,
    "retries": 0,
    "calls": 6,
    "peer": 7,
    "exchanges": 8,
    "client_connection": 9,
    "client_runs": 10,
    "client": 11,
    "app": 15,
    "sensitive": 0,
}


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level modules of the package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "chainserve" and rest:
                yield rest.partition(".")[0]


def test_a_module_imports_only_from_lower_levels() -> None:
    upward = []
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).with_suffix("").parts[0]
        if own == "__init__":
            continue
        upward += [
            f"{path.relative_to(ROOT)} imports {used}"
            for used in imported(path)
            if used != own and LEVEL[used] >= LEVEL[own]
        ]
    assert upward == []


_PURE_MODULES = {
    "base64",
    "chainserve",
    "collections",
    "datetime",
    "functools",
    "json",
    "orjson",
    "re",
    "typing",
    "uuid",
}


def test_the_wire_knows_no_framework_no_socket_and_no_clock() -> None:
    for path in (ROOT / "wire").glob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {
            name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
            )
        }
        assert modules <= _PURE_MODULES, path.name
        calls = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not calls & {"now", "utcnow", "today"}, path.name


def test_the_public_names_are_exactly_those_of_all() -> None:
    for name in chainserve.__all__:
        getattr(chainserve, name)
    public = {
        name
        for name, value in vars(chainserve).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public - {"TYPE_CHECKING", "Any"} <= set(chainserve.__all__)


def test_every_error_is_in_the_tree_and_its_code_tells_it_from_its_siblings() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.ChainServeError)
    ]
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in classes)
    leaves = [cls for cls in classes if not cls.__subclasses__()]
    assert len({cls.code for cls in leaves}) == len(leaves)
