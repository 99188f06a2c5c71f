"""Requests as ASGI scopes, and checks of the messages an application answers with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict
from urllib.parse import unquote, urlencode

from starlette.types import Message, Scope

HeaderTypes = Mapping[str, str] | Sequence[tuple[str, str]]
QueryTypes = str | Mapping[str, str] | Sequence[tuple[str, str]]


class Headers(Mapping[str, str]):
    """Header fields by lower-case name; repeated ones are joined with a comma."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self.raw = tuple((bytes(name), bytes(value)) for name, value in raw)

    def get_list(self, name: str) -> list[str]:
        """Return the value of each field of that name, in order."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.raw if key.lower() == wanted]

    def __getitem__(self, name: str) -> str:
        values = self.get_list(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1").lower() for name, _ in self.raw))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"


class RequestOptions(TypedDict, total=False):
    """The optional arguments of `open_stream` and `request`.

    Attributes:
        json: A JSON body; `None` is a body of `null`.
        body: Any other body. An iterator is asked for a piece only when the application receives.
        headers: Added to, and before, those made up here (host, content-type, content-length).
        query: In addition to what follows a question mark in the path.
        root_path: Where the application is mounted; `path` does not repeat it.
        state: What `lifespan` yielded.
        spec_version: Of ASGI; see the module's docstring for what it changes.
        client: The client's address, or None for none (as with a Unix socket).
        read: False for a client that does not read: body sends wait for `resume_reading()`.
        wait_for_start: False enters the context before the response has started.
        raise_app_errors: False keeps an error that the application raises after the response has
            started from being raised when the context is left; see `app_error`.
        wait_seconds: A bound other than WAIT_SECONDS for this exchange.
    """

    json: Any
    body: bytes | AsyncIterator[bytes]
    headers: HeaderTypes
    query: QueryTypes
    root_path: str
    state: Mapping[str, Any]
    spec_version: str
    client: tuple[str, int] | None
    read: bool
    wait_for_start: bool
    raise_app_errors: bool
    wait_seconds: float


def build_scope(
    method: str, path: str, source: bytes | AsyncIterator[bytes], options: RequestOptions
) -> Scope:
    path, _, query = path.partition("?")
    more_query = options.get("query", "")
    if not isinstance(more_query, str):
        more_query = urlencode(more_query)
    root_path = options.get("root_path", "")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": options.get("spec_version", "2.3")},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": root_path + unquote(path),
        "raw_path": (root_path + path).encode("ascii"),
        "query_string": "&".join(part for part in (query, more_query) if part).encode("ascii"),
        "root_path": root_path,
        "headers": _build_headers(source, options),
        "client": options.get("client", ("127.0.0.1", 50_000)),
        "server": ("testserver", 80),
        "state": dict(options.get("state", {})),
    }


def _build_headers(
    source: bytes | AsyncIterator[bytes], options: RequestOptions
) -> list[tuple[bytes, bytes]]:
    given = options.get("headers", ())
    pairs = list(given.items() if isinstance(given, Mapping) else given)
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in pairs]
    defaults = [(b"host", b"testserver")]
    if "json" in options:
        defaults.append((b"content-type", b"application/json"))
    if not isinstance(source, bytes):
        defaults.append((b"transfer-encoding", b"chunked"))
    elif source:
        defaults.append((b"content-length", b"%d" % len(source)))
    names = {name for name, _ in headers}
    return headers + [(name, value) for name, value in defaults if name not in names]


def checked_start(message: Message) -> tuple[int, Headers]:
    raw = list(message.get("headers", []))
    for name, value in raw:
        if not isinstance(name, bytes) or not isinstance(value, bytes) or name != name.lower():
            raise RuntimeError(f"not a header in lower-case bytes: {(name, value)!r}")
    return int(message["status"]), Headers(raw)


def checked_body(message: Message, status: int) -> bytes:
    body = message.get("body", b"")
    if not isinstance(body, bytes):
        raise RuntimeError(f"a body must be bytes, not {type(body).__name__}")
    if body and (status < 200 or status in (204, 304)):
        raise RuntimeError(f"a response with status {status} has no body")
    return body
