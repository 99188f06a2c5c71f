"""What the fast way runs looks like the runnable in whose place it is, which is never changed."""

import types
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from langchain_core.load import dumpd
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda, RunnableSequence

from chainserve.fast_paths import faster
from tests._calls import told
from tests._equivalence import AnyRunnable, as_it_is, assert_equal, seen
from tests._runnables import CASES, EVERY_KIND
from tests._shown import Shown, renamed, shown

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("small_heap"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ASPECTS: dict[str, Any] = {
    "name": lambda r: r.get_name(),
    "name with a suffix": lambda r: r.get_name("x", name="y"),
    "class": lambda r: (type(r).__module__, type(r).__qualname__),
    "representation": repr,
    "text": str,
    "serialised": dumpd,
    "id": lambda r: r.lc_id(),
    "is serialisable": lambda r: r.is_lc_serializable(),
    "input schema": lambda r: r.get_input_jsonschema(),
    "output schema": lambda r: r.get_output_jsonschema(),
    "config schema": lambda r: r.get_config_jsonschema(),
    "config specs": lambda r: r.config_specs,
    "input type": lambda r: r.InputType,
    "output type": lambda r: r.OutputType,
    "graph": lambda r: r.get_graph().to_json(with_schemas=True),
    "prompts": lambda r: r.get_prompts(),
    "sequence": lambda r: (r | _same).get_name(),
    "bound": lambda r: repr(r.with_config(tags=["x"])),
}


def _same(value: Any) -> Any:
    return value


def _aspects(runnable: AnyRunnable) -> Shown:
    return tuple((name, _aspect(look, runnable)) for name, look in ASPECTS.items())


def _aspect(look: Any, runnable: AnyRunnable) -> Shown:
    """Return one aspect; for some runnables LangChain itself raises when asked."""
    try:
        return renamed(shown(look(runnable)))
    except Exception as error:  # noqa: BLE001
        return shown(type(error))


def _parts(value: Any, above: tuple[int, ...] = (), *, all_of_them: bool = True) -> Any:
    """Return all that a runnable is made of, down to which objects these are.

    Args:
        value: The runnable, or a part of one.
        above: What it is part of.
        all_of_them: Whether to go into what is no runnable as well: LangChain caches there.
    """
    if id(value) in above:
        return "above"
    inner = partial(_parts, above=(*above, id(value)), all_of_them=all_of_them)
    if isinstance(value, Runnable):
        members = {**vars(value), "private": getattr(value, "__pydantic_private__", None)}
        return [type(value), id(value), *inner(members)]
    if isinstance(value, dict):
        return [(key, part) for key, each in value.items() if (part := inner(each))]
    if isinstance(value, list | tuple):
        return [part for each in value if (part := inner(each))]
    return [type(value), id(value)] if all_of_them else []


@pytest.mark.parametrize("case", CASES)
async def test_a_runnable_itself_is_not_changed(case: str) -> None:
    kept: list[tuple[AnyRunnable, Any]] = []

    def way(runnable: AnyRunnable) -> AnyRunnable:
        before = _parts(runnable)
        kept.append((runnable, _parts(runnable, all_of_them=False)))
        fast = faster(runnable)
        assert _parts(runnable) == before
        return fast

    await seen(CASES[case], way, told("inline"))
    [(runnable, before)] = kept
    assert _parts(runnable, all_of_them=False) == before


@pytest.mark.parametrize("case", EVERY_KIND)
async def test_a_runnable_is_as_slow_as_ever_afterwards(case: str) -> None:
    def untouched(runnable: AnyRunnable) -> AnyRunnable:
        faster(runnable)
        return runnable

    slow = await seen(CASES[case], as_it_is, told("inline"))
    assert_equal(slow, await seen(CASES[case], untouched, told("inline")))


def test_what_is_not_recognised_is_left_as_it_is() -> None:
    class Own(RunnableLambda[Any, Any]):
        pass

    own = Own(_same)
    assert faster(own) is own
    assert isinstance(own.func, types.FunctionType)


@pytest.mark.parametrize("in_bindings", [False, True])
async def test_a_chain_of_so_many_steps_that_one_stack_has_no_room_for_them_streams(
    *, in_bindings: bool
) -> None:
    async def passed(values: AsyncIterator[str]) -> AsyncIterator[str]:
        async for value in values:
            yield value

    def steps(count: int) -> AnyRunnable:
        return RunnableSequence(*[RunnableGenerator(passed) for _ in range(count)])

    chain = steps(400)
    if in_bindings:
        chain = RunnableSequence(*[steps(20).with_config(tags=["x"]) for _ in range(20)])

    assert [chunk async for chunk in faster(chain).astream("x")] == ["x"]
