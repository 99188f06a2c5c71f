"""The one pipeline from a request to the config of its run, the same for every verb."""

import inspect
import re
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID, uuid4

import anyio.to_thread
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs
from pydantic import BaseModel, ValidationError

from chainserve.chain import Chain
from chainserve.errors import InvalidConfigError, InvalidInputError
from chainserve.types import RunId
from chainserve.validation import errors_of
from chainserve.version import __version__

_SENSITIVE = re.compile(
    r"(api_?key|secret|password|credential|access_token|auth_token|base_?url|api_base|endpoint"
    r"|proxy|_host$|_url$)",
    re.IGNORECASE,
)
"""Names of configurable fields that choose whose money is spent or where data goes."""


class ConfigPipeline:
    """Builds configs: the caller's part as far as allowed, the server's, then what is forced.

    Args:
        chain: The declaration.
        runnable: The chain's runnable with its declared types.
        run_name: The path under which its runs are traced.
    """

    def __init__(self, chain: Chain, runnable: Runnable[Any, Any], run_name: str) -> None:
        self._chain = chain
        self._run_name = run_name
        self._keys = tuple(chain.config_keys)
        self._allowed = frozenset(chain.configurable)
        self.schema: type[BaseModel] = runnable.config_schema(include=list(self._keys))

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
        config = self._projected(sent) if sent else RunnableConfig()
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
        """Return the caller's config as far as a caller may set it."""
        present = {key: value for key, value in sent.items() if value is not None}
        if self._chain.strict_config and (unknown := present.keys() - set(self._keys)):
            raise InvalidConfigError(
                f"These config keys are not accepted: {', '.join(sorted(unknown))}. "
                f"Accepted are: {', '.join(self._keys) or 'none'}."
            )
        try:
            config = self.schema(**present).model_dump()
        except ValidationError as error:
            raise InvalidInputError(errors_of(error, loc=("config",))) from None
        config = {key: config[key] for key in self._keys if config.get(key) is not None}
        if "configurable" in config:
            config["configurable"] = self._configurable(
                config["configurable"], present.get("configurable", {})
            )
        return cast("RunnableConfig", config)

    def _configurable(self, declared: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the declared and the allowed fields; refuse keys and addresses."""
        refused = [name for name in sent if name in declared and self._is_refused(name)]
        if refused:
            raise InvalidConfigError(
                f"A caller may not set {', '.join(sorted(refused))}. The server can allow it with "
                f"Chain(configurable=[{refused[0]!r}])."
            )
        fields = {name: value for name, value in declared.items() if not self._is_refused(name)}
        extra = {
            name: sent[name] for name in self._allowed if name in sent and name not in declared
        }
        return {**fields, **extra}

    def _is_refused(self, name: str) -> bool:
        return name not in self._allowed and _SENSITIVE.search(name) is not None

    async def _modified(self, config: RunnableConfig, request: Any) -> RunnableConfig:
        """Apply the server's part; a sync modifier runs in a thread, as dependencies do."""
        modifier = self._chain.per_req_config_modifier
        assert modifier is not None
        if inspect.iscoroutinefunction(modifier):
            return cast("RunnableConfig", await modifier(dict(config), request))
        modified = await anyio.to_thread.run_sync(modifier, dict(config), request)
        if inspect.isawaitable(modified):
            modified = await modified
        return cast("RunnableConfig", modified)


def ensure_run_id(config: RunnableConfig) -> RunId:
    """Return the run id in a config, after choosing a random one (UUID 4) where there is none."""
    run_id = config.get("run_id")
    if run_id is None:
        run_id = config["run_id"] = uuid4()
    elif not isinstance(run_id, UUID):
        run_id = config["run_id"] = UUID(str(run_id))
    return RunId(str(run_id))
