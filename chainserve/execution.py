"""A chain's runnable with its types: inputs from JSON data, and outputs to JSON text."""

from typing import Any

from langchain_core.prompt_values import ChatPromptValue, ChatPromptValueConcrete
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
)
from pydantic import BaseModel

from chainserve.chain import Chain
from chainserve.declared_types import declared_output, schema_of, shape_of
from chainserve.errors import OutputNotSerializableError
from chainserve.fast_paths import faster
from chainserve.graphs import Graph
from chainserve.serialization import WellKnownLCSerializer, plain_data
from chainserve.validation import validate_input

_JSON = WellKnownLCSerializer()


class Execution:
    """A chain's runnable, ready to run: typed inputs in, JSON text out.

    Attributes:
        runnable: The chain's runnable, with its declared types.
        faster: What is run in its place where fast paths may be taken.
        graph: The graph that it is, if it is one.
    """

    def __init__(self, chain: Chain) -> None:
        types = {
            name: given
            for name, given in (
                ("input_type", chain.input_type),
                ("output_type", chain.output_type),
            )
            if given != "auto"
        }
        self.runnable: Runnable[Any, Any] = (
            chain.runnable.with_types(**types) if types else chain.runnable
        )
        self.faster = faster(_unbound(self.runnable))
        self.graph = Graph.of(self.runnable)
        self._own_serializer = chain.serializer
        self.includes_callback_events = chain.include_callback_events
        self.serializer = chain.serializer or WellKnownLCSerializer()
        self._input_schema = schema_of(self.runnable.get_input_schema, chain.path, "input")
        self.output_schema = schema_of(self.runnable.get_output_schema, chain.path, "output")
        self._path = chain.path
        declared = declared_output(self.runnable)
        self._output = None if declared is None else shape_of(declared)

    def input_schema(self, config: RunnableConfig) -> type[BaseModel]:
        """Return the model of the input, which configurable fields may change."""
        if config.get("configurable"):
            configured = self.runnable.with_config(config)
            return schema_of(configured.get_input_schema, self._path, "input")
        return self._input_schema

    def output_schema_for(self, config: RunnableConfig) -> type[BaseModel]:
        """Return the model of the output, which configurable fields may change."""
        if config.get("configurable"):
            configured = self.runnable.with_config(config)
            return schema_of(configured.get_output_schema, self._path, "output")
        return self.output_schema

    def parse_input(self, value: Any, config: RunnableConfig, *, loc: tuple[Any, ...] = ()) -> Any:
        """Return the chain's input for plain JSON data.

        Raises:
            InvalidInputError: The data does not fit the input schema.
            InvalidConfigError: The chain is a graph that needs a thread, and the config names none.
        """
        if self.graph is not None:
            self.graph.check_thread(config)
        return validate_input(self.input_schema(config), value, loc=loc)

    def dump_output(self, output: Any) -> bytes:
        """Write an output, shaped by the declared output type if there is one.

        Raises:
            OutputNotSerializableError: It has no JSON form; the message names the place.
        """
        if isinstance(output, ChatPromptValue) and not hasattr(output, "type"):
            # Clients tell by `type` what to make of it, and only this subclass has one.
            output = ChatPromptValueConcrete.model_construct(messages=output.messages)
        written = self.serializer.dumps(output)
        if self._output is not None:
            shaped = self._output.validate_python(_loads(written))
            return _JSON.dumps(self._output.dump_python(shaped, mode="json", by_alias=True))
        return written if self._own_serializer is None else _JSON.dumps(_loads(written))


def _unbound(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return what a binding calls, where it has nothing for it but types.

    It would merge its config with that of the run, which is merged already.
    """
    while type(runnable) is RunnableBinding and not (
        runnable.kwargs or runnable.config or runnable.config_factories
    ):
        runnable = runnable.bound
    return runnable


def _loads(written: bytes) -> Any:
    """Return what a serializer wrote as plain JSON data."""
    try:
        return plain_data(written)
    except ValueError as error:
        raise OutputNotSerializableError("output", f"was not written as JSON ({error})") from None
