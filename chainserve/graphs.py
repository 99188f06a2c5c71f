"""LangGraph's compiled graphs among the runnables, known without importing LangGraph."""

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase

from chainserve.errors import InvalidConfigError

_DEFAULT_STREAM_MODES = ("updates", "values")


class Graph:
    """A compiled graph, with the arguments that are bound to it."""

    def __init__(self, compiled: Any, bound: Mapping[str, Any]) -> None:
        self._compiled = compiled
        self._bound = bound

    @classmethod
    def of(cls, runnable: Runnable[Any, Any]) -> "Graph | None":
        """Return the graph that a runnable is, or is bound to; None if it is none."""
        bound: dict[str, Any] = {}
        while isinstance(runnable, RunnableBindingBase) and not isinstance(
            runnable, RunnableEachBase
        ):
            bound = {**runnable.kwargs, **bound}
            runnable = runnable.bound
        names = {f"{base.__module__}.{base.__qualname__}" for base in type(runnable).__mro__}
        return cls(runnable, bound) if "langgraph.pregel.main.Pregel" in names else None

    def text_arguments(self) -> dict[str, Any]:
        """Return the arguments with which a stream has the models' tokens, not whole steps.

        There are none where the chain's author has chosen what a stream has.
        """
        mode = self._bound.get("stream_mode", self._compiled.stream_mode)
        chosen = "stream_mode" in self._bound or mode not in _DEFAULT_STREAM_MODES
        return {} if chosen else {"stream_mode": "messages"}

    def check_thread(self, config: RunnableConfig) -> None:
        """Refuse a run without the thread that a checkpointer needs.

        Raises:
            InvalidConfigError: The graph keeps checkpoints, and the config names no thread.
        """
        keeps = getattr(self._compiled, "checkpointer", None) not in (None, False)
        if keeps and not config.get("configurable", {}).get("thread_id"):
            raise InvalidConfigError(
                "This chain keeps what was said in threads. Send the thread's id: "
                '{"config": {"configurable": {"thread_id": "…"}}}.'
            )
