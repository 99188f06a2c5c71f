"""What a request asks for in its `Accept` and `Prefer` headers."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from chainserve.wire.projections import EVENT_STREAM, NDJSON, PLAIN_TEXT

_OFFERED = (EVENT_STREAM, NDJSON, PLAIN_TEXT)
"""The media types of a stream, the one that wins a tie first."""

_MAX_CHARS = 8192
"""How much of a header is read; an honest one is far shorter."""

_HEADERS_KEPT = 64
"""How many headers are remembered with what they mean; most clients send the same again."""

# Elements of a list; a separator inside of quotes does not count, and quotes may be left open.
_ELEMENTS = re.compile(r'(?:^|,)((?:[^",]+|"(?:[^"\\]|\\.)*+["\\]?)*)')
_PARAMETERS = re.compile(r'(?:^|;)((?:[^";]+|"(?:[^"\\]|\\.)*+["\\]?)*)')

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_NAME_VALUE = re.compile(rf"({_TOKEN})(?:[ \t]*=[ \t]*({_TOKEN}|{_QUOTED})?)?")
_MEDIA_RANGE = re.compile(rf"({_TOKEN})/({_TOKEN})")
_WEIGHT = re.compile(r"0?\.[0-9]{1,3}|0\.?|1(?:\.0{0,3})?")  # Older Javas send `q=.2`.
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class _MediaRange(NamedTuple):
    """One element of `Accept`."""

    type: str
    subtype: str
    parameters: tuple[tuple[str, str], ...]
    weight: float

    def specificity(self, media_type: str) -> int | None:
        """Return how closely the range fits a media type, None if it does not."""
        if any(parameter != ("charset", "utf-8") for parameter in self.parameters):
            return None
        if (self.type, self.subtype) == ("*", "*"):
            return 0
        type_, _, subtype = media_type.partition("/")
        if self.type != type_ or self.subtype not in ("*", subtype):
            return None
        return 1 if self.subtype == "*" else 2 + len(self.parameters)


def choose_media_type(accept: str | None) -> str | None:
    """Return the media type in which a stream is sent (RFC 9110, section 12.5.1).

    Args:
        accept: The `Accept` header, its lines joined with commas. Malformed elements are ignored.

    Returns:
        `text/event-stream`, `application/x-ndjson` or `text/plain`: the one of the highest weight,
        the first of them in a tie or without a header; None if the client accepts none.
    """
    return _chosen((accept or "")[:_MAX_CHARS])


@lru_cache(_HEADERS_KEPT)
def _chosen(accept: str) -> str | None:
    elements = _ELEMENTS.findall(accept)
    ranges = [range_ for element in elements if (range_ := _media_range(element)) is not None]
    if not ranges:
        return EVENT_STREAM
    weights = {offered: _weight(offered, ranges) for offered in _OFFERED}
    best = max(_OFFERED, key=weights.__getitem__)
    return best if weights[best] > 0 else None


def _weight(media_type: str, ranges: Sequence[_MediaRange]) -> float:
    """Return the weight that the most specific range gives a media type."""
    fitting = [
        (specificity, range_.weight)
        for range_ in ranges
        if (specificity := range_.specificity(media_type)) is not None
    ]
    return max(fitting)[1] if fitting else 0


def _media_range(element: str) -> _MediaRange | None:
    """Return an element of `Accept`, None if it is malformed."""
    name, *rest = _PARAMETERS.findall(element)
    match = _MEDIA_RANGE.fullmatch(name.strip(" \t"))
    if match is None or (match[1] == "*" and match[2] != "*"):
        return None
    parameters: list[tuple[str, str]] = []
    weight = "1"
    for text in filter(str.strip, rest):
        parameter = _name_value(text)
        if parameter is None:
            return None
        if parameter[0] == "q":  # What follows was once an extension, and means nothing.
            weight = parameter[1]
            break
        parameters.append((parameter[0], parameter[1].lower()))
    if _WEIGHT.fullmatch(weight) is None:
        return None
    return _MediaRange(match[1].lower(), match[2].lower(), tuple(parameters), float(weight))


class Preferences(NamedTuple):
    """What a request prefers (RFC 7240), as far as this server knows it.

    Attributes:
        resumable: The stream should have ids and its run wait for a reader that comes back.
        wait: For how many seconds an answer may be held back; at most 2**31.
        strict: What cannot be done should be refused rather than left out (`handling=strict`).
    """

    resumable: bool = False
    wait: float | None = None
    strict: bool = False

    @classmethod
    def parse(cls, values: Sequence[str]) -> "Preferences":
        """Return the preferences in the lines of `Prefer`.

        Of a preference that comes twice the first counts. What is malformed or unknown is ignored,
        as are parameters. Seconds may have a fraction.
        """
        return _preferences(",".join(values)[:_MAX_CHARS])


@lru_cache(_HEADERS_KEPT)
def _preferences(prefer: str) -> Preferences:
    found: dict[str, str] = {}
    for element in _ELEMENTS.findall(prefer):
        preference = _name_value(_PARAMETERS.findall(element)[0])
        if preference is not None:
            found.setdefault(*preference)
    wait = found.get("wait", "")
    seconds = min(float(wait), 2.0**31) if _SECONDS.fullmatch(wait) else None
    return Preferences(
        resumable=found.get("resumable") == "",
        wait=seconds,
        strict=found.get("handling") == "strict",
    )


def _name_value(text: str) -> tuple[str, str] | None:
    """Return a name in lower case and its value, empty if there is none; None if malformed."""
    match = _NAME_VALUE.fullmatch(text.strip(" \t"))
    if match is None:
        return None
    value = match[2] or ""
    if value.startswith('"'):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return match[1].lower(), value
