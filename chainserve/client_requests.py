"""What a client sends, and where to."""

from collections.abc import Mapping, Set
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit
from uuid import UUID

from chainserve.errors import OutputNotSerializableError
from chainserve.serialization import Serializer, WellKnownLCSerializer

EVENT_STREAM_HEADERS = {"accept": "text/event-stream", "cache-control": "no-store"}


def base_of(url: str) -> str:
    """Return the URL of a chain with a slash at the end of its path; a query stays.

    Raises:
        ValueError: It is no URL of the web.
    """
    parts = urlsplit(url)
    if "://" not in url or not parts.netloc:
        shown = url.rpartition("@")[2]  # A password stands before it.
        raise ValueError(f"{shown!r} is no URL of a chain: it starts with http:// or https://")
    return urlunsplit(parts if parts.path.endswith("/") else _with_path(parts, f"{parts.path}/"))


def below(url: str, endpoint: str) -> str:
    """Return the URL of an endpoint; a query stays at the end."""
    parts = urlsplit(url)
    return urlunsplit(_with_path(parts, parts.path + endpoint))


def _with_path(parts: SplitResult, path: str) -> SplitResult:
    return parts._replace(path=path)


def shown_url(url: Any) -> str:
    """Return a URL without what may be secret: a password before the host, and a query."""
    parts = urlsplit(str(url))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


MAX_REDIRECTS = 5
"""How often one request is sent on."""


def redirected(response: Any) -> Any:
    """Return the request that a redirect asks for; None if it must not be sent.

    What a caller sends, its keys among it, goes to no other origin, and nothing is sent twice in
    another form.
    """
    sent, request = response.request, response.next_request
    if request is None or request.method != sent.method:
        return None
    return request if _origin(request.url) == _origin(sent.url) else None


def _origin(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


CODINGS = frozenset({"identity", "gzip", "deflate"})
"""The content codings of answers that are read: a thousand bytes of them come of one at most.

httpx unpacks all that it has read of a connection at once. Of other codings, or of several one upon
the other, a few kilobytes may be more than there is memory.
"""


def accepted_codings(accepted: str) -> str:
    """Return what of an `Accept-Encoding` header is read here."""
    codings = [coding.strip() for coding in accepted.split(",")]
    kept = [one for one in codings if one.partition(";")[0].strip().lower() in CODINGS]
    return ", ".join(kept) or "identity"


def request_body(
    name: str,
    value: Any,
    serializer: Serializer,
    config: Any,
    kwargs: Mapping[str, Any],
    members: Mapping[str, Any],
) -> bytes:
    """Return the JSON of a request.

    Args:
        name: `input` or `inputs`.
        value: What is sent under that name.
        serializer: Writes it.
        config: A config, or a list of configs; what JSON cannot hold is left out.
        kwargs: More arguments for the runnable.
        members: More members of the body; a set is sent as a list.

    Raises:
        TypeError: The input, or an argument, cannot be sent.
    """
    sent = [_sendable(one) for one in config] if isinstance(config, list) else _sendable(config)
    parts = (
        name.encode(),
        _json(serializer, value, "The input", name),
        _JSON.dumps(sent),
        _json(_JSON, dict(kwargs), "The argument", ""),
        b"".join(_member(key, item) for key, item in members.items()),
    )
    return b'{"%b":%b,"config":%b,"kwargs":%b%b}' % parts


_JSON = WellKnownLCSerializer()


def _member(name: str, value: Any) -> bytes:
    listed = [*value] if isinstance(value, Set) else value
    return b',"%b":%b' % (name.encode(), _json(_JSON, listed, "The argument", name))


def _json(serializer: Serializer, value: Any, what: str, root: str) -> bytes:
    """Return a value as JSON, or raise a `TypeError` that names the place of what has no form."""
    try:
        return serializer.dumps(value)
    except OutputNotSerializableError as error:
        place = (root + error.path.removeprefix("output")).removeprefix(".")
        raise TypeError(
            f"{what} cannot be sent as JSON: {place} {error.reason}. Turn it into text, "
            "numbers, lists, dicts, dataclasses or pydantic models."
        ) from None


def _sendable(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a config without what is of use to this process alone, such as callbacks."""
    kept: dict[str, Any] = _json_data(
        {key: value for key, value in (config or {}).items() if key != "callbacks"}
    )
    return kept


_UNSENDABLE: Any = object()
_MAX_CONFIG_DEPTH = 100


def _json_data(value: Any, depth: int = 0) -> Any:
    """Return what of a value JSON can hold; what is nested too deeply may hold itself."""
    if isinstance(value, UUID):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if depth > _MAX_CONFIG_DEPTH:
        return _UNSENDABLE
    if isinstance(value, dict):
        items = {k: _json_data(v, depth + 1) for k, v in value.items() if isinstance(k, str)}
        return {key: item for key, item in items.items() if item is not _UNSENDABLE}
    if isinstance(value, list | tuple):
        items_of = (_json_data(item, depth + 1) for item in value)
        return [item for item in items_of if item is not _UNSENDABLE]
    return _UNSENDABLE
