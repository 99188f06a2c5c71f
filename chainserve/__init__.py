"""chainserve serves LangChain runnables over HTTP."""

import importlib
from typing import TYPE_CHECKING, Any

from chainserve.errors import (
    ChainServeError,
    ConfigurationError,
    DiscoveryError,
    RemoteError,
)
from chainserve.version import __version__

if TYPE_CHECKING:
    from chainserve.api_handler import APIHandler
    from chainserve.app import create_app, run
    from chainserve.chain import Chain
    from chainserve.client import RemoteRunnable
    from chainserve.client_errors import (
        RemoteStatusError,
        StreamGapError,
        StreamInterruptedError,
        UnexpectedAnswerError,
    )
    from chainserve.hooks import EndedRun
    from chainserve.registry import discover
    from chainserve.schema import CustomUserType
    from chainserve.serialization import Serializer, WellKnownLCSerializer
    from chainserve.server import add_routes, add_stream_route
    from chainserve.settings import Settings

_LAZY = {
    "APIHandler": "chainserve.api_handler",
    "Chain": "chainserve.chain",
    "CustomUserType": "chainserve.schema",
    "EndedRun": "chainserve.hooks",
    "RemoteRunnable": "chainserve.client",
    "RemoteStatusError": "chainserve.client_errors",
    "Serializer": "chainserve.serialization",
    "Settings": "chainserve.settings",
    "StreamGapError": "chainserve.client_errors",
    "StreamInterruptedError": "chainserve.client_errors",
    "UnexpectedAnswerError": "chainserve.client_errors",
    "WellKnownLCSerializer": "chainserve.serialization",
    "add_routes": "chainserve.server",
    "add_stream_route": "chainserve.server",
    "create_app": "chainserve.app",
    "discover": "chainserve.registry",
    "run": "chainserve.app",
}

_LAZY_MODULES = frozenset(
    {"api_handler", "callbacks", "client", "schema", "serialization", "server", "validation"}
)
"""What `import langserve` brings with it, for `chainserve.client.RemoteRunnable` and the like."""

__all__ = [
    "APIHandler",
    "Chain",
    "ChainServeError",
    "ConfigurationError",
    "CustomUserType",
    "DiscoveryError",
    "EndedRun",
    "RemoteError",
    "RemoteRunnable",
    "RemoteStatusError",
    "Serializer",
    "Settings",
    "StreamGapError",
    "StreamInterruptedError",
    "UnexpectedAnswerError",
    "WellKnownLCSerializer",
    "__version__",
    "add_routes",
    "add_stream_route",
    "create_app",
    "discover",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what a name stands for when it is first asked for: LangChain alone takes a second."""
    if name not in _LAZY and name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if name in _LAZY_MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "structlog", "pydantic_settings", "uvicorn"):
            raise ImportError(
                f"chainserve.{name} needs {error.name}: pip install 'chainserve[server]'"
            ) from error
        raise
