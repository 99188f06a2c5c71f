"""Faster ways to run LangChain's own runnables, of which nobody can tell but by the time."""

from chainserve.fast_paths.copies import faster

__all__ = ["faster"]
