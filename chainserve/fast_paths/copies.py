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

_MAX_PARTS = 100
"""So many parts may be run in one task. Each that streams takes two frames or more of Python's
stack, which has 1,000 for all that the task does."""


def copied(runnable: Any) -> Any:
    """Return what is run in a runnable's place: a copy, or itself where nothing is recognised.

    A copy without parts of its own shares the runnable's members, so what is set later counts. A
    runnable of very many parts is left as it is: LangChain gives each a stack of its own.
    """
    copies = _Copies()
    made = copies.of(runnable)
    return runnable if copies.count > _MAX_PARTS else made


class _Copies:
    """Copies of a runnable and of all its parts.

    Attributes:
        count: How many runnables there were.
    """

    def __init__(self) -> None:
        self.count = 0

    def of(self, runnable: Any) -> Any:
        """Return a copy of a runnable, or itself where nothing is recognised."""
        self.count += 1
        kind = _kind_of(runnable)
        taken = chat_openai() if is_chat_openai(runnable) else _CLASSES.get(kind)
        parts = _PARTS.get(kind)
        if taken is None and parts is None:
            return runnable
        members = runnable.__dict__
        if parts:
            changed = {name: copy_(self, getattr(runnable, name)) for name, copy_ in parts.items()}
            members = {**members, **changed}
        made = copy.copy(runnable)
        object.__setattr__(made, "__dict__", members)
        if taken is not None:
            object.__setattr__(made, "__class__", taken)
        return made

    def part(self, runnable: Any) -> Any:
        """Return what is run in the place of a part."""
        return in_chain(self.of(runnable))

    def all(self, runnables: Any) -> Any:
        """Return what is run in the places of some parts."""
        return [self.part(one) for one in runnables]

    def by_name(self, runnables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is run in the places of parts that have names."""
        return {name: self.part(one) for name, one in runnables.items()}

    def branches(self, branches: Any) -> Any:
        """Return what is run in the places of branches; their conditions stay."""
        return [(condition, self.part(branch)) for condition, branch in branches]


def _kind_of(runnable: Any) -> type:
    """Return the class of a runnable; of `RunnableParallel[dict]`, the class without its types.

    Those are classes of their own to pydantic, and `RunnablePassthrough.assign` makes such.
    """
    kind = type(runnable)
    generic: Mapping[str, Any] = kind.__dict__.get("__pydantic_generic_metadata__", {})
    return generic.get("origin") or kind


_PARTS: Mapping[type, Mapping[str, Callable[[_Copies, Any], Any]]] = {
    RunnableSequence: {"first": _Copies.part, "middle": _Copies.all, "last": _Copies.part},
    RunnableParallel: {"steps__": _Copies.by_name},
    RunnableAssign: {"mapper": _Copies.part},
    RunnableBranch: {"branches": _Copies.branches, "default": _Copies.part},
    RunnableBinding: {"bound": _Copies.part},
    # What `bind` and `bind_tools` of a chat model return.
    getattr(chat_models, "_ChatModelBinding", RunnableBinding): {"bound": _Copies.part},
    RunnableEach: {"bound": _Copies.part},
    RunnableRetry: {"bound": _Copies.part},
    RunnableWithFallbacks: {"runnable": _Copies.part, "fallbacks": _Copies.all},
}

for _kind, _class in _CLASSES.items():
    # Runs and serialized runnables tell of a class by its name.
    _class.__name__, _class.__qualname__ = _kind.__name__, _kind.__qualname__
    _class.__module__ = _kind.__module__
