"""From a runnable to JSON text: the one place that calls LangChain."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from itertools import zip_longest
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessageChunk
from langchain_core.prompt_values import ChatPromptValue, ChatPromptValueConcrete
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
)
from langchain_core.runnables.config import merge_configs
from pydantic import BaseModel

from chainserve.callbacks import NOTHING, AsyncEventAggregatorCallback, RunObserver
from chainserve.chain import Chain
from chainserve.config import ensure_run_id
from chainserve.declared_types import declared_output, schema_of, shape_of
from chainserve.errors import OutputNotSerializableError
from chainserve.fast_paths import faster
from chainserve.graphs import Graph
from chainserve.serialization import WellKnownLCSerializer, dump_events, plain_data
from chainserve.types import RunId, RunMode
from chainserve.validation import validate_input
from chainserve.wire.sse import json_line

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

    def invoke(
        self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any] | None = None
    ) -> "Work":
        """Return the work of running once."""
        return _Invoke(self, [value], [config], kwargs)

    def batch(
        self,
        values: list[Any],
        configs: list[RunnableConfig],
        kwargs: Mapping[str, Any] | None = None,
    ) -> "Work":
        """Return the work of running each input."""
        return _Batch(self, values, configs, kwargs)

    def stream(
        self,
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any] | None = None,
        *,
        keep_chunks: bool = False,
    ) -> "Work":
        """Return the work of running once, chunk by chunk.

        Args:
            value: The chain's input.
            config: The config of the run.
            kwargs: More arguments for the runnable.
            keep_chunks: Whether what a run has said shall be known also when it does not succeed.
        """
        return _Stream(self, [value], [config], kwargs, keep_chunks=keep_chunks)

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


class Work:
    """What a run does: it yields its chunks, and then its outputs are known.

    Nothing happens before the chunks are asked for.

    Attributes:
        mode: Which of the runnable's methods it calls.
        run_ids: One for each input.
        inputs: The chain's inputs.
        configs: A config for each input.
        kwargs: More arguments for the runnable.
        takes_fast_paths: Whether LangChain's own runnables are run in faster ways.
        outputs: JSON text of the outputs, or None for one that has no JSON form.
    """

    mode: RunMode

    def __init__(
        self,
        execution: Execution,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.run_ids: tuple[RunId, ...] = tuple(ensure_run_id(config) for config in configs)
        self.inputs = inputs
        self.configs = configs
        self.kwargs = kwargs or {}
        self.takes_fast_paths = False
        self.outputs: Sequence[bytes | None] = ()
        self._execution = execution
        self._observers = [RunObserver(cast("Any", config["run_id"])) for config in configs]
        self._aggregators: Sequence[AsyncEventAggregatorCallback] = ()

    @property
    def runnable(self) -> Runnable[Any, Any]:
        """What is run."""
        return self._execution.faster if self.takes_fast_paths else self._execution.runnable

    def chunks(self) -> AsyncGenerator[bytes]:
        """Run, and yield each chunk as JSON text on one line."""
        raise NotImplementedError

    async def run(self) -> None:
        """Run, for nobody who wants chunks; streams are always asked for theirs."""
        raise NotImplementedError

    def usage(self, index: int) -> dict[str, Any] | None:
        """Return the tokens that the models of one run counted."""
        return cast("dict[str, Any] | None", self._observers[index].usage)

    def result(self, index: int) -> Any:
        """Return what one run has said: its final output if it came to that."""
        output = self._observers[index].output
        return None if output is NOTHING else output

    def callback_events(self) -> list[bytes] | None:
        """Return what happened in each run, a JSON array; None where nobody was to note it."""
        if not self._aggregators:
            return None
        return [dump_events(aggregator.callback_events) for aggregator in self._aggregators]

    def _aggregate_events(self) -> None:
        """Note what happens in each run, where the chain's callers are to be told."""
        if self._execution.includes_callback_events:
            self._aggregators = [AsyncEventAggregatorCallback() for _ in self.configs]

    def _observed(self) -> list[RunnableConfig]:
        """Return the configs with what notes outputs and usage, and what happens if it is told."""
        noting = zip_longest(self._observers, self._aggregators)
        return [
            _with_handlers(config, [handler for handler in handlers if handler])
            for config, handlers in zip(self.configs, noting, strict=True)
        ]


def _with_handlers(config: RunnableConfig, handlers: list[BaseCallbackHandler]) -> RunnableConfig:
    """Return a copy of a config with more callbacks; it has all members that it needs."""
    if config.get("callbacks") is not None:
        return merge_configs(config, {"callbacks": handlers})
    copied: Any = {
        key: value.copy() if isinstance(value, dict | list) else value
        for key, value in config.items()
    }
    copied["callbacks"] = handlers
    return cast("RunnableConfig", copied)


class _Invoke(Work):
    """Runs once; the output is the one chunk."""

    mode = "invoke"

    async def chunks(self) -> AsyncGenerator[bytes]:
        await self.run()
        for output in self.outputs:
            assert output is not None
            yield json_line(output)

    async def run(self) -> None:
        self._aggregate_events()
        [value], [config] = self.inputs, self._observed()
        self._output = await self.runnable.ainvoke(value, config, **self.kwargs)
        self.outputs = [self._execution.dump_output(self._output)]

    def result(self, index: int) -> Any:
        return getattr(self, "_output", None)


class _Batch(Work):
    """Runs each input; there are no chunks."""

    mode = "batch"

    async def chunks(self) -> AsyncGenerator[bytes]:
        await self.run()
        return
        yield

    async def run(self) -> None:
        self._aggregate_events()
        configs = self._observed()
        outputs: Sequence[Any] = await self.runnable.abatch(
            list(self.inputs), configs, **self.kwargs
        )
        self._outputs = outputs
        self.outputs = [self._execution.dump_output(output) for output in outputs]

    def result(self, index: int) -> Any:
        outputs = getattr(self, "_outputs", None)
        return super().result(index) if outputs is None else outputs[index]


class StreamedWork(Work):
    """Runs once, and yields as it goes."""

    def __init__(self, *args: Any, keep_chunks: bool) -> None:
        super().__init__(*args)
        self._kept: list[Any] | None = [] if keep_chunks else None

    def result(self, index: int) -> Any:
        """Return the final output; of a run that did not come to it, what it has said."""
        output = super().result(index)
        return _sum(self._kept) if output is None and self._kept else output

    def _written_output(self) -> bytes | None:
        """Return the final output for the run's record; the stream does not fail with it."""
        output = self._observers[0].output
        if output is NOTHING:
            return None
        try:
            return self._execution.dump_output(output)
        except Exception:  # noqa: BLE001 - a chain's objects and its serializer may raise anything
            return None


class _Stream(StreamedWork):
    """Runs once, chunk by chunk."""

    mode = "stream"

    async def chunks(self) -> AsyncGenerator[bytes]:
        [value], [config] = self.inputs, self._observed()
        stream = self.runnable.astream(value, config, **self.kwargs)
        del value, config  # A stream may wait for long, and has no more need of them.
        dumps, kept = self._execution.serializer.dumps, self._kept
        count = 0
        async with aclosing(cast("AsyncGenerator[Any]", stream)) as chunks:
            async for chunk in chunks:
                count += 1
                if kept is not None:
                    kept.append(chunk)
                yield json_line(dumps(chunk))
        if count == 1 and self._observers[0].output is NOTHING:
            self._observers[0].output = chunk  # A runnable of its own kind need not tell callbacks.
        self.outputs = [self._written_output()]


def _sum(chunks: Sequence[Any]) -> Any:
    """Add chunks up as LangChain's sequences do: what cannot be added replaces what was."""
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    if len(chunks) > 1 and all(isinstance(chunk, BaseMessageChunk) for chunk in chunks):
        with suppress(Exception):  # Members that models send may not fit together.
            return chunks[0] + list(chunks[1:])
    total = chunks[0]
    for chunk in chunks[1:]:
        try:
            total = total + chunk
        except Exception:  # noqa: BLE001 - adding is the chain's own code
            total = chunk
    return total


def _loads(written: bytes) -> Any:
    """Return what a serializer wrote as plain JSON data."""
    try:
        return plain_data(written)
    except ValueError as error:
        raise OutputNotSerializableError("output", f"was not written as JSON ({error})") from None
