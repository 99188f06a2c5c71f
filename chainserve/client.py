"""`RemoteRunnable`: a served chain as a runnable, the counterpart of `langserve.client`."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import aclosing, closing
from functools import partial
from typing import Any, Literal, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
)
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from langchain_core.runnables.schema import StreamEvent
from langchain_core.tracers.log_stream import RunLogPatch

from chainserve.callbacks import ahandle_callbacks, handle_callbacks
from chainserve.client_runs import RemoteRuns
from chainserve.remote import RemoteRun
from chainserve.serialization import load_events
from chainserve.totals import Total, TotalEvents, TotalLog

Input = TypeVar("Input")
Output = TypeVar("Output")


class RemoteRunnable(RemoteRuns[Input, Output], Runnable[Input, Output]):
    """A chain on a server, as a runnable like any other: in sequences, with fallbacks, traced.

    It talks to chainserve and to LangServe alike, and takes the arguments of LangServe's
    `RemoteRunnable`. It may be used by many threads and tasks at once.

    On a chainserve, what the network breaks goes on by itself: a stream is read on from the last
    event that came, so that each chunk is handed out once, and a start whose answer was lost is
    sent again without a second run, for each has an idempotency key. LangServe can do neither:
    there a cut stream raises, and nothing is sent twice.

    A call that is cancelled, and a stream whose iterator is closed, closes its connection and tells
    the server to cancel the run, which takes 2 seconds at most.

    Args:
        url: The URL below which the chain's routes are; with or without a slash at its end.
        timeout: Seconds, or httpx's `Timeout`. None stands for 10 seconds to connect, then 600 for
            an answer that does not come, and 60 between two signs of life of a stream;
            `httpx.Timeout(None)` for no bound at all.
        auth: As httpx's clients take it.
        headers: As httpx's clients take them.
        cookies: As httpx's clients take them.
        verify: As httpx's clients take it.
        cert: As httpx's clients take it.
        client_kwargs: More arguments for both of httpx's clients.
        use_server_callback_events: Whether what the server tells of its steps is passed on to the
            callbacks of the caller.
        serializer: Writes inputs and reads outputs; LangChain's well-known types when None.
        max_retries: How many attempts in a row may bring nothing before a call fails. Between them
            it waits a random time up to one second, or what the server asks for, then up to twice
            as long each time, 10 seconds at most. 0 behaves as LangServe's client does.

    Attributes:
        url: The URL, with a slash at its end.

    Raises:
        RemoteStatusError: The server answered with an error, or told of one in its stream.
        StreamInterruptedError: A stream was cut, and could not be read to its end.
        UnexpectedAnswerError: What answered is no such server.
    """

    # Calls that answer once.

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """Run the chain once; `kwargs` are sent to its runnable, as far as the server lets them.

        Raises:
            RemoteError: See the class.
        """
        return self._call_with_config(partial(self._invoke, self._new_run(), kwargs), input, config)

    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        """Run the chain once, as `invoke` does."""
        call = partial(self._ainvoke, self._new_run(), kwargs)
        return await self._acall_with_config(call, input, config)

    def _invoke(
        self,
        run: RemoteRun,
        kwargs: Mapping[str, Any],
        input: Input,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> Output:
        response, body = self._exchanges.send(
            self._start("invoke", self._body(input, config, kwargs), kwargs, run)
        )
        output, events = self._answers.output(response, body, run)
        if self._use_server_callback_events:
            handle_callbacks(run_manager, load_events(events))
        return output  # type: ignore[no-any-return]

    async def _ainvoke(
        self,
        run: RemoteRun,
        kwargs: Mapping[str, Any],
        input: Input,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> Output:
        response, body = await self._exchanges.asend(
            self._start("invoke", self._body(input, config, kwargs), kwargs, run)
        )
        output, events = self._answers.output(response, body, run)
        if self._use_server_callback_events:
            await ahandle_callbacks(run_manager, load_events(events))
        return output  # type: ignore[no-any-return]

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Run the chain for each input, all in one request.

        With `return_exceptions` there is a request for each, for one that fails fails a batch.

        Raises:
            RemoteError: See the class.
        """
        if return_exceptions:
            return super().batch(inputs, config, return_exceptions=True, **kwargs)
        call: Any = partial(self._batch, self._new_run(), kwargs)
        return self._batch_with_config(call, inputs, config)

    async def abatch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """Run the chain for each input, as `batch` does."""
        if return_exceptions:
            return await super().abatch(inputs, config, return_exceptions=True, **kwargs)
        call: Any = partial(self._abatch, self._new_run(), kwargs)
        return await self._abatch_with_config(call, inputs, config)

    def _batch(
        self,
        run: RemoteRun,
        kwargs: Mapping[str, Any],
        inputs: list[Input],
        run_manager: list[CallbackManagerForChainRun],
        config: list[RunnableConfig],
    ) -> list[Output]:
        response, body = self._exchanges.send(
            self._start("batch", self._bodies(inputs, config, kwargs), kwargs, run)
        )
        outputs, events = self._answers.outputs(response, body, run, len(inputs))
        if self._use_server_callback_events:
            for manager, told in zip(run_manager, events, strict=False):
                handle_callbacks(manager, load_events(told))
        return outputs

    async def _abatch(
        self,
        run: RemoteRun,
        kwargs: Mapping[str, Any],
        inputs: list[Input],
        run_manager: list[AsyncCallbackManagerForChainRun],
        config: list[RunnableConfig],
    ) -> list[Output]:
        response, body = await self._exchanges.asend(
            self._start("batch", self._bodies(inputs, config, kwargs), kwargs, run)
        )
        outputs, events = self._answers.outputs(response, body, run, len(inputs))
        if self._use_server_callback_events:
            told = zip(run_manager, events, strict=False)
            await asyncio.gather(
                *[ahandle_callbacks(manager, load_events(one)) for manager, one in told]
            )
        return outputs

    # Calls that stream.

    def stream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """Run the chain once and yield its chunks as they come.

        Raises:
            RemoteError: See the class; also after chunks.
        """
        config = ensure_config(config)
        manager = get_callback_manager_for_config(config)
        run_manager = manager.on_chain_start(
            None, input, name=config.get("run_name") or self.get_name(), run_id=config.get("run_id")
        )
        total = Total(counts=bool(run_manager.handlers))
        try:
            call = self._stream(
                "stream", self._body(input, config, kwargs), kwargs, self._new_run()
            )
            with closing(self._exchanges.stream(call)) as chunks:
                for chunk in chunks:
                    yield total.take(chunk)
        except GeneratorExit:
            run_manager.on_chain_end(total.output)
            raise
        except BaseException as error:
            run_manager.on_chain_error(error)
            raise
        run_manager.on_chain_end(total.output)

    def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """Run the chain once and yield its chunks, as `stream` does."""
        return self._traced("stream", input, config, kwargs, {}, Total)

    def astream_log(  # type: ignore[override]
        self,
        input: Input,
        config: RunnableConfig | None = None,
        *,
        diff: bool = True,
        with_streamed_output_list: bool = True,
        include_names: Collection[str] | None = None,
        include_types: Collection[str] | None = None,
        include_tags: Collection[str] | None = None,
        exclude_names: Collection[str] | None = None,
        exclude_types: Collection[str] | None = None,
        exclude_tags: Collection[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[RunLogPatch]:
        """Run the chain once and yield patches of its run log; with `diff=False`, whole logs.

        The server decides what the log has, `with_streamed_output_list` nothing.
        """
        members: dict[str, Any] = {
            "diff": True,
            "include_names": include_names,
            "include_types": include_types,
            "include_tags": include_tags,
            "exclude_names": exclude_names,
            "exclude_types": exclude_types,
            "exclude_tags": exclude_tags,
        }
        total = partial(TotalLog, whole=not diff)
        return self._traced("stream_log", input, config, kwargs, members, total)

    def astream_events(  # type: ignore[override]
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2"] | None = None,
        include_names: Collection[str] | None = None,
        include_types: Collection[str] | None = None,
        include_tags: Collection[str] | None = None,
        exclude_names: Collection[str] | None = None,
        exclude_types: Collection[str] | None = None,
        exclude_tags: Collection[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[StreamEvent]:
        """Run the chain once and yield LangChain's events of its steps.

        Which `version` they are of is the server's choice.
        """
        members: dict[str, Any] = {
            "include_names": include_names,
            "include_types": include_types,
            "include_tags": include_tags,
            "exclude_names": exclude_names,
            "exclude_types": exclude_types,
            "exclude_tags": exclude_tags,
        }
        return self._traced("stream_events", input, config, kwargs, members, TotalEvents)

    async def _traced(
        self,
        endpoint: str,
        input: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        members: Mapping[str, Any],
        make_total: Callable[..., Total],
    ) -> AsyncGenerator[Any]:
        """Yield what a stream carries, and tell the caller's callbacks of it."""
        config = ensure_config(config)
        manager = get_async_callback_manager_for_config(config)
        run_manager = await manager.on_chain_start(
            None, input, name=config.get("run_name") or self.get_name(), run_id=config.get("run_id")
        )
        total = make_total(counts=bool(run_manager.handlers))
        try:
            run, body = self._new_run(), self._body(input, config, kwargs, members)
            call = self._stream(endpoint, body, kwargs, run)
            async with aclosing(self._exchanges.astream(call)) as values:
                async for value in values:
                    if run.run_id is None:
                        run.note_first(endpoint, value, members)
                    yield total.take(value)
        except GeneratorExit:
            await run_manager.on_chain_end(total.output)
            raise
        except BaseException as error:
            await run_manager.on_chain_error(error)
            raise
        await run_manager.on_chain_end(total.output)
