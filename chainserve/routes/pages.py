"""What people see in a browser: static bytes, the headers that keep them harmless, and ETags."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
"""A browser asks each time whether a page has changed, and runs nothing but our own files."""

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page or a file beside one, held in memory."""

    body: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, body: bytes, kind: str) -> "Page":
        """Return a page with these bytes; the kind is the file name's suffix, such as `html`."""
        return cls(body, _MEDIA_TYPES[kind], f'"{sha256(body).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """Answer the page, or 304 to a browser that has it."""
        headers = {**PAGE_HEADERS, "etag": self.etag}
        if self._is_held(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers={**headers, "content-type": self.media_type})

    def _is_held(self, if_none_match: str) -> bool:
        """Tell whether one of the tags is this page's, weakened on its way or not."""
        tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
        return any(tag in (self.etag, "*") for tag in tags)


def playground_file(name: str) -> Page:
    """Return one of the playground's files."""
    return _file(f"playground/{name}")


def client_files() -> dict[str, Page]:
    """Return the modules of the client for JavaScript, by their names."""
    names = sorted(file.name for file in (files("chainserve") / "js").iterdir())
    return {name: _file(f"js/{name}") for name in names if name.endswith(".js")}


@cache
def _file(path: str) -> Page:
    """Return a file of the package; read once, whatever number of chains there is."""
    return Page.of((files("chainserve") / path).read_bytes(), path.rpartition(".")[2])
