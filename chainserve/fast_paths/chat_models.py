"""Chat models of a chain: what `BaseChatModel` does for each call, with less around it."""

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
    kind = type(runnable)
    if issubclass(kind, BaseChatModel) and (_is_called_as_usual(kind) or _streams_as_usual(kind)):
        return ModelInChain(runnable)
    return runnable


def _is_called_as_usual(kind: type[BaseChatModel]) -> bool:
    return all(getattr(kind, name) is getattr(BaseChatModel, name) for name in _CALLED)


def _streams_as_usual(kind: type[BaseChatModel]) -> bool:
    return kind.astream is BaseChatModel.astream and kind.atransform is Runnable.atransform


class ModelInChain:
    """A chat model in a chain: all that it is, but called in faster ways where it has the usual.

    Whatever is asked of it is the model's own, its class too. Its methods are looked at for each
    call: instrumentation and tests replace them at any time.
    """

    __slots__ = ("_model",)

    def __init__(self, model: BaseChatModel) -> None:
        object.__setattr__(self, "_model", model)

    def __getattribute__(self, name: str) -> Any:
        model = object.__getattribute__(self, "_model")
        if name == "ainvoke" and _is_called_as_usual(type(model)):
            return MethodType(ainvoke, model)
        if name == "astream" and _streams_as_usual(type(model)):
            return MethodType(astream, model)
        if name == "atransform" and _streams_as_usual(type(model)):
            return MethodType(Runnable.atransform, self)  # It calls `astream`, the one here.
        return getattr(model, name)
