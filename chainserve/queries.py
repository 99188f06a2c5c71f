"""A chain's input from a query string: `?input=<json>`, or a parameter for each field."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from pydantic import BaseModel

from chainserve.errors import InvalidJSONError
from chainserve.validation import ForgivingJsonSchema, input_error, parse_json

RESERVED = frozenset(
    {"input", "config", "format", "last_event_id", "idempotency_key", "on_disconnect"}
)
"""Parameters that speak of the run; a field of such a name can be sent in `input` alone."""

_MAX_SHOWN = 60
"""How many characters of a parameter are repeated in an error about it."""


def input_of_query(parameters: Sequence[tuple[str, str]], schema: type[BaseModel]) -> Any:
    """Return the input that a query string stands for, as plain JSON data.

    Text stands for itself where the field may be text. A field that is a list takes its parameter
    several times, or once as JSON; one that is an object takes JSON. Numbers and the like are left
    to the schema.

    Args:
        parameters: Names and values, decoded, in their order.
        schema: The model of the input.

    Raises:
        InvalidInputError: There is no parameter of the input, or one that is no list comes twice.
        InvalidJSONError: `input`, or a field that must be JSON, is not.
    """
    for name, value in parameters:
        if name == "input":
            return json_parameter(name, value)
    sent: dict[str, list[str]] = {}
    for name, value in parameters:
        if name not in RESERVED:
            sent.setdefault(name, []).append(value)
    if not sent:
        message = "Send input=<json>, or a parameter for each field of the input"
        raise input_error("missing", ("input",), message, None)
    types = _types_of_fields(schema)
    _refuse_repeated(sent, types)
    return {name: _value(name, values, types.get(name, set())) for name, values in sent.items()}


def json_parameter(name: str, value: str) -> Any:
    """Return the data of a parameter that is JSON.

    Raises:
        InvalidJSONError: It is not; the message says how text is sent.
    """
    try:
        return parse_json(value.encode())
    except (InvalidJSONError, UnicodeEncodeError):
        example = _EXAMPLES.get(name, '"hello"')
        raise InvalidJSONError(
            f"The parameter {name} is not valid JSON: {_shown(value)}. Text is sent in quotes, all "
            f"of it escaped for a URL, as curl does with -G --data-urlencode '{name}={example}'."
        ) from None


_EXAMPLES = {"input": '{"topic": "cats"}', "config": '{"tags": ["a"]}'}


def _shown(value: str) -> str:
    """Return the start of what arrived."""
    return repr(value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}…")


def _refuse_repeated(sent: Mapping[str, list[str]], types: Mapping[str, set[str]]) -> None:
    """Refuse a parameter that comes several times, unless its field is a list or may be one."""
    for name, values in sent.items():
        if len(values) > 1 and types.get(name) and "array" not in types[name]:
            message = f"The parameter comes {len(values)} times, and its field is no list"
            raise input_error("repeated_parameter", ("query", name), message, values)


def _value(name: str, values: list[str], types: set[str]) -> Any:
    """Return what the values of one parameter stand for, by the JSON types its field may have."""
    [*_, value] = values
    scalars = types - {"array", "object", "null"}
    is_json = value.lstrip().startswith("[")
    if "array" in types and (len(values) > 1 or not (scalars or is_json)):
        return values
    if "string" in types or not types:
        return value
    if not scalars:
        return json_parameter(name, value)
    try:
        return parse_json(value.encode())
    except (InvalidJSONError, UnicodeEncodeError):
        return value  # What is neither JSON nor text, such as "yes", is left to the schema.


@lru_cache(maxsize=128)
def _types_of_fields(schema: type[BaseModel]) -> dict[str, set[str]]:
    """Return the JSON types that each field of an object may have."""
    document = schema.model_json_schema(schema_generator=ForgivingJsonSchema)
    definitions = document.get("$defs", {})
    found = _resolved(document, definitions)
    return {
        name: set(_types(field, definitions))
        for branch in found
        for name, field in branch.get("properties", {}).items()
    }


def _types(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterable[str]:
    for branch in _resolved(schema, definitions):
        named = branch.get("type", ())
        yield from [named] if isinstance(named, str) else named


def _resolved(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], seen: frozenset[str] = frozenset()
) -> list[Mapping[str, Any]]:
    """Return the alternatives of a schema, its references followed."""
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    if reference and reference in definitions and reference not in seen:
        return _resolved(definitions[reference], definitions, seen | {reference})
    branches = [
        found
        for word in ("anyOf", "oneOf", "allOf")
        for branch in schema.get(word, ())
        for found in _resolved(branch, definitions, seen)
    ]
    return [schema, *branches]


def canonical_query(parameters: Sequence[tuple[str, str]]) -> str:
    """Return text that is the same for queries which ask for the same run."""
    ignored = {"format", "last_event_id", "idempotency_key"}
    asked = [(name, value) for name, value in parameters if name not in ignored]
    return json.dumps(sorted(asked, key=itemgetter(0)))  # A name's values stay in their order.
