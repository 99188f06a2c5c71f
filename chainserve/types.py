"""The vocabulary: the words that code, wire, logs, metrics and documents share."""

from typing import Literal, NewType, TypeAlias, get_args

RunId = NewType("RunId", str)
"""Identifies a run: a UUID in its canonical text form."""

RunStatus: TypeAlias = Literal[
    "pending", "running", "success", "error", "cancelled", "timeout", "lost"
]
"""The state of a run; the last five are final."""

RunMode: TypeAlias = Literal["invoke", "batch", "stream", "stream_log", "stream_events"]
"""What a run does with its runnable."""

STREAM_MODES: frozenset[RunMode] = frozenset({"stream", "stream_log", "stream_events"})
"""The modes that write chunks as they come."""

BACKGROUND_MODES: tuple[RunMode, ...] = ("stream", "invoke", "stream_log", "stream_events")
"""What a run that is started by `POST runs` may do, each where its endpoint is enabled."""

EventName: TypeAlias = Literal["metadata", "data", "error", "end", "gap"]
"""The names of the events in a run's log and on the wire."""

StreamExit: TypeAlias = Literal["finished", "broken_off", "client_gone", "too_slow", "cancelled"]
"""How a response that reads a log came to its end; a failure is broken off where no word tells."""

CancelReason: TypeAlias = Literal["client_disconnect", "requested", "timeout", "shutdown"]
"""Why a run was cancelled; at a shutdown, or because the server cancelled its request."""

DisconnectMode: TypeAlias = Literal["cancel", "continue"]
"""What becomes of a run when its last reader leaves."""

PlaygroundType: TypeAlias = Literal["default", "chat"]
"""The kind of playground page of a chain."""

EndpointName: TypeAlias = Literal[
    "invoke",
    "batch",
    "stream",
    "stream_log",
    "stream_events",
    "playground",
    "feedback",
    "public_trace_link",
    "input_schema",
    "config_schema",
    "output_schema",
    "config_hashes",
    "token_feedback",
    "runs",
]
"""The endpoints of a chain, as LangServe's `enabled_endpoints` names them, and the run routes."""

ENDPOINT_NAMES: tuple[EndpointName, ...] = get_args(EndpointName)
TERMINAL_EVENTS: frozenset[EventName] = frozenset({"end", "error"})
