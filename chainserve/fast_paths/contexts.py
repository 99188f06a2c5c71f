"""Awaiting in another context without a task for it."""

from collections.abc import Awaitable, Generator
from contextvars import Context
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
    step, argument = steps.send, None
    while True:
        try:
            waits_for = context.run(step, argument)
        except StopIteration as done:
            result: _T = done.value
            return result
        try:
            argument = yield waits_for
            step = steps.send
        except BaseException as error:  # noqa: BLE001 - whatever is thrown in is for who waits
            step, argument = steps.throw, error
