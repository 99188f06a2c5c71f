"""What the INPUT of a call means: JSON, or a text that goes where a chain's schema has room for it.

Nothing here is I/O.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

_MAX_DEPTH = 20
"""How many references are followed: a schema may refer to itself."""


class NoPlaceForTextError(ValueError):
    """A chain's input has no one place for a text."""


def json_input(text: str) -> tuple[Any, bool]:
    """Return what a text says as JSON, and whether that is the input whatever the schema says.

    An object or an array is. A number may also be what somebody wants to ask, so it is a text where
    the chain takes one; a JSON string is the text that it stands for.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text, False
    return value, isinstance(value, dict | list)


def input_of(text: str, value: Any, schema: Schema) -> Any:
    """Return the input that a text, which is no JSON object or array, stands for.

    Args:
        text: The text as it was given.
        value: The text, or what it says as JSON.
        schema: The JSON schema of the chain's input.

    Raises:
        NoPlaceForTextError: The input is an object without one place for a text; the message says
            what it has.
    """
    words = value if isinstance(value, str) else text
    root = _resolved(schema, schema)
    if _takes(root, "string", schema):
        return words
    if _is_list_of_messages(root, schema):
        return [_human(words)]
    if not _takes(root, "object", schema):
        return value
    return _object_with(words, _object_of(root, schema), schema)


def _object_with(words: str, root: Schema, schema: Schema) -> dict[str, Any]:
    fields, required = _object_at(root, "properties"), _list_at(root, "required")
    wanted = required or [*fields]
    if len(wanted) == 1 and wanted[0] in fields:
        [name] = wanted
        field = _resolved(fields[name], schema)
        if _takes(field, "string", schema):
            return {name: words}
        if _is_list_of_messages(field, schema):
            return {name: [_human(words)]}
    known = ", ".join(f"{name} (required)" if name in required else name for name in fields)
    described = f" with the fields {known}" if known else ""
    raise NoPlaceForTextError(
        f"This chain's input is an object{described}. Give it as JSON, such as "
        f"'{json.dumps(dict.fromkeys(map(str, wanted), '…'), ensure_ascii=False)}'."
    )


def _human(words: str) -> dict[str, str]:
    return {"type": "human", "content": words}


def _resolved(part: Any, schema: Schema) -> Schema:
    """Return a part of a schema itself where there is but a reference to it."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(part, Mapping):
            return {}
        reference, parts = part.get("$ref"), _list_at(part, "allOf")
        if reference is None and len(parts) == 1:  # As pydantic 1 writes a field with a reference.
            part = parts[0]
            continue
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return part
        part = schema
        for name in reference.removeprefix("#/").split("/"):
            part = part.get(name, {}) if isinstance(part, Mapping) else {}
    return {}


def _alternatives(part: Schema, schema: Schema) -> Iterator[Schema]:
    """Yield what a part of a schema may be, itself where it has no alternatives."""
    several = _list_at(part, "anyOf") or _list_at(part, "oneOf") or [part]
    for one in several:
        yield _resolved(one, schema)


def _takes(part: Schema, kind: str, schema: Schema) -> bool:
    return any(_is(one, kind) for one in _alternatives(part, schema))


def _object_of(part: Schema, schema: Schema) -> Schema:
    return next(one for one in _alternatives(part, schema) if _is(one, "object"))


def _is(part: Schema, kind: str) -> bool:
    return kind in (_list_at(part, "type") or [part.get("type")])


def _is_list_of_messages(part: Schema, schema: Schema) -> bool:
    """Tell whether a part of a schema is a list of which each item may be a human message."""
    for one in _alternatives(part, schema):
        if _is(one, "array"):
            item = _resolved(one.get("items"), schema)
            if any(_is_human(kind, schema) for kind in _alternatives(item, schema)):
                return True
    return False


def _is_human(item: Schema, schema: Schema) -> bool:
    fields = _object_at(item, "properties")
    kind = _resolved(fields.get("type"), schema)
    kinds = (kind.get("const"), kind.get("default"), *_list_at(kind, "enum"))
    return "content" in fields and "human" in kinds


def _object_at(part: Schema, name: str) -> Mapping[str, Any]:
    """Return a member of a part; nothing where a server, which may be any, has something else."""
    value = part.get(name)
    return value if isinstance(value, Mapping) else {}


def _list_at(part: Schema, name: str) -> list[Any]:
    """Return a member of a part, as `_object_at` does."""
    value = part.get(name)
    return value if isinstance(value, list) else []
