"""Telling handlers of the end of a run, without a task where nothing can interrupt that."""

from functools import partial
from typing import Any

from chainserve.callbacks import InlineHandler


def on_chain_end(run_manager: Any) -> Any:
    """Return `run_manager.on_chain_end`, without its shield where its handlers never wait."""
    told = run_manager.on_chain_end
    if all(isinstance(handler, InlineHandler) for handler in run_manager.handlers):
        return partial(told.__func__.__wrapped__, run_manager)
    return told
