"""How a run's chunks come into its log: the first at once, what follows without a wait together."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeAlias

from chainserve.runs import Run
from chainserve.types import RunId
from chainserve.wire.events import Event, EventRange

Append: TypeAlias = Callable[[RunId, Sequence[Event]], Coroutine[Any, Any, None]]
"""Appends events to the log of a run."""


class LogWriter:
    """Appends the chunks of a run to its log, all of them when it is left.

    While a chain says one chunk after another, the loop is its own: nobody reads what it has said
    until it waits. So what follows a chunk without a wait is kept until the loop goes on, and is
    appended then in one step. Between any two chunks, that step would take several times as long,
    for the chain and it would drive each other out of the processor's caches.

    Args:
        run: The run; its `next_seq` counts what was appended.
        append: Appends to its log. Where that may wait, each chunk has to be flushed.
    """

    __slots__ = ("_append", "_failure", "_follows", "_kept", "_loop", "_run")

    def __init__(self, run: Run, append: Append) -> None:
        self._run = run
        self._append = append
        self._loop = asyncio.get_running_loop()
        self._kept: list[bytes] = []
        self._follows = False
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.flush()

    def add(self, data: bytes) -> bool:
        """Keep the chunk that comes next, and tell whether to `flush` it at once.

        It is where the loop has gone on since the one before.
        """
        self._kept.append(data)
        if self._follows:
            return False
        self.go_on()
        return True

    def go_on(self) -> None:
        """Take the chunk that comes next for one that follows, unless its chain waits for it."""
        if not self._follows:
            self._follows = True
            self._loop.call_soon(self._note_a_wait)

    async def flush(self) -> None:
        """Append what is kept, unless the run has ended.

        Raises:
            Exception: The store has failed, now or when the loop went on.
        """
        if self._failure is not None:
            raise self._failure
        run, kept = self._run, self._kept
        if not kept or run.status != "running":
            return
        first, self._kept = run.next_seq, []
        run.next_seq = first + len(kept)
        await self._append(run.id, EventRange(first, kept, {}))

    def _note_a_wait(self) -> None:
        self._follows = False
        if self._kept:
            try:
                _finish(self.flush())
            except Exception as failure:  # noqa: BLE001 - whatever a store raises fails the run
                self._failure = failure


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Do what has to be done and does not wait."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("A store that says that it does not suspend has suspended.")
