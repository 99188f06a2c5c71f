"""Which runnables are run another way: those of LangChain's own classes, by their exact type."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.language_models import chat_models
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
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

from chainserve.fast_paths.calling import call_function, call_in_place, invoke_in_place
from chainserve.fast_paths.chat_models import in_chain
from chainserve.fast_paths.openai import chat_openai, is_chat_openai
from chainserve.fast_paths.parallels import transform_and_assign, transform_parts
from chainserve.fast_paths.parsers import (
    parse_result_in_place,
    parse_short_result_in_place,
    parse_text_in_place,
)
from chainserve.fast_paths.streaming import transform_in_place


class _Sequence(RunnableSequence[Any, Any]):
    _atransform_stream_with_config = transform_in_place
    ainvoke = invoke_in_place


class _Parallel(RunnableParallel[Any]):
    _atransform = transform_parts
    _atransform_stream_with_config = transform_in_place


class _Assign(RunnableAssign):
    atransform = transform_and_assign
    _acall_with_config = call_in_place


class _Pick(RunnablePick):
    _atransform_stream_with_config = transform_in_place
    _acall_with_config = call_in_place


class _Passthrough(RunnablePassthrough[Any]):
    _atransform_stream_with_config = transform_in_place
    _acall_with_config = call_in_place


class _Lambda(RunnableLambda[Any, Any]):
    _ainvoke = call_function
    _atransform_stream_with_config = transform_in_place
    _acall_with_config = call_in_place


class _Generator(RunnableGenerator[Any, Any]):
    _atransform_stream_with_config = transform_in_place


class _ChatPrompt(ChatPromptTemplate):
    _acall_with_config = call_in_place


class _Prompt(PromptTemplate):
    _acall_with_config = call_in_place


class _JsonParser(JsonOutputParser):
    _acall_with_config = call_in_place
    aparse_result = parse_short_result_in_place
    _atransform_stream_with_config = transform_in_place


class _StrParser(StrOutputParser):
    _acall_with_config = call_in_place
    _atransform = parse_text_in_place
    aparse_result = parse_result_in_place
    _atransform_stream_with_config = transform_in_place


_CLASSES: Mapping[type, type] = {
    RunnableSequence: _Sequence,
    RunnableParallel: _Parallel,
    RunnableAssign: _Assign,
    RunnablePick: _Pick,
    RunnablePassthrough: _Passthrough,
    RunnableLambda: _Lambda,
    RunnableGenerator: _Generator,
    ChatPromptTemplate: _ChatPrompt,
    PromptTemplate: _Prompt,
    StrOutputParser: _StrParser,
    JsonOutputParser: _JsonParser,
}

_Parts = Mapping[str, Callable[[Any], Any]]


def _part(runnable: Any) -> Any:
    """Return what is run in the place of a part of a runnable."""
    return in_chain(copied(runnable))


def _all(runnables: Any) -> Any:
    return [_part(one) for one in runnables]


def _by_name(runnables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _part(one) for name, one in runnables.items()}


def _branches(branches: Any) -> Any:
    return [(condition, _part(branch)) for condition, branch in branches]


def copied(runnable: Any) -> Any:
    """Return what is run in a runnable's place: a copy, or itself where nothing is recognised.

    A copy without parts of its own shares the runnable's members, so what is set later counts.
    """
    kind = _kind_of(runnable)
    taken = chat_openai() if is_chat_openai(runnable) else _CLASSES.get(kind)
    parts = _PARTS.get(kind)
    if taken is None and parts is None:
        return runnable
    members = runnable.__dict__
    if parts:
        changed = {name: make(getattr(runnable, name)) for name, make in parts.items()}
        members = {**members, **changed}
    made = copy.copy(runnable)
    object.__setattr__(made, "__dict__", members)
    if taken is not None:
        object.__setattr__(made, "__class__", taken)
    return made


def _kind_of(runnable: Any) -> type:
    """Return the class of a runnable; of `RunnableParallel[dict]`, the class without its types.

    Those are classes of their own to pydantic, and `RunnablePassthrough.assign` makes such.
    """
    kind = type(runnable)
    generic: Mapping[str, Any] = kind.__dict__.get("__pydantic_generic_metadata__", {})
    return generic.get("origin") or kind


_PARTS: Mapping[type, _Parts] = {
    RunnableSequence: {"first": _part, "middle": _all, "last": _part},
    RunnableParallel: {"steps__": _by_name},
    RunnableAssign: {"mapper": _part},
    RunnableBranch: {"branches": _branches, "default": _part},
    RunnableBinding: {"bound": _part},
    # What `bind` and `bind_tools` of a chat model return.
    getattr(chat_models, "_ChatModelBinding", RunnableBinding): {"bound": _part},
    RunnableEach: {"bound": _part},
    RunnableRetry: {"bound": _part},
    RunnableWithFallbacks: {"runnable": _part, "fallbacks": _all},
}

for _kind, _class in _CLASSES.items():
    # Runs and serialized runnables tell of a class by its name.
    _class.__name__, _class.__qualname__ = _kind.__name__, _kind.__qualname__
    _class.__module__ = _kind.__module__
