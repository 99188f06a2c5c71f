"""Faster ways to run LangChain's own runnables, of which nobody can tell but by the time."""

from chainserve.fast_paths.copies import faster
from chainserve.fast_paths.events import stream_events

__all__ = ["faster", "stream_events"]
