"""Runs: what is executed, owned by the application and not by the request that started it.

A run is `pending`, then `running`, then ends in exactly one of `success`, `error`, `cancelled` and
`timeout`. Its final state and its log's terminal event are written once, in one step.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol

from chainserve.cancellation import TaskScope
from chainserve.errors import ChainServeError, RunCancelledError, RunFailedError, RunTimeoutError
from chainserve.execution import translate
from chainserve.stores.base import RunRecord, Store
from chainserve.types import CancelReason, DisconnectMode, RunId, RunMode, RunStatus
from chainserve.wire.events import Event, end_event, error_event, metadata_event

_KEPT_MESSAGE = 1000
"""How many characters of an error's message a record keeps."""

_CHUNKS_A_TURN = 64
"""After so many chunks, a run lets others have the loop."""

_SIBLINGS_TIMEOUT = 0.1
"""Seconds in which what a failed step leaves running may end before the failure is told."""


_JOIN_TIMEOUT = 5.0
"""Seconds in which the response of a run must have begun to read it."""

_FAREWELL_TIMEOUT = 1.0
"""Seconds in which the readers of a server that stops may send how their runs ended."""


class RunLogger(Protocol):
    """Where ended runs and unexpected errors are written: a structlog logger."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write a line."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Write a line that asks for attention."""

    def error(self, event: str, **fields: Any) -> Any:
        """Write a line about a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the chain or the server's settings say about a run; durations are seconds."""

    path: str
    on_disconnect: DisconnectMode
    run_timeout: float
    first_event_timeout: float | None = None
    idle_timeout: float | None = None


class Run:
    """One execution; a batch is one with several ids.

    Attributes:
        ids: Its run ids; one for each input of a batch.
        mode: `invoke`, `batch` or `stream`.
        status: Its state.
        outputs: JSON text of the outputs of a run that succeeded and is not a stream.
        error: Why it did not succeed, as a caller may know it.
        exception: The exception behind `error`, as the chain raised it.
        cancel_reason: Why it was cancelled.
        ended: Set once the state is final.
    """

    def __init__(
        self,
        ids: Sequence[RunId],
        mode: RunMode,
        options: RunOptions,
        request_id: str | None,
        started_at: float,
    ) -> None:
        self.ids = tuple(ids)
        self.mode: RunMode = mode
        self.options = options
        self.request_id = request_id
        self.status: RunStatus = "pending"
        self.outputs: list[bytes] = []
        self.error: ChainServeError | None = None
        self.exception: BaseException | None = None
        self.cancel_reason: CancelReason | None = None
        self.ended = asyncio.Event()
        self.created_at = time.time()
        self.started_at = started_at
        self.first_chunk_at: float | None = None
        self.last_chunk_at: float | None = None
        self.next_seq = 0
        self.readers = 0
        self.scope = TaskScope()
        self.timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> RunId:
        """The run's id; of a batch, the first."""
        return self.ids[0]

    @property
    def continues(self) -> bool:
        """Whether it goes on when its last reader leaves."""
        return self.options.on_disconnect == "continue"

    @property
    def is_over(self) -> bool:
        """Whether the state is final."""
        return self.status not in ("pending", "running")

    def records(self) -> list[RunRecord]:
        """Return what the store keeps: one record for each id."""
        return [
            RunRecord(
                run_id=run_id,
                path=self.options.path,
                mode=self.mode,
                status=self.status,
                created_at=self.created_at,
                ended_at=time.time() if self.is_over else None,
                error=_shortened(self.error.event()) if self.error else None,
            )
            for run_id in self.ids
        ]


class RunExecutor:
    """Starts runs, lets readers join and leave them, and ends each exactly once.

    Args:
        store: Keeps the records and logs.
        cancel_timeout: Seconds a cancelled run has to end before it is left behind.
        log: Where ended runs are written, one line each.
    """

    def __init__(self, store: Store, *, cancel_timeout: float, log: RunLogger) -> None:
        self.store = store
        self._cancel_timeout = cancel_timeout
        self._log = log
        self._live: set[Run] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._joined = 0
        self._all_left = asyncio.Event()

    @property
    def live(self) -> frozenset[Run]:
        """The runs that have not ended."""
        return frozenset(self._live)

    async def start_stream(
        self,
        run_id: RunId,
        chunks: AsyncGenerator[bytes],
        options: RunOptions,
        *,
        request_id: str | None = None,
    ) -> Run:
        """Start a run that writes each chunk to its log as it comes.

        Raises:
            RunIdInUseError: The store has a run with this id.
        """
        run = await self._create([run_id], "stream", options, request_id)
        await self.store.append(run_id, (metadata_event(run_id),))
        run.next_seq = 1
        self._start(run, self._write_chunks(run, chunks))
        return run

    async def start_call(
        self,
        run_ids: Sequence[RunId],
        mode: RunMode,
        call: Coroutine[Any, Any, list[bytes]],
        options: RunOptions,
        *,
        request_id: str | None = None,
    ) -> Run:
        """Start a run that has outputs and no log: an invoke, or a batch with an id for each input.

        Raises:
            RunIdInUseError: The store has a run with one of these ids.
        """
        try:
            run = await self._create(run_ids, mode, options, request_id)
        except BaseException:
            call.close()
            raise
        self._start(run, self._keep_outputs(run, call))
        return run

    def join(self, run: Run) -> None:
        """Count a reader of the run."""
        run.readers += 1
        self._joined += 1
        self._all_left.clear()

    def leave(self, run: Run) -> None:
        """Count a reader less; the run's policy says what follows when the last one left."""
        run.readers -= 1
        self._joined -= 1
        if self._joined == 0:
            self._all_left.set()
        if run.readers == 0 and not run.continues:
            self.cancel(run, "client_disconnect")

    def cancel(self, run: Run, reason: CancelReason, error: ChainServeError | None = None) -> None:
        """Begin to cancel a run, unless it has ended or is being cancelled; returns at once.

        Every task that was started in the run's context is cancelled until none is left, or for
        `cancel_timeout`. Then the run ends: `timeout` for that reason, else `cancelled`.
        """
        if run.is_over or run.cancel_reason is not None:
            return
        run.cancel_reason = reason
        self._in_background(self._cancel(run, error or RunCancelledError()))

    async def shutdown(self) -> None:
        """Cancel all runs; wait until each has ended or was left behind, and has been read."""
        for run in self.live:
            self.cancel(run, "shutdown")
        while self._background:
            await asyncio.wait(self._background)
        if self._joined:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_left.wait(), _FAREWELL_TIMEOUT)

    async def _create(
        self, run_ids: Sequence[RunId], mode: RunMode, options: RunOptions, request_id: str | None
    ) -> Run:
        now = asyncio.get_running_loop().time()
        run = Run(run_ids, mode, options, request_id, now)
        created: list[RunId] = []
        try:
            for record in run.records():
                await self.store.create(record, log=mode == "stream")
                created.append(record.run_id)
        except BaseException:
            for run_id in created:
                await self.store.delete(run_id)
            raise
        self._live.add(run)
        return run

    def _start(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        run.status = "running"
        task = run.scope.start(self._execute(run, work))
        task.add_done_callback(lambda _: self._make_sure_it_ended(run))
        self._watch_deadlines(run)
        asyncio.get_running_loop().call_later(_JOIN_TIMEOUT, self._cancel_if_nobody_came, run)

    def _cancel_if_nobody_came(self, run: Run) -> None:
        """Cancel a run whose response was lost on its way to the server."""
        if run.readers == 0 and not run.continues:
            self.cancel(run, "client_disconnect")

    async def _execute(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Do the run's work and end it, unless `cancel` has begun: then that ends it."""
        error: BaseException | None = None
        try:
            await work
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever a chain raises ends its run
            error = raised
            await run.scope.cancel(_SIBLINGS_TIMEOUT)
        if run.cancel_reason is None:
            await asyncio.shield(self._in_background(self._end(run, error)))

    async def _write_chunks(self, run: Run, chunks: AsyncGenerator[bytes]) -> None:
        now = asyncio.get_running_loop().time
        append, run_id = self.store.append, run.id
        async with aclosing(chunks):
            async for data in chunks:
                seq = run.next_seq
                run.next_seq = seq + 1
                run.last_chunk_at = now()
                if run.first_chunk_at is None:
                    run.first_chunk_at = run.last_chunk_at
                    self._watch_deadlines(run)
                await append(run_id, (Event(seq, "data", data),))
                if seq % _CHUNKS_A_TURN == 0:
                    # A chain that never suspends would keep the loop from everybody else.
                    await asyncio.sleep(0)

    async def _keep_outputs(self, run: Run, call: Coroutine[Any, Any, list[bytes]]) -> None:
        run.outputs = await call

    async def _cancel(self, run: Run, error: ChainServeError) -> None:
        left = await run.scope.cancel(self._cancel_timeout)
        await self._end(run, error)
        if left:
            self._log.warning("run left behind", run_id=run.id, path=run.options.path, tasks=left)

    def _make_sure_it_ended(self, run: Run) -> None:
        """End a run whose task was cancelled by something else than `cancel`."""
        if not run.is_over and run.cancel_reason is None:
            self._in_background(self._end(run, RunCancelledError()))

    async def _end(self, run: Run, error: BaseException | None) -> None:
        """Write the final state and the terminal event, once."""
        if run.is_over:
            return
        if error is not None:
            self._explain(run, error)
        terminal = _terminal_event(run)
        run.status = _final_status(run)
        if run.timer is not None:
            run.timer.cancel()
        try:
            for record in run.records():
                await self.store.finish(record, terminal)
        finally:
            self._live.discard(run)
            run.ended.set()
        self._write_line(run)

    def _explain(self, run: Run, error: BaseException) -> None:
        """Note the error as a caller may know it; the text of an unexpected one goes to the log."""
        run.exception = error
        try:
            run.error = translate(error)
            error_event(0, run.error.event())
        except Exception:  # noqa: BLE001 - attributes of a chain's exception may be anything
            run.error = RunFailedError()
        if isinstance(run.error, RunFailedError):
            self._log.error(
                "run failed", run_id=run.id, path=run.options.path, mode=run.mode, exc_info=error
            )

    def _write_line(self, run: Run) -> None:
        now = asyncio.get_running_loop().time()
        fields: dict[str, Any] = {
            "run_id": run.id,
            "request_id": run.request_id,
            "path": run.options.path,
            "mode": run.mode,
            "status": run.status,
            "duration_ms": _milliseconds(now - run.started_at),
        }
        if run.mode == "stream":
            fields["chunks"] = run.next_seq - 1
        if run.mode == "batch":
            fields["runs"] = len(run.ids)
        if run.first_chunk_at is not None:
            fields["first_chunk_ms"] = _milliseconds(run.first_chunk_at - run.started_at)
        if run.error is not None:
            fields["code"] = run.error.code
        if run.cancel_reason is not None:
            fields["cancel_reason"] = run.cancel_reason
        self._log.info("run", **fields)

    def _watch_deadlines(self, run: Run) -> None:
        """Cancel the run if a deadline has passed; else look again when the next one may have."""
        if run.is_over:
            return
        loop = asyncio.get_running_loop()
        if run.timer is not None:
            run.timer.cancel()
        name, seconds, since = _next_deadline(run)
        if loop.time() >= since + seconds:
            self.cancel(run, "timeout", RunTimeoutError(name, seconds))
            return
        run.timer = loop.call_at(since + seconds, self._watch_deadlines, run)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that no run's cancelling reaches."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _shortened(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error to be kept: a message may be as long as the input it speaks of."""
    return {**error, "message": str(error["message"])[:_KEPT_MESSAGE]}


def _final_status(run: Run) -> RunStatus:
    if run.error is None:
        return "success"
    if isinstance(run.error, RunTimeoutError):
        return "timeout"
    return "cancelled" if isinstance(run.error, RunCancelledError) else "error"


def _terminal_event(run: Run) -> Event | None:
    if run.mode != "stream":
        return None
    if run.error is None:
        return end_event(run.next_seq)
    return error_event(run.next_seq, run.error.event())


def _next_deadline(run: Run) -> tuple[str, float, float]:
    """Return the deadline that comes first: its name, its length, and when it began."""
    options = run.options
    deadlines = [("run_timeout", options.run_timeout, run.started_at)]
    if run.mode == "stream":
        if run.last_chunk_at is None:
            if options.first_event_timeout is not None:
                deadlines.append(
                    ("first_event_timeout", options.first_event_timeout, run.started_at)
                )
        elif options.idle_timeout is not None:
            deadlines.append(("idle_timeout", options.idle_timeout, run.last_chunk_at))
    return min(deadlines, key=lambda deadline: deadline[1] + deadline[2])


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
