"""The connections of a `RemoteRunnable`: whose they are, and when and by whom they are closed."""

import asyncio
import copy
import gc
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anyio.from_thread
import httpx
import httpx2
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda

import chainserve
from chainserve import RemoteRunnable
from chainserve.client_connection import _LAST_RUNS
from chainserve.transport import HTTPClients
from tests._chains import echo, streaming
from tests._server import serve

WAIT_SECONDS = 10


class Server:
    """A server of `/echo` and `/abc` in a thread of its own, and the ports that called it."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.url = ""
        self.app = FastAPI()
        chainserve.add_routes(self.app, echo(), path="/echo")
        chainserve.add_routes(self.app, streaming("a", "b"), path="/abc")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.ports.append(scope["client"][1])
        await self.app(scope, receive, send)

    def client(self, path: str = "/echo", **options: Any) -> RemoteRunnable[Any, Any]:
        return RemoteRunnable(self.url + path, **{"verify": False, **options})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a client that no server has told a time yet ask again at once."""
    monkeypatch.setattr("chainserve.retries.FIRST_RETRY_MS", 1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    served = Server()
    with ExitStack() as stack:
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
        running = stack.enter_context(portal.wrap_async_context_manager(serve(served)))
        served.url = running.base_url
        yield served


class Loop:
    """An event loop that runs in a thread of its own until the block ends; it keeps its errors."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.run(self.loop.shutdown_asyncgens())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_SECONDS)
        self.loop.close()

    def run(self, call: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(WAIT_SECONDS)

    def until_closed(self, client: Any) -> None:
        async def wait() -> None:
            while not client.is_closed:
                await checkpoint()  # httpx has no event to wait for.

        self.run(wait())


async def streamed(client: RemoteRunnable[Any, Any]) -> list[Any]:
    return [chunk async for chunk in client.astream(1)]


# Loops.


def test_one_client_serves_one_loop_after_another(server: Server) -> None:
    client = server.client()

    assert [asyncio.run(client.ainvoke(n)) for n in range(3)] == [0, 1, 2]


def test_one_client_serves_loops_at_the_same_time(server: Server) -> None:
    client = server.client()
    with Loop() as one, Loop() as other:
        assert [loop.run(client.ainvoke(n)) for n in range(3) for loop in (one, other)] == [
            0, 0, 1, 1, 2, 2,
        ]  # fmt: skip
        clients = [loop.run(_client_of(client)) for loop in (one, other, one)]

    assert clients[0] is clients[2] is not clients[1]
    assert all(one.is_closed for one in clients)


async def _client_of(client: RemoteRunnable[Any, Any]) -> Any:
    return client.async_client


def test_a_loop_that_ends_leaves_no_connection_open(server: Server) -> None:
    async def call(client: RemoteRunnable[Any, Any]) -> Any:
        await client.ainvoke(1)
        return client.async_client

    client = server.client()
    assert asyncio.run(call(client)).is_closed
    # With warnings as errors, a socket that was left open would fail here.
    del client
    gc.collect()


def test_what_is_collected_is_closed_by_its_own_loop(server: Server) -> None:
    with Loop() as loop:
        client = server.client()
        loop.run(client.ainvoke(1))
        opened = loop.run(_client_of(client))

        async def collect_in_another_loop() -> None:
            nonlocal client
            del client
            gc.collect()

        asyncio.run(collect_in_another_loop())
        loop.until_closed(opened)

    assert loop.errors == []


def test_what_is_collected_where_no_loop_runs_is_closed_and_starts_none(server: Server) -> None:
    with Loop() as loop:
        client = server.client()
        loop.run(client.ainvoke(1))
        client.invoke(1)
        opened, sync = loop.run(_client_of(client)), client.sync_client
        own = asyncio.new_event_loop()
        asyncio.set_event_loop(own)
        try:
            del client
            gc.collect()

            assert sync.is_closed
            assert asyncio.get_event_loop_policy().get_event_loop() is own
        finally:
            asyncio.set_event_loop(None)
            own.close()
        loop.until_closed(opened)

    assert loop.errors == []


def test_closing_in_one_loop_closes_those_of_others_too(server: Server) -> None:
    client = server.client()
    with Loop() as one, Loop() as other:
        one.run(client.ainvoke(1))
        other.run(client.ainvoke(1))
        opened = [loop.run(_client_of(client)) for loop in (one, other)]
        one.run(client.aclose())
        other.until_closed(opened[1])

        assert opened[0].is_closed
        assert one.run(client.ainvoke(2)) == 2
    assert one.errors == other.errors == []


def test_what_was_set_up_where_no_loop_runs_is_used(server: Server) -> None:
    client = server.client()
    prepared = client.async_client
    assert client.async_client is prepared

    async def both() -> tuple[Any, Any]:
        return await client.ainvoke(1), client.async_client

    assert asyncio.run(both()) == (1, prepared)
    assert asyncio.run(both())[1] is not prepared


def test_a_client_that_its_user_has_closed_is_made_anew(server: Server) -> None:
    client = server.client()

    async def close_between() -> list[Any]:
        answers = [await client.ainvoke(1)]
        await client.async_client.aclose()
        return [*answers, await client.ainvoke(2)]

    assert asyncio.run(close_between()) == [1, 2]
    client.sync_client.close()
    assert client.invoke(3) == 3


def test_loops_that_are_over_are_forgotten(server: Server) -> None:
    clients = HTTPClients(httpx2, {"verify": False})

    async def open_one() -> None:
        assert clients.in_loop

    for _ in range(5):
        asyncio.run(open_one())
    gc.collect()

    assert len(clients._kept) <= 1


# Connections.


def test_a_connection_is_used_again(server: Server) -> None:
    client, stream = server.client(), server.client("/abc")
    server.ports.clear()
    for n in range(3):
        client.invoke(n)
    assert len(set(server.ports)) == 1

    async def call() -> None:
        for n in range(3):
            await client.ainvoke(n)
        for _ in range(3):
            assert await streamed(stream) == ["a", "b"]

    server.ports.clear()
    asyncio.run(call())
    assert len(set(server.ports)) == 2
    client.close()


def test_an_error_leaves_the_connection_usable(server: Server) -> None:
    client = server.client("/none")
    server.ports.clear()
    for _ in range(3):
        with pytest.raises(chainserve.RemoteStatusError):
            client.invoke(1)
        with pytest.raises(chainserve.RemoteStatusError):
            list(client.stream(1))

    assert len(set(server.ports)) == 1
    client.close()


def test_a_stream_that_stays_open_after_its_end_is_left() -> None:
    async def read() -> tuple[list[Any], float]:
        loop = asyncio.get_running_loop()
        left = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
            writer.write(head + b"event: data\ndata: 1\n\nevent: end\n\n")
            await reader.read()
            writer.close()
            left.set()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            client = RemoteRunnable[Any, Any](f"http://127.0.0.1:{port}/x", verify=False)
            start = loop.time()
            chunks = await streamed(client)
            sync = await asyncio.to_thread(lambda: list(client.stream(1)))
            took = loop.time() - start
            await asyncio.wait_for(left.wait(), WAIT_SECONDS)
            await client.aclose()
        return chunks + sync, took

    chunks, took = asyncio.run(read())

    assert chunks == [1, 1]
    assert took < 5


_FORK = """
import os
from chainserve import RemoteRunnable

client = RemoteRunnable({url!r}, verify=False)
client.invoke(1)
for n in (2, 3):
    if os.fork() == 0:
        os._exit(client.invoke(n))
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status))
print(client.invoke(4))
client.close()
"""


def test_a_forked_process_opens_connections_of_its_own(server: Server) -> None:
    server.ports.clear()
    done = subprocess.run(
        [sys.executable, "-c", _FORK.format(url=f"{server.url}/echo/")],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip

    assert done.stdout == "2\n3\n4\n", done.stderr
    of_parent, of_first, of_second, again = server.ports
    assert len({of_parent, of_first, of_second}) == 3
    assert again == of_parent


# Copies.


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda client: pickle.loads(pickle.dumps(client))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_works_on_its_own(server: Server, copied: Any) -> None:
    client = server.client(headers={"x": "y"}, timeout=30)
    client.invoke(1)
    twin = copied(client)
    client.close()
    del client
    gc.collect()

    assert twin.invoke(2) == 2
    assert asyncio.run(twin.ainvoke(3)) == 3
    assert (twin.sync_client.headers["x"], twin.sync_client.timeout.read) == ("y", 30)
    assert twin.last_run is not None


def test_a_client_may_be_bound_and_configured(server: Server) -> None:
    client = server.client()
    bound = client.with_config(tags=["a"]).bind()
    assert bound.invoke(1) == 1
    assert copy.deepcopy(bound).invoke(2) == 2
    assert (RunnableLambda(lambda x: x + 1) | pickle.loads(pickle.dumps(client))).invoke(1) == 2


def test_a_status_error_can_be_pickled(server: Server) -> None:
    with pytest.raises(chainserve.RemoteStatusError) as caught:
        server.client("/none").invoke(1)
    error = pickle.loads(pickle.dumps(caught.value))

    assert str(error) == str(caught.value)
    assert (error.status_code, error.code) == (404, caught.value.code)
    assert error.response.status_code == caught.value.response.status_code
    assert error.request.url == caught.value.request.url


def test_many_clients_leave_nothing_behind_in_a_context(server: Server) -> None:
    def answer(_: Any) -> Any:
        return httpx2.Response(200, json={"output": 1})

    kept = RemoteRunnable[Any, Any](
        "http://test/x", client_kwargs={"transport": httpx2.MockTransport(answer)}, verify=False
    )
    kept.invoke(1)
    for n in range(20):
        other = RemoteRunnable[Any, Any](
            f"http://test/{n}",
            client_kwargs={"transport": httpx2.MockTransport(answer)},
            verify=False,
        )
        other.invoke(1)
        assert other.last_run is not kept.last_run is not None
    del other
    gc.collect()

    assert [c for c in _LAST_RUNS.get() if c.url.startswith("http://test/")] == [kept]


# Libraries.


class Token(httpx.Auth):
    """A user's own class, as httpx's documentation has it."""

    def auth_flow(self, request: Any) -> Any:
        request.headers["authorization"] = "Bearer x"
        yield request


@pytest.mark.parametrize(
    "options",
    [
        {"auth": Token()},
        {"client_kwargs": {"mounts": {"http://": httpx.HTTPTransport()}}},
        {"client_kwargs": {"limits": httpx.Limits(max_connections=1)}},
        {"timeout": httpx.Timeout(5)},
        {"client_kwargs": {"event_hooks": {"request": []}}},
    ],
    ids=["auth", "mounts", "limits", "timeout", "hooks"],
)
def test_the_library_whose_objects_are_given_is_used(server: Server, options: Any) -> None:
    with server.client(**options) as client:
        assert client.invoke(1) == 1
        expected = httpx2.Client if "hooks" in str(options) else httpx.Client
        assert isinstance(client.sync_client, expected)


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_client_of_either_library_may_be_given(server: Server, package: Any) -> None:
    remote, stream = server.client("/none"), server.client("/abc")
    remote.sync_client = stream.sync_client = package.Client(verify=False)
    with pytest.raises(package.HTTPStatusError) as caught:
        remote.invoke(1)
    assert isinstance(caught.value.response, package.Response)
    assert list(stream.stream(1)) == ["a", "b"]

    async def in_loop() -> list[Any]:
        stream.async_client = package.AsyncClient(verify=False)
        try:
            return await streamed(stream)
        finally:
            await stream.aclose()

    assert asyncio.run(in_loop()) == ["a", "b"]
    remote.close()


TRANSPORT_ERRORS = sorted(
    name
    for name, value in vars(httpx).items()
    if isinstance(value, type) and issubclass(value, httpx.RequestError | httpx.InvalidURL)
)
CALLS: dict[str, Callable[[RemoteRunnable[Any, Any]], Any]] = {
    "invoke": lambda client: client.invoke(1),
    "ainvoke": lambda client: asyncio.run(client.ainvoke(1)),
    "stream": lambda client: list(client.stream(1)),
    "astream": lambda client: asyncio.run(streamed(client)),
}


def raising(package: Any, error: Exception) -> RemoteRunnable[Any, Any]:
    """Return a client whose transport, of one of the libraries, raises an error."""

    def fail(request: Any) -> Any:
        raise error from OSError("of the network")

    return RemoteRunnable(
        "http://test/x", client_kwargs={"transport": package.MockTransport(fail)}, verify=False
    )


@pytest.mark.parametrize("name", TRANSPORT_ERRORS)
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_what_one_library_raises_is_caught_as_the_others_too(package: Any, name: str) -> None:
    client = raising(package, getattr(package, name)("what was wrong"))
    for call in CALLS.values():
        with pytest.raises(getattr(package, name), match="what was wrong") as caught:
            call(client)
        assert all(isinstance(caught.value, getattr(both, name)) for both in (httpx, httpx2))


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_an_error_of_the_transport_stays_the_one_that_was_raised(package: Any) -> None:
    raised = package.ReadTimeout("too late")
    for call in CALLS.values():
        with pytest.raises(httpx.TransportError) as caught:
            call(raising(package, raised))
        error = caught.value

        assert error is raised
        assert repr(error) == "ReadTimeout('too late')"
        assert str(error.request.url).startswith("http://test/x/")
        assert repr(error.__cause__) == "OSError('of the network')"
        [*_, last] = traceback.format_exception(error)
        assert last == f"{package.__name__}.ReadTimeout: too late\n"
        assert "raise error from OSError" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_of_the_transport_can_be_copied_and_pickled(copied: Any) -> None:
    with pytest.raises(httpx.ConnectTimeout) as caught:
        raising(httpx2, httpx2.ConnectTimeout("too late")).invoke(1)
    twin = copied(caught.value)

    assert isinstance(twin, httpx.ConnectTimeout)
    assert type(twin) is type(caught.value)
    assert repr(twin) == "ConnectTimeout('too late')"
    assert twin.request.url == "http://test/x/invoke"


class Unresolved(httpx.ConnectError):
    """A user's own class, as a transport that looks up names in a way of its own has it."""

    __slots__ = ("name",)


def test_an_error_of_a_users_own_class_stays_of_it() -> None:
    for caught_as in (Unresolved, httpx.ConnectError, httpx2.ConnectError):
        with pytest.raises(caught_as) as caught:
            raising(httpx, Unresolved("x")).invoke(1)
        assert repr(caught.value) == "Unresolved('x')"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_refused_connection_is_caught_as_of_either_library(call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for caught_as in (httpx, httpx2):
        with pytest.raises(caught_as.ConnectError):
            call(RemoteRunnable(f"http://127.0.0.1:{port}/x", verify=False))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_url_that_no_request_can_have_is_caught_as_of_either_library(call: Any) -> None:
    for caught_as in (httpx, httpx2):
        with pytest.raises(caught_as.InvalidURL):
            call(RemoteRunnable("http://test:port/x", verify=False))


_CALL = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {blocked} else find_spec(name, package))
import asyncio
from chainserve import RemoteRunnable, RemoteStatusError
remote = RemoteRunnable({url!r}, verify=False)
print(remote.invoke(1), asyncio.run(remote.ainvoke(2)), type(remote.sync_client).__module__)
try:
    RemoteRunnable({url!r} + "none", verify=False).invoke(1)
except RemoteStatusError as error:
    print([cls.__module__ for cls in type(error).__mro__ if cls.__name__ == "HTTPStatusError"])
try:
    RemoteRunnable("http://test:port/x", verify=False).invoke(1)
except Exception as error:
    print([cls.__module__ for cls in type(error).__mro__ if cls.__name__ == "InvalidURL"])
"""

SERVER_ONLY = ["fastapi", "starlette", "structlog", "pydantic_settings", "uvicorn", "langserve"]


@pytest.mark.parametrize(
    ("blocked", "expected"),
    [
        (["httpx2", *SERVER_ONLY], "1 2 httpx\n['httpx']\n['httpx']\n"),
        (["httpx", *SERVER_ONLY], "1 2 httpx2\n['httpx2']\n['httpx2']\n"),
    ],
    ids=["httpx alone", "httpx2 alone"],
)
def test_one_library_is_enough(server: Server, blocked: list[str], expected: str) -> None:
    code = _CALL.format(blocked=set(blocked), url=f"{server.url}/echo/")
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip

    assert done.stdout == expected, done.stderr
    assert done.stderr == ""
