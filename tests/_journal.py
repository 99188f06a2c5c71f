"""What happened while a runnable ran, in order: chunks, what handlers were told, what steps saw."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.runnables.config import var_child_runnable_config

from tests._chains import WAIT_SECONDS
from tests._shown import Shown, renamed, shown, unordered

CALLERS: ContextVar[str] = ContextVar("callers", default="not set by the caller")
"""Set by who calls the runnable."""
STEPS: ContextVar[str] = ContextVar("steps", default="not set by a step")
"""Set by steps."""

INPUT = "the input"
_BESIDE = ("a step", "the loop was told")
NAMED = "named by the caller"
CONCURRENT = ("RunnableParallel<", "RunnableAssign<", "RunnableEach<", "LangGraph", NAMED)
"""What the names of runs begin with whose children may run at the same time."""


class Threads(ThreadPoolExecutor):
    """The loop's threads during a call; knows what runs in them."""

    def __init__(self) -> None:
        super().__init__(4)
        self._running: set[Future[Any]] = set()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def done(self) -> None:
        """Wait until nothing runs."""
        if running := [asyncio.wrap_future(future) for future in set(self._running)]:
            await asyncio.wait(running, timeout=WAIT_SECONDS)


class Entry(NamedTuple):
    """One thing that happened.

    Attributes:
        run: The id of the run in which it did; empty outside of all.
        branch: The key of a chunk that is a dict with one: such may come in any order of keys.
        what: The plain view of it.
    """

    run: str
    branch: str
    what: Shown


class Journal:
    """Collects entries.

    Attributes:
        entries: In the order in which they came.
        aside: What came beside those, at a moment that nothing defines.
        parents: The parent of each run that is known of.
        concurrent: The runs whose children run at the same time.
        runs_apart: Whether the order between runs is not defined.
        left_open: Whether the run was ended from outside.
        events_alone: Whether to compare the events, and not how far the run was ahead of them.
        threads: Those of the loop.
        later: What adds what is known when all has ended.
        stalls: Set when a step waits for what never comes.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.aside: list[Shown] = []
        self.parents: dict[str, str] = {}
        self.concurrent: set[str] = set()
        self.runs_apart = False
        self.left_open = False
        self._held: set[asyncio.Task[Any]] = set()
        self.events_alone = False
        self.threads = Threads()
        self.stalls = asyncio.Event()
        self.later: list[Callable[[], None]] = []
        self._loop_thread = threading.get_ident()

    def note(self, *what: Any) -> None:
        """Add what a step has seen or done, with its context and the kind of its thread.

        The collector closes a step in any context, maybe in one without a run.
        """
        config = var_child_runnable_config.get() or {}
        run = str(getattr(config.get("callbacks"), "parent_run_id", None) or "")
        closes = not run and what[1] in ("is left", "is closed")
        values = (CALLERS.get(), STEPS.get(), shown(config.get("tags")), self._thread())
        context = None if closes else values
        self.entries.append(Entry(run, "", ("a step", *map(shown, what), context)))

    def note_config(self, step: str, config: Any) -> None:
        """Add the config that a step was given, and the one that it finds in its context."""
        self.note(step, "was given", config)
        self.note(step, "finds", var_child_runnable_config.get())

    def tell(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add what a handler was told."""
        run = str(kwargs["run_id"])
        if kwargs.get("parent_run_id") is not None:
            self.parents[run] = str(kwargs["parent_run_id"])
        if str(kwargs.get("name")).startswith(CONCURRENT):
            self.concurrent.add(run)
        what = ("told", method, shown(args), shown(kwargs), self._thread())
        self.entries.append(Entry(run, "", what))

    def event(self, event: Any) -> None:
        """Add an event of `astream_events`."""
        run, parents = event["run_id"], event.get("parent_ids") or [""]
        self.parents[run] = parents[-1]
        if event["name"].startswith(CONCURRENT):
            self.concurrent.add(run)
        chunk = event["data"].get("chunk") if isinstance(event["data"], dict) else None
        self.entries.append(Entry(run, _branch(chunk), ("event", shown(event))))

    def patch(self, *views: Shown) -> None:
        """Add a part of a log or a trace, which is put together beside the steps it tells of."""
        self.events_alone = True
        self.entries.append(Entry("", "", ("event", *views)))

    def chunk(self, chunk: Any) -> None:
        """Add a chunk as the caller has received it."""
        here = (CALLERS.get(), STEPS.get(), shown(var_child_runnable_config.get()))
        self.entries.append(Entry("", _branch(chunk), ("a chunk", shown(chunk), here)))

    def add(self, *what: Any) -> None:
        """Add anything else that the caller has seen."""
        self.entries.append(Entry("", "", tuple(map(shown, what))))

    def leave(self) -> None:
        """Note that the run is ended from outside; from here on no task of it is collected."""
        self.left_open = True
        self._held = asyncio.all_tasks()

    def add_aside(self, *what: Any) -> None:
        """Add what a handler has seen that is called at the same time as others."""
        self.aside.append(tuple(map(shown, what)))

    def _thread(self) -> str:
        return "in the loop" if threading.get_ident() == self._loop_thread else "in a thread"

    def view(self, *, concurrent: bool) -> Shown:
        """Return all as a plain view, in order.

        Args:
            concurrent: Leave out the order of what is done at the same time: of the branches of a
                chunk, and of the runs below a concurrent one.
        """
        # Events are read beside the run that they tell of.
        parts: tuple[list[Entry], list[Entry]] = ([], [])
        for entry in self.entries:
            parts[entry.what[0] == "event"].append(entry)
        if self.events_alone:
            parts = ([each for each in parts[0] if each.what[0] not in _BESIDE], parts[1])
        aside = renamed(tuple(self.aside))
        views = [self._view(part, concurrent) for part in parts]
        return (*views, unordered(aside) if concurrent else aside)

    def _view(self, entries: list[Entry], concurrent: bool) -> Shown:
        if self.left_open and self.concurrent:
            entries = [each for each in map(_aside, entries) if self._is_defined(each)]
        if self.runs_apart or _fails_in_a_thread(entries):
            return _by_run(entries, concurrent=concurrent)
        return self._arranged(entries, "") if concurrent else renamed(tuple(entries))

    def _is_defined(self, entry: Entry) -> bool:
        """Tell whether it is defined that an entry is there, where parallel steps were left.

        LangChain lets go of their tasks: what they came to, and whether they are closed or
        destroyed, is the collector's.
        """
        kind = entry.what[0]
        return not (
            kind in ("a step", "the loop was told") or entry.branch or self._top(entry.run, "")
        )

    def _arranged(self, entries: Iterable[Entry], base: str) -> Shown:
        """Return entries that all belong to a run, with the concurrent ones below it apart."""
        trunk: list[Shown] = []
        apart: dict[tuple[str, str], list[Entry]] = {}
        for entry in map(_aside, entries):
            top = self._top(entry.run, base)
            if top:
                apart.setdefault((top, ""), []).append(entry)
            elif entry.branch:
                apart.setdefault((entry.run, entry.branch), []).append(entry)
            else:
                trunk.append(entry)
        parts = [self._arranged(part, run) for (run, key), part in apart.items() if not key]
        parts += [unordered(renamed(tuple(part))) for (_, key), part in apart.items() if key]
        return (unordered(renamed(tuple(trunk))), tuple(sorted(parts, key=repr)))

    def _top(self, run: str, base: str) -> str:
        """Return the highest run below `base`, at or above `run`, that runs beside others.

        Without a handler nothing is known of the parents, and each run is taken to be such a one.
        """
        if not self.parents:
            return run if run != base else ""
        top = ""
        while run and run != base:
            parent = self.parents.get(run, "")
            if parent in self.concurrent:
                top = run
            run = parent
        return top


def _fails_in_a_thread(entries: Iterable[Entry]) -> bool:
    """Tell whether a handler is told of failures in a thread, beside the closing of steps."""
    told = [each.what for each in entries if each.what[0] == "told"]
    return any(what[-1] == "in a thread" and what[1].endswith("_error") for what in told)


def _by_run(entries: Iterable[Entry], *, concurrent: bool) -> Shown:
    """Return what each run has in it in order, and not in which order the runs had it."""
    lanes: dict[tuple[str, ...], list[Entry]] = {}
    for entry in map(_aside, entries):
        kind = entry.what[0] if concurrent else ""
        lanes.setdefault((entry.run, entry.branch, kind), []).append(entry)
    views = [renamed(tuple(lane)) for lane in lanes.values()]
    return tuple(sorted((unordered(view) if concurrent else view for view in views), key=repr))


def _aside(entry: Entry) -> Entry:
    """Put apart what does not happen in the order of a run.

    A step that is left is closed in the context of whoever let go of it last, and the chunks of an
    input that several read are asked for by any of them.
    """
    if entry.what[0] != "a step":
        return entry
    step, *rest = entry.what[1:-1]
    if rest and rest[0] in ("is left", "is closed"):
        return Entry("", f"closing {step}", entry.what[:-1])
    return Entry("", INPUT, entry.what[:-1]) if step == INPUT else entry


def _branch(chunk: Any) -> str:
    """Return the path of keys in dicts that have one alone."""
    if not isinstance(chunk, dict) or len(chunk) != 1:
        return ""
    ((key, value),) = chunk.items()
    return f"/{key}{_branch(value)}"
