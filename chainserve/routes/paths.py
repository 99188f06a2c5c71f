"""The paths of a chain's routes: one route serves all forms of a URL, and is found fast.

A router tries its routes one after another, so four routes for each verb (with a slash at the end
or without, with a config hash or without) would make a server of many chains slow; and so would
matching all routes of all chains against a regular expression.
"""

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match, request_response
from starlette.types import ASGIApp, Receive, Scope, Send


class _OptionalHash(Convertor[str]):
    """`/c/{config_hash}`, or nothing."""

    regex = "(?:/c/[^/]+)?"

    def convert(self, value: str) -> str:
        """Return the hash alone."""
        return value.removeprefix("/c/")

    def to_string(self, value: str) -> str:
        """Return the segments of a hash."""
        return f"/c/{value}" if value else ""


class _OptionalSlash(Convertor[str]):
    """A slash, or nothing."""

    regex = "/?"

    def convert(self, value: str) -> str:
        """Return it as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return it as it is."""
        return value


register_url_convertor("chainserve_hash", _OptionalHash())
register_url_convertor("chainserve_slash", _OptionalSlash())


def any_form(path: str, endpoint: str, *, hashes: bool, slash: bool = True) -> str:
    """Return the path of a route that serves all forms of an endpoint's URL.

    Args:
        path: The chain's path.
        endpoint: The route's own part, such as `invoke`.
        hashes: Whether a config hash may stand between them.
        slash: Whether a slash may stand at the end.
    """
    between = "{config_hash:chainserve_hash}" if hashes else ""
    end = "{final_slash:chainserve_slash}" if slash else ""
    return f"{path}{between}/{endpoint}{end}"


class _ByLiterals(APIRoute):
    """A route that is matched only where the path has all that is literal in the route's own."""

    @cached_property
    def _literals(self) -> tuple[str, ...]:
        return tuple(filter(None, re.split(r"{[^}]*}", self.path)))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is for this route."""
        path = scope["path"]
        for literal in self._literals:
            if literal not in path:
                return Match.NONE, {}
        return super().matches(scope)


class ChainRoute(_ByLiterals):
    """A route whose handler takes the request and returns the response.

    Without dependencies there is nothing for FastAPI to solve: then it is called as Starlette calls
    its routes' functions. A router that is included asks FastAPI, which alone knows what comes with
    it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if not self.dependencies and getattr(self, "max_body_size", None) is None:
            self.app = _unless_observed(request_response(endpoint), self.app)


def _unless_observed(direct: ASGIApp, by_fastapi: ASGIApp) -> ASGIApp:
    """Return the first application but for requests of which FastAPI traces each step."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (by_fastapi if scope.get("fastapi.telemetry") else direct)(scope, receive, send)

    return app


def route_class_for(router: APIRouter) -> type[APIRoute]:
    """Return the class of a chain's routes: that of the router, made fast to match."""
    if router.route_class is APIRoute:
        return ChainRoute
    return type(router.route_class.__name__, (_ByLiterals, router.route_class), {})
