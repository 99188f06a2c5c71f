"""What runs do: the one place that calls LangChain's runnables."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from itertools import zip_longest
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

from chainserve.callbacks import NOTHING, AsyncEventAggregatorCallback, RunObserver
from chainserve.config import ensure_run_id
from chainserve.execution import Execution
from chainserve.fast_paths import is_core_known
from chainserve.serialization import WellKnownLCSerializer, dump_events
from chainserve.types import RunId, RunMode
from chainserve.wire.sse import json_line, text_line


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
        takes_faster = self.takes_fast_paths and is_core_known()
        return self._execution.faster if takes_faster else self._execution.runnable

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


class InvokeWork(Work):
    """Runs once; the output is the one chunk."""

    mode = "invoke"

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the output."""
        await self.run()
        for output in self.outputs:
            assert output is not None
            yield json_line(output)

    async def run(self) -> None:
        """Call `ainvoke`."""
        self._aggregate_events()
        [value], [config] = self.inputs, self._observed()
        self._output = await self.runnable.ainvoke(value, config, **self.kwargs)
        self.outputs = [self._execution.dump_output(self._output)]

    def result(self, index: int) -> Any:
        """Return the output."""
        return getattr(self, "_output", None)


class BatchWork(Work):
    """Runs each input; there are no chunks."""

    mode = "batch"

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Do the work, and yield nothing."""
        await self.run()
        return
        yield

    async def run(self) -> None:
        """Call `abatch`."""
        self._aggregate_events()
        configs = self._observed()
        outputs: Sequence[Any] = await self.runnable.abatch(
            list(self.inputs), configs, **self.kwargs
        )
        self._outputs = outputs
        self.outputs = [self._execution.dump_output(output) for output in outputs]

    def result(self, index: int) -> Any:
        """Return the output for an input."""
        outputs = getattr(self, "_outputs", None)
        return super().result(index) if outputs is None else outputs[index]


class StreamedWork(Work):
    """Runs once, and yields as it goes.

    Args:
        args: Those of `Work`.
        keep_chunks: Whether what a run has said shall be known also when it does not succeed.
    """

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


class StreamWork(StreamedWork):
    """Runs once, chunk by chunk."""

    mode = "stream"

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield what `astream` gives."""
        [value], [config] = self.inputs, self._observed()
        stream = self.runnable.astream(value, config, **self.kwargs)
        del value, config  # A stream may wait for long, and has no more need of them.
        serializer, kept = self._execution.serializer, self._kept
        dumps, is_default = serializer.dumps, type(serializer) is WellKnownLCSerializer
        count = 0
        async with aclosing(cast("AsyncGenerator[Any]", stream)) as chunks:
            async for chunk in chunks:
                count += 1
                if kept is not None:
                    kept.append(chunk)
                if is_default and isinstance(chunk, str):
                    yield text_line(chunk)
                else:
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
