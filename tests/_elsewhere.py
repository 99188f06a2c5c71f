"""A server that is no chain's, or hangs up within a stream, and the fixture that runs it."""

import http.server
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from tests._processes import HOST


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Answers what no chain's server answers, or half of a stream."""

    bodies: ClassVar[dict[str, tuple[int, str, bytes]]] = {
        "/page/stream": (200, "text/html", b"<h1>Welcome</h1>"),
        "/page/chains": (200, "text/html", b"<h1>Welcome</h1>"),
        "/missing/stream": (404, "text/html", b"<h1>Not here</h1>"),
        "/old/stream": (
            404,
            "application/json",
            b'{"detail": "Not Found"}',
        ),
        "/cut/stream": (
            200,
            "text/event-stream",
            b'event: metadata\r\ndata: {"run_id": "a"}\r\n\r\nevent: data\r\ndata: "half"\r\n\r\n',
        ),
        "/open/stream": (
            200,
            "text/event-stream",
            b'id: 1\r\nevent: metadata\r\ndata: {"run_id": "a"}\r\n\r\n'
            b'id: 2\r\nevent: data\r\ndata: "half"\r\n\r\n',
        ),
        "/gap/stream": (
            200,
            "text/event-stream",
            b'event: data\r\ndata: "half"\r\n\r\nevent: gap\r\ndata: {"lost": 2}\r\n\r\n'
            b"event: end\r\n\r\n",
        ),
        "/moved/stream": (307, "text/html", b"<h1>Moved</h1>"),
        "/done/stream": (
            200,
            "text/event-stream",
            b'event: data\r\ndata: "all"\r\n\r\nevent: end\r\n\r\n',
        ),
        "/input_schema": (200, "text/html", b"<h1>No schema</h1>"),
    }

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, kind, body = self.bodies.get(self.path, (404, "application/json", b"{}"))
        self.send_response(status)
        self.send_header("content-type", kind)
        if self.path == "/open/stream":
            self.send_header("preference-applied", "resumable")
        if status == 307:
            self.send_header("location", "http://elsewhere.invalid/?key=sk-1")
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/open/stream":
            self.rfile.read()  # Until the client hangs up.

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    with http.server.ThreadingHTTPServer((HOST, 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()
