"""What `chainserve serve` is told to serve: a folder of chains, or an application."""

import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from chainserve.errors import ConfigurationError

_APPLICATION = re.compile(r"(?P<place>.+):(?P<attribute>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_NEW = "`chainserve new joke` writes a first chain."


@dataclass(frozen=True, slots=True)
class ServedChain:
    """What is told of a chain when its server starts."""

    path: str
    title: str
    model: str | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """An application, ready to be served.

    Attributes:
        app: The ASGI application.
        chains: Its chains; none where it is an application of the caller's own.
    """

    app: Any
    chains: Sequence[ServedChain]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of chains, as `discover` takes it."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def watched(self) -> Path:
        """The folder whose changes concern it."""
        return self.path

    def check(self) -> None:
        """Check what can be known without importing anything.

        Raises:
            ConfigurationError: It cannot be served.
        """
        if not self.path.is_dir():
            kind = "is no folder" if self.path.exists() else "does not exist"
            raise ConfigurationError(
                f"The folder {str(self.path)!r} {kind}. Name a folder of chains, or an application "
                f"as module:app. {_NEW}"
            )

    def load(self) -> Loaded:
        """Return an application with the chains of the folder.

        Raises:
            ConfigurationError: They cannot be served.
        """
        from chainserve.app import create_app
        from chainserve.registry import discover

        chains = discover(self.path)
        if not chains:
            raise ConfigurationError(f"There is no chain in {str(self.path)!r}. {_NEW}")
        told = [ServedChain(one.path or "/", one.title, one.model) for one in chains]
        return Loaded(create_app(chains), told)


@dataclass(frozen=True, slots=True)
class Application:
    """An application of the caller's own: `module:app`, or `file.py:app`."""

    place: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.place}:{self.attribute}"

    @property
    def watched(self) -> Path:
        """The folder whose changes concern it."""
        return self._file.parent if self._is_file else Path()

    def check(self) -> None:
        """Check what can be known without importing anything.

        Raises:
            ConfigurationError: It cannot be served.
        """
        if self._is_file and not self._file.is_file():
            raise ConfigurationError(f"There is no file {self.place!r}. Name the one with the app.")

    def load(self) -> Loaded:
        """Import the application.

        Raises:
            ConfigurationError: It cannot be imported, or is none.
        """
        value: Any = self._module()
        for name in self.attribute.split("."):
            if not hasattr(value, name):
                raise ConfigurationError(f"{self.place} has no {self.attribute!r}.{_hint(value)}")
            value = getattr(value, name)
        if not callable(value):
            raise ConfigurationError(f"{self} is {value!r}, which is no application.")
        return Loaded(value, [])

    @property
    def _is_file(self) -> bool:
        return self.place.endswith(".py")

    @property
    def _file(self) -> Path:
        return Path(self.place)

    def _module(self) -> ModuleType:
        folder = self._file.resolve().parent if self._is_file else Path.cwd()
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        try:
            return _import_file(self._file) if self._is_file else _import(self.place)
        except (Exception, SystemExit) as error:
            raise ConfigurationError(_why(self.place, error)) from error


def parse_target(text: str) -> Folder | Application:
    """Return what a TARGET means: a folder if there is one, else what its form says."""
    if not Path(text).is_dir() and (found := _APPLICATION.fullmatch(text)):
        return Application(found["place"], found["attribute"])
    return Folder(Path(text))


def _import(name: str) -> ModuleType:
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    """Import a file under its own name, for which another module may be found on the path."""
    spec = spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _hint(module: Any) -> str:
    """Return what was probably meant: applications by their class, else a name that is near."""
    names = vars(module)
    apps = [name for name in names if "openapi_url" in getattr(names[name], "__dict__", {})]
    near = apps or get_close_matches("app", names, n=1)
    return f" Did you mean {', '.join(near)}?" if near else ""


def _why(place: str, error: BaseException) -> str:
    """Return why a module cannot be imported, with the place in the project where it failed."""
    if isinstance(error, ModuleNotFoundError) and error.name == place.partition(".")[0]:
        return f"There is no module {place!r} in {Path.cwd()}. Name one, or a file: server.py:app."
    text = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    where = "" if isinstance(error, SyntaxError) else _where(error)
    return f"{place} cannot be imported: {reason}{where}. Mend it, or name another application."


def _where(error: BaseException) -> str:
    """Return the last place within the project that an error came through."""
    here = Path.cwd()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and "site-packages" not in path.parts:
            return f" ({path.relative_to(here)}, line {frame.lineno})"
    return ""
