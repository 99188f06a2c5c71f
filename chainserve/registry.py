"""Declared chains: finding them in a folder, and saying at start all that is wrong with them."""

import importlib
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from chainserve.chain import Chain
from chainserve.errors import ConfigurationError, DiscoveryError
from chainserve.serialization import Serializer
from chainserve.types import DisconnectMode, PlaygroundType

SERVER_ROUTES = (
    "chains",
    "docs",
    "redoc",
    "openapi.json",
    "livez",
    "readyz",
    "metrics",
    "playground.css",
)
"""First segments of paths that belong to the server itself."""

_CLIENT_PREFIX = "chainserve."
"""How the names of `chainserve.js`, and of the modules that it imports, start."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something wrong with a declared chain.

    Attributes:
        file: Where the chain is declared, or its path where that is not known.
        reason: What is wrong.
        mend: What to do about it.
    """

    file: str
    reason: str
    mend: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.file}: {self.reason} {self.mend}"


def discover(folder: str | Path) -> list[Chain]:
    """Import every module of a folder and return the chains declared in them, ordered by file.

    A chain is a module-level `Chain`; modules whose names start with an underscore are not looked
    at. The folder is imported as a package of its name, so its modules may import one another.

    Raises:
        DiscoveryError: A module cannot be imported or declares no chain, or chains cannot be served
            together; the message lists them all, each with file, reason and mend.
    """
    path = Path(folder).resolve()
    if not path.is_dir():
        raise DiscoveryError(f"There is no folder {str(folder)!r}. Create it, or name another.")
    declared: list[tuple[str, Chain]] = []
    wrong: list[Diagnostic] = []
    for file in sorted(path.glob("[!_]*.py")):
        name = f"{path.name}/{file.name}"
        try:
            module = _import(path, file)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises is reported
            wrong.append(_import_failed(name, error, path.name))
            continue
        chains = [value for value in vars(module).values() if isinstance(value, Chain)]
        if not chains:
            mend = "Add `chain = Chain(...)`, or start its name with an underscore."
            wrong.append(Diagnostic(name, "declares no chain.", mend))
        known = [chain for _, chain in declared]
        declared += [(name, chain) for chain in dict.fromkeys(chains) if chain not in known]
    refuse([*wrong, *conflicts(declared)])
    return [chain for _, chain in declared]


def _import(folder: Path, file: Path) -> ModuleType:
    """Import a module, as `folder.file` where that name is free for it."""
    if file.stem.isidentifier() and _is_importable(folder):
        return importlib.import_module(f"{folder.name}.{file.stem}")
    name = f"{folder.name}.{file.stem} of {folder}"
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_importable(folder: Path) -> bool:
    """Tell whether the folder's name means this folder; its parent is put on the path for that."""
    if not folder.name.isidentifier():
        return False
    importlib.invalidate_caches()
    if folder.name in sys.modules:
        places = getattr(sys.modules[folder.name], "__path__", None)
    else:
        if str(folder.parent) not in sys.path:
            sys.path.insert(0, str(folder.parent))
        spec = find_spec(folder.name)
        places = spec.submodule_search_locations if spec is not None else None
    return list(places or ())[:1] == [str(folder)]


def _import_failed(name: str, error: BaseException, folder: str) -> Diagnostic:
    """Return what a module that cannot be imported raised, on one line."""
    text = " ".join(str(error).split()).rstrip(".")
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    mend = "Mend the module, or start its name with an underscore to leave it out."
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        if package != folder:
            mend = f"Install the package that has {package}, or leave the module out."
    return Diagnostic(name, f"cannot be imported: {reason}.", mend)


def refuse(wrong: Sequence[Diagnostic]) -> None:
    """Raise one error that lists everything, if anything is wrong."""
    if wrong:
        listed = "\n".join(f"  - {diagnostic}" for diagnostic in wrong)
        raise DiscoveryError(f"{len(wrong)} of the declared chains cannot be served:\n{listed}")


def conflicts(declared: Iterable[tuple[str, Chain]]) -> Iterator[Diagnostic]:
    """Yield what keeps chains from being served together: shared paths, and the server's own."""
    first_at: dict[str, str] = {}
    for file, chain in declared:
        path = chain.path or "/"
        if path in first_at:
            mend = "Give one of them another path."
            yield Diagnostic(file, f"uses the path {path}, as does {first_at[path]}.", mend)
        first_at.setdefault(path, file)
        segment = chain.path.strip("/").partition("/")[0]
        if segment in SERVER_ROUTES or segment.startswith(_CLIENT_PREFIX):
            mend = "Choose another path."
            yield Diagnostic(file, f"its path {path} shadows the server's /{segment}.", mend)


_CALLABLES = ("principal", "on_end", "translate_error", "per_req_config_modifier")
_NAMES = (
    "config_keys",
    "kwargs_keys",
    "configurable",
    "tags",
    "enabled_endpoints",
    "disabled_endpoints",
    "stream_log_name_allow_list",
)
_WORDS: Mapping[str, tuple[Any, ...]] = {
    "on_disconnect": get_args(DisconnectMode),
    "playground_type": get_args(PlaygroundType),
    "astream_events_version": ("v1", "v2"),
    "retention": (True, False),
    "strict_config": (True, False),
}
_SECONDS = ("run_timeout", "first_event_timeout", "idle_timeout")
_COUNTS = ("max_body_bytes", "max_batch_size", "max_concurrency")


def refuse_options(chain: Chain) -> None:
    """Refuse options that could only fail at the first request.

    Raises:
        ConfigurationError: There is one; the message names it and says what it must be.
    """
    for option, must_be in _wrong_options(chain):
        value = getattr(chain, option)
        raise ConfigurationError(f"{option} of {chain.path or '/'} is {value!r}: {must_be}.")


def _wrong_options(chain: Chain) -> Iterator[tuple[str, str]]:
    """Yield the options whose values cannot work, each with what it must be."""
    given = {name: value for name, value in vars(chain).items() if value is not None}
    for name in given.keys() & {*_CALLABLES}:
        if not callable(given[name]):
            yield name, "it must be a function"
    for name in given.keys() & {*_NAMES}:
        if not _are_names(given[name]):
            yield name, "it must be a list of names"
    for name, words in _WORDS.items():
        if name in given and given[name] not in words:
            yield name, f"it must be one of {', '.join(map(repr, words))}"
    for name in given.keys() & {*_SECONDS, "resume_grace"}:
        if not _is_number(given[name], int | float, zero=name == "resume_grace"):
            yield name, "it must be a number of seconds"
    for name in given.keys() & {*_COUNTS}:
        if not _is_number(given[name], int):
            yield name, "it must be a whole number above 0"
    if not isinstance(chain.serializer, Serializer | None):
        yield "serializer", "it must be an instance of Serializer"
    if not isinstance(chain.dependencies, Iterable) or not all(
        hasattr(dependency, "dependency") for dependency in chain.dependencies
    ):
        yield "dependencies", "it must be a list, each of it Depends(...)"


def _are_names(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    return all(isinstance(part, str) for part in value)


def _is_number(value: Any, kind: Any, *, zero: bool = False) -> bool:
    """Tell whether a value is a finite number above zero, or zero where that is one."""
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        return False
    return value > 0 or (zero and value == 0)
