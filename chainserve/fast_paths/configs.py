"""The configs of steps, without looking for what a config of the same run cannot lack."""

from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    CONFIG_KEYS,
    DEFAULT_RECURSION_LIMIT,
    _set_config_context,
    ensure_config,
    var_child_runnable_config,
)

from chainserve.fast_paths.telling import are_observers

_KEYS = frozenset(CONFIG_KEYS)
_COPIED = ("tags", "metadata", "configurable")
_NOTED = frozenset({"model", "checkpoint_ns"})
"""Configurable fields that `ensure_config` puts into the metadata."""


def ensured(config: RunnableConfig | None) -> RunnableConfig:
    """Return what `ensure_config` does: a config with all that it must have.

    A step is given the config that its context has, too, and so has nothing to inherit from there;
    nor has the first, whose context has none.
    """
    if config is None or not _is_plain(config):
        return ensure_config(config)
    inherited = var_child_runnable_config.get()
    if inherited is not None and inherited is not config:
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


def context_of(config: RunnableConfig) -> Context:
    """Return a context for what runs with a config, which `set_config_context` makes.

    That takes the config out again afterwards, which nobody sees: what was started in the context
    has a copy of it.

    Args:
        config: One that has a callback manager.
    """
    context = copy_context()
    handlers: Sequence[Any] = config["callbacks"].handlers  # type: ignore[union-attr]
    if are_observers(handlers):  # None of them is LangSmith's tracer, which is set there, too.
        context.run(var_child_runnable_config.set, config)
    else:
        context.run(_set_config_context, config)
    return context


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
