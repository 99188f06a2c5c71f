"""Inputs checked and unpacked, and the models of bodies: `langserve.validation`'s counterpart."""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import pydantic_core
from langchain_core.load.serializable import Serializable
from pydantic import BaseModel, RootModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from chainserve.bodies import (
    FILTERS,
    BatchBaseResponse,
    InvokeBaseResponse,
    create_batch_request_model,
    create_batch_response_model,
    create_invoke_request_model,
    create_invoke_response_model,
    create_stream_events_request_model,
    create_stream_log_request_model,
    create_stream_request_model,
)
from chainserve.callback_events import (
    BaseCallback,
    CallbackEvent,
    Error,
    LLMResult,
    OnAgentAction,
    OnAgentFinish,
    OnChainEnd,
    OnChainError,
    OnChainStart,
    OnChatModelStart,
    OnLLMEnd,
    OnLLMError,
    OnLLMStart,
    OnRetrieverEnd,
    OnRetrieverError,
    OnRetrieverStart,
    OnToolEnd,
    OnToolError,
    OnToolStart,
)
from chainserve.errors import InvalidInputError, InvalidJSONError
from chainserve.roles import with_messages
from chainserve.schema import CustomUserType
from chainserve.types import DisconnectMode

Validator: TypeAlias = type[BaseModel] | type
"""What the values of a body are held against."""

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


class StepFilters(BaseModel):
    """The members that choose of which steps a stream tells.

    A step is told of if one of the `include` members names it, or none is there, and none of the
    `exclude` members does.
    """

    include_names: Sequence[str] | None = None
    include_types: Sequence[str] | None = None
    include_tags: Sequence[str] | None = None
    exclude_names: Sequence[str] | None = None
    exclude_types: Sequence[str] | None = None
    exclude_tags: Sequence[str] | None = None


class EventsEnvelope(InvokeEnvelope, StepFilters):
    """The members of a `stream_log` or `stream_events` body; `diff` is not used."""

    @property
    def filters(self) -> dict[str, Sequence[str] | None]:
        """The members that choose of which steps a stream tells, by name."""
        return {name: getattr(self, name) for name in FILTERS}


class RunEnvelope(EventsEnvelope):
    """The members of a `runs` body; without a mode it is the chain's first."""

    mode: str | None = None


class CancelEnvelope(BaseModel):
    """The members of a `runs/cancel` body: the key that started the run, and with which verb."""

    idempotency_key: str
    endpoint: Literal["invoke", "batch", "stream", "stream_log", "stream_events", "runs"]


class BatchEnvelope(BaseModel):
    """The members of a `batch` body; one config for all inputs, or one for each."""

    inputs: list[Any]
    config: dict[str, Any] | list[dict[str, Any]] | None = None
    kwargs: dict[str, Any] | list[dict[str, Any]] | None = None
    on_disconnect: DisconnectMode | None = None


InvokeRequestShallowValidator = InvokeEnvelope
BatchRequestShallowValidator = BatchEnvelope
StreamLogParameters = StreamEventsParameters = StepFilters
# LangServe's names of the four; so are those that are imported above and not used here.

__all__ = [
    "MAX_ECHO_BYTES",
    "MAX_ERRORS",
    "BaseCallback",
    "BatchBaseResponse",
    "BatchEnvelope",
    "BatchRequestShallowValidator",
    "CallbackEvent",
    "CancelEnvelope",
    "Error",
    "EventsEnvelope",
    "ForgivingJsonSchema",
    "InvokeBaseResponse",
    "InvokeEnvelope",
    "InvokeRequestShallowValidator",
    "LLMResult",
    "OnAgentAction",
    "OnAgentFinish",
    "OnChainEnd",
    "OnChainError",
    "OnChainStart",
    "OnChatModelStart",
    "OnLLMEnd",
    "OnLLMError",
    "OnLLMStart",
    "OnRetrieverEnd",
    "OnRetrieverError",
    "OnRetrieverStart",
    "OnToolEnd",
    "OnToolError",
    "OnToolStart",
    "RunEnvelope",
    "StepFilters",
    "StreamEventsParameters",
    "StreamLogParameters",
    "Validator",
    "create_batch_request_model",
    "create_batch_response_model",
    "create_invoke_request_model",
    "create_invoke_response_model",
    "create_stream_events_request_model",
    "create_stream_log_request_model",
    "create_stream_request_model",
    "errors_of",
    "input_error",
    "parse_json",
    "unpack",
    "validate_envelope",
    "validate_input",
]

_Envelope = TypeVar("_Envelope", bound=BaseModel)


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


class ForgivingJsonSchema(GenerateJsonSchema):
    """Shows what has no JSON schema, such as a function, as anything."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def handle_invalid_for_json_schema(
        self, schema: pydantic_core.core_schema.CoreSchema, error_info: str
    ) -> JsonSchemaValue:
        """Return the schema of anything."""
        return {}
