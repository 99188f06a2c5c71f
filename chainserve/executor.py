"""Who executes runs: starts them, lets readers join and leave, and ends each exactly once."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from contextvars import Context
from typing import Any

from chainserve.errors import (
    ChainServeError,
    IdempotencyKeyReusedError,
    RunCancelledError,
    RunFailedError,
    RunTimeoutError,
    UpstreamError,
)
from chainserve.hook_calls import HookCalls
from chainserve.log_lines import Log
from chainserve.log_writer import LogWriter
from chainserve.opening import Opening
from chainserve.pacing import Follower, Turns, WriterPace
from chainserve.runs import PastRun, Run, RunOptions
from chainserve.stores.base import RunRecord, Store
from chainserve.translation import upstream_cause
from chainserve.types import CancelReason, RunId
from chainserve.wire.events import metadata_event
from chainserve.work import Work

_SIBLINGS_TIMEOUT = 0.1
"""Seconds in which what a failed step leaves running may end before the failure is told."""

_JOIN_TIMEOUT = 5.0
"""Seconds in which the response of a run must have begun to read it."""

_UVICORN_STOPS = "graceful shutdown exceeded"
"""What the message of the cancellation says with which uvicorn ends its requests."""

_FAREWELL_TIMEOUT = 1.0
"""Seconds in which a server that stops may say so to the requests that it has cancelled, and in
which the readers may then send how their runs ended."""


class RunExecutor:
    """Starts runs, lets readers join and leave them, and ends each exactly once.

    Args:
        store: Keeps the records and logs.
        cancel_timeout: Seconds a cancelled run has to end before it is left behind.
        on_end_timeout: Seconds that a chain's `on_end` or `translate_error` hook may take.
        max_lead: How many bytes a run may write ahead of those who read its log.
        log: Where ended runs are written, one line each.
    """

    def __init__(
        self,
        store: Store,
        *,
        cancel_timeout: float,
        on_end_timeout: float,
        max_lead: int,
        log: Log,
    ) -> None:
        self.store = store
        self.stopping = asyncio.Event()
        self._cancel_timeout = cancel_timeout
        self._hooks = HookCalls(on_end_timeout, log)
        self._max_lead = max_lead
        self._log = log
        self._turns = Turns()
        self._live: dict[RunId, Run] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._joined = 0
        self._all_left = asyncio.Event()

    @property
    def live(self) -> frozenset[Run]:
        """The runs that have not ended."""
        return frozenset(self._live.values())

    def find(self, run_id: RunId) -> Run | None:
        """Return the run that has this id and has not ended."""
        return self._live.get(run_id)

    async def start(self, work: Work, options: RunOptions) -> Run | PastRun:
        """Start a run; or return the one that its idempotency key started before.

        Raises:
            RunIdInUseError: The store has a run with one of its ids.
            IdempotencyKeyReusedError: The key started a run for another request.
            RunCancelledError: The server is shutting down.
        """
        if self.stopping.is_set():
            raise RunCancelledError("shutdown")
        run = Run(work, options, asyncio.get_running_loop().time())
        run.status = "running"
        before = await self._create(run)
        if before is not None:
            return await self._attach(before, options)
        self._live |= dict.fromkeys(run.ids, run)
        run.next_seq = 1
        if (ask := options.feedback_token) is not None:
            store = self.store if run.has_log else None
            run.opening = Opening(run.ids, ask, store, self._max_lead)
        elif run.has_log:
            await self.store.append(run.id, (metadata_event(run.id),))
        self._start(run)
        return run

    def join(
        self, run_id: RunId, *, resumable: bool = False, follower: Follower | None = None
    ) -> Run | None:
        """Count a reader of the run, who can come back after leaving if it is resumable.

        A writer that gets too far ahead waits for a follower.

        Returns:
            The run, if it has not ended: what the reader leaves. Its id may be another's by then.
        """
        self._joined += 1
        self._all_left.clear()
        if (run := self._live.get(run_id)) is None:
            return None
        run.readers += 1
        run.resumable = run.resumable or resumable
        if run.patience is not None:
            run.patience.cancel()
            run.patience = None
        if follower is not None:
            run.followers.append(follower)
        return run

    def leave(self, run: Run | None, *, follower: Follower | None = None) -> None:
        """Count a reader less; the run's policy says what follows when the last one left."""
        self._joined -= 1
        if self._joined == 0:
            self._all_left.set()
        if run is None or run.is_over:
            return
        run.readers -= 1
        if follower is not None:
            run.followers.remove(follower)
        if run.resumable:
            self._wait_for_a_reader(run, run.options.resume_grace)
        else:
            self._cancel_if_nobody_reads(run)

    def cancel(self, run: Run, reason: CancelReason, error: ChainServeError | None = None) -> None:
        """Begin to cancel a run, unless it has ended or is being cancelled; returns at once.

        Every task that was started in the run's context is cancelled until none is left, or for
        `cancel_timeout`. Then the run ends: `timeout` for that reason, else `cancelled`.
        """
        if run.is_ending or run.cancel_reason is not None:
            return
        run.cancel_reason = reason
        self._in_background(self._cancel(run, error or RunCancelledError(reason)))

    async def ends_soon(self, run: Run | None, cancelled: asyncio.CancelledError) -> bool:
        """Tell a reader whose request was cancelled whether the run ends before it has to leave.

        It does where the server stops. uvicorn cancels its requests first, in these words, and the
        lifespan, with which runs end, next. Where the reader is the one that keeps the run, the run
        is cancelled here. Who else cancels a request, such as a middleware with a time-out of its
        own, is not held up.
        """
        if not self.stopping.is_set():
            if _UVICORN_STOPS not in str(cancelled):
                return False
            if run is not None and run.readers == 1 and not (run.continues or run.resumable):
                self.cancel(run, "shutdown")
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), _FAREWELL_TIMEOUT)
        return self.stopping.is_set() or run is None or run.is_over

    async def shutdown(self) -> None:
        """Cancel all runs; wait until each has ended or was left behind, and has been read.

        No run is started from now on.
        """
        self.stopping.set()
        for run in self.live:
            self.cancel(run, "shutdown")
        while self._background:
            await asyncio.wait(self._background)
        if self._joined:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_left.wait(), _FAREWELL_TIMEOUT)

    async def _create(self, run: Run) -> RunRecord | None:
        """Write the records; return the one under the run's idempotency key if there is one."""
        created: list[RunId] = []
        try:
            for record in run.records():
                kept = await self.store.create(record, log=run.has_log)
                if kept.epoch != run.epoch:
                    return kept
                created.append(record.run_id)
        except BaseException:
            for run_id in created:
                await self.store.delete(run_id)
            raise
        return None

    async def _attach(self, record: RunRecord, options: RunOptions) -> Run | PastRun:
        """Return the run that a key started before."""
        if record.idempotency_key != options.idempotency_key:
            raise IdempotencyKeyReusedError
        if (run := self._live.get(record.run_id)) is not None:
            return run
        return PastRun.of(record, [await self.store.get(run_id) for run_id in record.batch])

    def _start(self, run: Run) -> None:
        task = run.scope.start(self._execute(run))
        task.add_done_callback(lambda _: self._make_sure_it_ended(run))
        asyncio.get_running_loop().call_soon(self._watch, run)

    def _watch(self, run: Run) -> None:
        """Set the timers of a run that has not ended at its first step, as the shortest do."""
        if run.is_over:
            return
        self._watch_deadlines(run)
        if run.readers == 0 and run.patience is None:
            grace = run.options.resume_grace if run.resumable else 0
            self._wait_for_a_reader(run, max(_JOIN_TIMEOUT, grace))

    def _wait_for_a_reader(self, run: Run, seconds: float) -> None:
        """Look in a while whether somebody reads the run."""
        if run.patience is not None:
            run.patience.cancel()
        loop = asyncio.get_running_loop()
        run.patience = loop.call_later(seconds, self._cancel_if_nobody_reads, run)

    def _cancel_if_nobody_reads(self, run: Run) -> None:
        if run.readers == 0 and not run.continues:
            self.cancel(run, "client_disconnect")

    async def _execute(self, run: Run) -> None:
        """Do the run's work and end it, unless `cancel` has begun: then that ends it."""
        error: BaseException | None = None
        try:
            await (self._write_chunks(run) if run.has_log else run.work.run())
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever a chain raises ends its run
            error = raised
            await run.scope.cancel(_SIBLINGS_TIMEOUT)
        if run.cancel_reason is None:
            run.is_ending = True
            if error is None and run.opening is None and not self.store.suspends:
                await self._end(run, None)  # Nothing in it waits, so nothing can cancel it.
            else:
                await asyncio.shield(self._in_background(self._end(run, error)))

    async def _write_chunks(self, run: Run) -> None:
        now = asyncio.get_running_loop().time
        append, suspends = self.store.append, self.store.suspends
        if run.opening is not None:
            append, suspends = run.opening.append, True
        pace = WriterPace(run.followers, self._max_lead)
        turn_ends = 0.0
        async with LogWriter(run, append) as writer, aclosing(run.work.chunks()) as chunks:
            async for data in chunks:
                if run.status != "running":
                    break  # It was left behind, and its id may be another run's by now.
                run.last_chunk_at = came_at = now()
                if run.first_chunk_at is None:
                    run.first_chunk_at = came_at
                    self._watch_deadlines(run)
                if pace.is_due(len(data)):
                    await writer.flush()
                    await self._give_way(run, pace, len(data))
                if (waited := writer.add(data)) or suspends:
                    await writer.flush()
                if came_at >= turn_ends:
                    await writer.flush()
                    turn_ends = await self._turns.next(turn_ends, waited=waited)
                    writer.go_on()
        if not run.is_over and pace.ends_large():
            await self._give_way(run, pace, 0)

    async def _give_way(self, run: Run, pace: WriterPace, size: int) -> None:
        """Hold a run back for others; that is no pause of its chain."""
        run.is_held = True
        await pace.give_way(run.next_seq - 1, size)
        run.is_held = False
        run.last_chunk_at = asyncio.get_running_loop().time()
        self._watch_deadlines(run)

    async def _cancel(self, run: Run, error: ChainServeError) -> None:
        left = await run.scope.cancel(self._cancel_timeout)
        run.is_ending = True
        await self._end(run, error)
        if left:
            self._log.warning("run left behind", run_id=run.id, path=run.options.path, tasks=left)

    def _make_sure_it_ended(self, run: Run) -> None:
        """End a run whose task was cancelled by something else than `cancel`."""
        if not run.is_ending and run.cancel_reason is None:
            run.is_ending = True
            self._in_background(self._cancel(run, RunCancelledError()))

    async def _end(self, run: Run, error: BaseException | None) -> None:
        """Write the final state and the terminal event, once."""
        try:
            if run.opening is not None:
                error = await run.opening.finish(wait=error is None) or error
            if error is not None:
                await self._explain(run, error)
        except Exception as failure:  # noqa: BLE001 - whatever fails here, the run ends
            self._log.error("run failed while it ended", run_id=run.id, exc_info=failure)
            if run.error is None:
                run.fail(RunFailedError())
        terminal = run.end()
        try:
            for record in run.records():
                await self.store.finish(record, terminal)
        finally:
            for run_id in run.ids:
                self._live.pop(run_id, None)
            run.note_kept()
        self._log.info("run", **run.line(asyncio.get_running_loop().time()))
        if (on_end := run.options.on_end) is not None:
            for ended in run.ended_runs():
                self._in_background(self._hooks.tell_end(on_end, ended))

    async def _explain(self, run: Run, error: BaseException) -> None:
        """Note the error as a caller may know it; the text of an unexpected one goes to the log."""
        hook = run.options.translate_error
        translated = await self._hooks.translated(hook, error, run.id)
        with suppress(Exception):  # Attributes of a chain's exception may be anything.
            run.fail(translated)
        if isinstance(run.error, RunFailedError):
            fields = {"run_id": run.id, "path": run.options.path, "mode": run.mode}
            self._log.error("run failed", **fields, exc_info=error)
        elif isinstance(run.error, UpstreamError):
            fields = {"run_id": run.id, "path": run.options.path, "code": run.error.code}
            self._log.warning("upstream failed", **fields, **upstream_cause(error))

    def _watch_deadlines(self, run: Run) -> None:
        """Cancel the run if a deadline has passed; else look again when the next one may have."""
        if run.is_over:
            return
        loop = asyncio.get_running_loop()
        name, seconds, since = run.next_deadline()
        if loop.time() >= since + seconds:
            self.cancel(run, "timeout", RunTimeoutError(name, seconds))
            return
        if run.deadline is not None:
            if run.deadline_at == since + seconds:
                return
            run.deadline.cancel()
        run.deadline_at = since + seconds
        run.deadline = loop.call_at(run.deadline_at, self._look_at_deadlines, run)

    def _look_at_deadlines(self, run: Run) -> None:
        run.deadline = None  # A timer may be early, and has to be set again then.
        self._watch_deadlines(run)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that no run's cancelling reaches."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
