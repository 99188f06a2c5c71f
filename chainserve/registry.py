"""Declared chains: finding them in a folder, and saying at start all that is wrong with them."""

import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
)
from langchain_core.runnables.base import RunnableBindingBase

from chainserve.chain import Chain
from chainserve.errors import DiscoveryError

SERVER_ROUTES = ("chains", "docs", "redoc", "openapi.json", "livez", "readyz", "metrics")
"""First segments of paths that belong to the server itself."""


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
    found: dict[str, list[Chain]] = {}
    wrong: list[Diagnostic] = []
    path = Path(folder).resolve()
    if not path.is_dir():
        raise DiscoveryError(f"There is no folder {str(folder)!r}. Create it, or name another.")
    for file in sorted(path.glob("*.py")):
        if file.name.startswith("_"):
            continue
        name = f"{path.name}/{file.name}"
        try:
            module = _import(path, file)
        except Exception as error:  # noqa: BLE001 - a module may raise anything; all are reported
            wrong.append(_import_failed(name, error))
            continue
        found[name] = [value for value in vars(module).values() if isinstance(value, Chain)]
        if not found[name]:
            mend = "Add `chain = Chain(...)`, or start its name with an underscore."
            wrong.append(Diagnostic(name, "declares no chain.", mend))
    declared = [(name, chain) for name, chains in found.items() for chain in chains]
    refuse([*wrong, *conflicts(declared)])
    return [chain for _, chain in declared]


def _import(folder: Path, file: Path) -> ModuleType:
    """Import a module as `folder.file`, as `python server.py` beside it would."""
    parent = str(folder.parent)
    if parent not in sys.path:
        sys.path.insert(0, parent)
    return importlib.import_module(f"{folder.name}.{file.stem}")


def _import_failed(name: str, error: Exception) -> Diagnostic:
    mend = "Mend the module, or start its name with an underscore to leave it out."
    if isinstance(error, ModuleNotFoundError):
        mend = f"Install the package that has {error.name}, or leave the module out."
    return Diagnostic(name, f"cannot be imported: {type(error).__name__}: {error}.", mend)


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
        if segment in SERVER_ROUTES:
            mend = "Choose another path."
            yield Diagnostic(file, f"its path {path} shadows the server's /{segment}.", mend)


def why_not_streaming(runnable: Runnable[Any, Any]) -> str | None:
    """Return why a runnable cannot stream, or None if nothing keeps it from streaming.

    In a sequence, what follows the last step that makes chunks must pass them on one by one; a
    function does not, it waits for the whole.
    """
    reason: str | None = None
    streams = False
    for step in _steps(runnable):
        if _makes_chunks(step):
            streams, reason = True, None
        elif streams and not _passes_chunks_on(step):
            streams = False
            reason = f"{step.get_name()} ({type(step).__name__}) waits for the whole answer"
    return reason


def _steps(runnable: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Yield the steps that run one after the other, what bindings are bound to in their place."""
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    if not isinstance(runnable, RunnableSequence):
        yield runnable
        return
    for step in runnable.steps:
        yield from _steps(step)


def _makes_chunks(step: Runnable[Any, Any]) -> bool:
    """Tell whether a step answers one input with chunks: a model, a generator, a graph."""
    if isinstance(step, RunnableParallel):
        return any(_makes_chunks(inner) for part in step.steps__.values() for inner in _steps(part))
    if isinstance(step, RunnableAssign):
        return _makes_chunks(step.mapper)
    if isinstance(step, RunnableLambda | RunnablePassthrough | RunnablePick):
        return False
    return _overrides(step, "astream", "stream")


def _passes_chunks_on(step: Runnable[Any, Any]) -> bool:
    """Tell whether a step handles chunks as they come."""
    return not isinstance(step, RunnableLambda) and _overrides(step, "atransform", "transform")


def _overrides(step: Runnable[Any, Any], *methods: str) -> bool:
    """Tell whether a class has its own way to stream, where the base class waits for the whole."""
    return any(getattr(type(step), name) is not getattr(Runnable, name) for name in methods)
