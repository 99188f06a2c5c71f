"""`RemoteRunnable`: a served chain as a runnable, the counterpart of `langserve.client`."""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from contextvars import ContextVar
from copy import deepcopy
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

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
from langchain_core.runnables.utils import AddableDict
from langchain_core.tracers.log_stream import RunLogPatch

from chainserve.callbacks import ahandle_callbacks, handle_callbacks
from chainserve.remote import (
    EVENT_STREAM_HEADERS,
    AnswerReader,
    RemoteRun,
    StreamReader,
    request_body,
)
from chainserve.serialization import Serializer, WellKnownLCSerializer, load_events
from chainserve.transport import package_for

Input = TypeVar("Input")
Output = TypeVar("Output")

CONNECT_TIMEOUT = 10.0
"""Seconds in which a connection must be there, unless the caller sets a time-out."""

ANSWER_TIMEOUT = 600.0
"""Seconds for which an invoke or a batch may say nothing, unless the caller sets a time-out."""

STREAM_TIMEOUT = 60.0
"""Seconds for which a stream may say nothing, unless the caller sets a time-out.

A server sends a comment every 15 seconds when it has nothing else to send.
"""


class RemoteRunnable(Runnable[Input, Output]):
    """A chain on a server, as a runnable like any other: in sequences, with fallbacks, traced.

    It talks to chainserve and to LangServe alike, and takes the arguments of LangServe's
    `RemoteRunnable`. It may be used by many threads and tasks at once.

    A call that is cancelled, and a stream whose iterator is closed, closes its connection at once,
    with which the server cancels the run.

    Args:
        url: The URL below which the chain's routes are; with or without a slash at its end.
        timeout: Seconds, or httpx's `Timeout`. None stands for 10 seconds to connect, then 600 for
            an answer that does not come, and 60 between two signs of life of a stream.
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
        self.url = _with_slash(url)
        options = {"auth": auth, "headers": headers, "cookies": cookies, "verify": verify}
        options |= {"cert": cert} if cert is not None else {}
        options |= client_kwargs or {}
        self._http = package_for([timeout, *options.values()])
        default = self._http.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT)
        self._options = {"timeout": default if timeout is None else timeout, **options}
        self._stream_options: dict[str, Any] = {"headers": EVENT_STREAM_HEADERS}
        if timeout is None and "timeout" not in options:
            bounded = self._http.Timeout(STREAM_TIMEOUT, connect=CONNECT_TIMEOUT)
            self._stream_options["timeout"] = bounded
        self._use_server_callback_events = use_server_callback_events
        self._serializer = serializer or WellKnownLCSerializer()
        self._answers = AnswerReader(self._http, self._serializer)
        self._last_run: ContextVar[RemoteRun | None] = ContextVar("last_run", default=None)
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._clients)

    def __repr__(self) -> str:
        return f"RemoteRunnable({self.url!r})"

    @property
    def sync_client(self) -> Any:
        """The `httpx.Client` of the sync methods, made on first use."""
        return self._client("sync", self._http.Client)

    @sync_client.setter
    def sync_client(self, client: Any) -> None:
        self._clients["sync"] = client

    @property
    def async_client(self) -> Any:
        """The `httpx.AsyncClient` of the async methods, made on first use."""
        return self._client("async", self._http.AsyncClient)

    @async_client.setter
    def async_client(self, client: Any) -> None:
        self._clients["async"] = client

    def _client(self, kind: str, make: Any) -> Any:
        if (client := self._clients.get(kind)) is not None:
            return client
        with self._lock:  # Of two threads that come first, one makes it for both.
            if kind not in self._clients:
                self._clients[kind] = make(**self._options)
            return self._clients[kind]

    def close(self) -> None:
        """Close the connections of the sync methods; the next call opens one again."""
        if (client := self._clients.pop("sync", None)) is not None:
            client.close()

    async def aclose(self) -> None:
        """Close all connections; the next call opens one again."""
        self.close()
        if (client := self._clients.pop("async", None)) is not None:
            await client.aclose()

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
        """The run that was started last by this client in this thread, task or context."""
        return self._last_run.get()

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
        request = self._request(
            self.sync_client, "invoke", self._body(input, config, kwargs), kwargs
        )
        output, events = self._answers.output(self.sync_client.send(request), run)
        if self._use_server_callback_events and events:
            handle_callbacks(run_manager, _loaded(events))
        return output  # type: ignore[no-any-return]

    async def _ainvoke(
        self,
        run: RemoteRun,
        kwargs: Mapping[str, Any],
        input: Input,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
    ) -> Output:
        request = self._request(
            self.async_client, "invoke", self._body(input, config, kwargs), kwargs
        )
        output, events = self._answers.output(await self.async_client.send(request), run)
        if self._use_server_callback_events and events:
            await ahandle_callbacks(run_manager, _loaded(events))
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
        body = self._body(inputs, config, kwargs, "inputs")
        request = self._request(self.sync_client, "batch", body, kwargs)
        outputs, events = self._answers.output(self.sync_client.send(request), run)
        if self._use_server_callback_events:
            for manager, told in zip(run_manager, events, strict=False):
                handle_callbacks(manager, _loaded(told))
        return outputs  # type: ignore[no-any-return]

    async def _abatch(
        self,
        run: RemoteRun,
        kwargs: Mapping[str, Any],
        inputs: list[Input],
        run_manager: list[AsyncCallbackManagerForChainRun],
        config: list[RunnableConfig],
    ) -> list[Output]:
        body = self._body(inputs, config, kwargs, "inputs")
        request = self._request(self.async_client, "batch", body, kwargs)
        outputs, events = self._answers.output(await self.async_client.send(request), run)
        if self._use_server_callback_events:
            told = zip(run_manager, events, strict=False)
            await asyncio.gather(
                *[ahandle_callbacks(manager, _loaded(one)) for manager, one in told]
            )
        return outputs  # type: ignore[no-any-return]

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
        total = _Total()
        try:
            body = self._body(input, config, kwargs)
            with closing(self._streamed("stream", body, kwargs)) as chunks:
                for chunk in chunks:
                    yield total.add(chunk)
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
        return self._traced("stream", input, config, kwargs, {}, _Total())

    def astream_log(  # type: ignore[override]
        self,
        input: Input,
        config: RunnableConfig | None = None,
        *,
        diff: bool = True,
        with_streamed_output_list: bool = True,
        include_names: Sequence[str] | None = None,
        include_types: Sequence[str] | None = None,
        include_tags: Sequence[str] | None = None,
        exclude_names: Sequence[str] | None = None,
        exclude_types: Sequence[str] | None = None,
        exclude_tags: Sequence[str] | None = None,
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
        total = _TotalLog(whole=not diff)
        return self._traced("stream_log", input, config, kwargs, members, total)

    def astream_events(  # type: ignore[override]
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        version: Literal["v1", "v2"] | None = None,
        include_names: Sequence[str] | None = None,
        include_types: Sequence[str] | None = None,
        include_tags: Sequence[str] | None = None,
        exclude_names: Sequence[str] | None = None,
        exclude_types: Sequence[str] | None = None,
        exclude_tags: Sequence[str] | None = None,
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
        return self._traced("stream_events", input, config, kwargs, members, _TotalEvents())

    async def _traced(
        self,
        endpoint: str,
        input: Any,
        config: RunnableConfig | None,
        kwargs: Mapping[str, Any],
        members: Mapping[str, Any],
        total: "_Total",
    ) -> AsyncGenerator[Any]:
        """Yield what a stream carries, and tell the caller's callbacks of it."""
        config = ensure_config(config)
        manager = get_async_callback_manager_for_config(config)
        run_manager = await manager.on_chain_start(
            None, input, name=config.get("run_name") or self.get_name(), run_id=config.get("run_id")
        )
        try:
            body = self._body(input, config, kwargs, members=members)
            async with aclosing(self._astreamed(endpoint, body, kwargs)) as values:
                async for value in values:
                    yield total.add(value)
        except GeneratorExit:
            await run_manager.on_chain_end(total.output)
            raise
        except BaseException as error:
            await run_manager.on_chain_error(error)
            raise
        await run_manager.on_chain_end(total.output)

    def _streamed(self, endpoint: str, body: bytes, kwargs: Mapping[str, Any]) -> Generator[Any]:
        """Send a request and yield what its stream carries; see the class for what is raised."""
        request = self._request(self.sync_client, endpoint, body, kwargs, **self._stream_options)
        reader = StreamReader(self._answers, self._new_run(), request)
        response = self.sync_client.send(request, stream=True)
        try:
            if response.status_code != 200:
                self._answers.refuse(response, response.read())
            self._answers.expect_events(response)
            for data in response.iter_bytes():
                yield from reader.feed(data)
                if reader.ended:
                    return
        except self._http.RemoteProtocolError:
            pass  # The body was left unfinished, which is said below.
        finally:
            response.close()
        reader.finish()

    async def _astreamed(
        self, endpoint: str, body: bytes, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[Any]:
        """Send a request and yield what its stream carries; see the class for what is raised."""
        request = self._request(self.async_client, endpoint, body, kwargs, **self._stream_options)
        reader = StreamReader(self._answers, self._new_run(), request)
        response = await self.async_client.send(request, stream=True)
        try:
            if response.status_code != 200:
                self._answers.refuse(response, await response.aread())
            self._answers.expect_events(response)
            async for data in response.aiter_bytes():
                for value in reader.feed(data):
                    yield value
                if reader.ended:
                    return
        except self._http.RemoteProtocolError:
            pass  # The body was left unfinished, which is said below.
        finally:
            await response.aclose()
        reader.finish()

    def _new_run(self) -> RemoteRun:
        run = RemoteRun()
        self._last_run.set(run)
        return run

    def _body(
        self,
        value: Any,
        config: Any,
        kwargs: Mapping[str, Any],
        name: str = "input",
        members: Mapping[str, Any] | None = None,
    ) -> bytes:
        return request_body(name, self._serializer.dumps(value), config, kwargs, members or {})

    def _request(
        self, client: Any, endpoint: str, body: bytes, kwargs: Mapping[str, Any], **options: Any
    ) -> Any:
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        if kwargs:  # A server that cannot pass them on shall say so.
            headers["prefer"] = "handling=strict"
        return client.build_request(
            "POST", _below(self.url, endpoint), content=body, headers=headers, **options
        )


class _Total:
    """Adds up what a stream carries, for the callbacks; what cannot be added counts as unknown."""

    def __init__(self) -> None:
        self.output: Any = None
        self._adds_up = True
        self._is_first = True

    def add(self, value: Any) -> Any:
        """Return what the caller gets of a value: a dict can be added to the next one."""
        chunk = AddableDict(value) if isinstance(value, dict) else value
        if self._is_first:
            self._is_first, self.output = False, chunk
        elif self._adds_up:
            try:
                self.output = self.output + chunk
            except TypeError:
                self._adds_up, self.output = False, None
        return chunk


class _TotalLog(_Total):
    """Adds up the patches of a run log."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self._whole = whole

    def add(self, value: Any) -> Any:
        """Return the patch, or the log up to it."""
        # Adding patches up changes what they hold, which is the caller's.
        patch = RunLogPatch(*deepcopy(value["ops"]))
        self.output = RunLogPatch(*value["ops"]) if self.output is None else self._sum(value)
        return deepcopy(self._whole_log()) if self._whole else patch

    def _sum(self, value: Any) -> Any:
        return self.output + RunLogPatch(*value["ops"])

    def _whole_log(self) -> Any:
        return self.output if hasattr(self.output, "state") else self.output + RunLogPatch()


class _TotalEvents(_Total):
    """Keeps the events."""

    def __init__(self) -> None:
        super().__init__()
        self.output = []

    def add(self, value: Any) -> Any:
        """Return the event."""
        self.output.append(value)
        return value


def _loaded(events: Any) -> Any:
    """Return the events of one run as callbacks take them."""
    return load_events(events)


def _with_slash(url: str) -> str:
    """Return a URL whose path ends with a slash."""
    parts = urlsplit(url)
    return urlunsplit(parts if parts.path.endswith("/") else parts._replace(path=f"{parts.path}/"))


def _below(url: str, endpoint: str) -> str:
    """Return the URL of an endpoint; a query stays at the end."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + endpoint))


def _close(clients: dict[str, Any]) -> None:
    """Close what a collected `RemoteRunnable` has left, without waiting for anything."""
    if (client := clients.pop("sync", None)) is not None:
        client.close()
    if (client := clients.pop("async", None)) is None:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        # Its loop may be over; what is left of its connections then closes with their sockets.
        with suppress(Exception):
            asyncio.run(client.aclose())
        return
    loop.create_task(client.aclose())  # noqa: RUF006 - the loop holds it until it is done
