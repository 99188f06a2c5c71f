"""What the router refuses, unknown paths and wrong methods, answered with what there is."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from chainserve.problems import http_problem_response

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_MAX_PATH = 200
"""No longer path is compared with what there is."""


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what a framework refuses, such as an unknown path, as a problem document."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and "Allow" in (error.headers or {}):
        return _wrong_method(request, error)
    if error.status_code == 404 and "endpoint" not in request.scope:
        return http_problem_response(error, _unknown_path(request))
    return http_problem_response(error)


def _wrong_method(request: Request, error: HTTPException) -> Response:
    """Name the methods of all routes of the path; the router asks only one of them."""
    methods = [method for method in _METHODS if _is_served(request, method)]
    if not methods or request.method in methods:
        return http_problem_response(error)
    allow = ", ".join(methods)
    message = f"There is no {request.method} {_cut(request.scope['path'])}. Use {allow}."
    headers = {**(error.headers or {}), "Allow": allow}
    return http_problem_response(HTTPException(405, error.detail, headers), message)


def _is_served(request: Request, method: str) -> bool:
    """Tell whether a route of the application takes a method at the request's path."""
    scope: dict[str, Any] = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _unknown_path(request: Request) -> str:
    """Say what is near an unknown path, unless the application hides what there is."""
    root, path = request.scope.get("root_path", ""), request.scope["path"]
    message = f"There is no {_cut(path)}."
    if len(path) > _MAX_PATH or not request.app.openapi_url:
        return message
    segments = _segments(path.removeprefix(root))
    shown = [_segments(template) for template in _templates(request)]
    if below := sorted({other[len(segments)] for other in shown if _is_below(other, segments)}):
        return f"{message} Below it there are: {', '.join(below)}."
    if (near := _nearest(segments, shown)) is not None:
        return f"{message} Did you mean {root}/{'/'.join(near)}?"
    return message


def _templates(request: Request) -> Iterator[str]:
    """Yield the paths of the application's own routes that it shows."""
    for route in request.app.routes:
        if getattr(route, "include_in_schema", False):
            yield getattr(route, "path", "")


def _segments(path: str) -> list[str]:
    return path.strip("/").split("/")


def _is_below(template: Sequence[str], segments: Sequence[str]) -> bool:
    return len(template) > len(segments) and [*template[: len(segments)]] == [*segments]


def _nearest(path: Sequence[str], templates: Iterable[Sequence[str]]) -> list[str] | None:
    """Return the path that differs from an unknown one in a few letters, segment by segment.

    What stands for a parameter stays as it is.
    """
    left = [template for template in templates if len(template) == len(path)]
    near: list[str] = []
    for index, segment in enumerate(path):
        names = {template[index] for template in left}
        if segment in names or any(name.startswith("{") for name in names):
            chosen = segment
        else:
            close = get_close_matches(segment, names, n=1)
            if not close:
                return None
            [chosen] = close
        near.append(chosen)
        left = [other for other in left if other[index] == chosen or other[index].startswith("{")]
    return near if near != [*path] else None


def _cut(path: str) -> str:
    return path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}…"
