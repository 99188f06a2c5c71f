"""What the tests of the stores share: a clock that they set, runs and events."""

from typing import Any

from chainserve.stores.base import BEFORE_FIRST, IdempotencyKey, RunRecord, Store, Unwatch
from chainserve.types import RunId
from chainserve.wire.events import Event, end_event

LOG_TTL = 300
RUN_TTL = 3600


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Watcher:
    """Notes how it was woken; `leave` is what `watch` returned."""

    def __init__(self, store: Store, name: str = "a") -> None:
        self.woken: list[bool] = []
        self.leave: Unwatch = store.watch(RunId(name), self.wake)

    def wake(self, ended: bool) -> None:
        self.woken.append(ended)


class LeavingWatcher(Watcher):
    """Leaves while it is being woken."""

    def wake(self, ended: bool) -> None:
        super().wake(ended)
        self.leave()


def ignore(_: bool) -> None:
    """Watch and do nothing."""


def record(name: str = "a", **fields: Any) -> RunRecord:
    known: dict[str, Any] = {
        "path": "/chat",
        "mode": "stream",
        "status": "running",
        "created_at": 0.0,
    }
    return RunRecord(run_id=RunId(name), **{**known, **fields})


def keyed(name: str, scope: str = "key", fingerprint: str = "body") -> RunRecord:
    return record(name, idempotency_key=IdempotencyKey(scope, fingerprint))


def chunk(seq: int, size: int = 1) -> Event:
    return Event(seq, "data", b"x" * size)


async def finish(
    store: Store, name: str = "a", seq: int | None = None, **fields: Any
) -> RunRecord | None:
    """End a run that succeeded, and return its final record; None if it had ended before."""
    known = await store.get(RunId(name))
    final = (known or record(name))._replace(status="success", **fields)
    terminal = end_event(seq) if seq is not None else None
    return final if await store.finish(final, terminal) else None


async def read_all(store: Store, name: str = "a", after: int = BEFORE_FIRST) -> list[Event]:
    """Read to the end as a reader does: again and again from the last number."""
    events: list[Event] = []
    more = True
    while more:
        part, more = await store.read_after(RunId(name), after)
        events += part
        after = events[-1].seq if events else after
    return events
