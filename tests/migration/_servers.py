"""The example servers, each in a process of its own, and what they answer."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

import httpx

from tests._pairs import normalised
from tests._processes import HOST, ROOT
from tests.migration._requests import Ask

EXAMPLES = Path(__file__).parent / "examples"


@contextmanager
def serving(folder: Path, package: str, modules: list[str]) -> Iterator[Mapping[str, int]]:
    """Serve the applications of a folder; gives the port of each.

    They listen from the start, so that the first request waits until its process is ready.
    """
    listeners = {module: socket.create_server((HOST, 0)) for module in modules}
    descriptors = {module: listener.fileno() for module, listener in listeners.items()}
    process = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).parent / "_launcher.py"),
            package,
            *(f"{module}={descriptor}" for module, descriptor in descriptors.items()),
        ],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        pass_fds=[*descriptors.values()],
        stdin=subprocess.PIPE,
    )
    ports = {module: listener.getsockname()[1] for module, listener in listeners.items()}
    for listener in listeners.values():
        listener.close()
    try:
        yield ports
    finally:
        process.communicate(timeout=10)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an example answered, without what is random in it.

    Attributes:
        status: The status code.
        kind: The media type.
        text: The body.
    """

    status: int
    kind: str
    text: str

    @property
    def detail(self) -> Any:
        """The `detail` of an error, or the text of one that has none."""
        try:
            body = loads(self.text)
        except JSONDecodeError:
            return self.text
        return body.get("detail", body) if isinstance(body, dict) else body

    def in_no_order(self) -> tuple[int, str, list[str]]:
        """Return the answer with its events sorted, and without the numbers of their ids."""
        return (
            self.status,
            self.kind,
            sorted(re.sub(r"<id \d+>", "<id>", self.text).split("\r\n\r\n")),
        )


def ask_all(port: int, requests: list[Ask]) -> list[Answer]:
    """Send requests to an example, one after another."""
    # LangServe breaks off connections, which then must not be used again.
    limits = httpx.Limits(max_keepalive_connections=0)
    options: Any = {"base_url": f"http://{HOST}:{port}", "limits": limits, "timeout": 120}
    with httpx.Client(**options, headers={"user-agent": "migration/1"}, verify=False) as client:
        return [_ask(client, asked) for asked in requests]


def _ask(client: httpx.Client, asked: Ask) -> Answer:
    content = b""
    headers = dict(asked.headers)
    with (
        client.stream(asked.method, asked.path, json=asked.json, headers=headers) as response,
        suppress(httpx.RemoteProtocolError),  # LangServe's streams that failed.
    ):
        for piece in response.iter_raw():
            content += piece
    kind = response.headers.get("content-type", "").partition(";")[0]
    body = normalised(content).decode().replace(str(client.base_url.port), "<port>")
    return Answer(response.status_code, kind, without_times(body))


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00)?")
_MARKS = re.compile(r'"__(?:useragent|(?:lang|chain)serve_version|langserve_endpoint)":"[^"]*",?')
_GRAPHS_ID = re.compile(r":[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def without_times(body: str) -> str:
    """Return a body without times, and without what a server notes for itself in metadata."""
    body = _GRAPHS_ID.sub(":<id>", _TIME.sub("<time>", body))
    return _MARKS.sub("", body).replace(",}", "}")
