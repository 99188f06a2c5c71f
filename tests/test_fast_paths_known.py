"""What fast paths take the place of is looked at: they are left where it is another."""

from collections.abc import Callable
from functools import wraps
from pkgutil import resolve_name
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI
from wrapt import FunctionWrapper

from chainserve import Chain, create_app
from chainserve.fast_paths import faster, is_core_known, known
from chainserve.fast_paths.known import Originals
from tests import _bridge

READ = [
    (module, name, text)
    for originals in (known._OF_CORE, known._OF_OPENAI)
    for module, texts in originals._digests.items()
    for name, text in texts.items()
]


def test_the_versions_that_are_installed_for_the_tests_are_known() -> None:
    assert is_core_known()
    assert known.is_openai_known()


def test_what_has_no_source_text_is_not_known() -> None:
    assert known.digest("builtins:len") is None
    assert known.digest("langchain_core.nowhere:thing") is None


@pytest.fixture
def other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have langchain-core be of a version that is not known."""
    another = Originals({"langchain_core.runnables.base": {"Runnable.astream_events": "another"}})
    monkeypatch.setattr(known, "_OF_CORE", another)


@pytest.mark.usefixtures("other_version")
def test_another_version_is_run_in_its_own_way() -> None:
    chain = RunnableLambda(str) | StrOutputParser()

    assert faster(chain) is chain


@pytest.mark.usefixtures("other_version")
async def test_a_server_says_that_another_version_is_slower(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app([Chain(path="/echo", runnable=RunnableLambda(str))])
    async with app.router.lifespan_context(app):
        pass

    assert "fast paths are off" in caplog.text


Wrap = Callable[[Any, str], list[str]]


def with_functools(member: Any, calls: list[str]) -> Any:
    @wraps(member)
    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append("call")
        return member(*args, **kwargs)

    return noted


def with_wrapt(member: Any, calls: list[str]) -> Any:
    def noted(wrapped: Any, _: Any, args: Any, kwargs: Any) -> Any:
        calls.append("call")
        return wrapped(*args, **kwargs)

    return FunctionWrapper(member, noted)


@pytest.fixture(params=[with_functools, with_wrapt])
def wrap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """Return what wraps a member as instrumentation does, and returns a list of its calls."""

    def wrap(owner: Any, name: str) -> list[str]:
        calls: list[str] = []
        monkeypatch.setattr(owner, name, request.param(getattr(owner, name), calls))
        return calls

    return wrap


@pytest.mark.parametrize(("module", "name", "text"), READ)
def test_what_is_wrapped_is_not_what_was_read(
    module: str, name: str, text: str, wrap: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Originals({module: {name: text}})
    assert before.are_in_place()
    owner, _, member = name.rpartition(".")
    wrap(resolve_name(f"{module}:{owner}"), member)

    assert not before.are_in_place()
    assert not Originals({module: {name: text}}).are_in_place()
    monkeypatch.undo()
    assert before.are_in_place()


METHODS = [
    (RunnableSequence, "ainvoke", "invoke"),
    (RunnableSequence, "astream", "stream"),
    (Runnable, "_acall_with_config", "invoke"),
    (Runnable, "_atransform_stream_with_config", "stream"),
    (Runnable, "astream_events", "stream_events"),
    (BaseChatModel, "ainvoke", "invoke"),
    (BaseChatModel, "agenerate", "invoke"),
    (BaseChatModel, "astream", "stream"),
    (FakeListChatModel, "ainvoke", "invoke"),
    (FakeListChatModel, "agenerate", "invoke"),
    (FakeListChatModel, "astream", "stream"),
    (FakeListChatModel, "atransform", "stream"),
    (StrOutputParser, "ainvoke", "invoke"),
    (StrOutputParser, "parse", "stream"),
]
"""Methods of which some are left out on fast paths, and what calls them in LangChain."""


@pytest.mark.parametrize("mounts_first", [True, False])
@pytest.mark.parametrize(("owner", "name", "verb"), METHODS)
async def test_a_method_that_is_wrapped_is_called(
    owner: type, name: str, verb: str, *, mounts_first: bool, wrap: Wrap
) -> None:
    def made() -> Any:
        chain = FakeListChatModel(responses=["yes"]) | StrOutputParser()
        return create_app([Chain(path="/chain", runnable=chain)])

    app = made() if mounts_first else None
    calls = wrap(owner, name)
    response = await _bridge.request(app or made(), "POST", f"/chain/{verb}", json={"input": "?"})

    assert response.status == 200
    assert calls


def test_the_completions_of_the_sdk_are_its_own_where_their_reader_is_wrapped(wrap: Wrap) -> None:
    model: Any = ChatOpenAI(api_key="none")  # type: ignore[arg-type]
    fast: Any = faster(model)
    assert fast.async_client is not model.async_client
    wrap(BaseChatOpenAI, "_astream")

    assert fast.async_client is model.async_client
    assert faster(model) is model
