"""What happens inside a run, told as it happens: `stream_log` and `stream_events`.

LangChain deprecates `astream_log`, which LangServe's clients ask for. What is behind it is called
here: the method itself would warn the server's log of what its callers do.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeAlias, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tracers import log_stream
from langchain_core.tracers.schemas import Run as TracedRun

from chainserve.execution import Execution
from chainserve.fast_paths import stream_events
from chainserve.json_text import dumps_any
from chainserve.serialization import WellKnownLCSerializer
from chainserve.wire.sse import json_line
from chainserve.work import StreamedWork

Filters: TypeAlias = Mapping[str, Sequence[str] | None]
"""LangChain's `include_names`, `include_types`, `include_tags` and the same with `exclude`."""


class _IntermediateWork(StreamedWork):
    """Runs once, and tells of its steps.

    Nothing that a step says makes the run fail: what has no JSON form is told as its repr.

    Args:
        execution: The chain's runnable.
        value: The chain's input.
        config: The config of the run.
        kwargs: More arguments for the runnable.
        filters: Which steps the caller wants to be told of.
        allowed: The names of the steps that callers may be told of; all when None. The root run,
            which `stream` tells of too, always is.
        keep_chunks: Whether what a run has said shall be known also when it does not succeed.
    """

    def __init__(
        self,
        execution: Execution,
        value: Any,
        config: RunnableConfig,
        kwargs: Mapping[str, Any] | None = None,
        *,
        filters: Filters,
        allowed: Collection[str] | None,
        keep_chunks: bool = False,
    ) -> None:
        super().__init__(execution, [value], [config], kwargs, keep_chunks=keep_chunks)
        self._filters: dict[str, Any] = dict(filters)
        self._allowed = None if allowed is None else frozenset(allowed)

    async def chunks(self) -> AsyncGenerator[bytes]:
        [value], [config] = self.inputs, self._observed()
        async with aclosing(cast("AsyncGenerator[Any]", self._told(value, config))) as told:
            async for item in told:
                yield self._line(item)
        if self._observers[0].was_cancelled:
            raise asyncio.CancelledError  # Of which LangChain tells by no more than the end.
        self.outputs = [self._written_output()]

    def _told(self, value: Any, config: RunnableConfig) -> AsyncIterator[Any]:
        """Yield what the caller is told, as data for the serializer."""
        raise NotImplementedError

    def _line(self, told: Any) -> bytes:
        try:
            return json_line(self._execution.serializer.dumps(told))
        except Exception:  # noqa: BLE001 - a step's objects and a chain's serializer may raise any
            return json_line(dumps_any(told))


class StreamLogWork(_IntermediateWork):
    """Tells of the steps as patches of a run log, `{"ops": [JSON Patch operation, ...]}`."""

    mode = "stream_log"

    async def _told(self, value: Any, config: RunnableConfig) -> AsyncGenerator[Any]:
        async with aclosing(self._patches(value, config)) as patches:
            async for patch in patches:
                if self._kept is not None:
                    self._kept += [op["value"] for op in patch.ops if op["path"] == _ROOT_CHUNK]
                yield {"ops": patch.ops}

    async def _patches(
        self, value: Any, config: RunnableConfig
    ) -> AsyncGenerator[log_stream.RunLogPatch]:
        runnable = self.runnable
        if _has_its_own_log(runnable):
            options = {**self._filters, **self.kwargs}
            async for patch in runnable.astream_log(value, config, diff=True, **options):
                if self._allowed is not None:
                    # The names are those of another process, and all there is to tell them by.
                    patch.ops = [op for op in patch.ops if not op["path"].startswith("/logs/")]
                yield patch
            return
        handler = _RunLogHandler(self._allowed, self._filters)
        patches = log_stream._astream_log_implementation(
            runnable, value, config, stream=handler, diff=True, **self.kwargs
        )
        async with aclosing(cast("AsyncGenerator[log_stream.RunLogPatch]", patches)) as told:
            async for patch in told:
                yield patch


_ROOT_CHUNK = "/streamed_output/-"
"""Where a run log has the chunks of the root run."""


class _RunLogHandler(log_stream.LogStreamCallbackHandler):
    """Leaves out what a caller may not see: steps that are not allowed, and the server's marks."""

    def __init__(self, allowed: Collection[str] | None, filters: Mapping[str, Any]) -> None:
        super().__init__(auto_close=False, _schema_format="original", **filters)
        self._allowed = allowed

    def include_run(self, run: TracedRun) -> bool:
        """Tell whether the log has an entry of a step."""
        return (self._allowed is None or run.name in self._allowed) and super().include_run(run)

    def _on_run_create(self, run: TracedRun) -> None:
        extra = run.extra or {}
        shown = {**extra, "metadata": _public(extra.get("metadata") or {})}
        super()._on_run_create(run.model_copy(update={"extra": shown}))


class StreamEventsWork(_IntermediateWork):
    """Tells of the steps as LangChain's `StreamEvent`s.

    Args:
        args: As `_IntermediateWork`.
        version: The version of the events, `v1` or `v2`.
        options: As `_IntermediateWork`.
    """

    mode = "stream_events"

    def __init__(self, *args: Any, version: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._version = version
        self._metadata: dict[str, tuple[Any, dict[Any, Any]]] = {}
        self._envelopes: dict[tuple[str, str], _Envelope] = {}

    async def _told(self, value: Any, config: RunnableConfig) -> AsyncGenerator[Any]:
        options: Any = {**self._filters, "version": self._version, **self.kwargs}
        stream = (
            stream_events(self.runnable, value, config, **options)
            if self.takes_fast_paths
            else self.runnable.astream_events(value, config, **options)
        )
        async with aclosing(cast("AsyncGenerator[Any]", stream)) as events:
            async for event in events:
                is_root = self._is_of_the_root(event)
                if self._kept is not None and is_root and event["event"].endswith("_stream"):
                    self._kept.append(event["data"].get("chunk"))
                if self._allowed is None or is_root or event["name"] in self._allowed:
                    event["metadata"] = self._public_metadata(event)
                    yield event

    def _public_metadata(self, event: Mapping[str, Any]) -> dict[Any, Any]:
        """Return what may be told of a step's metadata, the same object for the same."""
        known, shown = self._metadata.get(event["run_id"], (None, {}))
        if known is not event["metadata"]:
            shown = _public(event["metadata"])
            self._metadata[event["run_id"]] = event["metadata"], shown
        return shown

    def _line(self, told: Any) -> bytes:
        if type(self._execution.serializer) is WellKnownLCSerializer and _has_a_chunk_alone(told):
            key = told["run_id"], told["event"]
            envelope = self._envelopes.get(key)
            if envelope is None or envelope.metadata is not told["metadata"]:
                envelope = self._envelopes[key] = _Envelope(told)
            with suppress(Exception):  # It is told otherwise then.
                return envelope.around(told)
        return super()._line(told)

    def _is_of_the_root(self, event: Mapping[str, Any]) -> bool:
        """Tell whether an event is one of the root run's own; those it sends have other names."""
        if event["event"] == "on_custom_event":
            return False
        # A retriever does not take the run's id, and the first version names no parents.
        is_root = event["run_id"] == self.run_ids[0]
        return is_root or (self._version != "v1" and not event["parent_ids"])


def _has_a_chunk_alone(event: Mapping[str, Any]) -> bool:
    """Tell whether an event is one of many of its step, which differ in their chunks alone."""
    name: str = event["event"]
    return name.endswith("_stream") and event["data"].keys() == _CHUNK


_CHUNK = {"chunk"}


class _Envelope:
    """The JSON text around the chunks of a step's events, which is the same for all of them.

    Attributes:
        metadata: The metadata that is in it.
    """

    def __init__(self, event: Mapping[str, Any]) -> None:
        self.metadata = event["metadata"]
        names = [*event]
        at = names.index("data")
        before = {name: event[name] for name in names[:at]}
        after = {name: event[name] for name in names[at + 1 :]}
        self._before = _JSON.dumps(before)[:-1] + b',"data":{"chunk":'
        self._after = b"}," + _JSON.dumps(after)[1:]

    def around(self, event: Mapping[str, Any]) -> bytes:
        """Return an event as a line of JSON.

        Raises:
            OutputNotSerializableError: Its chunk has no JSON form.
        """
        return json_line(self._before + _JSON.dumps(event["data"]["chunk"]) + self._after)


_JSON = WellKnownLCSerializer()


def _public(metadata: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a step's metadata without what servers note for themselves."""
    return {key: value for key, value in metadata.items() if not str(key).startswith("__")}


def _has_its_own_log(runnable: Runnable[Any, Any]) -> bool:
    """Tell whether a runnable does not leave it to LangChain, as `RemoteRunnable` does not."""
    return type(runnable).astream_log is not Runnable.astream_log
