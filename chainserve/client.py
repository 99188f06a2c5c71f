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
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

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

from chainserve.answers import AnswerReader
from chainserve.callbacks import ahandle_callbacks, handle_callbacks
from chainserve.client_requests import base_of, request_body, shown_url
from chainserve.exchanges import Exchanges
from chainserve.remote import RemoteRun
from chainserve.serialization import Serializer, WellKnownLCSerializer, load_events
from chainserve.totals import Total, TotalEvents, TotalLog

Input = TypeVar("Input")
Output = TypeVar("Output")

_LAST_RUNS: ContextVar[Mapping["RemoteRunnable[Any, Any]", RemoteRun]] = ContextVar(
    "chainserve_last_runs"
)
"""The last run of each client in a context. One variable for all: a context keeps it for good."""


class RemoteRunnable(Runnable[Input, Output]):
    """A chain on a server, as a runnable like any other: in sequences, with fallbacks, traced.

    It talks to chainserve and to LangServe alike, and takes the arguments of LangServe's
    `RemoteRunnable`. It may be used by many threads and tasks at once.

    A call that is cancelled, and a stream whose iterator is closed, closes its connection at once,
    with which the server cancels the run.

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

    Attributes:
        url: The URL, with a slash at its end.

    Raises:
        RemoteStatusError: The server answered with an error, or told of one in its stream.
        StreamInterruptedError: A stream ended without its terminal event.
        UnexpectedAnswerError: What answered is no such server.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: Any = None,
        auth: Any = None,
        headers: Any = None,
        cookies: Any = None,
        verify: Any = True,
        cert: Any = None,
        client_kwargs: Mapping[str, Any] | None = None,
        use_server_callback_events: bool = True,
        serializer: Serializer | None = None,
    ) -> None:
        self.url = base_of(str(url))
        self._options = {"timeout": timeout, "auth": auth, "headers": headers, "cookies": cookies}
        self._options |= {"verify": verify, "base_url": self.url.partition("?")[0]}
        self._options |= {"cert": cert} if cert is not None else {}
        self._options |= client_kwargs or {}
        self._use_server_callback_events = use_server_callback_events
        self._serializer = serializer or WellKnownLCSerializer()
        self._answers = AnswerReader(self._serializer)
        self._exchanges = Exchanges(self.url, self._options, self._answers)

    def __repr__(self) -> str:
        return f"RemoteRunnable({shown_url(self.url)!r})"

    def __getstate__(self) -> dict[str, Any]:
        """A copy, in this process or another, has its arguments, and connections of its own."""
        return {name: value for name, value in vars(self).items() if name != "_exchanges"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._exchanges = Exchanges(self.url, self._options, self._answers)

    @property
    def sync_client(self) -> Any:
        """The `httpx.Client` of the sync methods, made on first use."""
        return self._exchanges.clients.sync

    @sync_client.setter
    def sync_client(self, client: Any) -> None:
        self._exchanges.clients.sync = client

    @property
    def async_client(self) -> Any:
        """The `httpx.AsyncClient` of the async methods: the running loop's, made on first use."""
        return self._exchanges.clients.in_loop

    @async_client.setter
    def async_client(self, client: Any) -> None:
        self._exchanges.clients.in_loop = client

    def close(self) -> None:
        """Close the connections of the sync methods; the next call opens one again."""
        self._exchanges.clients.close()

    async def aclose(self) -> None:
        """Close all connections; the next call opens one again."""
        await self._exchanges.clients.aclose()

    def __enter__(self) -> "RemoteRunnable[Input, Output]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> "RemoteRunnable[Input, Output]":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    @property
    def last_run(self) -> RemoteRun | None:
        """The run that was started last by this client in this thread, task or context.

        A step of a sequence has a context of its own, which ends with it.
        """
        return _LAST_RUNS.get({}).get(self)

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
        response, body = self._exchanges.send("invoke", self._body(input, config, kwargs), kwargs)
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
            "invoke", self._body(input, config, kwargs), kwargs
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
        response, body = self._exchanges.send("batch", self._bodies(inputs, config, kwargs), kwargs)
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
        request = self._bodies(inputs, config, kwargs)
        response, body = await self._exchanges.asend("batch", request, kwargs)
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
            run, body = self._new_run(), self._body(input, config, kwargs)
            with closing(self._exchanges.stream("stream", body, kwargs, run)) as chunks:
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
            async with aclosing(self._exchanges.astream(endpoint, body, kwargs, run)) as values:
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

    def _new_run(self) -> RemoteRun:
        run = RemoteRun()
        _LAST_RUNS.set(WeakKeyDictionary({**_LAST_RUNS.get({}), self: run}))
        return run

    def _body(
        self,
        input: Any,
        config: Any,
        kwargs: Mapping[str, Any],
        members: Mapping[str, Any] = MappingProxyType({}),
    ) -> bytes:
        return request_body("input", input, self._serializer, config, kwargs, members)

    def _bodies(self, inputs: Any, config: Any, kwargs: Mapping[str, Any]) -> bytes:
        return request_body("inputs", inputs, self._serializer, config, kwargs, {})
