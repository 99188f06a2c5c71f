"""Objects of a chain as JSON text: quickly, in full, or with a word for what has no such form."""

import json
import marshal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import date, time
from enum import Enum
from typing import Any

import orjson
from langchain_core.messages import AIMessageChunk
from pydantic import BaseModel

from chainserve.errors import OutputNotSerializableError


def default(obj: Any) -> Any:
    """Return what stands in JSON for a pydantic model, a dataclass, a date or a time.

    Raises:
        TypeError: It is none, or an exception, whose text is for the log alone.
    """
    if isinstance(obj, BaseModel):
        return obj.model_dump()
    if isinstance(obj, BaseException):
        raise TypeError
    if isinstance(obj, date | time):
        try:
            return obj.isoformat()
        except Exception as error:
            raise TypeError from error
    if is_dataclass(obj) and not isinstance(obj, type):
        return _set_fields(obj)
    raise TypeError


def write(obj: Any) -> bytes:
    """Return any object of a chain as JSON text.

    orjson ends the process where a list changes while it runs Python code for an item, as another
    thread may do; where a time zone raises; and where a dataclass with slots has a field that is
    not set. So it writes no datetimes and dataclasses by itself, and where it has code to run, it
    gets containers that nobody else has.

    Raises:
        TypeError: orjson does not write an object inside.
    """
    if type(obj) in _LEAVES or isinstance(obj, str):
        return orjson.dumps(obj)
    if type(obj) is AIMessageChunk and _has_text_alone(obj):
        obj = obj.__dict__
    try:
        marshal.dumps(obj)  # It refuses, quickly, whatever is not of a plain type.
    except ValueError:
        return orjson.dumps(_of_its_own(obj), default=default, option=_OPTIONS)
    return orjson.dumps(obj, option=_OPTIONS)  # And where a thread adds another, with no code.


def _has_text_alone(chunk: AIMessageChunk) -> bool:
    """Tell whether a chunk's members are what `model_dump` makes of them, as those of most are."""
    members = chunk.__dict__
    return (
        len(members) == _MEMBERS
        and type(members["content"]) is str
        and not members["additional_kwargs"]
        and not members["tool_calls"]
        and not members["invalid_tool_calls"]
        and not members["tool_call_chunks"]
        and not members["usage_metadata"]
        and not chunk.__pydantic_extra__
    )


_MEMBERS = len(AIMessageChunk.model_fields)

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_LEAVES = frozenset({str, int, float, bool, type(None)})
"""What most values are, told quickly."""


def _of_its_own(obj: Any, depth: int = 0) -> Any:
    """Return containers that nobody else has, and the values of enumerations."""
    if depth > _DEEPEST:
        raise TypeError
    if isinstance(obj, dict):
        return {
            key: value if type(value) in _LEAVES else _of_its_own(value, depth + 1)
            for key, value in [*dict.items(obj)]
        }
    if isinstance(obj, list | tuple):
        items = list.copy(obj) if isinstance(obj, list) else tuple.__iter__(obj)
        return [item if type(item) in _LEAVES else _of_its_own(item, depth + 1) for item in items]
    return _of_its_own(obj.value, depth + 1) if isinstance(obj, Enum) else obj


_DEEPEST = 254
"""How deep orjson writes."""


def _set_fields(obj: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are set and not private, as orjson reads them."""
    has_slots = "__slots__" in vars(type(obj))
    names = [field.name for field in fields(obj)] if has_slots else [*vars(obj)]
    return {
        name: getattr(obj, name)
        for name in names
        if not name.startswith("_") and hasattr(obj, name)
    }


def dumps_slowly(obj: Any) -> bytes:
    """Write what orjson refused although JSON has it, or say which object has no JSON form."""
    for path, value in _leaves(obj, "output"):
        if not _has_json_form(value):
            raise OutputNotSerializableError(path, f"is of type {type(value).__name__}")
    plain = json.loads(json.dumps(obj, default=_plain), parse_constant=lambda _: None)
    return json.dumps(plain, separators=(",", ":")).encode("ascii")


def _leaves(obj: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every value that is not a container, with the path to it; stops at orjson's depth."""
    stack: list[tuple[str, Any, int]] = [(path, obj, 0)]
    while stack:
        path, value, depth = stack.pop()
        with suppress(TypeError):
            value = default(value)
        if depth > _MAX_DEPTH:
            raise OutputNotSerializableError(_shortened(path), "is nested too deeply")
        if isinstance(value, dict):
            stack.extend(
                (f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]", item, depth + 1)
                for key, item in value.items()
            )
            for key in value:
                if not isinstance(key, str | int | float | None):
                    raise OutputNotSerializableError(
                        _shortened(path), f"has a key of type {type(key).__name__}"
                    )
        elif isinstance(value, list | tuple):
            stack.extend((f"{path}[{i}]", item, depth + 1) for i, item in enumerate(value))
        else:
            yield path, value


_MAX_DEPTH = 250
"""How deep orjson writes, with room for the envelope around an output."""


def _has_json_form(value: Any) -> bool:
    """Tell whether the value can be written: orjson refuses surrogates and ints over 64 bits."""
    if isinstance(value, str | int):
        return True
    try:
        write(value)
    except TypeError:
        return False
    return True


def _plain(obj: Any) -> Any:
    """Return a value that the standard library can write: what orjson makes of it."""
    try:
        return default(obj)
    except TypeError:
        return orjson.loads(write(obj))


def _shortened(path: str) -> str:
    """Return the two ends of a long path."""
    return path if len(path) <= 80 else f"{path[:40]}…{path[-40:]}"


def dumps_any(obj: Any) -> bytes:
    """Return any object as JSON text; never fails.

    What has no JSON form is told in the way of LangChain's `dumpd`, as
    `{"lc": 1, "type": "not_implemented", "id": [...], "repr": "..."}` with at most 1,000 characters
    of its repr. A lone surrogate becomes a question mark, a key that is no text the text of it.
    """
    return write(_writable(obj, ()))


def _writable(obj: Any, around: tuple[int, ...]) -> Any:
    """Return what orjson writes in the place of an object; `around` identifies what holds it."""
    if id(obj) in around or len(around) > _MAX_DEPTH // 2:
        return _told(obj, "…")
    within = (*around, id(obj))
    try:
        if isinstance(obj, BaseException):
            return _told(obj, type(obj).__name__)
        if isinstance(obj, BaseModel) or is_dataclass(obj):
            return _writable(default(obj), within)
        if isinstance(obj, dict):
            return {_key(key): _writable(value, within) for key, value in [*obj.items()]}
        if isinstance(obj, list | tuple):
            return [_writable(value, within) for value in [*obj]]
        if isinstance(obj, str):
            obj = _text(obj)
        return orjson.Fragment(write(obj))
    except Exception:  # noqa: BLE001 - these are a chain's objects, whose methods may raise anything
        return _told(obj)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _text(key)
    try:
        return _text(str(key))
    except Exception:  # noqa: BLE001 - as above
        return type(key).__name__


def _text(text: str) -> str:
    return text.encode(errors="replace").decode()


_MAX_REPR = 1000
"""How many characters are told of an object that has no JSON form."""


def _told(obj: Any, shown: str | None = None) -> dict[str, Any]:
    """Return what LangChain's `dumpd` tells of an object that has no JSON form."""
    cls = obj if isinstance(obj, type) else type(obj)
    if shown is None:
        try:
            shown = _text(repr(obj))
        except Exception:  # noqa: BLE001 - as above
            shown = f"<{cls.__name__}>"
    id_ = [*str(cls.__module__).split("."), cls.__qualname__]
    shown = shown if len(shown) <= _MAX_REPR else f"{shown[:_MAX_REPR]}…"
    return {"lc": 1, "type": "not_implemented", "id": id_, "repr": shown}
