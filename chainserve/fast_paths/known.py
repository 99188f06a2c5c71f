"""Whether what the fast paths take the place of is what it was when they were written."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from pkgutil import resolve_name
from types import FunctionType
from typing import Any, TypeAlias

Digests: TypeAlias = Mapping[str, Mapping[str, str]]
"""What the source texts of the functions and classes of some modules are known by."""

_Place: TypeAlias = tuple[Mapping[str, Any], str, Any]
"""The members of a module or a class, the name of one of them, and what that is."""


class Originals:
    """Functions and classes of other packages, as they were when somebody read them.

    Args:
        digests: What their source texts are known by.
    """

    def __init__(self, digests: Digests) -> None:
        self._digests = digests

    def are_in_place(self) -> bool:
        """Tell whether all are as they were read, and none has been replaced since, or wrapped."""
        if self._there is None:
            return False
        for members, name, original in self._there:  # noqa: SIM110 - `all` takes longer
            if members.get(name) is not original:
                return False
        return True

    @cached_property
    def _there(self) -> list[_Place] | None:
        """Where they are, and what is there; None where one is another than was read."""
        there: list[_Place] = []
        for module, texts in self._digests.items():
            for name, known in texts.items():
                if digest(f"{module}:{name}") != known:
                    return None
                there += (places := list(_places(module, name)))
                if not all(_is_own(value, module) for _, _, value in places):
                    return None
        return there


_OF_CORE = Originals(
    {
        "langchain_core.runnables.base": {
            "Runnable._atransform_stream_with_config": "9b7b760ebc639e6d",
            "Runnable._acall_with_config": "d49d24f429c0dd10",
            "RunnableLambda._ainvoke": "e5ead76aca8084a9",
            "RunnableSequence.ainvoke": "2d563ee2ded2752a",
            "RunnableParallel._atransform": "bf9e3528c011fea6",
            "Runnable.astream_events": "60adacbffa0e6436",
        },
        "langchain_core.runnables.passthrough": {
            "RunnableAssign.atransform": "5e90d09dc3b46797",
            "RunnableAssign._atransform": "c2ce5cb93a7afa71",
        },
        "langchain_core.runnables.utils": {
            "accepts_config": "9236a21364e403cc",
            "accepts_run_manager": "14d76ada75d1f7f4",
            "coro_with_context": "7a681dd69ecdfb88",
        },
        "langchain_core.runnables.config": {
            "get_async_callback_manager_for_config": "095f99d0af923f7e",
            "_get_langsmith_inheritable_metadata_from_config": "0e8761b07fb4ee1c",
            "_merge_metadata_dicts": "241e795ab8245fb7",
            "ensure_config": "bbb899ee7f358be2",
            "set_config_context": "0bfcae9ab3ce30dd",
            "_set_config_context": "c2e7b90ad5d244c5",
            "patch_config": "4afd2f8fbc5832f9",
            "acall_func_with_variable_args": "fdededd915e2c2a1",
        },
        "langchain_core.utils._signature": {
            "_signature_parameters": "72712e7be17eaec8",
        },
        "langchain_core.output_parsers.base": {
            "BaseOutputParser.ainvoke": "829dcc2811290b68",
            "BaseOutputParser.aparse_result": "839aaba03dc1b522",
        },
        "langchain_core.utils.aiter": {
            "Tee": "181cb60122fbd6e5",
            "tee_peer": "d9775eb7d5d833c1",
        },
        "langchain_core.output_parsers.transform": {
            "BaseTransformOutputParser._atransform": "98137b0643f773b8",
        },
        "langchain_core.output_parsers.string": {
            "StrOutputParser": "8077b32178ef07fd",
        },
        "langchain_core.messages.ai": {
            "AIMessageChunk.__add__": "6e87c1d215887c28",
            "add_ai_message_chunks": "88e832e1ce478443",
        },
        "langchain_core.messages.base": {
            "merge_content": "5d71b3099c4f5c59",
        },
        "langchain_core.outputs.chat_generation": {
            "ChatGeneration": "e157f9216a7dac66",
        },
        "langchain_core.language_models.chat_models": {
            "BaseChatModel.ainvoke": "4fbf67083db60575",
            "BaseChatModel.agenerate_prompt": "f08e5e54804e3972",
            "BaseChatModel.agenerate": "f4304f6ddc44aee6",
            "BaseChatModel._agenerate_with_cache": "d03a5d3c0ad649a0",
            "BaseChatModel._should_stream": "7b78b2e7881968ee",
            "BaseChatModel._should_use_protocol_streaming": "2bfd684462989559",
            "BaseChatModel.astream": "1cc95f1b1b80689f",
            "_gen_info_and_msg_metadata": "965fbb380f052092",
            "_update_message_content_to_blocks": "c1330b16451560da",
        },
        "langchain_core.callbacks.base": {
            "BaseCallbackManager.add_metadata": "f308cbc5c9be2bbf",
            "LLMManagerMixin.on_llm_new_token": "e4bed7227dc627f0",
        },
        "langchain_core.callbacks.manager": {
            "AsyncCallbackManagerForLLMRun.on_llm_new_token": "2682f19ad7f00f8f",
            "AsyncParentRunManager.get_child": "e0a27d6a9d579717",
            "AsyncCallbackManager.on_chain_start": "8c1dcd9f1c11cd74",
            "AsyncCallbackManagerForLLMRun.on_llm_end": "fb1ace3f68397fee",
            "AsyncCallbackManagerForChainRun.on_chain_end": "9b16be4bd3460f0d",
            "ahandle_event": "d7e942231aa70081",
            "shielded": "486e0326980954e6",
        },
        "langchain_core.tracers.event_stream": {
            "_astream_events_implementation_v2": "2c2cd65e60b889c8",
            "_AstreamEventsCallbackHandler": "e6840a475402737a",
        },
    }
)

_OF_OPENAI = Originals(
    {
        "langchain_openai.chat_models.base": {
            "BaseChatOpenAI._astream": "43a7d94999983ddc",
            "BaseChatOpenAI._convert_chunk_to_generation_chunk": "b92cf07f92a97658",
            "_convert_delta_to_message_chunk": "6e9d223170c6be1f",
        },
        "openai._streaming": {
            "AsyncStream.__stream__": "381c66f37dd55cb8",
        },
        "openai._base_client": {
            "BaseClient._process_response_data": "4406fcb1a3ae4105",
        },
    }
)


def is_core_known() -> bool:
    """Tell whether this langchain-core does what the fast paths do.

    Another version may do something else, which its users want to have, and so may what has been
    put in the place of a method. So where one of these texts differs, is not there, or cannot be
    looked at, all is run in LangChain's own way, until somebody has read what is new. The same goes
    while a method is wrapped, as instrumentation does it, or replaced for a test.
    """
    return _OF_CORE.are_in_place()


def is_openai_known() -> bool:
    """Tell whether this langchain-openai and this openai do what the fast path does."""
    return _OF_OPENAI.are_in_place()


def unknown_packages() -> list[str]:
    """Return the packages that are run in their own way, since they are not as they are known."""
    if not is_core_known():
        return ["langchain-core"]
    uses_openai = "langchain_openai.chat_models.base" in sys.modules
    return ["langchain-openai, openai"] if uses_openai and not is_openai_known() else []


def digest(name: str) -> str | None:
    """Return what the source text of `module:name` is known by; None if there is no such text."""
    try:
        source = inspect.getsource(resolve_name(name))
    except (ImportError, AttributeError, OSError, TypeError):
        return None
    return sha256(source.encode()).hexdigest()[:16]


def _places(module: str, name: str) -> Iterator[_Place]:
    """Yield where a function is; of a class, where it is and where its functions are."""
    owner, _, member = name.rpartition(".")
    members = vars(resolve_name(f"{module}:{owner}"))
    found = members[member]
    yield members, member, found
    if _is_class(found):
        for own, value in vars(found).items():
            if inspect.isfunction(getattr(value, "__func__", value)):
                yield vars(found), own, value


def _is_own(value: Any, module: str) -> bool:
    """Tell whether what was found in a module is of its package, and not put around that.

    A text does not tell: what wraps a function has the text of what it wraps.
    """
    if _is_class(value):
        return True
    function = getattr(value, "__func__", value)
    if type(function) is not FunctionType:
        return False
    maker = function.__globals__.get("__name__", "").partition(".")[0]
    return maker == module.partition(".")[0] or maker in sys.stdlib_module_names


def _is_class(value: Any) -> bool:
    """Tell whether this is a class; a wrapper says that it is what it wraps."""
    return issubclass(type(value), type)
