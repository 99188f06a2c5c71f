"""What happened while a runnable ran, in order: chunks, what handlers were told, what steps saw."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.runnables.config import var_child_runnable_config

from tests._shown import Shown, renamed, shown, unordered

CALLERS: ContextVar[str] = ContextVar("callers", default="not set by the caller")
"""Set by who calls the runnable."""
STEPS: ContextVar[str] = ContextVar("steps", default="not set by a step")
"""Set by steps."""

INPUT = "the input"
NAMED = "named by the caller"
CONCURRENT = ("RunnableParallel<", "RunnableAssign<", "RunnableEach<", "LangGraph", NAMED)
"""What the names of runs begin with whose children may run at the same time."""


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
        stalls: Set when a step waits for what never comes.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.aside: list[Shown] = []
        self.parents: dict[str, str] = {}
        self.concurrent: set[str] = set()
        self.runs_apart = False
        self.stalls = asyncio.Event()
        self._loop_thread = threading.get_ident()

    def note(self, *what: Any) -> None:
        """Add what a step has seen or done, with its context and the kind of its thread."""
        config = var_child_runnable_config.get() or {}
        run = str(getattr(config.get("callbacks"), "parent_run_id", None) or "")
        context = (CALLERS.get(), STEPS.get(), shown(config.get("tags")), self._thread())
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

    def chunk(self, chunk: Any) -> None:
        """Add a chunk as the caller has received it."""
        here = (CALLERS.get(), STEPS.get(), shown(var_child_runnable_config.get()))
        self.entries.append(Entry("", _branch(chunk), ("a chunk", shown(chunk), here)))

    def add(self, *what: Any) -> None:
        """Add anything else that the caller has seen."""
        self.entries.append(Entry("", "", tuple(map(shown, what))))

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
        aside = renamed(tuple(self.aside))
        views = [self._view(part, concurrent) for part in parts]
        return (*views, unordered(aside) if concurrent else aside)

    def _view(self, entries: list[Entry], concurrent: bool) -> Shown:
        if self.runs_apart or _fails_in_a_thread(entries):
            return _by_run(entries, concurrent=concurrent)
        return self._arranged(entries, "") if concurrent else renamed(tuple(entries))

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


EVENTS = (
    "on_llm_start",
    "on_chat_model_start",
    "on_llm_new_token",
    "on_llm_end",
    "on_llm_error",
    "on_stream_event",
    "on_chain_start",
    "on_chain_end",
    "on_chain_error",
    "on_tool_start",
    "on_tool_end",
    "on_tool_error",
    "on_agent_action",
    "on_agent_finish",
    "on_retriever_start",
    "on_retriever_end",
    "on_retriever_error",
    "on_text",
    "on_retry",
    "on_custom_event",
)


def handler(journal: Journal, kind: str, *, fails: str = "", raises: bool = False) -> Any:
    """Return a handler that tells the journal all that it is told.

    Args:
        kind: `sync`, `inline` or `async`.
        fails: The method that raises when it has told.
        raises: Whether LangChain is to let that error out.
    """
    base = AsyncCallbackHandler if kind == "async" else BaseCallbackHandler
    methods = {name: _method(journal, name, kind, fails) for name in EVENTS}
    members = {**methods, "run_inline": kind == "inline", "raise_error": raises}
    return type(f"{kind.title()}Handler", (base,), members)()


def _method(journal: Journal, name: str, kind: str, fails: str) -> Callable[..., Any]:
    def tell(self: Any, *args: Any, **kwargs: Any) -> None:
        journal.tell(name, args, kwargs)
        if name == fails:
            raise ValueError(f"the handler fails in {name}")

    async def atell(self: Any, *args: Any, **kwargs: Any) -> None:
        tell(self, *args, **kwargs)

    method: Callable[..., Any] = atell if kind == "async" else tell
    method.__name__ = name
    return method
