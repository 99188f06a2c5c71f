"""A plain view of any value: what two values must have in common for nobody to tell them apart.

It is taken at once, since LangChain goes on to change some of what it hands out. Ids stay in it as
text until `renamed` gives them names by the order in which they appear.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.base import BaseCallbackManager
from langchain_core.runnables import Runnable
from langchain_core.tracers.schemas import Run
from pydantic import BaseModel

Shown = Any
"""Text, numbers, None, and tuples of these."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
CHOSEN = "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11"
"""The id that a caller chooses for a run; it keeps it in every view."""
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+]\d\d:\d\d|Z)?")
_PORT = re.compile(r"127\.0\.0\.1:\d+")
_OF_A_MANAGER = ("parent_run_id", "tags", "inheritable_tags", "metadata", "inheritable_metadata")
_OF_A_RUN = ("id", "name", "run_type", "inputs", "outputs", "extra", "serialized", "tags")


def shown(value: Any) -> Shown:
    """Return the plain view of a value."""
    kind: Any = type(value)
    return _view_of(kind)(value)


@functools.cache
def _view_of(kind: Any) -> Callable[[Any], Shown]:
    """Return what shows the instances of a class."""
    for kinds, show in _VIEWS.items():
        if issubclass(kind, kinds):
            return show
    if is_dataclass(kind):
        return _dataclass
    return _object if kind.__module__.startswith("tests.") else lambda _: name_of(kind)


def name_of(kind: type) -> str:
    """Return the full name of a class; for what stands in for a class, that of the class."""
    if issubclass(kind, (Runnable, BaseCallbackHandler)):
        kind = next(base for base in kind.__mro__ if not base.__module__.startswith("chainserve."))
    return f"{kind.__module__}.{kind.__qualname__}"


def renamed(view: Shown, names: dict[str, str] | None = None) -> Shown:
    """Return a view in which each id has a name by the order of appearance."""
    known = {} if names is None else names

    def name(found: re.Match[str]) -> str:
        if found[0] == CHOSEN:
            return CHOSEN
        return known.setdefault(found[0], f"<id {len(known) + 1}>")

    def walk(part: Shown) -> Shown:
        if isinstance(part, tuple):
            return tuple([walk(each) for each in part])
        # Most texts are too short to hold an id.
        return _ID.sub(name, part) if isinstance(part, str) and len(part) > 35 else part

    return walk(view)


def without_ids(view: Shown) -> Shown:
    """Return a view in which all ids are the same."""
    if isinstance(view, tuple):
        return tuple(without_ids(part) for part in view)
    return _ID.sub("<id>", view) if isinstance(view, str) else view


def unordered(view: Shown) -> Shown:
    """Return a view in which the members of each dict are sorted."""
    if not isinstance(view, tuple):
        return view
    parts = tuple(unordered(part) for part in view)
    if parts and parts[0] == _MEMBERS:
        return (_MEMBERS, *sorted(parts[1:], key=repr))
    return parts


_MEMBERS = "members"


def _text(value: str) -> Shown:
    text = _PORT.sub("<address>", _TIME.sub("<time>", _ADDRESS.sub("<address>", value)))
    return text if type(value) is str else (name_of(type(value)), text)


def _number(value: Any) -> Shown:
    return value if value is None or type(value) in (bool, int, float) else repr(value)


def _mapping(value: Mapping[Any, Any]) -> Shown:
    members = tuple((shown(key), shown(member)) for key, member in value.items())
    return (name_of(type(value)), (_MEMBERS, *members))


def _sequence(value: Any) -> Shown:
    return (name_of(type(value)), *(shown(each) for each in value))


def _set(value: Any) -> Shown:
    return (name_of(type(value)), *sorted((shown(each) for each in value), key=repr))


def _error(error: BaseException) -> Shown:
    notes = tuple(getattr(error, "__notes__", ()))
    inner = shown(error.exceptions) if isinstance(error, BaseExceptionGroup) else ()
    cause = error.__cause__
    return (name_of(type(error)), shown(error.args), "because of", shown(cause), notes, inner)


def _model(model: BaseModel) -> Shown:
    private = model.__pydantic_private__
    members = {**model.__dict__, **(model.__pydantic_extra__ or {})}
    given = tuple(sorted(model.model_fields_set))
    return (name_of(type(model)), shown(members), given, shown(private))


def _manager(manager: BaseCallbackManager) -> Shown:
    """Show a manager; where LangChain merges two it puts their handlers through a set."""
    handlers = sorted(name_of(type(each)) for each in manager.handlers)
    inheritable = sorted(name_of(type(each)) for each in manager.inheritable_handlers)
    members = tuple((name, shown(getattr(manager, name))) for name in _OF_A_MANAGER)
    return (name_of(type(manager)), tuple(handlers), tuple(inheritable), *members)


def _run(run: Run) -> Shown:
    """Show a tracer's run; of an error, which has a traceback in it, what comes before that."""
    members = tuple((name, shown(getattr(run, name))) for name in _OF_A_RUN)
    events = tuple(shown({**event, "time": None}) for event in run.events or ())
    error = run.error and run.error.partition("Traceback (most recent call last)")[0]
    children = (_MEMBERS, *(_run(child) for child in run.child_runs))
    return (members, ("error", shown(error)), ("events", events), ("children", children))


def _runnable(runnable: Runnable[Any, Any]) -> Shown:
    return (name_of(type(runnable)), runnable.get_name())


def _dataclass(value: Any) -> Shown:
    members = ((each.name, shown(getattr(value, each.name))) for each in fields(value))
    return (name_of(type(value)), *members)


def _object(value: Any) -> Shown:
    return (name_of(type(value)), shown(vars(value)))


def _function(function: Any) -> Shown:
    return f"{function.__module__}.{function.__qualname__}"


_VIEWS: dict[Any, Callable[[Any], Shown]] = {
    Enum: repr,
    str: _text,
    (type(None), bool, int, float, complex, bytes): _number,
    UUID: str,
    datetime: lambda _: "<time>",
    type: name_of,
    Run: _run,
    BaseCallbackManager: _manager,
    BaseCallbackHandler: lambda handler: name_of(type(handler)),
    Runnable: _runnable,
    BaseException: _error,
    BaseModel: _model,
    Mapping: _mapping,
    (list, tuple): _sequence,
    (set, frozenset): _set,
    (types.FunctionType, types.MethodType, types.BuiltinFunctionType): _function,
    functools.partial: lambda value: ("partial", shown(value.func)),
}
