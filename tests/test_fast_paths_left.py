"""The fast way ends as LangChain does when it is left, dropped or cancelled."""

import pytest

from tests import _calls
from tests._calls import cancelled_after, dropped_after, left_after, left_events
from tests._equivalence import Verb, assert_same
from tests._runnables import CASES, EVERY_KIND
from tests._runnables_stalled import STALLED

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]

LEFT: dict[str, Verb] = {
    "closed after one chunk": left_after(1),
    "closed after two": left_after(2),
    "cancelled behind a chunk of the input": cancelled_after(1),
}

LEFT_BY_A_FEW: dict[str, Verb] = {
    "closed before it starts": left_after(0),
    "closed after three": left_after(3),
    "dropped after one": dropped_after(1),
    "cancelled before the input": cancelled_after(0),
    "cancelled behind two chunks of the input": cancelled_after(2),
    "events, closed after two": left_events(2),
    "events, closed after seven": left_events(7),
}

CANCELLED: dict[str, Verb] = {
    "stream": _calls.cancelled_in_a_stall,
    "invoke": _calls.cancelled_invocation,
    "events": _calls.cancelled_events,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", LEFT)
async def test_a_run_is_left_alike(way: str, case: str) -> None:
    await assert_same(CASES[case], LEFT[way])


@pytest.mark.parametrize("case", EVERY_KIND)
@pytest.mark.parametrize("way", LEFT_BY_A_FEW)
async def test_a_run_is_left_alike_in_other_ways(way: str, case: str) -> None:
    await assert_same(CASES[case], LEFT_BY_A_FEW[way])


@pytest.mark.parametrize("case", STALLED)
@pytest.mark.parametrize("verb", CANCELLED)
async def test_a_run_is_cancelled_alike(verb: str, case: str) -> None:
    await assert_same(STALLED[case], CANCELLED[verb])
