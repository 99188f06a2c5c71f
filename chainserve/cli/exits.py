"""How a command ends: its exit codes, and the error that ends it with a sentence."""

from collections.abc import Mapping
from importlib.util import find_spec

DONE = 0
FAILED = 1
BAD_USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 4
CANCELLED = 130
"""What shells know a program by that Ctrl-C has ended."""

_MODULES = {
    "server": ("fastapi", "pydantic_settings", "starlette", "structlog", "uvicorn"),
    "client": ("h11", "httpx"),
}
"""What an extra brings."""


class CommandError(Exception):
    """Ends a command.

    Args:
        message: What is wrong and what to change; it is told on standard error.
        code: The exit code.
    """

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def require(extra: str) -> None:
    """Check that an extra is installed.

    Raises:
        CommandError: It is not; the message says how it can be.
    """
    missing = [name for name in _MODULES[extra] if not _is_installed(name)]
    if missing:
        raise CommandError(
            f"This needs {' and '.join(missing)}, which the extra {extra!r} brings: "
            f'pip install "chainserve[{extra}]"',
            BAD_USAGE,
        )


def _is_installed(name: str) -> bool:
    alternatives = ("httpx", "httpx2") if name == "httpx" else (name,)
    return any(find_spec(one) is not None for one in alternatives)


def exit_codes(meanings: Mapping[int, str]) -> str:
    """Return the part of a command's help that tells its exit codes."""
    return "\n".join(["exit codes:", *(f"  {code:>3}  {text}" for code, text in meanings.items())])
