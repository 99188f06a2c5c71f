"""LangServe's public names: which have a counterpart here, and what to write for the others."""

THEIRS = "langserve"
OURS = "chainserve"

TOP_LEVEL = ("APIHandler", "CustomUserType", "RemoteRunnable", "__version__", "add_routes")
"""What `from langserve import *` brings, in an order that linters leave alone."""

MODULES: dict[str, frozenset[str]] = {
    "api_handler": frozenset(
        {"APIHandler", "PerKeyFeedbackConfig", "PerRequestConfigModifier", "TokenFeedbackConfig"}
    ),
    "callbacks": frozenset(
        {
            "AsyncEventAggregatorCallback",
            "CallbackEventDict",
            "NAME_TO_IGNORE_CONDITION",
            "ahandle_callbacks",
            "handle_callbacks",
            "replace_uuids",
        }
    ),
    "client": frozenset({"RemoteRunnable"}),
    "schema": frozenset(
        {
            "BaseFeedback",
            "BatchResponseMetadata",
            "CustomUserType",
            "Feedback",
            "FeedbackCreateRequest",
            "FeedbackCreateRequestTokenBased",
            "FeedbackToken",
            "InvokeResponseMetadata",
            "PublicTraceLink",
            "PublicTraceLinkCreateRequest",
            "SharedResponseMetadata",
            "SingletonResponseMetadata",
        }
    ),
    "serialization": frozenset(
        {
            "Serializer",
            "ServerSideException",
            "WellKnownLCObject",
            "WellKnownLCSerializer",
            "default",
            "load_events",
        }
    ),
    "server": frozenset({"KNOWN_ENDPOINTS", "EndpointName", "add_routes"}),
    "validation": frozenset(
        {
            "BaseCallback",
            "BatchBaseResponse",
            "BatchRequestShallowValidator",
            "CallbackEvent",
            "Error",
            "InvokeBaseResponse",
            "InvokeRequestShallowValidator",
            "LLMResult",
            "OnChainEnd",
            "OnChainError",
            "OnChainStart",
            "OnChatModelStart",
            "OnLLMEnd",
            "OnLLMStart",
            "OnRetrieverEnd",
            "OnRetrieverError",
            "OnRetrieverStart",
            "OnToolEnd",
            "OnToolError",
            "OnToolStart",
            "StreamEventsParameters",
            "StreamLogParameters",
            "Validator",
            "create_batch_request_model",
            "create_batch_response_model",
            "create_invoke_request_model",
            "create_invoke_response_model",
            "create_stream_events_request_model",
            "create_stream_log_request_model",
            "create_stream_request_model",
        }
    ),
    "version": frozenset({"__version__"}),
}
"""The public names of each of LangServe's modules that has a counterpart."""

WITHOUT_COUNTERPART = {
    "pydantic_v1": "write: from pydantic import BaseModel, Field",
    "lzstring": (
        "LZString's compressToEncodedURIComponent is compress in chainserve.lzstring, its "
        "decompressFromEncodedURIComponent is decompress"
    ),
    "playground": "the playground is served by add_routes and APIHandler.playground",
    "server_sent_events": (
        "use the package httpx-sse: from httpx_sse import connect_sse, aconnect_sse"
    ),
    "packages": "import the template's chain and give it to add_routes",
    "cli": "start the server with uvicorn, as in: uvicorn app.server:app",
}
"""LangServe's modules, of 0.3.3 and before, without a counterpart, and what to do instead."""

KNOWN = frozenset({*MODULES, *WITHOUT_COUNTERPART, *TOP_LEVEL})
"""What `langserve.` is followed by, where it is the package and no file's name."""

NAMES_WITHOUT_COUNTERPART = {"logger": "make one of your own: logging.getLogger(__name__)"}
"""The same for names, in whatever module they are."""


def why_not(path: str) -> str | None:
    """Say why a dotted path below `langserve` cannot be ours, and what to write instead.

    Returns:
        A sentence, or None if the same path below `chainserve` is there.
    """
    _, *parts = path.split(".")
    if not parts:
        return None
    first, rest = parts[0], parts[1:]
    if mend := WITHOUT_COUNTERPART.get(first):
        return f"langserve.{first} has no counterpart: {mend}."
    if private := next((part for part in parts if _is_private(part)), None):
        return f"{private} is internal to LangServe: do without it, or keep a copy of your own."
    if first in MODULES:
        return _why_not_in(first, rest[0]) if rest else None
    if first in TOP_LEVEL or _is_dunder(first):
        return None
    if home := _home_of(first):
        return f"chainserve has no {first}: write {home}.{first}."
    return f"langserve.{first} has no counterpart in chainserve."


def _why_not_in(module: str, name: str) -> str | None:
    if name in MODULES[module] or _is_dunder(name):
        return None
    if home := _home_of(name):
        return f"chainserve.{module} has no {name}: write {home}.{name}."
    if mend := NAMES_WITHOUT_COUNTERPART.get(name):
        return f"chainserve.{module} has no {name}: {mend}."
    return f"chainserve.{module} has no {name}, which is not LangServe's own: import it directly."


def _home_of(name: str) -> str | None:
    """Return the module in which a name is to be found, if any."""
    if name in TOP_LEVEL:
        return OURS
    homes = (f"{OURS}.{module}" for module, names in MODULES.items() if name in names)
    return next(homes, None)


def is_known(path: str) -> bool:
    """Tell whether a dotted path is one of LangServe's modules or names, not a file's name."""
    return path.partition(".")[2].partition(".")[0] in KNOWN


def renamed(path: str) -> str:
    """Return the same path below `chainserve`."""
    return OURS + path.removeprefix(THEIRS)


def is_theirs(path: str) -> bool:
    """Tell whether a dotted path is `langserve` or below it."""
    return path == THEIRS or path.startswith(THEIRS + ".")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not _is_dunder(name)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
