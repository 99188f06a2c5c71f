"""The parts of a parallel step go on in few tasks, also of one whose class pydantic has made."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableGenerator, RunnableParallel, RunnablePassthrough

from chainserve.fast_paths import faster
from tests._bridge import WAIT_SECONDS
from tests._equivalence import AnyRunnable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_heap")]

CHUNKS = 20


class Tasks:
    """A source of chunks that notes in which tasks it is asked for them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def source(self) -> AnyRunnable:
        async def chunks(_: AsyncIterator[Any]) -> AsyncIterator[str]:
            for number in range(CHUNKS):
                self.seen.append(asyncio.current_task())
                yield str(number)

        return RunnableGenerator(chunks)

    @property
    def number(self) -> int:
        return len(set(self.seen))


@pytest.mark.parametrize(
    "made",
    [
        lambda source: RunnableParallel(answer=source),
        lambda source: RunnableParallel[dict[str, Any]](answer=source),
        lambda source: RunnablePassthrough.assign(answer=source),
    ],
    ids=["parallel", "parallel of a type", "assign"],
)
async def test_the_only_part_has_no_task_for_each_chunk(made: Any) -> None:
    tasks = Tasks()

    said = [chunk async for chunk in faster(made(tasks.source())).astream({"question": "?"})]

    assert [chunk["answer"] for chunk in said if "answer" in chunk] == [*map(str, range(CHUNKS))]
    assert tasks.number <= 2


async def test_the_last_part_that_is_left_has_no_task_for_each_chunk() -> None:
    tasks = Tasks()
    both = RunnableParallel(short=RunnablePassthrough(), long=tasks.source())

    said = [chunk async for chunk in faster(both).astream("?")]

    assert len(said) == CHUNKS + 1
    assert tasks.number <= 4


async def test_parts_go_on_beside_each_other() -> None:
    met = asyncio.Barrier(2)

    async def chunks(_: AsyncIterator[Any]) -> AsyncIterator[str]:
        for number in range(CHUNKS):
            await met.wait()
            yield str(number)

    both = RunnableParallel(a=RunnableGenerator(chunks), b=RunnableGenerator(chunks))

    async with asyncio.timeout(WAIT_SECONDS):
        said = [chunk async for chunk in faster(both).astream("?")]

    assert len(said) == 2 * CHUNKS
