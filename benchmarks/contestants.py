"""Those who are compared: two servers, constant bytes, and the chain without a server."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from json import loads
from typing import Any, Protocol

from benchmarks import wrk
from benchmarks.cases import Case
from benchmarks.http import KEY, encode_request, joined_chunks
from benchmarks.processes import (
    Asked,
    MeasuringError,
    Server,
    cores,
    cpu_seconds,
    cpu_seconds_of_each,
    resident_bytes,
)

_SETTLE_SECONDS = 0.05

OURS, THEIRS, CEILING, FLOOR = "chainserve", "langserve", "starlette", "in process"


@dataclass(frozen=True)
class Sample:
    """What some requests took.

    Attributes:
        requests: How many.
        cpu: Seconds of the contestant's processor time.
        seconds: Seconds on a clock on the wall.
        first: Seconds to the first chunk; the median.
    """

    requests: int
    cpu: float
    seconds: float
    first: float | None = None

    @property
    def cost(self) -> float:
        """Milliseconds of processor time for one request."""
        return self.cpu / self.requests * 1000

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return self.requests / self.seconds


class Contestant(Protocol):
    """Who can be asked many times."""

    def sample(self, requests: int, connections: int) -> Sample:
        """Ask, and return what that took."""


class InProcess:
    """The chain of a case, called in a process of its own."""

    def __init__(self, case: Case, process: Asked) -> None:
        self._case = case
        self._process = process

    def sample(self, requests: int, connections: int) -> Sample:
        """Call the chain."""
        taken = self._ask(requests, connections)
        return Sample(requests, taken["cpu"], taken["seconds"])

    def chunks(self) -> int:
        """Return how many chunks an answer has."""
        return int(self._ask(1, 1)["chunks"])

    def _ask(self, requests: int, connections: int) -> Any:
        return self._process.ask(case=self._case.name, requests=requests, connections=connections)


class Served:
    """A server, asked over sockets by the process that makes the load."""

    def __init__(self, case: Case, server: Server, load: Asked) -> None:
        self._case = case
        self._server = server
        self._load = load

    @property
    def kind(self) -> str:
        """Who serves."""
        return self._server.kind

    @property
    def request(self) -> bytes:
        """What is sent."""
        return request_of(self._case, self.kind)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have the load ask something of this server."""
        request = self.request.decode("latin-1")
        arguments = {"port": self._server.port, "request": request, **arguments}
        return self._load.ask(do=do, **arguments)

    def ask_for(self, seconds: int, connections: int) -> tuple[int, float]:
        """Have wrk ask for some seconds; return how many answers came, and in which time."""
        return wrk.ask_for(
            self._server.port, self.request, seconds=seconds, connections=connections
        )

    def cpu_seconds_of_each(self) -> dict[int, float]:
        """Return what each of the server's processes has used."""
        time.sleep(_SETTLE_SECONDS)
        return cpu_seconds_of_each(self._server.pid)

    def cpu_seconds(self) -> float:
        """Return what the server has used, once it has tidied up after its last answer."""
        time.sleep(_SETTLE_SECONDS)
        return cpu_seconds(self._server.pid)

    def resident_bytes(self) -> int:
        """Return the server's memory, once it has tidied up after its last answer."""
        time.sleep(_SETTLE_SECONDS)
        return resident_bytes(self._server.pid)

    def sample(self, requests: int, connections: int) -> Sample:
        """Send requests."""
        before = self.cpu_seconds()
        took = self.ask(
            "many",
            requests=requests,
            connections=connections,
            ends_with="event: end" if self._case.streams else "}",
        )
        cpu = self.cpu_seconds() - before
        return Sample(requests, cpu, took["seconds"], took["first"])

    def check(self, chunks: int) -> None:
        """Ask once.

        Raises:
            MeasuringError: The answer has not so many chunks.
        """
        answer = self.ask("once")
        received, who = answer["received"].encode("latin-1"), f"{self.kind}, {self._case.name}"
        if answer["status"] != 200:
            raise MeasuringError(f"{who} answers {answer['status']}: {received!r}")
        counted = count_chunks(self._case, received)
        if counted != chunks:
            raise MeasuringError(f"{who} answers {counted} chunks of {chunks}")


def request_of(case: Case, kind: str) -> bytes:
    """Return a request: our streams are asked for as those that can be resumed."""
    headers = {"content-type": "application/json", "accept": "application/json"}
    if case.streams:
        headers["accept"] = "text/event-stream"
        if kind == OURS and case.resumable:
            headers |= {"prefer": "resumable", "idempotency-key": KEY.decode()}
    return encode_request("POST", case.target, headers, case.content)


def count_chunks(case: Case, received: bytes) -> int:
    """Return how many chunks an answer has; outputs that are not there are none."""
    _, _, body = received.partition(b"\r\n\r\n")
    if case.streams:
        return joined_chunks(body).count(b"event: data\r\n")
    answer: Mapping[str, Any] = loads(body)
    return 1 if answer.get("output") else 0


class Field:
    """Everybody who takes part, each in a process of its own.

    Args:
        alone: The process of the chains without a server.
        servers: The servers.
        load: The process that makes the load.
    """

    def __init__(self, alone: Asked, servers: Sequence[Server], load: Asked) -> None:
        self._alone = alone
        self._servers = {server.kind: server for server in servers}
        self._load = load

    def served(self, case: Case, kind: str) -> Served:
        """Return one of the servers, asked for a case."""
        return Served(case, self._servers[kind], self._load)

    def contestants(self, case: Case) -> dict[str, Contestant]:
        """Return who is measured in a case, once all of them have answered what they should.

        Raises:
            MeasuringError: A server has not answered what the chain says.
        """
        floor = InProcess(case, self._alone)
        chunks = floor.chunks()
        found: dict[str, Contestant] = {FLOOR: floor}
        for kind in self._servers:
            found[kind] = one = self.served(case, kind)
            one.check(chunks)
        return found


@contextmanager
def field(
    cases: Sequence[Case], load: Asked, kinds: Sequence[str] = (CEILING, OURS, THEIRS)
) -> Iterator[Field]:
    """Start everything that some cases need, with servers of these kinds."""
    core, other = cores()
    with ExitStack() as stack:
        names, environment = [case.name for case in cases], {}
        if any(case.upstream for case in cases):
            upstream = stack.enter_context(Asked(["upstream"], other))
            environment["OPENAI_BASE_URL"] = upstream.ask()
        alone = stack.enter_context(Asked(["in_process", *names], core, environment))
        servers = [stack.enter_context(Server(kind, names, core, environment)) for kind in kinds]
        for server in servers:
            server.wait()
            server.pin()
        alone.ask(case=names[0], requests=1, connections=1)
        alone.pin()
        yield Field(alone, servers, load)


Start = Callable[[Case, str, Asked], AbstractContextManager[Served]]
"""Starts a server of some kind for a case, and ends it."""


@contextmanager
def served(case: Case, kind: str, load: Asked, *, pinned: bool = True) -> Iterator[Served]:
    """Start one server for one case, on a core of its own or on all of them."""
    with Server(kind, [case.name], cores()[0]) as server:
        server.wait()
        if pinned:
            server.pin()
        yield Served(case, server, load)
