"""The chains without a server, run as this server runs them: what cannot be saved around them.

A process of its own, `python -m benchmarks.in_process CASE...`.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from json import dumps, loads
from typing import Any

import uvloop

from benchmarks.cases import Case, case_named
from chainserve.fast_paths import faster, stream_events
from chainserve.serialization import WellKnownLCSerializer

_JSON = WellKnownLCSerializer()


async def run(case: Case, runnable: Any, use: Callable[[Any], object]) -> None:
    """Call the chain once, and use each of its chunks."""
    match case.verb:
        case "stream":
            async for chunk in runnable.astream(case.body["input"]):
                use(chunk)
        case "stream_events":
            async for event in stream_events(runnable, case.body["input"], {}, version="v2"):
                use(event)
        case "invoke":
            use(await runnable.ainvoke(case.body["input"]))
        case "batch":
            use(await runnable.abatch(case.body["inputs"]))


async def answer(case: Case) -> list[bytes]:
    """Return the chunks as JSON."""
    chunks: list[bytes] = []
    await run(case, case.build(case.chunks), lambda chunk: chunks.append(_JSON.dumps(chunk)))
    return chunks


async def measure(case: Case, runnable: Any, requests: int, connections: int) -> dict[str, float]:
    """Call the chain so many times, some of them at once, and return what that took."""
    left, chunks = iter(range(requests)), 0

    def count(chunk: Any) -> None:
        nonlocal chunks
        chunks += 1

    async def some() -> None:
        for _ in left:
            await run(case, runnable, count)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(some() for _ in range(connections)))
    return {
        "cpu": time.process_time() - cpu,
        "seconds": time.perf_counter() - began,
        "chunks": chunks / requests,
    }


def answer_questions(cases: Sequence[Case]) -> None:
    """Answer each line of standard input: which case, how many requests, how many at once."""
    runnables = {case.name: faster(case.build(case.chunks)) for case in cases}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            question = loads(line)
            name = question.pop("case")
            result = runner.run(measure(case_named(name), runnables[name], **question))
            print(dumps(result), flush=True)


if __name__ == "__main__":
    answer_questions([case_named(name) for name in sys.argv[1:]])
