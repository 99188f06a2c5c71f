"""The one pipeline from a request to the config of its run, the same for every verb."""

import inspect
import re
import warnings
from collections.abc import Mapping, Set
from contextvars import copy_context
from typing import Any, cast
from uuid import UUID, uuid4

import anyio.to_thread
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from chainserve.chain import Chain
from chainserve.errors import InvalidConfigError, InvalidInputError
from chainserve.types import RunId
from chainserve.validation import errors_of, input_error
from chainserve.version import __version__

_SENSITIVE = re.compile(
    r"api_?key|api_?token|access_?key|private_?key|secret|passw|(^|_)pwd|credential|bearer"
    r"|authorization|headers|base_?url|api_?base|endpoint|proxy|dsn|connection_?string|webhook"
    r"|(access|auth|session)_?token|(^|[_/])(auth|token|key|url|uri|host)$",
    re.IGNORECASE,
)
"""Names of configurable fields that choose whose money is spent or where data goes."""

_OF_HISTORIES = frozenset({"session_id", "thread_id"})
"""Fields by which histories and checkpoints are told apart; graphs do not declare theirs."""


class ConfigPipeline:
    """Builds configs: the caller's part as far as allowed, the server's, then what is forced.

    Args:
        chain: The declaration.
        runnable: The chain's runnable with its declared types.
        run_name: The path under which its runs are traced.

    Attributes:
        schema: The model of what a caller may send.
    """

    def __init__(self, chain: Chain, runnable: Runnable[Any, Any], run_name: str) -> None:
        self._chain = chain
        self._run_name = run_name
        self._keys = tuple(chain.config_keys)
        self._allowed = frozenset(chain.configurable)
        with warnings.catch_warnings():
            # LangGraph deprecates for its graphs what LangChain has for all runnables.
            warnings.simplefilter("ignore", DeprecationWarning)
            schema = runnable.config_schema(include=list(self._keys))
            self._declared = frozenset(spec.id for spec in runnable.config_specs)
        sensitive = frozenset(name for name in self._declared if _is_sensitive(name))
        self._refused = sensitive - self._allowed
        self.schema = _without_secrets(schema, sensitive, self._refused)

    async def build(
        self, sent: Mapping[str, Any] | None, request: Any, *, endpoint: str
    ) -> RunnableConfig:
        """Return the config of a run, without its run id unless the caller or the server chose one.

        Args:
            sent: The `config` member of the body.
            request: The request, for `per_req_config_modifier`.
            endpoint: The verb, noted in the run's metadata.

        Raises:
            InvalidInputError: A member of the config has the wrong type.
            InvalidConfigError: A member may not be set by a caller.
        """
        config = self._projected(sent or {})
        if self._chain.per_req_config_modifier is not None:
            config = await self._modified(config, request)
        metadata = {
            "__useragent": request.headers.get("user-agent"),
            "__chainserve_version": __version__,
            "__langserve_endpoint": endpoint,
        }
        forced = RunnableConfig(metadata=metadata)
        if self._run_name:
            forced["run_name"] = self._run_name
        return merge_configs(config, forced)

    def _projected(self, sent: Mapping[str, Any]) -> RunnableConfig:
        """Return the caller's config as far as a caller may set it, with LangChain's defaults."""
        present = {key: value for key, value in sent.items() if value is not None}
        self._refuse(present)
        config = merge_configs(cast("RunnableConfig", self._validated(present)))
        if "configurable" in self._keys:
            fields = present.get("configurable")
            fields = fields if isinstance(fields, dict) else {}
            passed = (self._allowed | _OF_HISTORIES) - self._declared
            config["configurable"] |= {name: fields[name] for name in passed if name in fields}
        kept = {key: value for key, value in config.items() if key in self._keys}
        return cast("RunnableConfig", kept)

    def _validated(self, present: Mapping[str, Any]) -> dict[str, Any]:
        """Return the members that the schema has, checked; only those that were sent."""
        try:
            config = self.schema(**present).model_dump(exclude_unset=True)
        except ValidationError as error:
            raise InvalidInputError(errors_of(error)) from None
        for key in ("recursion_limit", "max_concurrency"):
            if (limit := config.get(key)) is not None and limit < 1:
                message = "Input should be greater than or equal to 1"
                raise input_error("greater_than_equal", (key,), message, limit)
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

    async def _modified(self, config: RunnableConfig, request: Any) -> RunnableConfig:
        """Apply the server's part; a sync modifier runs in a thread, as dependencies do."""
        modifier = self._chain.per_req_config_modifier
        assert modifier is not None
        if inspect.iscoroutinefunction(modifier):
            return cast("RunnableConfig", await modifier(dict(config), request))
        context = copy_context()
        modified = await anyio.to_thread.run_sync(context.run, modifier, dict(config), request)
        for variable, value in context.items():
            if variable.get(None) is not value:
                variable.set(value)
        if inspect.isawaitable(modified):
            modified = await modified
        return cast("RunnableConfig", modified)


def _is_sensitive(name: str) -> bool:
    return _SENSITIVE.search(name.replace("-", "_")) is not None


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
