"""The HTTP library of the client, httpx2 or httpx: its errors, and who opens and closes clients."""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

PACKAGES: tuple[ModuleType, ...] = tuple(
    import_module(name) for name in ("httpx2", "httpx") if find_spec(name) is not None
)
"""What is installed of the two, the preferred one first."""

if not PACKAGES:
    raise ImportError("The client needs httpx2 or httpx: pip install 'chainserve[client]'")


def errors_named(*names: str) -> tuple[type[Any], ...]:
    """Return exceptions of these names, of each library that is installed."""
    return tuple(getattr(package, name) for package in PACKAGES for name in names)


CUT_ERRORS = errors_named("ReadError", "RemoteProtocolError")
"""What the libraries raise when a connection breaks off within a body."""

SILENCE_ERRORS = errors_named("ReadTimeout")
"""What the libraries raise when nothing comes for the time-out."""

CONNECT_ERRORS = errors_named("ConnectError", "ConnectTimeout", "ProxyError")
"""What the libraries raise when there is no connection."""

CONNECTION_ERRORS = (
    *errors_named("NetworkError", "RemoteProtocolError", "WriteTimeout"),
    *CONNECT_ERRORS,
    *SILENCE_ERRORS,
)
"""What the libraries raise of a connection that another one may do better than."""

REQUEST_ERRORS = errors_named("RequestError")
"""What the libraries raise of connections, and of what comes over them and cannot be read."""

_LIBRARY_ERRORS = errors_named("HTTPError", "InvalidURL")
"""What the libraries raise of a request."""


@contextmanager
def caught_as_any() -> Iterator[None]:
    """Have the errors of this block caught by the names that any installed library has for them.

    Which library a client is made with is none of the caller's concern, and `except` clauses that
    were written for LangServe's client name httpx's errors.
    """
    try:
        yield
    except _LIBRARY_ERRORS as error:
        # The error itself stays, with its message, request, traceback and cause.
        error.__class__ = _as_any(error.__class__)
        raise


@cache
def _as_any(cls: Any) -> Any:
    """Return a class that is this one, and the error of this name in each other library."""
    own = {package.__name__ for package in PACKAGES}
    names = [base.__name__ for base in cls.__mro__ if base.__module__ in own]
    named = [
        next(getattr(package, name) for name in names if hasattr(package, name))
        for package in PACKAGES
    ]
    missing = [other for other in named if not issubclass(cls, other)]
    if not missing:
        return cls

    def reduce(error: Any) -> tuple[Any, ...]:
        return _rebuilt, (cls, error.args), vars(error)

    members = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce__": reduce}
    return type(cls.__name__, (cls, *missing), members)


def _rebuilt(cls: Any, args: tuple[Any, ...]) -> Any:
    """Return an error that was pickled, as of the libraries that are installed here."""
    known = _as_any(cls)
    return known.__new__(known, *args)


def package_for(arguments: Iterable[Any]) -> ModuleType:
    """Return the library that a client is made with: the one whose objects it is given.

    A caller's `httpx.BasicAuth`, or transport, or time-out, works with httpx alone; so does what
    inherits from one of them, and what lies in a dict, as transports do in `mounts`.
    """
    given = {
        cls.__module__.partition(".")[0]
        for argument in arguments
        for value in (argument.values() if isinstance(argument, dict) else [argument])
        for cls in type(value).__mro__
    }
    return next((package for package in PACKAGES if package.__name__ in given), PACKAGES[0])


class HTTPClients:
    """The HTTP clients of one `RemoteRunnable`: one for all threads, and one for each event loop.

    A connection belongs to the loop that opened it, so no loop gets those of another. An async
    client is closed when its loop ends, as `asyncio.run` ends one, or when this object is
    collected: then its loop closes it, in whichever thread that happens, and nobody waits. A
    process that was forked opens clients of its own: two that shared a connection would read each
    other's answers.

    Args:
        package: httpx or httpx2.
        options: What its clients are made with.
    """

    def __init__(self, package: ModuleType, options: Mapping[str, Any]) -> None:
        self._package = package
        self._options = options
        self._given_sync: Any = None
        self._given: Any = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._sync: Any = None
        self._closing: Any = None
        self._latest: Any = None
        self._kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Kept] = (
            weakref.WeakKeyDictionary()
        )
        self._process = os.getpid()  # Last, for other threads go by it.

    def _leave_those_of_the_parent(self) -> None:
        """Forget what was opened before this process was forked, as its parent still uses it."""
        if self._process == os.getpid():
            return
        if self._closing is not None:
            # Closing would wait for a lock that a thread of the parent may have held.
            self._closing.detach()
        self._begin()

    @property
    def sync(self) -> Any:
        """The client of threads, made on first use."""
        if self._given_sync is not None:
            return self._given_sync
        self._leave_those_of_the_parent()
        with self._lock:  # Of two threads that come first, one makes it for both.
            if self._sync is None or self._sync.is_closed:
                self._sync = self._package.Client(**self._options)
                self._closing = weakref.finalize(self, self._sync.close)
                self._closing.atexit = False
            return self._sync

    @sync.setter
    def sync(self, client: Any) -> None:
        self._given_sync = client

    @property
    def in_loop(self) -> Any:
        """The client of the running loop, made on first use; where no loop runs, the next one's."""
        if self._given is not None:
            return self._given
        self._leave_those_of_the_parent()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._latest or self._made()
        with self._lock:
            kept = self._kept.get(loop)
            if kept is None or kept.client.is_closed:
                kept = self._kept[loop] = self._keep(self._unbound() or self._made())
            return kept.client

    @in_loop.setter
    def in_loop(self, client: Any) -> None:
        self._given = client

    def _made(self) -> Any:
        self._latest = self._package.AsyncClient(**self._options)
        return self._latest

    def _unbound(self) -> Any:
        """Return the client that was made where no loop ran, if no loop has it yet."""
        for loop in [loop for loop in self._kept if loop.is_closed()]:
            del self._kept[loop]
        taken = any(kept.client is self._latest for kept in self._kept.values())
        return None if taken or (self._latest and self._latest.is_closed) else self._latest

    def _keep(self, client: Any) -> "_Kept":
        """Leave it to the running loop to close a client."""
        closing = _closed_at_the_end(client)
        with suppress(StopIteration):  # With which a generator says that it has yielded.
            closing.__anext__().send(None)
        return _Kept(client, closing)

    def close(self) -> None:
        """Close the client of threads; the next use makes another one."""
        given, self._given_sync = self._given_sync, None
        if given is not None:
            given.close()
        self._leave_those_of_the_parent()
        if self._closing is not None:
            self._closing()  # Closes what was made here, once.

    async def aclose(self) -> None:
        """Close all clients, those of other loops as soon as these get to it."""
        self.close()
        given, self._given = self._given, None
        if given is not None:
            await given.aclose()
        own = self._kept.pop(asyncio.get_running_loop(), None)
        self._kept.clear()
        self._latest = None
        if own is not None:
            await own.closing.aclose()


class _Kept(NamedTuple):
    """A client of a loop, and the generator with which the loop closes it."""

    client: Any
    closing: AsyncGenerator[None]


async def _closed_at_the_end(client: Any) -> AsyncGenerator[None]:
    """Close a client when the loop ends, or when nobody holds this generator any more.

    Loops do so with every async generator that was started in them.
    """
    try:
        yield
    finally:
        await client.aclose()
