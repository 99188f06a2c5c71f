"""The load: asks again and again on open connections, and reads as little as it can.

A process of its own, `python -m benchmarks.load`: each line of its standard input is a question.
"""

import asyncio
import re
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from json import dumps, loads
from typing import Any, TypeAlias, cast

import uvloop

from benchmarks.figures import percentile
from benchmarks.http import Answer, with_a_key
from benchmarks.processes import HOST

_ANSWER_SECONDS = 120.0
_DATA = b"event: data"
_STAMP = re.compile(rb"@(\d+) ")

Stamp: TypeAlias = tuple[int, int]
"""When a token was said, and when it came, in nanoseconds on the machine's clock."""

Questions: TypeAlias = Mapping[str, Callable[..., Coroutine[Any, Any, Any]]]


class LoadError(Exception):
    """An answer was not as it has to be."""


class Connection(asyncio.Protocol):
    """A connection that asks one thing at a time.

    Attributes:
        first_data: When the first chunk of the answer came.
        received: All of the answer's bytes, where they are kept.
    """

    def __init__(self, *, keep: bool = False, stamps: list[Stamp] | None = None) -> None:
        self.first_data: float | None = None
        self.received = b""
        self._keep = keep
        self._stamps = stamps
        self._answer = Answer()
        self._first = asyncio.Event()
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has its own class.

    def data_received(self, data: bytes) -> None:
        if self._keep:
            self.received += data
        if self._stamps is not None:
            now = time.monotonic_ns()
            self._stamps += [(int(found), now) for found in _STAMP.findall(data)]
        if self.first_data is None and _DATA in data:
            self.first_data = time.perf_counter()
            self._first.set()
        self._answer.feed(data)
        if self._answer.complete and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(LoadError(f"hung up after {self._answer.tail!r}"))

    async def ask(self, request: bytes) -> Answer:
        """Send a request, and return its answer when that is complete."""
        self.start(request)
        assert self._waiter is not None
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await self._waiter

    def start(self, request: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self._answer, self.first_data, self.received = Answer(), None, b""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(with_a_key(request))

    async def until_first_data(self) -> None:
        """Wait for the first chunk of the first answer."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            await self._first.wait()

    def close(self) -> None:
        """Hang up, whatever is to come."""
        assert self._transport is not None
        if self._waiter is not None:
            self._waiter.cancel()
        self._transport.close()


async def connect(
    port: int, *, keep: bool = False, stamps: list[Stamp] | None = None
) -> Connection:
    """Return a connection to a server on this machine."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(keep=keep, stamps=stamps), HOST, port
    )
    return connection


@dataclass
class Tally:
    """What came of some requests."""

    answers: int = 0
    size: int = 0
    firsts: list[float] = field(default_factory=list)

    def count(self, answer: Answer, ends_with: bytes, first: float | None) -> None:
        """Count an answer that is as it has to be."""
        if answer.status != 200 or ends_with not in answer.tail:
            raise LoadError(f"{answer.status}: …{answer.tail!r}")
        self.answers += 1
        self.size += answer.size
        if first is not None:
            self.firsts.append(first)


async def ask_many(
    port: int, request: str, requests: int, connections: int, ends_with: str
) -> dict[str, Any]:
    """Ask so many times on so many connections; an answer must have these bytes at its end."""
    content, end = request.encode("latin-1"), ends_with.encode()
    tally, left = Tally(), iter(range(requests))
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_ask_in_turn(await connect(port), content, left, end, tally))
    return {
        "answers": tally.answers,
        "bytes": tally.size,
        "seconds": time.perf_counter() - began,
        "first": percentile(tally.firsts, 50) if tally.firsts else None,
    }


async def _ask_in_turn(
    connection: Connection, request: bytes, left: Iterator[int], end: bytes, tally: Tally
) -> None:
    try:
        for _ in left:
            asked = time.perf_counter()
            answer = await connection.ask(request)
            first = connection.first_data
            tally.count(answer, end, None if first is None else first - asked)
    finally:
        connection.close()


async def ask_once(port: int, request: str) -> dict[str, Any]:
    """Ask once, and return everything that came."""
    connection = await connect(port, keep=True)
    answer = await connection.ask(request.encode("latin-1"))
    connection.close()
    return {"status": answer.status, "received": connection.received.decode("latin-1")}


async def ask_at_a_pace(
    port: int, request: str, streams: int, start_seconds: float
) -> dict[str, Any]:
    """Read so many streams at once; return the delays of the tokens, in seconds.

    The streams begin one after the other. Counted are the tokens that are said when all of them
    run, and until the first of them ends.
    """
    content, stamps = request.encode("latin-1"), [list[Stamp]() for _ in range(streams)]
    connections = [await connect(port, stamps=one) for one in stamps]
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(connection.ask(content))
            await asyncio.sleep(start_seconds / streams)
    for connection in connections:
        connection.close()
    if not all(stamps):
        raise LoadError("a stream without a token")
    begun, ended = max(one[0][1] for one in stamps), min(one[-1][0] for one in stamps)
    delays = [came - said for one in stamps for said, came in one if begun <= said <= ended]
    if not delays:
        raise LoadError("the streams did not run at the same time")
    return {
        "tokens": sum(map(len, stamps)),
        "p50": percentile(delays, 50) / 1e9,
        "p99": percentile(delays, 99) / 1e9,
    }


class Idle:
    """Streams that are open while other questions are asked."""

    def __init__(self) -> None:
        self._held: list[Connection] = []

    async def hold(self, port: int, request: str, streams: int) -> int:
        """Open more streams, one after the other; each has had its first chunk on return."""
        content = request.encode("latin-1")
        for _ in range(streams):
            connection = await connect(port)
            self._held.append(connection)
            connection.start(content)
            await connection.until_first_data()
        return len(self._held)

    async def release(self) -> int:
        """Hang up all of them."""
        released = len(self._held)
        while self._held:
            self._held.pop().close()
        return released


async def _answered(questions: Questions, do: str, **arguments: Any) -> Any:
    try:
        return await questions[do](**arguments)
    except (LoadError, OSError, TimeoutError, ExceptionGroup) as failure:
        return {"failed": repr(failure)}


def answer_questions() -> None:
    """Answer each line of standard input with one of standard output."""
    idle = Idle()
    questions: Questions = {
        "many": ask_many,
        "once": ask_once,
        "pace": ask_at_a_pace,
        "hold": idle.hold,
        "release": idle.release,
    }
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            print(dumps(runner.run(_answered(questions, **loads(line)))), flush=True)


if __name__ == "__main__":
    answer_questions()
