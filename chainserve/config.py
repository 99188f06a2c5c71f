"""The one pipeline from a request to the config of its run, the same for every verb."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Set
from contextvars import copy_context
from functools import lru_cache, partial
from typing import Any, cast
from uuid import UUID, uuid4

import anyio.to_thread
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs, var_child_runnable_config
from langchain_core.runnables.configurable import DynamicRunnable
from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from chainserve.chain import Chain
from chainserve.errors import (
    InvalidConfigError,
    InvalidConfigHashError,
    InvalidInputError,
    InvalidJSONError,
)
from chainserve.lzstring import decompress
from chainserve.sensitive import is_sensitive
from chainserve.types import RunId
from chainserve.validation import errors_of, input_error, parse_json
from chainserve.version import __version__

MAX_HASHED_CONFIG_BYTES = 65_536
"""The largest JSON text of a config in a URL."""

_DECODED_HASHES_KEPT = 8
"""Decoding is slow for what it is, and a batch asks for the same hash again and again."""

_OF_HISTORIES = frozenset({"session_id", "thread_id"})
"""Fields by which histories and checkpoints are told apart; graphs do not declare theirs."""


class ConfigPipeline:
    """Builds configs: the caller's part as far as allowed, the server's, then what is forced.

    The caller's part is the config in the URL and above it the one in the body: both have to pass,
    tags are united, metadata and configurable fields are merged name by name.

    Args:
        chain: The declaration.
        runnable: The chain's runnable with its declared types.
        run_name: The path under which its runs are traced.

    Attributes:
        schema: The model of what a caller may send.
        run_name: The path under which its runs are traced.
    """

    def __init__(self, chain: Chain, runnable: Runnable[Any, Any], run_name: str) -> None:
        self._chain = chain
        self.run_name = run_name
        self._keys = tuple(chain.config_keys)
        self._allowed = frozenset(chain.configurable)
        with warnings.catch_warnings():
            # LangGraph deprecates for its graphs what LangChain has for all runnables.
            warnings.simplefilter("ignore", DeprecationWarning)
            schema = runnable.config_schema(include=list(self._keys))
            self._declared = frozenset(spec.id for spec in runnable.config_specs)
        sensitive = frozenset(name for name in self._declared if is_sensitive(name))
        self._refused = sensitive - self._allowed
        self.schema = _without_secrets(schema, sensitive, self._refused)
        self._may_be_empty = _accepts_nothing(self.schema)
        self._defaults = _defaults(schema)
        self._hidden = sensitive & self._defaults.keys()
        self._bound = _bound_fields(runnable)
        self._decompressed = lru_cache(_DECODED_HASHES_KEPT)(_decompressed)

    async def build(
        self,
        sent: Mapping[str, Any] | None,
        request: Any,
        *,
        endpoint: str,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> RunnableConfig:
        """Return the config of a run, without its run id unless the caller or the server chose one.

        Args:
            sent: The `config` member of the body.
            request: The request, for `per_req_config_modifier`.
            endpoint: The verb, noted in the run's metadata.
            config_hash: The config in the URL; empty where there is none.
            server_config: What goes before all that the caller sends.

        Raises:
            InvalidConfigHashError: The config in the URL cannot be decoded.
            InvalidInputError: A member of a config has the wrong type.
            InvalidConfigError: A member may not be set by a caller.
        """
        callers = self._callers(sent or {}, config_hash)
        modified = self._chain.per_req_config_modifier is not None
        config = self._projected(callers) if callers or modified else RunnableConfig()
        if server_config:
            config = merge_configs(config, server_config)
        if modified:
            config = await self._modified(config, request, callers)
        metadata = {
            "__useragent": request.headers.get("user-agent"),
            "__chainserve_version": __version__,
            "__langserve_endpoint": endpoint,
        }
        forced = RunnableConfig(metadata=metadata)
        if self.run_name:
            forced["run_name"] = self.run_name
        if config or var_child_runnable_config.get() is not None:
            return merge_configs(config, forced)
        return RunnableConfig(tags=[], configurable={}, **forced)  # What merging would make of it.

    def schema_config(
        self, config_hash: str, server_config: RunnableConfig | None = None
    ) -> RunnableConfig:
        """Return the config on which schemas may depend: the one in a URL as far as it is accepted.

        Args:
            config_hash: The config in the URL; empty where there is none.
            server_config: What goes before it.

        Raises:
            InvalidConfigHashError: The config cannot be decoded.
            InvalidInputError: A member of it has the wrong type.
            InvalidConfigError: A member may not be set by a caller.
        """
        config = self._projected(self._callers({}, config_hash))
        return merge_configs(config, server_config) if server_config else config

    def _callers(self, sent: Mapping[str, Any], config_hash: str) -> dict[str, Any]:
        """Return the caller's config as far as a caller may set it."""
        below = self._accepted(self._in_hash(config_hash)) if config_hash else {}
        return _merged(below, self._accepted(sent))

    def _projected(self, config: Mapping[str, Any]) -> RunnableConfig:
        """Return those keys of a config that are used, with LangChain's defaults."""
        complete = merge_configs(cast("RunnableConfig", config))
        kept = {key: value for key, value in complete.items() if key in self._keys}
        return cast("RunnableConfig", kept)

    def _in_hash(self, config_hash: str) -> dict[str, Any]:
        """Return the config in a URL, as it was sent."""
        try:
            config = parse_json(self._decompressed(config_hash))
        except (ValueError, InvalidJSONError):
            raise InvalidConfigHashError from None
        if not isinstance(config, dict):
            raise InvalidConfigHashError
        return config

    def _accepted(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        """Return those members of one config that a caller may set."""
        present = {key: value for key, value in sent.items() if value is not None}
        if not present and self._may_be_empty:
            return {}
        self._refuse(present)
        config = self._validated(present)
        fields = present.get("configurable")
        if "configurable" in self._keys and isinstance(fields, dict):
            passed = ((self._allowed | _OF_HISTORIES) - self._declared) & fields.keys()
            declared = config.get("configurable", {})
            config["configurable"] = declared | {name: fields[name] for name in passed}
        return config

    def _validated(self, present: Mapping[str, Any]) -> dict[str, Any]:
        """Return the members that the schema has, checked; only those that were sent."""
        try:
            config = self.schema(**present).model_dump(exclude_unset=True)
        except ValidationError as error:
            raise InvalidInputError(errors_of(error), within="config") from None
        for key in ("recursion_limit", "max_concurrency"):
            if (limit := config.get(key)) is not None and limit < 1:
                message = "Input should be greater than or equal to 1"
                raise input_error("greater_than_equal", (key,), message, limit, within="config")
        return config

    def _refuse(self, present: Mapping[str, Any]) -> None:
        """Refuse what a caller may not set, where dropping it would surprise."""
        if self._chain.strict_config and (unknown := present.keys() - set(self._keys)):
            raise InvalidConfigError(
                f"These config keys are not accepted: {', '.join(sorted(unknown))}. "
                f"Accepted are: {', '.join(self._keys) or 'none'}."
            )
        fields = present.get("configurable")
        if not isinstance(fields, dict):
            return
        if fields and self._declared and "configurable" not in self._keys:
            raise InvalidConfigError(
                "This server does not let a caller set configurable fields. It can, by naming "
                "`configurable` in config_keys."
            )
        if refused := sorted(self._refused & fields.keys()):
            raise InvalidConfigError(
                f"A caller may not set {', '.join(refused)}. The server can allow it with "
                f"Chain(configurable=[{refused[0]!r}])."
            )

    async def _modified(
        self, config: RunnableConfig, request: Any, callers: Mapping[str, Any]
    ) -> RunnableConfig:
        """Apply the server's part.

        If the caller sent any fields, the modifier sees all that there are, as LangServe shows
        them. They stay in the config, for nobody can tell what a modifier left from what it means;
        but secrets that it did not change do not, since LangChain notes fields in metadata.
        """
        if callers.get("configurable") is None:
            return await self._called({**config}, request)
        own = {name: default() for name, default in self._defaults.items()} | self._bound
        shown = {**own, **config["configurable"]}
        modified = await self._called({**config, "configurable": shown}, request)
        if not modified or not modified.get("configurable"):
            return modified
        kept = {
            name: value
            for name, value in modified["configurable"].items()
            if name not in self._hidden or value != own[name]
        }
        return cast("RunnableConfig", {**modified, "configurable": kept})

    async def _called(self, config: dict[str, Any], request: Any) -> RunnableConfig:
        """Call the modifier; a sync one in a thread, as dependencies are."""
        modifier = self._chain.per_req_config_modifier
        assert modifier is not None
        if inspect.iscoroutinefunction(modifier):
            return cast("RunnableConfig", await modifier(config, request))
        context = copy_context()
        modified = await anyio.to_thread.run_sync(context.run, modifier, config, request)
        for variable, value in context.items():
            if variable.get(None) is not value:
                variable.set(value)
        if inspect.isawaitable(modified):
            modified = await modified
        return cast("RunnableConfig", modified)


def _decompressed(config_hash: str) -> bytes:
    """Return the text of the config in a URL."""
    # No config within the bound has a longer hash; what may follow its end must not be kept.
    if len(config_hash) > 2 * MAX_HASHED_CONFIG_BYTES:
        raise InvalidConfigHashError
    return decompress(config_hash, max_bytes=MAX_HASHED_CONFIG_BYTES).encode()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two configs in one, of which `above` has the last word.

    LangChain's own merging takes a recursion limit that is its default for none.
    """
    merged = {**below, **above}
    for key in merged.keys() & {"metadata", "configurable"}:
        merged[key] = {**below.get(key, {}), **above.get(key, {})}
    if "tags" in merged:
        merged["tags"] = [*below.get("tags", ()), *above.get("tags", ())]
    return merged


def _without_secrets(
    schema: type[BaseModel], sensitive: Set[str], refused: Set[str]
) -> type[BaseModel]:
    """Return the schema without refused fields and without the server's sensitive values."""
    if not sensitive:
        return schema
    declared = schema.model_fields["configurable"].annotation
    assert isinstance(declared, type)
    assert issubclass(declared, BaseModel)
    fields: dict[str, Any] = {
        name: (field.annotation, _without_default(field) if name in sensitive else field)
        for name, field in declared.model_fields.items()
        if name not in refused
    }
    members: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in schema.model_fields.items()
        if name != "configurable"
    }
    configurable: Any = create_model(declared.__name__, **fields)
    return create_model(schema.__name__, configurable=(configurable, None), **members)


def _accepts_nothing(schema: type[BaseModel]) -> bool:
    """Tell whether a config without any member needs no look."""
    try:
        return not schema().model_dump(exclude_unset=True)
    except ValidationError:
        return False


def _defaults(schema: type[BaseModel]) -> dict[str, Callable[[], Any]]:
    """Return what makes the default of each configurable field that has one."""
    member = schema.model_fields.get("configurable")
    declared = None if member is None else member.annotation
    if not (isinstance(declared, type) and issubclass(declared, BaseModel)):
        return {}
    return {
        name: partial(field.get_default, call_default_factory=True, validated_data={})
        for name, field in declared.model_fields.items()
        if not field.is_required()
    }


def _bound_fields(runnable: Runnable[Any, Any]) -> dict[str, Any]:
    """Return the fields that a chain was set to by `with_config`."""
    fields: dict[str, Any] = {}
    while isinstance(runnable, RunnableBindingBase | DynamicRunnable):
        fields = {**((runnable.config or {}).get("configurable") or {}), **fields}
        runnable = runnable.bound if isinstance(runnable, RunnableBindingBase) else runnable.default
    return fields


def _without_default(field: FieldInfo) -> Any:
    return Field(default=None, title=field.title, description=field.description)


def ensure_run_id(config: RunnableConfig) -> RunId:
    """Return the run id in a config, after choosing a random one (UUID 4) where there is none."""
    run_id = config.get("run_id")
    if run_id is None:
        run_id = config["run_id"] = uuid4()
    elif not isinstance(run_id, UUID):
        run_id = config["run_id"] = UUID(str(run_id))
    return RunId(str(run_id))
