"""The declaration of a served chain."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypedDict, cast

from langchain_core.runnables import Runnable, RunnableConfig

from chainserve.errors import ConfigurationError
from chainserve.hooks import OnEnd, Principal, TranslateError
from chainserve.serialization import Serializer
from chainserve.types import (
    BACKGROUND_MODES,
    ENDPOINT_NAMES,
    DisconnectMode,
    EndpointName,
    PlaygroundType,
    RunMode,
)

PerRequestConfigModifier: TypeAlias = Callable[
    [dict[str, Any], Any], RunnableConfig | dict[str, Any] | Awaitable[Any]
]
"""`(config, request) -> config`, sync or async: the server's own part of each request's config."""


class PerKeyFeedbackConfig(TypedDict):
    """What callers may give feedback about, such as `correctness`."""

    key: str


class TokenFeedbackConfig(TypedDict):
    """What callers get tokens for, with which they may give feedback: one key."""

    key_configs: list[PerKeyFeedbackConfig]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """A runnable with everything needed to serve it; one module of `chains/` declares one.

    Attributes:
        path: Where its routes are mounted, such as `/chat`; the empty path is valid.
        runnable: Any LangChain `Runnable`, compiled LangGraph graphs among them.
        title: A short name for people; made from the path when not given.
        description: One or two sentences for people.
        tags: Words to find it by, also its group in the OpenAPI document.
        examples: Inputs worth trying.
        model: The name of the model that answers, as `/chains` shows it.
        input_type: The type inputs are validated against; `"auto"` asks the runnable.
        output_type: The type outputs are validated against and shaped by; `"auto"` leaves them as
            they are.
        config_keys: The keys of a caller's config that are used; others are dropped, as LangServe
            does.
        configurable: Names of configurable fields a caller may set although the runnable does not
            declare them, or although they look like a key or an address (`api_key`, `base_url`).
        strict_config: Answer config keys outside `config_keys`, and arguments outside
            `kwargs_keys`, with 422 instead of dropping them.
        kwargs_keys: The names of arguments for the runnable that a caller may send as `kwargs`,
            such as a graph's `stream_mode`; others are dropped, as LangServe does.
        per_req_config_modifier: `(config, request) -> config`, applied to every verb's config.
        dependencies: FastAPI dependencies of all its routes.
        enabled_endpoints: The endpoints to mount, and no others; all when None. The run routes are
            `runs`, for runs of what else is mounted.
        disabled_endpoints: The endpoints not to mount.
        serializer: Turns outputs into JSON; the well-known LangChain types when None.
        playground_type: The kind of playground page.
        principal: `(request) -> whose runs these are`, sync or async. Other callers are told that
            there are no such runs.
        on_end: Called with each run of the chain that has ended, an `EndedRun`; its failure is
            logged and changes nothing.
        translate_error: `(exception) -> exception`, what a caller is told of an exception of the
            chain, such as an `HTTPException`; None leaves it as it is.
        on_disconnect: What becomes of a run whose last reader leaves.
        resume_grace: How long a run that can be resumed then waits for a reader, in seconds.
        retention: Whether anything of a run is kept once it has ended and nobody reads it.
        run_timeout: The longest a run may take, in seconds.
        first_event_timeout: The longest a stream may take to its first chunk, in seconds.
        idle_timeout: The longest a stream may pause between chunks, in seconds.
        max_body_bytes: The largest request body.
        max_batch_size: The largest number of inputs in a batch.
        max_concurrency: How many inputs of one batch run at once.
        include_callback_events: Whether `invoke` and `batch` tell what happened in their runs.
        enable_feedback_endpoint: Whether callers may send feedback on runs to LangSmith.
        token_feedback_config: `{"key_configs": [{"key": "correctness"}]}`, with one key: each
            answer has a token, with which feedback on its run may be sent.
        enable_public_trace_link_endpoint: Whether callers may make the LangSmith trace of a run
            public, with all that is in it.
        stream_log_name_allow_list: The names of the steps that `stream_log` and `stream_events`
            tell of beside the root run; all when None.
        astream_events_version: The version of the events of `stream_events`.

    A bound, time-out or policy that is None takes the server's setting of the same name.

    Raises:
        ConfigurationError: The path, an endpoint's name, or an option cannot work.
    """

    path: str
    runnable: Runnable[Any, Any]
    title: str = ""
    description: str = ""
    tags: Sequence[str] = ()
    examples: Sequence[Any] = ()
    model: str | None = None

    input_type: Any = "auto"
    output_type: Any = "auto"
    config_keys: Sequence[str] = ("configurable",)
    configurable: Sequence[str] = ()
    strict_config: bool = False
    kwargs_keys: Sequence[str] = ()
    per_req_config_modifier: PerRequestConfigModifier | None = None
    dependencies: Sequence[Any] = ()
    enabled_endpoints: Sequence[EndpointName] | None = None
    disabled_endpoints: Sequence[EndpointName] | None = None
    serializer: Serializer | None = None
    playground_type: PlaygroundType = "default"

    principal: Principal | None = None
    on_end: OnEnd | None = None
    translate_error: TranslateError | None = None

    on_disconnect: DisconnectMode | None = None
    resume_grace: float | None = None
    retention: bool | None = None
    run_timeout: float | None = None
    first_event_timeout: float | None = None
    idle_timeout: float | None = None
    max_body_bytes: int | None = None
    max_batch_size: int | None = None
    max_concurrency: int | None = None

    include_callback_events: bool = False
    enable_feedback_endpoint: bool = False
    token_feedback_config: TokenFeedbackConfig | Mapping[str, Any] | None = None
    enable_public_trace_link_endpoint: bool = False
    stream_log_name_allow_list: Sequence[str] | None = None
    astream_events_version: Literal["v1", "v2"] = "v2"

    endpoints: frozenset[EndpointName] = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work, and fill in what follows from the rest."""
        if not isinstance(self.runnable, Runnable):
            raise ConfigurationError(f"{self.path!r} is served by {_no_runnable(self.runnable)}")
        if self.path and not self.path.startswith("/"):
            raise ConfigurationError(
                f"The path {self.path!r} must start with a slash: {'/' + self.path!r}."
            )
        for key, reason in _SERVERS_OWN.items():
            if key in self.config_keys:
                raise ConfigurationError(f"config_keys must not name {key}: {reason}.")
        if self.token_feedback_config is not None and self.feedback_key is None:
            raise ConfigurationError(
                'token_feedback_config must have one key: {"key_configs": [{"key": "…"}]}.'
            )
        if own := {"input", "config"} & {*self.kwargs_keys}:
            raise ConfigurationError(f"kwargs_keys must not name {', '.join(own)}.")
        object.__setattr__(self, "path", self.path.rstrip("/"))
        object.__setattr__(self, "title", self.title or _title(self.path))
        object.__setattr__(self, "endpoints", self._mounted_endpoints())

    def _mounted_endpoints(self) -> frozenset[EndpointName]:
        """Return the endpoints that the two lists leave; as in LangServe, case does not matter."""
        enabled = _lowered(self.enabled_endpoints)
        disabled = _lowered(self.disabled_endpoints) or ()
        if enabled and disabled:
            raise ConfigurationError("Give enabled_endpoints or disabled_endpoints, not both.")
        for name in (*(enabled or ()), *disabled):
            if name not in ENDPOINT_NAMES:
                raise ConfigurationError(
                    f"There is no endpoint {name!r}. There are: {', '.join(ENDPOINT_NAMES)}."
                )
        mounted = frozenset(ENDPOINT_NAMES if enabled is None else enabled)
        if self.enable_feedback_endpoint:
            mounted |= {"feedback"}
        else:
            mounted -= {"feedback"}
        if self.enable_public_trace_link_endpoint:
            mounted |= {"public_trace_link"}
        else:
            mounted -= {"public_trace_link"}
        mounted -= frozenset(disabled)
        return mounted if mounted & frozenset(BACKGROUND_MODES) else mounted - {"runs"}

    @property
    def modes(self) -> tuple[RunMode, ...]:
        """The modes of a run that is started by `POST runs`; the first is the default."""
        return tuple(mode for mode in BACKGROUND_MODES if mode in self.endpoints)

    @property
    def feedback_key(self) -> str | None:
        """The key for which callers get feedback tokens, if they get any."""
        match self.token_feedback_config:
            case {"key_configs": [{"key": str(key)}]}:
                return key
        return None

    def at(self, path: str) -> "Chain":
        """Return the same declaration at another path."""
        return replace(self, path=path)

    def without_runs(self) -> "Chain":
        """Return the same declaration without the run routes."""
        if self.enabled_endpoints is None:
            return replace(self, disabled_endpoints=[*(self.disabled_endpoints or ()), "runs"])
        kept = [name for name in self.enabled_endpoints if name.lower() != "runs"]
        return replace(self, enabled_endpoints=kept)


def _no_runnable(given: Any) -> str:
    """Return what was given in the place of a runnable, and what to do about it."""
    if inspect.isawaitable(given):
        if inspect.iscoroutine(given):
            given.close()
        return "a coroutine, which is not a Runnable. Await it, and pass what it returns."
    if isinstance(given, type) and issubclass(given, Runnable):
        return f"the class {given.__name__}. Pass an instance: {given.__name__}(...)."
    return (
        f"a {type(given).__name__}, which is not a Runnable. "
        "Pass a LangChain Runnable, or wrap a function in RunnableLambda."
    )


def _lowered(names: Sequence[EndpointName] | None) -> list[EndpointName] | None:
    if names is None:
        return None
    return [cast("EndpointName", name.lower()) for name in names]


_SERVERS_OWN = {
    "run_name": "a run is named after its path",
    "callbacks": "they are objects, which no caller can send",
}
"""Keys of a config that are the server's own, and why."""


def _title(path: str) -> str:
    """Return a readable name for a path: `/my_chain` is "My chain"."""
    words = path.strip("/").replace("/", " ").replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:] if words else "Chain"
