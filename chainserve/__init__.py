"""chainserve serves LangChain runnables over HTTP."""

import importlib
from typing import TYPE_CHECKING, Any

from chainserve.chain import Chain
from chainserve.errors import ChainServeError, ConfigurationError, DiscoveryError
from chainserve.hooks import EndedRun
from chainserve.schema import CustomUserType
from chainserve.serialization import Serializer, WellKnownLCSerializer
from chainserve.version import __version__

if TYPE_CHECKING:
    from chainserve.api_handler import APIHandler
    from chainserve.app import create_app, run
    from chainserve.registry import discover
    from chainserve.server import add_routes, add_stream_route
    from chainserve.settings import Settings

_NEED_THE_SERVER = {
    "APIHandler": "chainserve.api_handler",
    "Settings": "chainserve.settings",
    "add_routes": "chainserve.server",
    "add_stream_route": "chainserve.server",
    "create_app": "chainserve.app",
    "discover": "chainserve.registry",
    "run": "chainserve.app",
}

__all__ = [
    "APIHandler",
    "Chain",
    "ChainServeError",
    "ConfigurationError",
    "CustomUserType",
    "DiscoveryError",
    "EndedRun",
    "Serializer",
    "Settings",
    "WellKnownLCSerializer",
    "__version__",
    "add_routes",
    "add_stream_route",
    "create_app",
    "discover",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what serves when it is first asked for: an installation for clients has no FastAPI."""
    if name not in _NEED_THE_SERVER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_NEED_THE_SERVER[name]), name)
    except ModuleNotFoundError as error:
        if error.name in ("fastapi", "starlette", "structlog", "pydantic_settings", "uvicorn"):
            raise ImportError(
                f"chainserve.{name} needs {error.name}: pip install 'chainserve[server]'"
            ) from error
        raise
