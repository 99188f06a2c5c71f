"""Cancelling a run means every task that was started in its context, until none is left.

Cancelling the one task that runs `astream` is not enough: `astream_log` awaits an inner task that
nobody cancels, and `RunnableParallel.astream` leaves its branches' connections open.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any
from weakref import WeakSet

_SCOPE: ContextVar["TaskScope | None"] = ContextVar("chainserve_task_scope", default=None)

_FIRST_RETRY = 0.05
"""Seconds until a task that did not end is cancelled again; each further wait is twice as long."""


class TaskScope:
    """The tasks that were started, directly or not, from one coroutine."""

    def __init__(self) -> None:
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start the scope's first task, in a copy of the caller's context."""
        loop = asyncio.get_running_loop()
        _note_tasks(loop)
        context = copy_context()
        context.run(_SCOPE.set, self)
        return loop.create_task(coroutine, context=context)

    def live(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended, the calling one aside."""
        current = asyncio.current_task()
        return [task for task in list(self._tasks) if not task.done() and task is not current]

    async def cancel(self, timeout: float) -> int:  # noqa: ASYNC109 - a bound on retries
        """Cancel all tasks again and again until none is left or `timeout` seconds have passed.

        Returns:
            How many are left: they swallow cancellation, and are no longer waited for.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        interval = _FIRST_RETRY
        while live := self.live():
            remaining = deadline - loop.time()
            if remaining <= 0:
                break
            for task in live:
                task.cancel()
            await asyncio.wait(live, timeout=min(interval, remaining))
            interval *= 2
        return len(live)

    def add(self, task: asyncio.Task[Any]) -> None:
        """Note a task that was started in this scope's context."""
        self._tasks.add(task)


def _note_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Make the loop note each task in the scope of its context, beside its own factory.

    From Python 3.12 tasks tell their context, but asking all tasks of a loop for each run that
    is cancelled makes cancelling many runs quadratic.
    """
    factory = loop.get_task_factory()
    if not isinstance(factory, _NotingTaskFactory):
        noting: Any = _NotingTaskFactory(factory)
        loop.set_task_factory(noting)


class _NotingTaskFactory:
    """Makes tasks as the loop did before, and adds each to the scope of its context.

    A scope's task cannot end the loop.
    """

    def __init__(self, make: Callable[..., Any] | None) -> None:
        self._make = make

    def __call__(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any],
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        if context is not None:
            options["context"] = context
        scope = _SCOPE.get() if context is None else context.get(_SCOPE)
        if scope is None:
            return self._task(loop, coro, options)
        task = self._task(loop, _without_exit(coro), options)
        task.add_done_callback(lambda _: coro.close())  # It may never have been started.
        scope.add(task)
        return task

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any],
        options: dict[str, Any],
    ) -> asyncio.Task[Any]:
        if self._make is None:
            return asyncio.Task(coro, loop=loop, **options)
        made: asyncio.Task[Any] = self._make(loop, coro, **options)
        return made


async def _without_exit(coro: Coroutine[Any, Any, Any]) -> Any:
    """Await what a chain runs; asyncio lets a `SystemExit` of any task end the whole server."""
    try:
        return await coro
    except SystemExit as stopped:
        raise RuntimeError(f"The chain called sys.exit({stopped.code!r})") from stopped
