"""Awaiting in another context without a task for it."""

import asyncio
from collections.abc import Awaitable, Generator
from contextvars import Context, copy_context
from types import coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


@coroutine
def in_context(awaitable: Awaitable[_T], context: Context) -> Generator[Any, Any, _T]:
    """Await in a context: each step of what is awaited runs there, in the task that awaits.

    LangChain makes a task with that context, and awaits the task. What is awaited sees no other
    difference: what it sets stays in the context, and cancelling reaches it where it waits.

    Args:
        awaitable: What to await.
        context: Must not be entered already.
    """
    steps: Any = awaitable.__await__()
    try:
        waits_for = context.run(steps.send, None)
    except StopIteration as done:
        result: _T = done.value
        return result
    try:
        result = yield from going_on(steps, waits_for, context)
        return result
    finally:
        del waits_for  # It has the error that it ends with, whose frames would have it.


@coroutine
def going_on(steps: Any, waits_for: Any, context: Context) -> Generator[Any, Any, Any]:
    """Await the rest of what has begun to wait.

    No frame keeps an error, which has all frames that it has passed.

    Args:
        steps: What is awaited, as `__await__` gives it.
        waits_for: What its first step has come to.
        context: Where each further step runs.
    """
    while True:
        try:
            argument = yield waits_for
            step = steps.send
        except BaseException as error:  # noqa: BLE001 - whatever is thrown in is for who waits
            step, argument, waits_for = steps.throw, error, None
        try:
            waits_for = context.run(step, argument)
        except StopIteration as done:
            return done.value
        finally:
            step = argument = None


async def as_if_in_a_task(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Await as `asyncio.gather(…, return_exceptions=True)` does, which makes a task of it.

    Returns:
        What came of it, or the exception that it raised. A task that was cancelled for itself, or
        that awaits something that was, has raised one, too.

    Raises:
        asyncio.CancelledError: The task that awaits was cancelled; whatever came of it.
        KeyboardInterrupt: No task keeps it.
        SystemExit: No task keeps it.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        result, error = await in_context(awaitable, copy_context()), None
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as raised:  # noqa: BLE001 - a task keeps whatever is raised
        result, error = None, raised
    is_cancelled = isinstance(error, asyncio.CancelledError)
    if task.cancelling() > cancelled:
        raise asyncio.CancelledError(*(error.args if error is not None and is_cancelled else ()))
    return result, asyncio.CancelledError("") if is_cancelled else error  # As `gather` makes it.
