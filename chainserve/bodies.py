"""The models of a chain's request and response bodies, for documents.

Their names begin with a namespace of the chain's own, so that chains do not collide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model
from pydantic.errors import PydanticInvalidForJsonSchema

from chainserve.schema import BatchResponseMetadata, InvokeResponseMetadata
from chainserve.types import DisconnectMode, RunMode

FILTERS = {
    "include_names": "names are told of",
    "include_types": "types are told of",
    "include_tags": "tags are told of",
    "exclude_names": "names are left out",
    "exclude_types": "types are left out",
    "exclude_tags": "tags are left out",
}
"""The members of a body that choose steps, and what they do to those that have one."""


class InvokeBaseResponse(BaseModel):
    """Base class of the answers of `invoke`."""


class BatchBaseResponse(BaseModel):
    """Base class of the answers of `batch`."""


def create_invoke_request_model(namespace: str, input_type: Any, config: Any) -> type[BaseModel]:
    """Return the model of the body of `invoke`."""
    return _request_model(f"{namespace}InvokeRequest", input_type, config)


def create_stream_request_model(namespace: str, input_type: Any, config: Any) -> type[BaseModel]:
    """Return the model of the body of `stream`."""
    return _request_model(f"{namespace}StreamRequest", input_type, config)


def create_stream_log_request_model(
    namespace: str, input_type: Any, config: Any
) -> type[BaseModel]:
    """Return the model of the body of `stream_log`."""
    return _request_model(f"{namespace}StreamLogRequest", input_type, config, **_steps())


def create_stream_events_request_model(
    namespace: str, input_type: Any, config: Any
) -> type[BaseModel]:
    """Return the model of the body of `stream_events`."""
    return _request_model(f"{namespace}StreamEventsRequest", input_type, config, **_steps())


def create_run_request_model(
    namespace: str, input_type: Any, config: Any, modes: Sequence[RunMode]
) -> type[BaseModel]:
    """Return the model of the body of `runs`; the first of the modes is the default."""
    mode: Any = (str | None, None)
    if modes:
        meant = "What the run does with the chain."
        mode = (Literal[tuple(modes)], Field(modes[0], description=meant))
    name = f"{namespace}RunRequest"
    return _request_model(name, input_type, config, mode=mode, **_steps())


def create_batch_request_model(namespace: str, input_type: Any, config: Any) -> type[BaseModel]:
    """Return the model of the body of `batch`."""
    inputs: Any = (list[input_type], Field(description="The inputs, one run for each."))
    configs: Any = (
        config | list[config],
        Field({}, description="One config for all inputs, or a list of one for each."),
    )
    members: dict[str, Any] = {"inputs": inputs, "config": configs, **_rest()}
    return create_model(f"{namespace}BatchRequest", **members)


def create_invoke_response_model(
    namespace: str, output_type: Any, include_callbacks: bool
) -> type[BaseModel]:
    """Return the model of the answer of `invoke`."""
    output: Any = (output_type, Field(description="The output of the chain."))
    events = _events(list[dict[str, Any]]) if include_callbacks else {}
    return create_model(
        f"{namespace}InvokeResponse",
        __base__=InvokeBaseResponse,
        output=output,
        metadata=(InvokeResponseMetadata, ...),
        **events,
    )


def create_batch_response_model(
    namespace: str, output_type: Any, include_callbacks: bool
) -> type[BaseModel]:
    """Return the model of the answer of `batch`."""
    output: Any = (list[output_type], Field(description="The outputs, in the inputs' order."))
    events = _events(list[list[dict[str, Any]]]) if include_callbacks else {}
    return create_model(
        f"{namespace}BatchResponse",
        __base__=BatchBaseResponse,
        output=output,
        metadata=(BatchResponseMetadata, ...),
        **events,
    )


def _request_model(name: str, input_type: Any, config: Any, **more: Any) -> type[BaseModel]:
    members: dict[str, Any] = {
        "input": (input_type, Field(description="The input of the chain.")),
        "config": (config, Field({}, description="A part of LangChain's RunnableConfig.")),
        **_rest(),
        **more,
    }
    return create_model(name, **members)


def _rest() -> dict[str, Any]:
    """Return the members that all requests have."""
    arguments = "Arguments for the runnable, as far as the chain takes them."
    leaving = "What becomes of the run when its last reader leaves."
    return {
        "kwargs": (dict[str, Any], Field({}, description=arguments)),
        "on_disconnect": (DisconnectMode | None, Field(None, description=leaving)),
    }


def _steps() -> dict[str, Any]:
    """Return the members that choose steps."""
    return {
        name: (Sequence[str] | None, Field(None, description=f"Steps with one of these {what}."))
        for name, what in FILTERS.items()
    }


def _events(type_: Any) -> dict[str, Any]:
    return {"callback_events": (type_, Field(description="What happened in the run."))}


@dataclass(frozen=True, slots=True)
class BodyModels:
    """The models of a chain's bodies."""

    invoke_request: type[BaseModel]
    batch_request: type[BaseModel]
    stream_request: type[BaseModel]
    stream_log_request: type[BaseModel]
    stream_events_request: type[BaseModel]
    run_request: type[BaseModel]
    invoke_response: type[BaseModel]
    batch_response: type[BaseModel]

    @classmethod
    def of(
        cls,
        namespace: str,
        *,
        input_type: Any,
        output_type: Any,
        config: Any,
        modes: Sequence[RunMode],
        include_callbacks: bool,
    ) -> "BodyModels":
        """Return the models of a chain's bodies."""
        asked = (namespace, input_type, config)
        answered = (namespace, output_type, include_callbacks)
        return cls(
            invoke_request=create_invoke_request_model(*asked),
            batch_request=create_batch_request_model(*asked),
            stream_request=create_stream_request_model(*asked),
            stream_log_request=create_stream_log_request_model(*asked),
            stream_events_request=create_stream_events_request_model(*asked),
            run_request=create_run_request_model(*asked, modes),
            invoke_response=create_invoke_response_model(*answered),
            batch_response=create_batch_response_model(*answered),
        )


def documented(model: type[BaseModel], name: str) -> Any:
    """Return a model under another name for the documents; Any if it has no JSON schema."""
    try:
        model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return Any
    return create_model(name, __base__=model)
