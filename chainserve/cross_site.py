"""Requests that start or end runs, and pages of other sites that may not make them.

A GET that starts a run costs money, and any page can make a browser send one: with an image, a
frame, a link, a prefetch, an `EventSource`. CORS keeps such a page from reading the answer alone.
What browsers say of a request, in the Fetch Metadata headers and in `Origin`, tells ours apart; no
page can forge it. Browsers leave Fetch Metadata out where the server is reached by plain http on
another machine, so there less can be refused.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from chainserve.errors import CrossSiteError

_NAVIGATIONS = frozenset({"document", "embed", "fencedframe", "frame", "iframe", "object"})
_STREAMS = ("text/event-stream", "application/x-ndjson", "text/plain")
_PAGE_PARTS = ("image/", "text/html", "text/css", "application/xhtml+xml", "audio/", "video/")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def refuse_cross_site(headers: Headers, *, origins: Sequence[str]) -> None:
    """Refuse a GET that would start a run, unless a reader of ours or a listed page sends it.

    Args:
        headers: The request's.
        origins: The origins whose pages may start runs; one `*` is any.

    Raises:
        CrossSiteError: A page of another origin sends it, or it is an image, a navigation, a
            prefetch or another request whose answer no code reads; the message says the mend.
    """
    _refuse_prefetch(headers)
    _refuse_what_is_no_reader(headers)
    refuse_cross_site_write(headers, origins=origins)


def refuse_cross_site_write(headers: Headers, *, origins: Sequence[str]) -> None:
    """Refuse a request without a body that changes something, if a page of another origin sends it.

    One with a JSON body needs no such guard: a browser asks first whether it may send it.

    Args:
        headers: The request's.
        origins: The origins whose pages may make changes; one `*` is any.

    Raises:
        CrossSiteError: It comes from an origin that is neither listed nor the server's own.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if "*" in origins or origin in origins:
        return
    if site is not None and site not in ("same-origin", "none"):
        raise CrossSiteError(_OTHER_ORIGIN)
    if site is None and origin is not None and not _is_own(origin, headers):
        raise CrossSiteError(_OTHER_ORIGIN)


def _refuse_prefetch(headers: Headers) -> None:
    for name in ("sec-purpose", "purpose", "x-moz"):
        if "prefetch" in headers.get(name, "").lower():
            raise CrossSiteError(_PREFETCH)


def _refuse_what_is_no_reader(headers: Headers) -> None:
    destination = headers.get("sec-fetch-dest")
    if destination in _NAVIGATIONS or headers.get("sec-fetch-mode") == "navigate":
        raise CrossSiteError(_NAVIGATION)
    if destination not in (None, "empty"):
        raise CrossSiteError(_PAGE_PART)
    if destination is None and "origin" not in headers and _accepts_page_part(headers):
        raise CrossSiteError(_NAVIGATION)


def _accepts_page_part(headers: Headers) -> bool:
    """Tell whether it asks for a page, an image or the like, and for nothing that a run can be."""
    accepted = ",".join(headers.getlist("accept")).lower()
    if any(media_type in accepted for media_type in _STREAMS):
        return False
    return any(media_type in accepted for media_type in _PAGE_PARTS)


def _is_own(origin: str, headers: Headers) -> bool:
    """Tell whether an origin is this server's own, but for the scheme, which a proxy may change."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        return False
    return parts.netloc == headers.get("host", "").lower().removesuffix(
        _DEFAULT_PORTS[parts.scheme]
    )


_NAVIGATION = (
    "This address starts a run, so it cannot be opened as a page. "
    "Read it with EventSource, fetch or curl."
)
_PAGE_PART = (
    "This address starts a run, so it cannot be an image, a script or another part of a page. "
    "Read it with EventSource, fetch or curl."
)
_PREFETCH = "This address starts a run, so it cannot be fetched ahead of time. Drop the prefetch."
_OTHER_ORIGIN = (
    "A page of another origin may do this only if its origin is listed. "
    "Add it to CHAINSERVE_CORS_ORIGINS on the server, and fetch without mode no-cors."
)
