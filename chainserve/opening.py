"""How a run begins that tells feedback tokens: its log waits for them, its chain does not."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, TypeAlias

from chainserve.schema import FeedbackToken
from chainserve.stores.base import Store
from chainserve.types import RunId
from chainserve.wire.events import Event, metadata_event

AskForToken: TypeAlias = Callable[[RunId], Coroutine[Any, Any, FeedbackToken | None]]
"""Returns a token for feedback on a run, or None, within a bound of time; it does not fail."""

Tokens: TypeAlias = Sequence[Sequence[FeedbackToken]]
"""The feedback tokens for each of a run's ids."""


class Opening:
    """Keeps the chunks of a run until its tokens are there and `metadata`, the first event, is.

    The tokens are asked for at once, in tasks that cancelling the run does not reach.

    Args:
        run_ids: The run's ids.
        ask: Asks for the token of one of them.
        store: Where the log is; None if the run has none.
        max_kept: How many bytes of chunks are kept before the chain has to wait.
    """

    def __init__(
        self, run_ids: Sequence[RunId], ask: AskForToken, store: Store | None, max_kept: int
    ) -> None:
        self._run_id = run_ids[0]
        self._store = store
        self._max_kept = max_kept
        self._kept: list[Event] | None = []
        self._size = 0
        start = asyncio.get_running_loop().create_task
        self._asking = [start(ask(run_id), context=Context()) for run_id in run_ids]
        self._opening = start(self._open(), context=Context())

    @property
    def tokens(self) -> Tokens:
        """The tokens that have come."""
        return [_come(task) for task in self._asking]

    async def append(self, run_id: RunId, events: Sequence[Event]) -> None:
        """Write events to the log when their time has come, after `metadata`."""
        if self._store is None:
            return
        if self._kept is not None:
            self._size += sum(len(event.data) for event in events)
            if self._size <= self._max_kept:
                self._kept += events
                return
            await asyncio.wait((self._opening,))
        await self._store.append(run_id, events)

    async def finish(self, *, wait: bool) -> BaseException | None:
        """Write what is kept, so that the run can end; wait for the tokens before, or not.

        Returns:
            Why it could not be written.
        """
        if not wait:
            for task in self._asking:
                task.cancel()
        await asyncio.wait((self._opening,))
        return self._opening.exception()

    async def _open(self) -> None:
        """Write `metadata` when the tokens are there or given up, then what was kept."""
        await asyncio.wait(self._asking)
        if self._store is None or self._kept is None:
            return
        shown = [_shown(token) for token in self.tokens[0]]
        self._kept.insert(0, metadata_event(self._run_id, shown))
        while kept := self._kept:
            self._kept = []
            await self._store.append(self._run_id, kept)
        self._kept = None


def _come(task: asyncio.Task[FeedbackToken | None]) -> list[FeedbackToken]:
    """Return the token that a task has brought, if it has."""
    if not task.done() or task.cancelled() or (token := task.result()) is None:
        return []
    return [token]


def _shown(token: FeedbackToken) -> dict[str, Any]:
    """Return a token as LangServe's `metadata` event has it."""
    expires_at = None if token.expires_at is None else token.expires_at.isoformat()
    return {"key": token.key, "token_url": token.token_url, "expires_at": expires_at}
