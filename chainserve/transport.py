"""The HTTP library of the client: httpx2, or httpx where that is not installed."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PACKAGES: tuple[ModuleType, ...] = tuple(
    import_module(name) for name in ("httpx2", "httpx") if find_spec(name) is not None
)
"""What is installed of the two, the preferred one first."""

if not PACKAGES:
    raise ImportError("The client needs httpx2 or httpx: pip install 'chainserve[client]'")


def package_for(arguments: Iterable[Any]) -> ModuleType:
    """Return the library that a client is made with: the one whose objects it is given.

    A caller's `httpx.BasicAuth`, or transport, or time-out, works with httpx alone.
    """
    given = {type(argument).__module__.partition(".")[0] for argument in arguments}
    return next((package for package in PACKAGES if package.__name__ in given), PACKAGES[0])
