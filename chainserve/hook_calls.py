"""Calling what a chain's author gave for the ends and errors of its runs, within bounds."""

import asyncio
import inspect
from collections.abc import Awaitable
from typing import TypeVar

from chainserve.errors import ChainServeError
from chainserve.hooks import EndedRun, OnEnd, TranslateError
from chainserve.log_lines import Log
from chainserve.types import RunId

_Answer = TypeVar("_Answer")


class HookCalls:
    """Calls hooks, whose failures are logged and change nothing.

    Args:
        timeout: Seconds that a hook may take.
        log: Where failures are written.
    """

    def __init__(self, timeout: float, log: Log) -> None:
        self._timeout = timeout
        self._log = log

    async def translated(
        self, hook: TranslateError | None, error: BaseException, run_id: RunId
    ) -> BaseException:
        """Return what a hook makes of an error of a run, or the error itself."""
        if hook is None or not isinstance(error, Exception) or isinstance(error, ChainServeError):
            return error
        try:
            answer = hook(error)
            if inspect.isawaitable(answer):
                answer = await self._bounded(answer)
            if getattr(answer, "status_code", 500) < 400:
                raise ValueError(f"translate_error returned {answer!r}, which is no error")
            return answer or error
        except BaseException as failure:  # noqa: BLE001 - a hook may raise anything
            self._log.error("translate_error failed", run_id=run_id, exc_info=failure)
            return error

    async def tell_end(self, hook: OnEnd, ended: EndedRun) -> None:
        """Tell a hook of a run that has ended."""
        try:
            await self._bounded(_called(hook, ended))
        except BaseException as error:  # noqa: BLE001 - a hook may raise anything
            self._log.error("on_end failed", run_id=ended.run_id, exc_info=error)

    async def _bounded(self, work: Awaitable[_Answer]) -> _Answer:
        """Await what a hook does; one that is not ready in time is cancelled and left behind.

        Raises:
            TimeoutError: It was not.
        """
        task = asyncio.ensure_future(_awaited(work))
        done, _ = await asyncio.wait((task,), timeout=self._timeout)
        if not done:
            task.cancel()
            raise TimeoutError(f"The hook took longer than {self._timeout:g} s.")
        return task.result()


async def _called(on_end: OnEnd, ended: EndedRun) -> None:
    """Call a hook, a sync one in a thread."""
    if inspect.iscoroutinefunction(on_end):
        await on_end(ended)
        return
    answer = await asyncio.to_thread(on_end, ended)
    if inspect.isawaitable(answer):
        await answer


async def _awaited(work: Awaitable[_Answer]) -> _Answer:
    """Await what a hook returned; asyncio lets a `SystemExit` of a task end the whole server."""
    try:
        return await work
    except SystemExit as stopped:
        raise RuntimeError(f"The hook called sys.exit({stopped.code!r})") from stopped
