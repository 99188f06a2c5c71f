"""The callback managers of runs: LangChain's own, made with less merging of metadata."""

from typing import Any

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.callbacks.manager import AsyncParentRunManager
from langchain_core.runnables import RunnableConfig, config as configs

_core: Any = configs
"""What `get_async_callback_manager_for_config` calls is not public."""

_VERSIONS = "lc_versions"
"""The one member of metadata that is merged with what is there, and not replaced."""


class _Quick(AsyncCallbackManager):
    """Is a manager while that is made. Who gets it gets an `AsyncCallbackManager`."""

    def add_metadata(self, metadata: dict[str, Any], inherit: bool = True) -> None:
        if (
            _VERSIONS in metadata
            or _VERSIONS in self.metadata
            or _VERSIONS in self.inheritable_metadata
        ):
            super().add_metadata(metadata, inherit)
            return
        self.metadata = {**self.metadata, **metadata}
        if inherit:
            self.inheritable_metadata = {**self.inheritable_metadata, **metadata}


def manager_of(config: RunnableConfig) -> AsyncCallbackManager:
    """Return what `get_async_callback_manager_for_config` does."""
    fields = config.get("configurable")
    return configured(
        inheritable_callbacks=config.get("callbacks"),
        inheritable_tags=config.get("tags"),
        inheritable_metadata=config.get("metadata"),
        langsmith_inheritable_metadata=(
            _core._get_langsmith_inheritable_metadata_from_config(config) if fields else None
        ),
    )


def configured(*args: Any, **kwargs: Any) -> AsyncCallbackManager:
    """Return what `AsyncCallbackManager.configure` does."""
    return _made(_Quick.configure(*args, **kwargs))


def child_of(run_manager: AsyncParentRunManager, tag: str | None = None) -> AsyncCallbackManager:
    """Return what `run_manager.get_child(tag)` does."""
    manager = _Quick(handlers=[], parent_run_id=run_manager.run_id)
    manager.set_handlers(run_manager.inheritable_handlers)
    manager.add_tags(run_manager.inheritable_tags)
    manager.add_metadata(run_manager.inheritable_metadata)
    if tag is not None:
        manager.add_tags([tag], inherit=False)
    return _made(manager)


def _made(manager: AsyncCallbackManager) -> AsyncCallbackManager:
    manager.__class__ = AsyncCallbackManager
    return manager
