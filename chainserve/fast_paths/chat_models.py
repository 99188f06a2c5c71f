"""Chat models of a chain: what `BaseChatModel` does for each call, with less around it."""

from collections.abc import Callable, Mapping
from functools import cache
from types import MethodType
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from chainserve.fast_paths.model_calls import ainvoke
from chainserve.fast_paths.model_streams import astream

_CALLED = ("ainvoke", "agenerate_prompt", "agenerate", "_agenerate_with_cache")
"""The methods of `BaseChatModel` in which a call goes from `ainvoke` to the model's own."""


def in_chain(runnable: Any) -> Any:
    """Return what is run in the place of a step: a chat model is called in faster ways."""
    if not isinstance(runnable, BaseChatModel):
        return runnable
    ways = _ways(type(runnable))
    return ModelInChain(runnable, ways) if ways else runnable


@cache
def _ways(kind: type[BaseChatModel]) -> Mapping[str, Callable[..., Any]]:
    """Return which methods of a model are called in a faster way: those that are as usual."""
    ways: dict[str, Callable[..., Any]] = {}
    if kind.astream is BaseChatModel.astream and kind.atransform is Runnable.atransform:
        ways |= {"astream": astream, "atransform": Runnable.atransform}
    if all(getattr(kind, name) is getattr(BaseChatModel, name) for name in _CALLED):
        ways["ainvoke"] = ainvoke
    return ways


class ModelInChain:
    """A chat model in a chain: all that it is, but called in faster ways.

    Whatever is asked of it is the model's own, its class too.
    """

    __slots__ = ("_model", "_ways")

    def __init__(self, model: BaseChatModel, ways: Mapping[str, Callable[..., Any]]) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_ways", ways)

    def __getattribute__(self, name: str) -> Any:
        way = object.__getattribute__(self, "_ways").get(name)
        if way is None:
            return getattr(object.__getattribute__(self, "_model"), name)
        if name == "atransform":  # It calls `astream`, which is to be the one here.
            return MethodType(way, self)
        return MethodType(way, object.__getattribute__(self, "_model"))
