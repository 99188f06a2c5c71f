"""Finding a request's route among those of many chains, by a look into a dictionary."""

from collections.abc import Iterable
from copy import copy

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from chainserve.routes.paths import ChainRoute


class RoutesOfChains:
    """Gives a request below a chain's path to a router of those routes that may match there.

    They are in the order of the application's own router and behave as there. It goes into that
    router's `middleware_stack`: what lists its routes, or changes them later, sees no difference.

    Args:
        router: The application's router.
        paths: The paths of its chains.
    """

    def __init__(self, router: APIRouter, paths: Iterable[str]) -> None:
        self._router = router
        self._paths = frozenset(path for path in paths if path and "{" not in path)
        self._depths = sorted({path.count("/") for path in self._paths}, reverse=True)
        self._known: list[BaseRoute] = []
        self._narrowed: dict[str, APIRouter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        path = self._chain_of(scope) if scope["type"] == "http" else None
        router = self._router if path is None else self._router_of(path)
        scope.setdefault("router", self._router)
        await router.app(scope, receive, send)

    def _chain_of(self, scope: Scope) -> str | None:
        """Return the longest path of a chain that a request is below."""
        path: str = scope["path"]
        root = scope.get("root_path", "")
        if root and path.startswith(f"{root}/"):
            path = path.removeprefix(root)
        segments = path.split("/", self._depths[0] + 1) if self._depths else []
        for depth in self._depths:
            if (
                len(segments) > depth + 1
                and (found := "/".join(segments[: depth + 1])) in self._paths
            ):
                return found
        return None

    def _router_of(self, path: str) -> APIRouter:
        """Return a router like the application's with those of its routes that may match."""
        if self._known != self._router.routes:
            self._known = list(self._router.routes)
            self._narrowed.clear()
        if path not in self._narrowed:
            narrowed = self._narrowed[path] = copy(self._router)
            narrowed.routes = [route for route in self._known if _may_match_below(route, path)]
        return self._narrowed[path]


def _may_match_below(route: BaseRoute, path: str) -> bool:
    """Tell whether a route may match a path that begins with this one and a slash.

    What is before a route's first parameter is literal. Who knows what else matches.
    """
    if type(route) not in (Route, APIRoute, ChainRoute):
        return True
    literal, parameter, _ = getattr(route, "path", "").partition("{")
    below = f"{path}/"
    return literal.startswith(below) or (bool(parameter) and below.startswith(literal))
