"""LangServe's own playground, for those who have installed it (the extra `langserve`).

Its files are read from that package, which is not imported. They are served as they are, but for
the places where LangServe would put a chain's schemas and the page's address.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from langsmith.utils import tracing_is_enabled
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from chainserve.routes.pages import PAGE_HEADERS
from chainserve.routes.requests import answers_errors
from chainserve.routes.starting import RunStarter
from chainserve.types import PlaygroundType
from chainserve.validation import ForgivingJsonSchema

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".ico": "image/x-icon",
}
_PLACE = re.compile("____LANGSERVE_([A-Z_]+)")
_INLINE_SCRIPT = re.compile("<script>(.*?)</script>", re.DOTALL)
_IN_SCRIPTS = str.maketrans({"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@cache
def installed_files(type_: PlaygroundType) -> Mapping[str, Path]:
    """Return the files of the installed playground by their names; none if it is not installed."""
    spec = find_spec("langserve")
    if spec is None or spec.origin is None:
        return {}
    folder = "playground" if type_ == "default" else "chat_playground"
    root = Path(spec.origin).parent / folder / "dist"
    found = (path for path in root.rglob("*") if path.suffix in _MEDIA_TYPES)
    return {path.relative_to(root).as_posix(): path for path in found}


class LangServePlaygroundRoutes:
    """The handlers of one chain's `langserve-playground/`.

    The page asks for the chain's endpoints below its own address: they are redirected.

    Args:
        starter: Knows the chain's schemas.
    """

    def __init__(self, starter: RunStarter) -> None:
        self._chain = starter.chain
        self._files = installed_files(starter.chain.playground_type)
        self._schemas = {
            "CONFIG_SCHEMA": starter.configs.schema,
            "INPUT_SCHEMA": starter.execution.input_schema({}),
            "OUTPUT_SCHEMA": starter.execution.output_schema,
        }

    @answers_errors
    async def page(self, request: Request) -> Response:
        """Answer the page, a file beside it, or where an endpoint really is."""
        name = request.path_params["file"]
        if name in self._chain.endpoints:
            return Response(status_code=307, headers={"location": f"../{name}"})
        path = self._files.get(name or "index.html")
        if path is None or request.method != "GET":
            raise HTTPException(404)
        content = path.read_bytes()
        headers = {**PAGE_HEADERS, "content-type": _MEDIA_TYPES[path.suffix]}
        if path.suffix == ".html":
            content = self._page(content.decode(), request).encode()
            headers["content-security-policy"] = _policy(content.decode())
        return Response(content, headers=headers)

    def _page(self, template: str, request: Request) -> str:
        """Return the page for this chain, at the address where it was asked for."""
        base = quote(str(request.scope["path"]).strip("/"))
        told = {name: _json(_schema(model)) for name, model in self._schemas.items()}
        told["BASE_URL"] = base
        for name, enabled in (
            ("FEEDBACK_ENABLED", self._chain.enable_feedback_endpoint),
            ("PUBLIC_TRACE_LINK_ENABLED", self._chain.enable_public_trace_link_endpoint),
        ):
            told[name] = _json("true" if enabled and tracing_is_enabled() else "false")
        return _PLACE.sub(lambda place: told.get(place[1], "null"), template)


def _schema(model: Any) -> Any:
    return model.model_json_schema(schema_generator=ForgivingJsonSchema)


def _json(value: Any) -> str:
    """Return JSON that ends no script, whatever is in it."""
    return json.dumps(value).translate(_IN_SCRIPTS)


def _policy(page: str) -> str:
    """Return a policy that lets the page's own scripts run; they compile its schemas with eval."""
    hashes = [
        f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(page)
    ]
    return (
        f"default-src 'none'; script-src 'self' 'unsafe-eval' {' '.join(hashes)}; "
        "style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; "
        "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
