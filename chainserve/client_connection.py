"""What a `RemoteRunnable` is made with: its server, its connections, and the calls it makes."""

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Self
from weakref import WeakKeyDictionary

from chainserve.answers import AnswerReader
from chainserve.calls import Call, StreamCall, new_key
from chainserve.client_requests import base_of, request_body, shown_url
from chainserve.exchanges import Exchanges
from chainserve.remote import RemoteRun
from chainserve.retries import Retries
from chainserve.serialization import Serializer, WellKnownLCSerializer

_LAST_RUNS: ContextVar[Mapping["RemoteConnection", RemoteRun]] = ContextVar("chainserve_last_runs")
"""The last run of each client in a context. One variable for all: a context keeps it for good."""


class RemoteConnection:
    """The server of a `RemoteRunnable`, which says what the arguments are."""

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
        max_retries: int = 5,
    ) -> None:
        if max_retries < 0:
            raise ValueError(f"max_retries is {max_retries}: it must be 0 or more.")
        self.url = base_of(str(url))
        self._options = {"timeout": timeout, "auth": auth, "headers": headers, "cookies": cookies}
        self._options |= {"verify": verify, "base_url": self.url.partition("?")[0]}
        self._options |= {"cert": cert} if cert is not None else {}
        self._options |= client_kwargs or {}
        self._max_retries = max_retries
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    @property
    def last_run(self) -> RemoteRun | None:
        """The run that was started, or joined, last by this client in this thread, task or context.

        A step of a sequence has a context of its own, which ends with it.
        """
        return _LAST_RUNS.get({}).get(self)

    def _new_run(self) -> RemoteRun:
        run = RemoteRun()
        _LAST_RUNS.set(WeakKeyDictionary({**_LAST_RUNS.get({}), self: run}))
        return run

    def _start(self, endpoint: str, body: bytes, kwargs: Mapping[str, Any], run: RemoteRun) -> Call:
        """Return the call that starts a run and answers its output."""
        return Call("POST", endpoint, body, run, self._retries(), **self._options_of(kwargs))

    def _stream(
        self,
        endpoint: str,
        body: bytes,
        kwargs: Mapping[str, Any],
        run: RemoteRun,
        **options: Any,
    ) -> StreamCall:
        """Return the call that starts a run and streams it; `options` are of `StreamCall`."""
        options |= self._options_of(kwargs)
        return StreamCall("POST", endpoint, body, run, self._retries(), self._answers, **options)

    def _options_of(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if kwargs:  # A server that cannot pass them on shall say so.
            options["prefer"] = ["handling=strict"]
        if self._max_retries:
            return {**options, "key": new_key()}
        return {**options, "repeatable": False}

    def _retries(self) -> Retries:
        return Retries(self._max_retries)

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
