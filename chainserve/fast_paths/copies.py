"""Which runnables are run another way: those of LangChain's own classes, by their exact type."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import (
    RunnableAssign,
    RunnableBinding,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.retry import RunnableRetry

from chainserve.fast_paths.openai import PlainCompletions, is_chat_openai
from chainserve.fast_paths.parsers import parse_text_in_place
from chainserve.fast_paths.streaming import transform_in_place


class _Sequence(RunnableSequence[Any, Any]):
    _atransform_stream_with_config = transform_in_place


class _Pick(RunnablePick):
    _atransform_stream_with_config = transform_in_place


class _Passthrough(RunnablePassthrough[Any]):
    _atransform_stream_with_config = transform_in_place


class _Lambda(RunnableLambda[Any, Any]):
    _atransform_stream_with_config = transform_in_place


class _Generator(RunnableGenerator[Any, Any]):
    _atransform_stream_with_config = transform_in_place


class _StrParser(StrOutputParser):
    _atransform = parse_text_in_place
    _atransform_stream_with_config = transform_in_place


_CLASSES: Mapping[type, type] = {
    RunnableSequence: _Sequence,
    RunnablePick: _Pick,
    RunnablePassthrough: _Passthrough,
    RunnableLambda: _Lambda,
    RunnableGenerator: _Generator,
    StrOutputParser: _StrParser,
}

_Parts = Mapping[str, Callable[[Any], Any]]


def _all(runnables: Any) -> Any:
    return [copied(one) for one in runnables]


def _by_name(runnables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copied(one) for name, one in runnables.items()}


def _branches(branches: Any) -> Any:
    return [(condition, copied(branch)) for condition, branch in branches]


def copied(runnable: Any) -> Any:
    """Return what is run in a runnable's place: a copy, or itself where nothing is recognised."""
    kind = type(runnable)
    if (parts := _PARTS.get(kind)) is not None:
        changed = {name: make(getattr(runnable, name)) for name, make in parts.items()}
    elif kind in _CLASSES:
        changed = {}
    elif is_chat_openai(runnable) and (completions := runnable.async_client) is not None:
        changed = {"async_client": PlainCompletions(completions)}
    else:
        return runnable
    made = copy.copy(runnable)
    made.__dict__.update(changed)
    if kind in _CLASSES:
        object.__setattr__(made, "__class__", _CLASSES[kind])
    return made


_PARTS: Mapping[type, _Parts] = {
    RunnableSequence: {"first": copied, "middle": _all, "last": copied},
    RunnableParallel: {"steps__": _by_name},
    RunnableAssign: {"mapper": copied},
    RunnableBranch: {"branches": _branches, "default": copied},
    RunnableBinding: {"bound": copied},
    RunnableEach: {"bound": copied},
    RunnableRetry: {"bound": copied},
    RunnableWithFallbacks: {"runnable": copied, "fallbacks": _all},
}

for _kind, _class in _CLASSES.items():
    _class.__name__ = _kind.__name__
    _class.__qualname__ = _kind.__qualname__
    _class.__module__ = _kind.__module__
