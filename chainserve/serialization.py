"""Outputs to JSON and back: the counterpart of `langserve.serialization`.

LangChain objects are written as their `model_dump()`, not as LangChain's constructor form, so that
any client can read them and no class is ever chosen by what a message says.
"""

import abc
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any
from uuid import UUID

import orjson
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from pydantic import BaseModel, Discriminator, RootModel, Tag

from chainserve.json_text import default, dumps_any, dumps_slowly, write
from chainserve.well_known import CLASSES, decode

__all__ = [
    "Serializer",
    "ServerSideException",
    "WellKnownLCSerializer",
    "default",
    "dump_events",
    "load_events",
    "plain_data",
]


class Serializer(abc.ABC):
    """Turns objects into JSON and back; subclass it to add types of your own."""

    def dumpd(self, obj: Any) -> Any:
        """Return the object as plain JSON data."""
        return orjson.loads(self.dumps(obj))

    def loads(self, s: bytes) -> Any:
        """Return the object that the JSON text stands for."""
        return self.loadd(orjson.loads(s))

    @abc.abstractmethod
    def dumps(self, obj: Any) -> bytes:
        """Return the object as JSON text in UTF-8, without line breaks."""

    @abc.abstractmethod
    def loadd(self, s: Any) -> Any:
        """Return the object that plain JSON data stands for."""


class WellKnownLCSerializer(Serializer):
    """The default: LangChain's objects, pydantic models, dataclasses and plain data."""

    def dumps(self, obj: Any) -> bytes:
        """Return the object as compact JSON text.

        NaN and the infinities become `null`; a lone surrogate is escaped.

        Raises:
            OutputNotSerializableError: An object inside has no JSON form; the message names it.
        """
        try:
            # Text is a class of its own where LangChain's parsers and models give it.
            return orjson.dumps(obj) if isinstance(obj, str) else write(obj)
        except TypeError:
            return dumps_slowly(obj)

    def loads(self, s: bytes) -> Any:
        """Return the object that the JSON text stands for; integers may be of any size."""
        return self.loadd(plain_data(s))

    def loadd(self, s: Any) -> Any:
        """Return plain JSON data with LangChain's objects in the place of what stands for them.

        Clients read outputs so; a server builds its inputs from the chain's schema instead.
        """
        return decode(s)


_MAYBE_BIG = re.compile(rb"\d{19}|\\ud[89a-f]", re.IGNORECASE)
"""What orjson may not read as it is: an integer of more than 64 bits, and a lone surrogate."""


def plain_data(s: bytes) -> Any:
    """Return the plain data of JSON text, integers of any size and lone surrogates included.

    Raises:
        ValueError: It is no JSON.
    """
    return json.loads(s) if _MAYBE_BIG.search(s) else orjson.loads(s)


@cache
def _well_known_object() -> Any:
    union: Any = reduce(or_, (Annotated[cls, Tag(type_)] for type_, cls in CLASSES.items()))
    return RootModel[Annotated[union, Discriminator(_type_of)]]


def _type_of(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def __getattr__(name: str) -> Any:
    """Make LangServe's model of all well-known objects, which nothing here needs, when asked."""
    if name == "WellKnownLCObject":
        return _well_known_object()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ServerSideException(Exception):  # noqa: N818 - LangServe's name
    """What a client's callbacks are given for an exception of the server: its status and words."""


def dump_events(events: Sequence[Mapping[str, Any]]) -> bytes:
    """Return callback events as a JSON array.

    An exception becomes the error that any caller is told of; what the server notes for itself in
    metadata (`__…`) is left out; what has no JSON form is told as by `dumps_any`.
    """
    told = [_told_event(event) for event in events]
    try:
        return WellKnownLCSerializer().dumps(told)
    except Exception:  # noqa: BLE001 - these are a chain's objects, whose methods may raise anything
        return dumps_any(told)


_UNEXPECTED = {"status_code": 500, "message": "Internal Server Error", "type": "error"}


def _told_event(event: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(event)
    if isinstance(response := told.get("response"), BaseModel):
        # Without its type, for LangServe's client takes it for another class then.
        members = response.model_dump(serialize_as_any=True)
        told["response"] = {name: value for name, value in members.items() if name != "type"}
    if "error" in told:
        told["error"] = _UNEXPECTED
    if metadata := told.get("metadata"):
        told["metadata"] = {k: v for k, v in metadata.items() if not str(k).startswith("__")}
    return told


def load_events(events: Any) -> list[Any]:
    """Return the callback events of an answer, with LangChain's objects and UUIDs.

    What is no such event is left out.
    """
    if not isinstance(events, list):
        return []
    loaded = (_loaded_event(event) for event in events if isinstance(event, dict))
    return [event for event in loaded if event is not None]


_TAKEN = frozenset({"handlers", "handler", "event_name", "ignore_condition_name", "coro"})
"""How LangChain names its own arguments on the way to a handler: none of an event's may be so."""


def _loaded_event(event: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        loaded = {name: decode(value) for name, value in event.items()}
        arguments = {**(loaded.get("kwargs") or {}), **loaded}
        if not loaded["type"].startswith("on_") or not _TAKEN.isdisjoint(arguments):
            return None
        for name in ("run_id", "parent_run_id"):
            loaded[name] = None if loaded.get(name) is None else UUID(loaded[name])
        if loaded["type"] == "on_chat_model_start" and not _are_messages(loaded["messages"]):
            return None
        if loaded["type"] == "on_llm_end":
            loaded["response"] = LLMResult.model_validate(loaded["response"])
        if loaded["type"].endswith("_error"):
            error = event["error"]
            loaded["error"] = ServerSideException(f"{error['status_code']}: {error['message']}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    return loaded


def _are_messages(prompts: Any) -> bool:
    """Tell whether these are lists of messages, of which LangChain makes text for some handlers."""
    return all(isinstance(message, BaseMessage) for prompt in prompts for message in prompt)
