"""The paths of a chain's routes: one route serves all forms of a URL, and is found fast.

A router tries its routes one after another, so four routes for each verb (with a slash at the end
or without, with a config hash or without) would make a server of many chains slow; and so would
matching all routes of all chains against a regular expression.
"""

import re
from functools import cached_property

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match
from starlette.types import Scope


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


def route_class_for(router: APIRouter) -> type[APIRoute]:
    """Return the router's own class of routes, made fast to match."""
    if router.route_class is APIRoute:
        return _ByLiterals  # One class for all chains: Python finds its methods faster.
    return type(router.route_class.__name__, (_ByLiterals, router.route_class), {})
