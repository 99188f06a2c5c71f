"""The fast way ends as LangChain does when it is left, dropped or cancelled."""

import pytest

from chainserve.fast_paths import faster
from tests import _leaving
from tests._equivalence import IT_GOES_ON, Verb, as_it_is, assert_same, seen
from tests._leaving import cancelled_after, dropped_after, left_after, left_events
from tests._runnables import CASES, EVERY_KIND
from tests._runnables_stalled import STALLED

CANCELLED_BEHIND = "cancelled behind a chunk of the input"

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]

_LEAVES_A_TASK = "'is anything left running', True"

DIFFERENCES = {
    # LangChain closes what a parallel step reads while that waits for it, and waits for ever.
    (CANCELLED_BEHIND, "assign to chunks"): IT_GOES_ON,
    (CANCELLED_BEHIND, "assign a chain that raises"): IT_GOES_ON,
    # It waits for a task of the part, which is not cancelled with what waits.
    (CANCELLED_BEHIND, "context variables in parallel"): _LEAVES_A_TASK,
}
"""What must remain different, and what LangChain alone shows of it."""

LEFT: dict[str, Verb] = {
    "closed after two chunks": left_after(2),
    CANCELLED_BEHIND: cancelled_after(1),
}

LEFT_BY_A_FEW: dict[str, Verb] = {
    "closed before it starts": left_after(0),
    "closed after one chunk": left_after(1),
    "dropped after one": dropped_after(1),
    "cancelled before the input": cancelled_after(0),
    "cancelled behind two chunks of the input": cancelled_after(2),
    "events, closed after two": left_events(2),
    "events, closed after seven": left_events(7),
}

CANCELLED: dict[str, Verb] = {
    "stream": _leaving.cancelled_in_a_stall,
    "invoke": _leaving.cancelled_invocation,
    "events": _leaving.cancelled_events,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", LEFT)
async def test_a_run_is_left_alike(way: str, case: str) -> None:
    if (way, case) not in DIFFERENCES:
        await assert_same(CASES[case], LEFT[way])


@pytest.mark.parametrize(("way", "case"), DIFFERENCES)
async def test_a_run_is_ended_that_langchain_does_not_end(way: str, case: str) -> None:
    shown = DIFFERENCES[way, case]
    assert shown in repr(await seen(CASES[case], as_it_is, LEFT[way]))
    assert shown not in repr(await seen(CASES[case], faster, LEFT[way]))


@pytest.mark.parametrize("case", EVERY_KIND)
@pytest.mark.parametrize("way", LEFT_BY_A_FEW)
async def test_a_run_is_left_alike_in_other_ways(way: str, case: str) -> None:
    await assert_same(CASES[case], LEFT_BY_A_FEW[way])


@pytest.mark.parametrize("case", STALLED)
@pytest.mark.parametrize("verb", CANCELLED)
async def test_a_run_is_cancelled_alike(verb: str, case: str) -> None:
    await assert_same(STALLED[case], CANCELLED[verb])
