"""The types that a chain declares, as pydantic knows them."""

from collections.abc import Callable
from typing import Any

from langchain_core.runnables import RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from chainserve.errors import ConfigurationError


def declared_output(runnable: Any) -> Any:
    """Return the type that a chain declares with `with_types`, or None; no other is inferred.

    It may be declared where its output comes from: below bindings, by the last step, or by the one
    that others stand in for.
    """
    while True:
        match runnable:
            case RunnableBindingBase(custom_output_type=declared) if declared is not None:
                return None if declared is Any else declared
            case RunnableEachBase():
                return None
            case RunnableBindingBase():
                runnable = runnable.bound
            case RunnableSequence():
                runnable = runnable.last
            case RunnableWithFallbacks():
                runnable = runnable.runnable
            case _:
                return None


def shape_of(declared: Any) -> TypeAdapter[Any] | None:
    """Return what shapes outputs of a type, or None for a type that pydantic does not know."""
    try:
        return TypeAdapter(declared)
    except PydanticSchemaGenerationError:
        return None


def schema_of(make: Callable[[], type[Any]], path: str, kind: str) -> type[BaseModel]:
    """Return the model of a runnable's inputs or outputs.

    Raises:
        ConfigurationError: It cannot be made, or is of pydantic 1.
    """
    try:
        model = make()
    except (PydanticUserError, KeyError, TypeError) as error:
        said = str(error) if isinstance(error, PydanticUserError) else repr(error)
        reason = said.splitlines()[0].rstrip(".")
        raise ConfigurationError(
            f"The {kind} schema of {path or '/'} cannot be made: {reason}. "
            f"Or declare another {kind}_type, such as dict."
        ) from error
    if not issubclass(model, BaseModel):
        raise ConfigurationError(
            f"The {kind} of {path or '/'} is a pydantic 1 model. Import BaseModel from pydantic "
            f"instead of pydantic.v1, or declare {kind}_type."
        )
    return model
