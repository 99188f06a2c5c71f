"""What chunks add up to, as LangChain adds them while they pass, for less."""

from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.base import TextAccessor

_AT_ONCE = 256
"""How many chunks wait to be added up together: they are kept alive so long."""


class Sum:
    """Adds chunks up: the first is taken as it is, and each other one is added to what there is.

    Where adding raises a `TypeError`, the last chunk is the sum from then on. Text, and messages
    that have nothing but text, are added together and late, which nobody can tell: they cannot fail
    to add up, and no order of adding neighbours makes a difference.
    """

    __slots__ = ("_addable", "_sum", "_waiting")

    def __init__(self) -> None:
        self._sum: Any = None
        self._addable = True
        self._waiting: list[Any] = []

    def add(self, chunk: Any) -> None:
        """Add a chunk.

        Raises:
            Exception: Whatever adding it raises, a `TypeError` aside.
        """
        waiting = self._waiting
        if waiting and (type(chunk) is type(waiting[0]) is str or adds_as_text(chunk, waiting[0])):
            waiting.append(chunk)
            if len(waiting) > _AT_ONCE:
                self._waiting = [_added(waiting)]
            return
        if waiting:
            self._sum, self._waiting = _added(waiting), []
        if not self._addable:
            self._sum = chunk
        elif self._sum is not None:
            self._add_to_sum(chunk)
        elif type(chunk) in _TEXTS or type(chunk) is AIMessageChunk:
            self._waiting = [chunk]
        else:
            self._sum = chunk

    def result(self) -> Any:
        """Return what there is; None if nothing was added."""
        return _added(self._waiting) if self._waiting else self._sum

    def _add_to_sum(self, chunk: Any) -> None:
        try:
            self._sum = self._sum + chunk
        except TypeError:
            self._sum, self._addable = chunk, False
            return
        if type(self._sum) is AIMessageChunk:
            self._waiting, self._sum = [self._sum], None


def adds_as_text(chunk: Any, first: Any) -> bool:
    """Tell whether a chunk has nothing but text to add to the first."""
    if type(chunk) in _TEXTS:
        return type(first) in _TEXTS
    if not (type(chunk) is type(first) is AIMessageChunk):
        return False
    own, of_first = chunk.response_metadata, first.response_metadata
    return (
        type(chunk.content) is str
        and type(first.content) is str
        and not chunk.tool_call_chunks
        and not chunk.additional_kwargs
        and chunk.usage_metadata is None
        and chunk.chunk_position is None
        and (not own or (own.keys() == _CONSTANT and own.items() <= of_first.items()))
    )


_TEXTS = (str, TextAccessor)
"""Text, and the text of a message; what they add up to is a `str`."""

_CONSTANT = frozenset({"model_provider"})
"""Metadata that every chunk of a model has, and that adding leaves as it is."""


def _added(chunks: list[Any]) -> Any:
    if len(chunks) == 1:
        return chunks[0]
    return "".join(chunks) if type(chunks[0]) in _TEXTS else chunks[0] + chunks[1:]
