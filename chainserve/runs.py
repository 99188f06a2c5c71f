"""Runs: what is executed, owned by the application and not by the request that started it.

A run is `pending`, then `running`, then ends in exactly one of `success`, `error`, `cancelled` and
`timeout`. Its final state and its log's terminal event are written once, in one step.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from chainserve.cancellation import TaskScope
from chainserve.errors import (
    ChainServeError,
    RecordedRunError,
    RunCancelledError,
    RunFailedError,
    RunTimeoutError,
)
from chainserve.hooks import EndedRun, OnEnd, TranslateError
from chainserve.opening import AskForToken, Opening, Tokens
from chainserve.pacing import Follower
from chainserve.stores.base import IdempotencyKey, RunRecord
from chainserve.translation import translate
from chainserve.types import (
    STREAM_MODES,
    CancelReason,
    DisconnectMode,
    RunId,
    RunMode,
    RunStatus,
)
from chainserve.wire.events import Event, end_event, error_event
from chainserve.wire.sse import exact
from chainserve.work import Work

_KEPT_MESSAGE = 1000
"""How many characters of an error's message a record keeps."""


class RunOptions(NamedTuple):
    """What the chain, the settings and the request say about a run; durations are seconds.

    Attributes:
        path: The path of the chain, as the request knows it.
        on_disconnect: What becomes of the run when its last reader leaves.
        resume_grace: How long a run that can be resumed then waits for a reader.
        resumable: Whether the caller can come back.
        run_timeout: The longest the run may take.
        first_event_timeout: The longest a stream may take to its first chunk.
        idle_timeout: The longest a stream may pause between two chunks.
        log: Whether there is an event log although the run is no stream.
        retained: Whether anything is kept once the run has ended.
        max_output_bytes: A larger output is not kept.
        owner: Whose run it is.
        idempotency_key: The key that no second run may be started under.
        request_id: The id of the request that starts it.
        on_end: The chain's hook.
        translate_error: The chain's hook.
        feedback_token: Asks for a token for feedback on a run, by its id; None where none is given.
    """

    path: str
    on_disconnect: DisconnectMode
    run_timeout: float
    first_event_timeout: float | None = None
    idle_timeout: float | None = None
    resume_grace: float = 0
    resumable: bool = False
    log: bool = False
    retained: bool = True
    max_output_bytes: int = 2**20
    owner: str | None = None
    idempotency_key: IdempotencyKey | None = None
    request_id: str | None = None
    on_end: OnEnd | None = None
    translate_error: TranslateError | None = None
    feedback_token: AskForToken | None = None


class Run:
    """One execution; a batch is one with several ids.

    Attributes:
        ids: Its run ids; one for each input of a batch.
        mode: What it does with its runnable.
        epoch: Tells it from other runs that had the same id.
        status: Its state.
        outputs: JSON text of its outputs, once it has succeeded; None for one that is not known.
        error: Why it did not succeed, as a caller may know it.
        exception: The exception behind `error`.
        cancel_reason: Why it was cancelled.
        is_held: Whether the server holds its chain back.
        is_ending: Whether its end has begun, so that it can no longer be cancelled.
        has_log: Whether it writes its events to a log.
        readers: How many wait for it or read its log here.
        followers: Those of them who read its log.
        opening: What keeps its chunks until its feedback tokens are there, where callers get them.
    """

    def __init__(self, work: Work, options: RunOptions, started_at: float) -> None:
        self.work = work
        self.ids = work.run_ids
        self.mode: RunMode = work.mode
        self.epoch = secrets.token_urlsafe(4)
        self.options = options
        self.has_log = self.streams or options.log
        self.status: RunStatus = "pending"
        self.outputs: Sequence[bytes | None] = ()
        self.error: ChainServeError | None = None
        self.exception: BaseException | None = None
        self.cancel_reason: CancelReason | None = None
        self.created_at = time.time()
        self.ended_at: float | None = None
        self.started_at = started_at
        self.first_chunk_at: float | None = None
        self.last_chunk_at: float | None = None
        self.next_seq = 0
        self.readers = 0
        self.followers: list[Follower] = []
        self.is_ending = False
        self.is_held = False
        self._is_kept = False
        self.resumable = options.resumable
        self.scope = TaskScope()
        self.deadline: asyncio.TimerHandle | None = None
        self.deadline_at = started_at
        self.opening: Opening | None = None
        self.patience: asyncio.TimerHandle | None = None

    @cached_property
    def ended(self) -> asyncio.Event:
        """Set once the state is final and kept; made when it is asked for, since few do."""
        event = asyncio.Event()
        if self._is_kept:
            event.set()
        return event

    def note_kept(self) -> None:
        """Tell those who wait for it that the final state is kept."""
        self._is_kept = True
        if "ended" in vars(self):
            self.ended.set()

    @property
    def id(self) -> RunId:
        """The run's id; of a batch, the first."""
        return self.ids[0]

    @property
    def continues(self) -> bool:
        """Whether it goes on when its last reader leaves."""
        return self.options.on_disconnect == "continue"

    @property
    def streams(self) -> bool:
        """Whether it writes chunks as they come."""
        return self.mode in STREAM_MODES

    @property
    def is_over(self) -> bool:
        """Whether the state is final."""
        return self.status not in ("pending", "running")

    @property
    def feedback_tokens(self) -> Tokens:
        """The feedback tokens for each of its ids, once it has ended."""
        return [()] * len(self.ids) if self.opening is None else self.opening.tokens

    def fail(self, error: BaseException) -> None:
        """Note why the run does not succeed, as a caller may know it.

        Raises:
            Exception: What a chain's exception says of itself cannot be written; it is noted as an
                unexpected one.
        """
        self.exception, self.error = error, RunFailedError()
        translated = translate(error)
        error_event(0, translated.event())
        self.error = translated

    def end(self) -> Event | None:
        """Make the state final, and return the terminal event of the log if there is one.

        The run's `outputs` are those of its work from now on.
        """
        self.status = _final_status(self.error)
        self.ended_at = time.time()
        for timer in (self.deadline, self.patience):
            if timer is not None:
                timer.cancel()
        if self.error is None:
            self.outputs = self.work.outputs
        if not self.has_log:
            return None
        if self.error is None:
            return end_event(self.next_seq, self.work.usage(0))
        return error_event(self.next_seq, self.error.event())

    def records(self) -> list[RunRecord]:
        """Return what the store keeps: one record for each id."""
        return [self.record(run_id) for run_id in self.ids]

    def record(self, run_id: RunId) -> RunRecord:
        """Return what the store keeps of one of its ids."""
        options, index = self.options, self.ids.index(run_id)
        return RunRecord(
            run_id=run_id,
            epoch=self.epoch,
            path=options.path,
            mode=self.mode,
            status=self.status,
            created_at=self.created_at,
            ended_at=self.ended_at,
            owner=options.owner,
            retained=options.retained,
            idempotency_key=options.idempotency_key if index == 0 else None,
            batch=self.ids if self.mode == "batch" else (),
            output=self._kept_output(index),
            error=None if self.error is None else _shortened(self.error.event()),
            usage=self.work.usage(index),
            last_seq=self.next_seq if self.is_over and self.has_log else None,
        )

    def _kept_output(self, index: int) -> bytes | None:
        output = self.outputs[index] if self.outputs else None
        if output is None or len(output) > self.options.max_output_bytes:
            return None
        return exact(output)

    def ended_runs(self) -> list[EndedRun]:
        """Return what `on_end` gets: one for each id."""
        return [
            EndedRun(
                run_id=run_id,
                path=self.options.path,
                mode=self.mode,
                status=self.status,
                created_at=self.created_at,
                ended_at=self.ended_at or self.created_at,
                owner=self.options.owner,
                request_id=self.options.request_id,
                input=self.work.inputs[index],
                config=self.work.configs[index],
                output=self.work.result(index),
                usage=self.work.usage(index),
                error=None if self.error is None else self.error.event(),
                exception=self.exception,
                cancel_reason=self.cancel_reason,
            )
            for index, run_id in enumerate(self.ids)
        ]

    def line(self, now: float) -> dict[str, Any]:
        """Return the fields of the run's line in the log."""
        fields: dict[str, Any] = {
            "run_id": self.id,
            "request_id": self.options.request_id,
            "path": self.options.path,
            "mode": self.mode,
            "status": self.status,
            "duration_ms": _milliseconds(now - self.started_at),
        }
        if self.streams:
            fields["chunks"] = self.next_seq - 1
        if self.mode == "batch":
            fields["runs"] = len(self.ids)
        if self.first_chunk_at is not None and self.streams:
            fields["first_chunk_ms"] = _milliseconds(self.first_chunk_at - self.started_at)
        if self.error is not None:
            fields["code"] = self.error.code
        if self.cancel_reason is not None:
            fields["cancel_reason"] = self.cancel_reason
        return fields

    def next_deadline(self) -> tuple[str, float, float]:
        """Return the deadline that comes first: its name, its length, and when it began."""
        options = self.options
        deadlines = [("run_timeout", options.run_timeout, self.started_at)]
        if self.streams:
            if self.last_chunk_at is None:
                if options.first_event_timeout is not None:
                    deadlines.append(
                        ("first_event_timeout", options.first_event_timeout, self.started_at)
                    )
            elif options.idle_timeout is not None and not self.is_held:
                deadlines.append(("idle_timeout", options.idle_timeout, self.last_chunk_at))
        return min(deadlines, key=lambda deadline: deadline[1] + deadline[2])


class PastRun(NamedTuple):
    """A run that ended before, as its records tell it: what an idempotency key leads back to.

    Attributes:
        ids: Its run ids.
        epoch: Tells it from other runs that had the same id.
        outputs: JSON text of its outputs; None for one that was not kept.
        error: Why it did not succeed.
    """

    ids: tuple[RunId, ...]
    epoch: str
    outputs: Sequence[bytes | None]
    error: ChainServeError | None
    exception: None = None

    @property
    def feedback_tokens(self) -> Tokens:
        """None for any of its ids: tokens are not kept."""
        return [()] * len(self.ids)

    @classmethod
    def of(cls, first: RunRecord, batch: Sequence[RunRecord | None]) -> "PastRun":
        """Return the run that a record tells of, with all of its batch if it is one of several.

        One of them may have been forgotten, or its id be another run's by now.
        """
        records = [one if one and one.epoch == first.epoch else None for one in batch or [first]]
        return cls(
            ids=first.batch or (first.run_id,),
            epoch=first.epoch,
            outputs=[one.output if one else None for one in records],
            error=None if first.error is None else RecordedRunError(first.error),
        )

    @property
    def id(self) -> RunId:
        """The run's id; of a batch, the first."""
        return self.ids[0]


def _shortened(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error to be kept: a message may be as long as the input it speaks of."""
    return {**error, "message": str(error["message"])[:_KEPT_MESSAGE]}


def _final_status(error: ChainServeError | None) -> RunStatus:
    if error is None:
        return "success"
    if isinstance(error, RunTimeoutError):
        return "timeout"
    return "cancelled" if isinstance(error, RunCancelledError) else "error"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
