"""Cancelling a run means every task that was started in its context, until none is left.

Cancelling the one task that runs `astream` is not enough: `astream_log` awaits an inner task that
nobody cancels, and `RunnableParallel.astream` leaves its branches' connections open.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from types import coroutine as awaitable
from typing import Any, TypeAlias

_SCOPE: ContextVar["TaskScope | None"] = ContextVar("chainserve_task_scope", default=None)

_Coroutine: TypeAlias = Coroutine[Any, Any, Any]

_FIRST_RETRY = 0.05
"""Seconds until a task that did not end is cancelled again; each further wait is twice as long."""


class TaskScope:
    """The tasks that were started, directly or not, from one coroutine."""

    def __init__(self) -> None:
        self.tasks: dict[_Coroutine, asyncio.Task[Any]] = {}

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
        return [task for task in self.tasks.values() if not task.done() and task is not current]

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
        self._make = asyncio.Task if make is None else _in_the_order_of_tasks(make)

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: _Coroutine, **options: Any
    ) -> asyncio.Task[Any]:
        context: Context | None = options.get("context")
        scope = _SCOPE.get() if context is None else context.get(_SCOPE)
        if scope is None:
            return self._make(coro, loop=loop, **options)
        # LangChain makes a task for each chunk. A callback for when it is done, or a weak
        # reference to it, would cost more than all that is done here.
        tasks = scope.tasks
        noted = _noted(coro, tasks)
        noted.send(None)
        task = self._make(noted, loop=loop, **options)
        if not task.done():  # A loop may start its tasks at once.
            tasks[coro] = task
        return task


def _in_the_order_of_tasks(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a task factory that takes its arguments as `asyncio.Task` does."""
    return lambda coro, *, loop, **options: make(loop, coro, **options)


async def _noted(coro: _Coroutine, tasks: dict[_Coroutine, asyncio.Task[Any]]) -> Any:
    """Await what a chain runs; asyncio lets a `SystemExit` of any task end the whole server.

    It is to be begun before its task is made: then it ends here in any case, also where the task is
    cancelled before its first step.
    """
    try:
        await _begun()
        return await coro
    except SystemExit as stopped:
        raise RuntimeError(f"The chain called sys.exit({stopped.code!r})") from stopped
    finally:
        coro.close()
        tasks.pop(coro, None)


@awaitable
def _begun() -> Generator[None, None, None]:
    yield
