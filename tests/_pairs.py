"""One request, two servers: LangServe 0.3.3 is the oracle for chainserve.

A pair is a runnable and a request. The runnable is made and mounted twice, once with each package's
`add_routes`, and both applications get the request. What is random in the answers, and nothing
else, is replaced before they are compared.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from json import dumps, loads
from typing import Any, TypeAlias

import langserve
import pytest
from fastapi import FastAPI
from langchain_core.runnables import Runnable
from langserve import api_handler
from pydantic import BaseModel
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

import chainserve
from tests._bridge import IncompleteBodyError, open_stream
from tests._server import RawConnection, serve


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """What a LangServe user imports, from one of the two packages."""

    name: str
    add_routes: Callable[..., None]
    CustomUserType: type[BaseModel]
    WellKnownLCSerializer: Any

    def __repr__(self) -> str:
        return self.name


LANGSERVE = Package(
    "langserve",
    langserve.add_routes,
    langserve.CustomUserType,
    langserve.serialization.WellKnownLCSerializer,
)
CHAINSERVE = Package(
    "chainserve",
    chainserve.add_routes,
    chainserve.CustomUserType,
    chainserve.WellKnownLCSerializer,
)
BOTH = pytest.mark.parametrize("package", [LANGSERVE, CHAINSERVE], ids=repr)

Chain: TypeAlias = Callable[[], Runnable[Any, Any]]
Options: TypeAlias = Callable[[Package], Mapping[str, Any]]
Mount: TypeAlias = Callable[[Package, Runnable[Any, Any], Mapping[str, Any]], ASGIApp]


def no_options(package: Package) -> Mapping[str, Any]:
    """Call `add_routes` with the runnable and the path alone."""
    return {}


def app_of(package: Package, runnable: Any, **options: Any) -> FastAPI:
    """Return an application of its own with the runnable at `/chain`."""
    app = FastAPI()
    package.add_routes(app, runnable, path="/chain", **options)
    return app


def at_chain(package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]) -> ASGIApp:
    """Mount at `/chain` of an application, without the endpoints that no pair asks."""
    lists = {} if _LISTS & options.keys() else {"enabled_endpoints": _ENDPOINTS}
    return app_of(package, runnable, **options, **lists)


_LISTS = {"enabled_endpoints", "disabled_endpoints"}
_ENDPOINTS = (
    "invoke",
    "batch",
    "stream",
    "stream_log",
    "stream_events",
    "input_schema",
    "output_schema",
    "config_schema",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A runnable and a request.

    Attributes:
        chain: Makes the runnable, for each package its own.
        target: What is asked, below `base`.
        body: Sent as JSON, or as it is when it is bytes.
        method: The HTTP method.
        headers: More header fields, or others.
        options: The arguments of `add_routes`, for the package they are meant for.
        mount: Makes the application.
        base: Where the mount puts the chain.
    """

    chain: Chain
    target: str
    body: Any = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Options = no_options
    mount: Mount = at_chain
    base: str = "/chain"

    @property
    def path(self) -> str:
        """The path of the request."""
        return f"{self.base}/{self.target}"

    @property
    def body_bytes(self) -> bytes:
        """The body as it is sent."""
        return self.body if isinstance(self.body, bytes) else dumps(self.body).encode()

    @property
    def all_headers(self) -> dict[str, str]:
        """The header fields as they are sent."""
        return {"content-type": "application/json", "user-agent": "pairs/1"} | dict(self.headers)

    def app(self, package: Package) -> ASGIApp:
        """Return the package's application with the chain; pairs that look alike share it."""
        return _mounted(package, self.chain, self.options, self.mount)


@cache
def _mounted(package: Package, chain: Chain, options: Options, mount: Mount) -> ASGIApp:
    return mount(package, chain(), options(package))


@dataclass(frozen=True, slots=True)
class Answer:
    """A response without what is random in it.

    Attributes:
        status: The status code.
        headers: The header fields, without date, server, and the body's framing.
        body: The body's bytes, with numbers in place of random ids.
        complete: Whether the body came to its end.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True

    @property
    def detail(self) -> Any:
        """The `detail` member of a JSON body, or the whole body."""
        if "json" not in self.headers.get("content-type", ""):
            return self.body
        return loads(self.body).get("detail", self.body)


Pairs: TypeAlias = dict[str, Pair]


def invoke(chain: Chain, value: Any, config: Any = None, **rest: Any) -> Pair:
    """Return a request to run once."""
    return Pair(chain=chain, target="invoke", body=_body("input", value, config), **rest)


def batch(chain: Chain, values: Any, config: Any = None, **rest: Any) -> Pair:
    """Return a request to run for each value."""
    return Pair(chain=chain, target="batch", body=_body("inputs", values, config), **rest)


def stream(chain: Chain, value: Any, config: Any = None, **rest: Any) -> Pair:
    """Return a request to run once and stream the chunks."""
    return Pair(chain=chain, target="stream", body=_body("input", value, config), **rest)


def get(chain: Chain, target: str, **rest: Any) -> Pair:
    """Return a request without a body, such as for a schema."""
    return Pair(chain=chain, target=target, method="GET", **rest)


def each_verb(name: str, chain: Chain, value: Any, config: Any = None, **rest: Any) -> Pairs:
    """Return the three requests that run the chain with a value; the batch has it twice."""
    return {
        f"invoke: {name}": invoke(chain, value, config, **rest),
        f"batch: {name}": batch(chain, [value, value], config, **rest),
        f"stream: {name}": stream(chain, value, config, **rest),
    }


def each_schema(name: str, chain: Chain, **rest: Any) -> Pairs:
    """Return the requests for the three schemas."""
    targets = ("input_schema", "output_schema", "config_schema")
    return {f"{target}: {name}": get(chain, target, **rest) for target in targets}


def option(**options: Any) -> Options:
    """Return arguments of `add_routes` that are the same for both packages."""
    return lambda package: options


def _body(name: str, value: Any, config: Any) -> dict[str, Any]:
    return {name: value} if config is None else {name: value, "config": config}


async def ask(package: Package, pair: Pair) -> Answer:
    """Send the pair's request to the package's application in this process."""
    # An application made with LangServe raises what a chain raised, also after its error event.
    async with open_stream(
        pair.app(package),
        pair.method,
        pair.path,
        body=pair.body_bytes,
        headers=pair.all_headers,
        raise_app_errors=False,
    ) as response:
        complete = True
        try:
            async for _ in response.chunks():
                pass
        except IncompleteBodyError:
            complete = False
    headers = {name: response.headers[name] for name in response.headers}
    return _answer(response.status, headers, b"".join(response.sends), complete)


async def ask_over_socket(package: Package, pair: Pair) -> Answer:
    """Send the pair's request to the package's application, served by uvicorn."""
    async with serve(pair.app(package)) as server, await RawConnection.open(server.port) as client:
        await client.send_request(
            pair.method, pair.path, headers=pair.all_headers, body=pair.body_bytes
        )
        status, headers = await client.read_head()
        pieces: list[bytes] = []
        complete = True
        try:
            while (piece := await client.next_chunk()) is not None:
                pieces.append(piece)
        except IncompleteBodyError:
            complete = False
    return _answer(status, {name: headers[name] for name in headers}, b"".join(pieces), complete)


def forget_oracle_state() -> None:
    """Undo what LangServe and sse-starlette keep in their modules.

    An event of sse-starlette belongs to the first event loop, and LangServe answers with any
    earlier chain's model of an equal schema.
    """
    AppStatus.should_exit = False
    AppStatus.should_exit_event = None
    api_handler._MODEL_REGISTRY.clear()
    api_handler._SEEN_NAMES.clear()


_RANDOM_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_PING_TIME = re.compile(rb"(?m)^: ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}(?=\r$)")
_FRAMING = {"date", "server", "content-length", "transfer-encoding"}


def normalised(body: bytes) -> bytes:
    """Replace random ids (UUIDs of version 4 and 7) by their number, and the times of pings."""
    numbers: dict[bytes, bytes] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return numbers.setdefault(found[0], b"<id %d>" % len(numbers))

    return _PING_TIME.sub(b": ping - <time>", _RANDOM_ID.sub(number, body))


def _answer(status: int, headers: Mapping[str, str], body: bytes, complete: bool) -> Answer:
    kept = {name: value for name, value in headers.items() if name not in _FRAMING}
    return Answer(status, kept, normalised(body), complete)
