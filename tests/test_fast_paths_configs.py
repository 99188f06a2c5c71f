"""Configs and callback managers of the fast way are those of LangChain."""

from contextvars import copy_context
from typing import Any
from uuid import UUID
from weakref import ref

import pytest
from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    patch_config,
    set_config_context,
    var_child_runnable_config,
)
from langchain_core.tracers import LangChainTracer
from langsmith import Client, RunTree

from chainserve.callbacks import RunObserver
from chainserve.fast_paths.configs import below, context_of, ensured
from chainserve.fast_paths.managers import child_of, manager_of
from chainserve.fast_paths.telling import on_chain_start

HANDLER = BaseCallbackHandler()
RUN = UUID("6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11")

CONFIGS: dict[str, dict[str, Any]] = {
    "empty": {},
    "full": {
        "tags": ["a", "b", "a"],
        "metadata": {"one": 1, "nested": {"a": 1}},
        "callbacks": [HANDLER],
        "run_name": "named",
        "run_id": RUN,
        "max_concurrency": 3,
        "recursion_limit": 7,
        "configurable": {"key": "value", "api_key": "secret", "__own": 1, "number": 2},
    },
    "without values": dict.fromkeys(
        ("tags", "metadata", "callbacks", "run_name", "recursion_limit", "configurable")
    ),
    "with what belongs elsewhere": {"session": "s", "configurable": {"key": 1}},
    "with fields that are noted": {"configurable": {"model": "m", "checkpoint_ns": "n"}},
    "with noted fields in its metadata": {
        "configurable": {"model": "m"},
        "metadata": {"model": "own"},
    },
    "with versions": {"metadata": {"lc_versions": {"core": "1"}, "a": 1}},
    "with a manager": {
        "callbacks": AsyncCallbackManager(
            handlers=[HANDLER],
            inheritable_handlers=[HANDLER],
            parent_run_id=RUN,
            tags=["t"],
            inheritable_tags=["t"],
            metadata={"m": 1, "lc_versions": {"core": "1"}},
            inheritable_metadata={"lc_versions": {"core": "1"}},
        ),
        "metadata": {"lc_versions": {"other": "2"}},
        "tags": ["t", "u"],
    },
}


def seen(value: Any) -> Any:
    """Return all that there is of a config, with its managers."""
    if isinstance(value, AsyncCallbackManager):
        return type(value), {name: seen(member) for name, member in vars(value).items()}
    if isinstance(value, dict):
        return {key: seen(member) for key, member in value.items()}
    return value


def in_context_of(config: Any, function: Any, *args: Any) -> Any:
    """Call a function where a config is that of the run around it."""
    context = copy_context()
    context.run(var_child_runnable_config.set, config)
    return context.run(function, *args)


@pytest.mark.parametrize("around", CONFIGS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_ensured_alike(name: str, around: str) -> None:
    config: Any = CONFIGS[name]
    for outer in (CONFIGS[around], None, config):
        expected = in_context_of(outer, ensure_config, config)
        assert seen(in_context_of(outer, ensured, config)) == seen(expected)


def test_no_config_is_ensured_alike() -> None:
    assert ensured(None) == ensure_config(None)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_ensured_shares_nothing_that_can_be_changed(name: str) -> None:
    config: Any = CONFIGS[name]
    made: Any = in_context_of(config, ensured, config)
    for key in ("tags", "metadata", "configurable", "callbacks"):
        assert made[key] is None or made[key] is not config.get(key)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_below_a_run_is_made_alike(name: str) -> None:
    config = ensure_config(CONFIGS[name])  # type: ignore[arg-type]
    manager = AsyncCallbackManager(handlers=[HANDLER], parent_run_id=RUN)
    config.pop("run_id", None)
    made: Any = below(config, manager)
    assert seen(made) == seen(patch_config(config, callbacks=manager))
    for key in ("tags", "metadata", "configurable"):
        assert made[key] is not config[key]


def test_the_context_of_a_config_is_made_alike() -> None:
    client = Client(api_url="http://127.0.0.1:1", api_key="none", auto_batch_tracing=False)
    traced = RunTree(id=RUN, name="traced", ls_client=client)
    tracer = LangChainTracer(client=client)
    tracer.run_map[str(RUN)] = traced
    observer = RunObserver(RUN)
    inherited: list[list[BaseCallbackHandler]] = [
        [],
        [observer],
        [HANDLER, observer],
        [observer, tracer],
    ]
    for handlers in inherited:
        manager = AsyncCallbackManager(handlers=handlers, parent_run_id=RUN)
        config: Any = {"callbacks": manager, "tags": ["a"]}
        own = dict(context_of(config))
        with set_config_context(config) as theirs:
            assert own == dict(theirs)
        assert own[var_child_runnable_config] is config
        assert any(isinstance(value, ref) and value() is traced for value in own.values()) is (
            tracer in handlers
        )


@pytest.mark.parametrize("tag", [None, "seq:step:1", "t"])
@pytest.mark.parametrize("name", CONFIGS)
async def test_managers_and_their_children_are_made_alike(name: str, tag: str | None) -> None:
    config = ensure_config(CONFIGS[name])  # type: ignore[arg-type]
    own, expected = manager_of(config), get_async_callback_manager_for_config(config)
    assert seen(own) == seen(expected)
    run = await on_chain_start(own, None, "x", run_id=RUN, name="n")
    theirs = await expected.on_chain_start(None, "x", run_id=RUN, name="n")
    assert seen(vars(run)) == seen(vars(theirs))
    assert seen(child_of(run, tag)) == seen(theirs.get_child(tag))
