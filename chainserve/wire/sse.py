"""Server-Sent Events (WHATWG HTML Standard, section 9.2) in LangServe's layout."""

from datetime import datetime
from json.encoder import encode_basestring, encode_basestring_ascii

_LINE_BREAKS_OF_OTHERS = (
    (b"\xc2\x85", b"\\u0085"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)
"""Characters at which some clients end a line, against the standard, and their JSON escapes."""


_LF, _CR = b"\n\r"
_NO_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def exact(data: bytes) -> bytes:
    """Return a copy that takes no more memory than it needs.

    What orjson returns keeps the 4 KiB or more in which it was written.
    """
    return b"%b" % data


def json_line(data: bytes) -> bytes:
    """Return a copy of JSON text that no client takes for more than one line.

    U+0085, U+2028 and U+2029 can stand only inside a JSON string, where an escape means the same;
    CR and LF only outside of one, where a space means the same.
    """
    # Called for each chunk: `in` is quick for a number, and slow for bytes of any length.
    if _LF in data or _CR in data:
        data = data.translate(_NO_LINE_BREAKS)
    if not data.isascii():
        for character, escape in _LINE_BREAKS_OF_OTHERS:
            data = data.replace(character, escape)
    return b"%b" % data  # Which is `exact`.


def text_line(text: str) -> bytes:
    """Return a text as JSON: what `json_line` makes of it in orjson's form, for less."""
    try:
        data = encode_basestring(text).encode()
    except UnicodeEncodeError:  # A lone surrogate, which has no UTF-8.
        return encode_basestring_ascii(text).encode()
    if not data.isascii():
        for character, escape in _LINE_BREAKS_OF_OTHERS:
            data = data.replace(character, escape)
    return data


def encode_event(
    event: str,
    data: bytes | None,
    *,
    event_id: bytes | None = None,
    retry_ms: int | None = None,
) -> bytes:
    """Return an event block: CRLF lines, `event:` before `data:`, no line for what is None."""
    lines = [b"event: " + event.encode()]
    if data is not None:
        lines.append(b"data: " + data)
    if event_id is not None:
        lines.append(b"id: " + event_id)
    if retry_ms is not None:
        lines.append(b"retry: %d" % retry_ms)
    return b"\r\n".join([*lines, b"", b""])


def encode_ping(now: datetime) -> bytes:
    """Return the comment block that LangServe sends on an idle stream; `now` is naive UTC."""
    return b": ping - %s\r\n\r\n" % str(now).encode()


HEARTBEAT = b":\r\n"
"""A comment line without the blank line that ends a block.

After an `id:`, many decoders take that blank line for the end of an empty event; the standard lets
the comment stand before the next block.
"""
