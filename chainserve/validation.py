"""Inputs checked and unpacked, and the models of bodies: `langserve.validation`'s counterpart."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pydantic_core
from langchain_core.load.serializable import Serializable
from pydantic import BaseModel, Field, RootModel, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from chainserve.errors import InvalidInputError, InvalidJSONError
from chainserve.roles import with_messages
from chainserve.schema import BatchResponseMetadata, CustomUserType, InvokeResponseMetadata
from chainserve.types import DisconnectMode, RunMode

MAX_ERRORS = 100
"""How many errors of one input are answered."""

MAX_ECHO_BYTES = 4096
"""How much of an input is repeated in an error about it."""


def parse_json(body: bytes) -> Any:
    """Return the data that a request's body stands for.

    Refuses what cannot be answered or kept safely: NaN, the infinities and numbers that become one,
    lone surrogates, nesting deeper than 200.

    Raises:
        InvalidJSONError: The body is not such JSON; the message says where.
    """
    if not body.strip():
        raise InvalidJSONError('The body is empty. Send JSON, such as {"input": …}.')
    try:
        data = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        hint = _quotes_hint(body, str(error))
        raise InvalidJSONError(f"The body is not valid JSON: {error}.{hint}") from None
    # Only an exponent or hundreds of digits make a float infinite: few bodies are looked through.
    if _MAY_OVERFLOW.search(body) and _has_infinity(data):
        raise InvalidJSONError("The body is not valid JSON: a number is out of range.")
    return data


_MAY_OVERFLOW = re.compile(rb"[0-9][eE]\+?[0-9]|[0-9]{300}")
_POSITION = re.compile(r"at line (\d+) column (\d+)")


def _quotes_hint(body: bytes, error: str) -> str:
    """Return what helps those who write Python's quotes, or whose shell took the quotes away."""
    found = _POSITION.search(error)
    if found is None:
        return ""
    line, column = int(found[1]), int(found[2])
    at = body.split(b"\n")[line - 1][column - 1 : column]
    if at == b"'" or "key must be a string" in error:
        return " JSON needs double quotes around names and text."
    return ""


def _has_infinity(data: Any) -> bool:
    """Tell whether a number in JSON data was too large for a float."""
    left = [data]
    while left:
        value = left.pop()
        if isinstance(value, float) and math.isinf(value):
            return True
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False


def validate_input(schema: type[BaseModel], value: Any, *, loc: tuple[Any, ...] = ()) -> Any:
    """Return a chain's input built from plain JSON data.

    Raises:
        InvalidInputError: The data does not fit the schema; its errors' `loc` starts with `loc`.
    """
    within = "" if loc else "input"
    try:
        return unpack(_validated(schema, value))
    except ValidationError as error:
        raise InvalidInputError(errors_of(error, loc=loc), within=within) from None
    except Exception as error:
        # LangChain's own validators look into data before they know its shape.
        message = f"The value has the wrong shape ({type(error).__name__}: {error})"
        raise input_error("invalid_shape", loc, message, value, within=within) from error


def _validated(schema: type[BaseModel], value: Any) -> BaseModel:
    """Return the model for plain data, in which messages may name a role instead of a type."""
    try:
        return schema.model_validate(value)
    except Exception:
        converted = with_messages(value)
        if converted is value:
            raise
    return schema.model_validate(converted)


def unpack(model: BaseModel) -> Any:
    """Return what the chain is given for a validated model.

    Models made for validation alone become dicts, field by field; LangChain's own objects and
    `CustomUserType` stay.
    """
    value = model.root if isinstance(model, RootModel) else model
    if not isinstance(value, BaseModel) or isinstance(value, Serializable | CustomUserType):
        return value
    return {
        name: unpack(item) if isinstance(item := getattr(value, name), BaseModel) else item
        for name in type(value).model_fields
    }


def errors_of(error: ValidationError, *, loc: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    """Return pydantic's errors as plain JSON data, within a bound of number and size."""
    if error.error_count() > MAX_ERRORS:
        return [_many_errors(error, loc)]
    shown: dict[int, Any] = {}
    return [_plain_error(item, loc, shown) for item in error.errors()]


def _many_errors(error: ValidationError, loc: tuple[Any, ...]) -> dict[str, Any]:
    """Return one error that stands for more than anyone would read."""
    message = f"{error.error_count()} values do not fit the schema"
    return {"type": "too_many_errors", "loc": [*loc], "msg": message, "input": None}


def _plain_error(item: Any, loc: tuple[Any, ...], shown: dict[int, Any]) -> dict[str, Any]:
    """Return one of pydantic's errors with members that JSON can hold.

    A union repeats the same input in the errors of all its members: `shown` looks at it once.
    """
    plain = {**item, "loc": [*loc, *item["loc"]]}
    value = item.get("input")
    if id(value) not in shown:
        shown[id(value)] = _echo(value)
    plain["input"] = shown[id(value)]
    if "ctx" in item:
        plain["ctx"] = {name: _echo(part) for name, part in item["ctx"].items()}
    return plain


def _echo(value: Any) -> Any:
    """Return a value as it may be answered: as it is when small, else the start of it."""
    text = pydantic_core.to_json(value, fallback=str, inf_nan_mode="null")
    if len(text) <= MAX_ECHO_BYTES:
        return pydantic_core.from_json(text)
    return f"{text[:100].decode(errors='replace')}…"


def input_error(
    type_: str, loc: tuple[Any, ...], msg: str, value: Any, *, within: str = ""
) -> InvalidInputError:
    """Return an error of our own in pydantic's shape."""
    error = {"type": type_, "loc": [*loc], "msg": msg, "input": _echo(value)}
    return InvalidInputError([error], within=within)


class InvokeEnvelope(BaseModel):
    """The members of an `invoke` or `stream` body."""

    input: Any
    config: dict[str, Any] | None = None
    kwargs: dict[str, Any] | list[dict[str, Any]] | None = None
    on_disconnect: DisconnectMode | None = None

    @property
    def filters(self) -> dict[str, Sequence[str] | None]:
        """The members that choose of which steps a stream tells, by name."""
        return {}


class EventsEnvelope(InvokeEnvelope):
    """The members of a `stream_log` or `stream_events` body; `diff` is not used, as in LangServe.

    A step is told of if one of the `include` members names it, or none is there, and none of the
    `exclude` members does.
    """

    include_names: Sequence[str] | None = None
    include_types: Sequence[str] | None = None
    include_tags: Sequence[str] | None = None
    exclude_names: Sequence[str] | None = None
    exclude_types: Sequence[str] | None = None
    exclude_tags: Sequence[str] | None = None

    @property
    def filters(self) -> dict[str, Sequence[str] | None]:
        """The members that choose of which steps a stream tells, by name."""
        return {name: getattr(self, name) for name in _FILTERS}


class RunEnvelope(EventsEnvelope):
    """The members of a `runs` body; without a mode it is the chain's first."""

    mode: str | None = None


class BatchEnvelope(BaseModel):
    """The members of a `batch` body; one config for all inputs, or one for each."""

    inputs: list[Any]
    config: dict[str, Any] | list[dict[str, Any]] | None = None
    kwargs: dict[str, Any] | list[dict[str, Any]] | None = None
    on_disconnect: DisconnectMode | None = None


_Envelope = TypeVar("_Envelope", InvokeEnvelope, EventsEnvelope, RunEnvelope, BatchEnvelope)


def validate_envelope(model: type[_Envelope], body: Any) -> _Envelope:
    """Return the members of a body.

    Raises:
        InvalidInputError: It is not an object, a member is missing, or of the wrong type.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise InvalidInputError(errors_of(error), hint=_hint(model, error)) from None


def _hint(model: type[_Envelope], error: ValidationError) -> str:
    """Return how a body looks, for one that is no object or lacks its input."""
    name, example = ("inputs", "[…]") if issubclass(model, BatchEnvelope) else ("input", "…")
    if error.errors()[0]["loc"] not in ((), (name,)):
        return ""
    return f'Send {{"{name}": {example}}}.'


@dataclass(frozen=True, slots=True)
class BodyModels:
    """The models of a chain's bodies, for the OpenAPI document."""

    invoke_request: type[BaseModel]
    events_request: type[BaseModel]
    invoke_response: type[BaseModel]
    batch_request: type[BaseModel]
    batch_response: type[BaseModel]
    run_request: type[BaseModel]


def body_models(
    namespace: str, input_type: Any, output_type: Any, config_type: Any, modes: Sequence[RunMode]
) -> BodyModels:
    """Return the models of a chain's bodies, their names prefixed so that chains do not collide."""
    config = config_type
    kwargs: Any = (
        dict[str, Any],
        Field({}, description="Arguments for the runnable, as far as the chain takes them."),
    )
    one_config: Any = (config, Field({}, description="A part of LangChain's RunnableConfig."))
    many_configs: Any = (
        config | list[config],  # type: ignore[valid-type]
        Field({}, description="One config for all inputs, or a list of one for each."),
    )
    input_: Any = (input_type, Field(description="The input of the chain."))
    on_disconnect: Any = (
        DisconnectMode | None,
        Field(None, description="What becomes of the run when its last reader leaves."),
    )
    steps: dict[str, Any] = {
        name: (list[str] | None, Field(None, description=f"Steps with one of these {what}."))
        for name, what in _FILTERS.items()
    }
    mode: Any = (str | None, None)
    if modes:
        mode = (
            Literal[tuple(modes)],
            Field(modes[0], description="What the run does with the chain."),
        )
    return BodyModels(
        invoke_request=create_model(
            f"{namespace}InvokeRequest",
            input=input_,
            config=one_config,
            kwargs=kwargs,
            on_disconnect=on_disconnect,
        ),
        events_request=create_model(
            f"{namespace}EventsRequest",
            input=input_,
            config=one_config,
            kwargs=kwargs,
            on_disconnect=on_disconnect,
            **steps,
        ),
        run_request=create_model(
            f"{namespace}RunRequest",
            input=input_,
            config=one_config,
            kwargs=kwargs,
            mode=mode,
            on_disconnect=on_disconnect,
            **steps,
        ),
        invoke_response=create_model(
            f"{namespace}InvokeResponse",
            output=(output_type, Field(description="The output of the chain.")),
            metadata=(InvokeResponseMetadata, ...),
        ),
        batch_request=create_model(
            f"{namespace}BatchRequest",
            inputs=(list[input_type], Field(description="The inputs, one run for each.")),
            config=many_configs,
            kwargs=kwargs,
            on_disconnect=on_disconnect,
        ),
        batch_response=create_model(
            f"{namespace}BatchResponse",
            output=(list[output_type], Field(description="The outputs, in the inputs' order.")),
            metadata=(BatchResponseMetadata, ...),
        ),
    )


_FILTERS = {
    "include_names": "names are told of",
    "include_types": "types are told of",
    "include_tags": "tags are told of",
    "exclude_names": "names are left out",
    "exclude_types": "types are left out",
    "exclude_tags": "tags are left out",
}
"""The members of a body that choose steps, and what they do to those that have one."""


def documented(model: type[BaseModel], name: str) -> Any:
    """Return a model under another name for the documents; Any if it has no JSON schema."""
    try:
        model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return Any
    return create_model(name, __base__=model)


class ForgivingJsonSchema(GenerateJsonSchema):
    """Shows what has no JSON schema, such as a function, as anything."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def handle_invalid_for_json_schema(
        self, schema: pydantic_core.core_schema.CoreSchema, error_info: str
    ) -> JsonSchemaValue:
        """Return the schema of anything."""
        return {}
