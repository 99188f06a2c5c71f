"""A chat model that answers in one piece is called in the fast way as in LangChain's own."""

from typing import Any
from uuid import UUID

import pytest

from chainserve.callbacks import NOTHING, RunObserver
from tests import _calls, _leaving
from tests._equivalence import Call, Verb, assert_same
from tests._runnables import CASES, EVERY_KIND
from tests._runnables_answering import ANSWERING, WAITING
from tests._shown import CHOSEN

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]


async def _observed(call: Call) -> None:
    """Invoke with the handler that each run of the server has."""
    observer = RunObserver(UUID(CHOSEN))
    try:
        output = await call.runnable.ainvoke(call.input, _config(call, observer))
        call.journal.add(output)
    finally:
        _add(call, observer)


async def _observed_stream(call: Call) -> None:
    """Stream with that handler."""
    observer = RunObserver(UUID(CHOSEN))
    try:
        await call.read(call.runnable.astream(call.input, _config(call, observer)))
    finally:
        _add(call, observer)


def _config(call: Call, observer: RunObserver) -> Any:
    return call.case.configured({"callbacks": [observer], "run_id": UUID(CHOSEN)})


def _add(call: Call, observer: RunObserver) -> None:
    output = "nothing" if observer.output is NOTHING else observer.output
    call.journal.add("observed", output, observer.usage, observer.was_cancelled)


VERBS: dict[str, Verb] = {
    "invoke": _calls.ainvoke,
    "invoke with a handler": _calls.ainvoke_told,
    "invoke with an async handler": _calls.ainvoke_told_in_coroutines,
    "invoke with the server's handler": _observed,
    "batch": _calls.abatch,
    "events": _calls.events(version="v2"),
    "trace": _calls.traced_invocation,
}

OBSERVED: dict[str, Verb] = {"invoke": _observed, "stream": _observed_stream}


@pytest.mark.parametrize("case", ANSWERING)
@pytest.mark.parametrize("verb", VERBS)
async def test_a_call_is_the_same(verb: str, case: str) -> None:
    await assert_same(ANSWERING[case], VERBS[verb])


@pytest.mark.parametrize("case", WAITING)
@pytest.mark.parametrize("verb", ["with a handler", "without"])
async def test_a_call_is_cancelled_alike(verb: str, case: str) -> None:
    verbs = {"with a handler": _leaving.cancelled_invocation, "without": _leaving.cancelled_alone}
    await assert_same(WAITING[case], verbs[verb])


@pytest.mark.parametrize("case", EVERY_KIND)
@pytest.mark.parametrize("verb", OBSERVED)
async def test_the_server_s_own_handler_notes_the_same(verb: str, case: str) -> None:
    await assert_same(CASES[case], OBSERVED[verb])
