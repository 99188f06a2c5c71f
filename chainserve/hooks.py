"""What a chain's hooks are given, and what they return."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from chainserve.types import CancelReason, RunId, RunMode, RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """A run that has ended, as `on_end` gets it; times are seconds since the epoch.

    Attributes:
        run_id: The run's id.
        path: The path of its chain.
        mode: What it did with its runnable.
        status: How it ended.
        created_at: When it was started.
        ended_at: When it ended.
        owner: The principal that started it; None where there are no principals.
        request_id: The id of the request that started it.
        input: The chain's input.
        config: The config it ran with.
        output: The final output; of a stream that did not succeed, what it had said until then;
            None if that is nothing.
        usage: The tokens that its models counted, as LangChain's `UsageMetadata`.
        error: Why it did not succeed: `status_code`, `message` and `code`.
        exception: The exception behind `error`.
        cancel_reason: Why it was cancelled.
    """

    run_id: RunId
    path: str
    mode: RunMode
    status: RunStatus
    created_at: float
    ended_at: float
    owner: str | None
    request_id: str | None
    input: Any
    config: Mapping[str, Any]
    output: Any
    usage: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    exception: BaseException | None
    cancel_reason: CancelReason | None


OnEnd: TypeAlias = Callable[[EndedRun], Awaitable[None] | None]
"""Called once for each run, after its terminal event; a sync one runs in a thread."""

TranslateError: TypeAlias = Callable[[Exception], Exception | Awaitable[Exception | None] | None]
"""`(exception of the chain) -> exception to answer`, sync or async.

It returns such as an `HTTPException` with a status of 400 or more; None leaves the error as it is.
"""

Principal: TypeAlias = Callable[[Any], str | Awaitable[str | None] | None]
"""`(request) -> whose runs these are`, sync or async; None is anybody."""
