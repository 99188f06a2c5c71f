"""The configs of steps, without looking for what a config of the same run cannot lack."""

from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    CONFIG_KEYS,
    DEFAULT_RECURSION_LIMIT,
    ensure_config,
    var_child_runnable_config,
)

_KEYS = frozenset(CONFIG_KEYS)
_COPIED = ("tags", "metadata", "configurable")
_NOTED = frozenset({"model", "checkpoint_ns"})
"""Configurable fields that `ensure_config` puts into the metadata."""


def ensured(config: RunnableConfig | None) -> RunnableConfig:
    """Return what `ensure_config` does: a config with all that it must have.

    A step is given the config that its context has, too, and so has nothing to inherit from there.
    """
    if config is None or var_child_runnable_config.get() is not config or not _is_plain(config):
        return ensure_config(config)
    made: dict[str, Any] = {
        "tags": [],
        "metadata": {},
        "callbacks": None,
        "recursion_limit": DEFAULT_RECURSION_LIMIT,
        "configurable": {},
    }
    made |= {key: value for key, value in config.items() if value is not None}
    for key in _COPIED:
        made[key] = made[key].copy()
    if made["callbacks"] is not None:
        made["callbacks"] = made["callbacks"].copy()
    return cast("RunnableConfig", made)


def below(config: RunnableConfig, callbacks: AsyncCallbackManager) -> RunnableConfig:
    """Return what `patch_config` does for the config of a run: one for the runs below it.

    Args:
        config: A config that is complete.
        callbacks: The run's own manager of those below it.
    """
    made: dict[str, Any] = {**config, "callbacks": callbacks}
    made.pop("run_name", None)
    made.pop("run_id", None)
    for key in _COPIED:
        made[key] = made[key].copy()
    return cast("RunnableConfig", made)


def _is_plain(config: RunnableConfig) -> bool:
    """Tell whether a config has nothing that is put elsewhere."""
    return _KEYS.issuperset(config) and _NOTED.isdisjoint(config.get("configurable") or ())
