"""Serves applications, each with uvicorn in a process of its own, on sockets that are given.

    python _launcher.py PACKAGE MODULE=DESCRIPTOR...

The modules are in the current folder, and have an `app`. What all of them import is imported once,
then each process is a fork. Ends with its standard input.
"""

import importlib
import os
import signal
import socket
import sys

import uvicorn


def serve(module: str, descriptor: int) -> None:
    """Serve a module's application until the process is ended."""
    listener = socket.socket(fileno=descriptor)
    config = uvicorn.Config(f"{module}:app", log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


def parts(argument: str) -> tuple[str, str, str]:
    """Return what stands before and after the equals sign."""
    return argument.partition("=")


def main() -> None:
    """Serve all that is asked for."""
    package, *served = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    if package != "langserve":
        sys.modules["langserve"] = None  # type: ignore[assignment] # It cannot be imported.
    importlib.import_module(f"{package}.server")
    importlib.import_module(f"{package}.client")
    sockets = {module: int(descriptor) for module, _, descriptor in map(parts, served)}
    children = []
    for module, descriptor in sockets.items():
        child = os.fork()
        if child == 0:
            # A socket that a dead server's siblings held open would let its clients wait.
            for other in {*sockets.values()} - {descriptor}:
                os.close(other)
            serve(module, descriptor)
            os._exit(0)
        children.append(child)
    for descriptor in sockets.values():
        os.close(descriptor)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
