"""Runs that go on by themselves: what a `RemoteRunnable` does with them, by their ids."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from math import inf
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import UUID

from langchain_core.runnables import RunnableConfig

from chainserve.calls import Call, StreamCall
from chainserve.client_connection import RemoteConnection
from chainserve.remote import RemoteRun
from chainserve.types import DisconnectMode, RunMode

Input = TypeVar("Input")
Output = TypeVar("Output")

AnyRun: TypeAlias = str | UUID | RemoteRun
"""A run, or its id."""

_LONGEST_WAIT = 20.0
"""Seconds for which one request waits for the end of a run."""

_GRACE = 10.0
"""Seconds by which an answer may come later than it was asked to, where a wait has a time-out."""

_SHORTEST_WAIT = 0.5
"""Seconds between two requests for a run, where the server does not hold its answer back."""


class RemoteRuns(RemoteConnection, Generic[Input, Output]):
    """The runs of a chain on a chainserve; LangServe has none.

    All raise what `RemoteRunnable` raises: a run that the server does not know, or that belongs to
    another chain, is a `RemoteStatusError` with the status 404. None of these calls is the last
    reader of a run that was started by `start`: closing what `join` returns leaves it running.
    """

    def start(
        self,
        input: Input,
        config: RunnableConfig | None = None,
        *,
        mode: RunMode | None = None,
        on_disconnect: DisconnectMode | None = None,
        **kwargs: Any,
    ) -> RemoteRun:
        """Start a run in the background, and return it: it needs no connection to go on.

        Args:
            input: The input.
            config: The config.
            mode: What it does with the runnable: `stream`, `invoke`, `stream_log` or
                `stream_events`; the first of them that the server has when None.
            on_disconnect: Whether it goes on when its readers have left; as the server says, which
                is `continue` unless it is set otherwise, when None.
            kwargs: Sent to the runnable, as far as the server lets them.
        """
        call = self._start_in_background(input, config, mode, on_disconnect, kwargs)
        return self._answers.note_run(*self._exchanges.send(call), call.run)

    async def astart(
        self,
        input: Input,
        config: RunnableConfig | None = None,
        *,
        mode: RunMode | None = None,
        on_disconnect: DisconnectMode | None = None,
        **kwargs: Any,
    ) -> RemoteRun:
        """Start a run in the background, as `start` does."""
        call = self._start_in_background(input, config, mode, on_disconnect, kwargs)
        return self._answers.note_run(*await self._exchanges.asend(call), call.run)

    def join(self, run_id: AnyRun, *, last_event_id: str = "") -> Generator[Output]:
        """Yield the chunks of a run from its first on, as they come, and resume after cuts.

        Args:
            run_id: The run. Of a mode other than `stream`, its chunks are as the server sends them.
            last_event_id: After which event to begin: `last_run.last_event_id` of who read before.

        Raises:
            RemoteError: As the class says; the run's own error too.
        """
        with closing(self._exchanges.stream(self._join(run_id, last_event_id))) as chunks:
            yield from chunks

    async def ajoin(self, run_id: AnyRun, *, last_event_id: str = "") -> AsyncGenerator[Output]:
        """Yield the chunks of a run, as `join` does."""
        async with aclosing(self._exchanges.astream(self._join(run_id, last_event_id))) as chunks:
            async for chunk in chunks:
                yield chunk

    def get_run(self, run_id: AnyRun) -> RemoteRun:
        """Return what the server knows of a run: its status, its output or error, its usage."""
        return self._get_run(run_id)

    async def aget_run(self, run_id: AnyRun) -> RemoteRun:
        """Return what the server knows of a run, as `get_run` does."""
        return await self._aget_run(run_id)

    def wait(self, run_id: AnyRun, timeout: float | None = None) -> Output:
        """Wait for the end of a run, and return its output.

        Args:
            run_id: The run.
            timeout: Seconds after which to wait no longer; ten more if the server is silent.

        Raises:
            TimeoutError: It has not ended by then; it goes on.
            RemoteStatusError: It did not succeed.
            UnexpectedAnswerError: The server does not keep its output, which is too large.
        """
        waiting = _Waiting(timeout)
        while True:
            run = self._get_run(run_id, *waiting.patience(self.sync_client))
            if waiting.is_over(run):
                return self._output_of(run)  # type: ignore[no-any-return]
            time.sleep(waiting.pause())

    async def await_(self, run_id: AnyRun, timeout: float | None = None) -> Output:  # noqa: ASYNC109
        """Wait for the end of a run, and return its output, as `wait` does."""
        waiting = _Waiting(timeout)
        while True:
            run = await self._aget_run(run_id, *waiting.patience(self.async_client))
            if waiting.is_over(run):
                return self._output_of(run)  # type: ignore[no-any-return]
            await asyncio.sleep(waiting.pause())

    def cancel(self, run_id: AnyRun) -> RemoteRun:
        """Cancel a run, wait for its end, and return what is known of it; twice is once."""
        call = self._run_call("POST", run_id, "/cancel")
        return self._answers.note_run(*self._exchanges.send(call), call.run)

    async def acancel(self, run_id: AnyRun) -> RemoteRun:
        """Cancel a run, as `cancel` does."""
        call = self._run_call("POST", run_id, "/cancel")
        return self._answers.note_run(*await self._exchanges.asend(call), call.run)

    def _start_in_background(
        self, input: Any, config: Any, mode: Any, on_disconnect: Any, kwargs: Any
    ) -> Call:
        members = {"mode": mode, "on_disconnect": on_disconnect}
        body = self._body(input, config, kwargs, members)
        call = self._start("runs", body, kwargs, self._new_run())
        call.repeatable = call.key is not None  # LangServe has no such endpoint.
        return call

    def _join(self, run_id: AnyRun, last_event_id: str, **options: Any) -> StreamCall:
        options["repeatable"] = True
        path, run = _path(run_id, "/stream"), self._new_run()
        run.last_event_id = last_event_id
        run.run_ids = (_id(run_id),)
        return StreamCall("GET", path, b"", run, self._retries(), self._answers, **options)

    def _get_run(
        self, run_id: AnyRun, seconds: float = 0, timeout: float | None = None
    ) -> RemoteRun:
        call = self._run_call("GET", run_id, seconds=seconds, timeout=timeout)
        return self._answers.note_run(*self._exchanges.send(call), call.run)

    async def _aget_run(
        self,
        run_id: AnyRun,
        seconds: float = 0,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> RemoteRun:
        call = self._run_call("GET", run_id, seconds=seconds, timeout=timeout)
        return self._answers.note_run(*await self._exchanges.asend(call), call.run)

    def _run_call(
        self,
        method: str,
        run_id: AnyRun,
        below: str = "",
        *,
        seconds: float = 0,
        timeout: float | None = None,
    ) -> Call:
        options: dict[str, Any] = {"timeout": timeout, "repeatable": True}
        if seconds:
            options["prefer"] = [f"wait={seconds:.3f}"]
        return Call(method, _path(run_id, below), b"", RemoteRun(), self._retries(), **options)

    def _output_of(self, run: RemoteRun) -> Any:
        self._answers.refuse_run(run, self.url)
        return run.output


class _Waiting:
    """How long to wait for a run, and how long each request for it may be held back."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout
        self._asked_at = 0.0

    def patience(self, client: Any) -> tuple[float, float | None]:
        """Return the seconds for which the next request may be held back, and its time-out.

        The time-out is None where that of the client will do.
        """
        self._asked_at = now = time.monotonic()
        read = inf if client.timeout.read is None else client.timeout.read
        longest = min(_LONGEST_WAIT, read / 2)
        if self._until is None:
            return longest, None
        held = max(0.0, min(longest, self._until - now))
        return held, None if read <= held + _GRACE else held + _GRACE

    def is_over(self, run: RemoteRun) -> bool:
        """Tell whether a run has ended.

        Raises:
            TimeoutError: It has not, and it was waited for long enough.
        """
        if run.status not in ("pending", "running"):
            return True
        if self._until is not None and time.monotonic() >= self._until:
            raise TimeoutError(f"The run {run.run_id} has not ended in {self._timeout:g} seconds.")
        return False

    def pause(self) -> float:
        """Return the seconds to wait before the next request: none if the last one was held."""
        return max(0.0, self._asked_at + _SHORTEST_WAIT - time.monotonic())


def _path(run_id: AnyRun, below: str) -> str:
    return f"runs/{quote(_id(run_id), safe='')}{below}"


def _id(run_id: AnyRun) -> str:
    """Return the id of a run.

    Raises:
        ValueError: There is none.
    """
    told = run_id.run_id if isinstance(run_id, RemoteRun) else str(run_id)
    if not told or not told.strip("."):
        raise ValueError(f"{run_id!r} has no run id: the server has told none, or it is empty.")
    return told
