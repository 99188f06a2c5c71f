"""The fast way runs a runnable as LangChain does: its chunks, results, errors and callbacks."""

from typing import Any

import pytest

from chainserve.fast_paths import faster
from tests import _calls
from tests._calls import told
from tests._equivalence import AnyRunnable, Verb, assert_same
from tests._journal import NAMED
from tests._runnables import CASES, EVERY_KIND
from tests._shown import CHOSEN

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]

CONFIG: dict[str, Any] = {
    "tags": ["asked"],
    "metadata": {"asked": True},
    "run_name": NAMED,
    "run_id": CHOSEN,
    "configurable": {"key": "value"},
}

VERBS: dict[str, Verb] = {
    "stream": _calls.astream,
    "stream with a handler": told("inline"),
    "transform": _calls.atransform,
    "invoke": _calls.ainvoke_told,
}

VERBS_OF_A_FEW: dict[str, Verb] = {
    "stream with a sync handler": told("sync"),
    "stream with an async handler": told("async"),
    "stream with a full config": told("inline", **CONFIG),
    "stream, with each chunk asked for in a task": _calls.in_tasks,
    "stream twice": _calls.twice,
    "two streams at once": _calls.two_at_once,
    "invoke without a handler": _calls.ainvoke,
    "batch": _calls.abatch,
    "batch with errors returned": _calls.abatch_returning,
    "invoke in a thread": _calls.invoke,
    "stream in a thread": _calls.stream,
}


def _twice(runnable: AnyRunnable) -> AnyRunnable:
    return faster(faster(runnable))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verb", VERBS)
async def test_a_run_is_the_same(verb: str, case: str) -> None:
    await assert_same(CASES[case], VERBS[verb])


@pytest.mark.parametrize("case", EVERY_KIND)
@pytest.mark.parametrize("verb", VERBS_OF_A_FEW)
async def test_a_run_is_the_same_in_other_ways(verb: str, case: str) -> None:
    await assert_same(CASES[case], VERBS_OF_A_FEW[verb])


@pytest.mark.parametrize("case", EVERY_KIND)
async def test_what_is_fast_already_is_the_same(case: str) -> None:
    await assert_same(CASES[case], told("inline"), _twice)
