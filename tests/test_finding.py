"""The routes that a request is matched against are those that it would meet among all."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from chainserve import Chain, add_routes, create_app
from chainserve.routes.finding import RoutesOfChains
from tests._bridge import request
from tests._chains import echo

CHAINS = ("/a", "/a/b", "/a/c", "/ab", "/deep/er/path", "/{tenant}/chain", "")
PATHS = (
    "/a/invoke",
    "/a/invoke/",
    "/a/c/N4XyA/invoke",
    "/a/c/invoke",
    "/a/b/invoke",
    "/a/b/c/N4XyA/invoke",
    "/ab/invoke",
    "/abc/invoke",
    "/a",
    "/a/",
    "/a//invoke",
    "//a/invoke",
    "/a/nothing",
    "/a/b",
    "/a/mine",
    "/a/caught/by/mine",
    "/a/included",
    "/a/static/x",
    "/deep/er/path/invoke",
    "/deep/er/invoke",
    "/x/chain/invoke",
    "/a/chain/invoke",
    "/invoke",
    "/chains",
    "/docs",
    "/",
    "/nowhere",
    "/behind/a/invoke",
    "/a/runs",
    "/a/playground",
    "/a/redirected",
    "/a/redirected/",
)


async def said(request: Request) -> Response:
    return Response(f"{request.url.path} {sorted(request.path_params.items())}")


def an_app(*, narrows: bool) -> FastAPI:
    app = create_app(
        [Chain(path=path, runnable=echo()) for path in CHAINS],
        routes=[Route("/a/b/mine", said), Route("/{one}/batch", said, methods=["POST"])],
    )
    app.add_route("/a/mine", said, methods=["GET"])
    app.add_route("/a/redirected/", said, methods=["GET"])
    app.add_route("/a/{rest:path}", said, methods=["PUT"])
    router = APIRouter()
    router.add_api_route("/included", said, methods=["GET"])
    app.include_router(router, prefix="/a")
    app.router.routes.append(Mount("/a/static", Starlette(routes=[Route("/x", said)])))
    assert isinstance(app.router.middleware_stack, RoutesOfChains)
    if not narrows:
        app.router.middleware_stack = app.router.app
    return app


async def answers(app: FastAPI, root_path: str = "") -> list[Any]:
    found = []
    for path in PATHS:
        for method in ("GET", "POST", "PUT", "DELETE"):
            body: dict[str, Any] = {}
            if method in ("POST", "PUT"):
                body["json"] = {"input": 1, "config": 1}
            answer = await request(app, method, path, root_path=root_path, **body)
            found.append((method, path, answer.status, answer.body))
    return found


@pytest.mark.parametrize("root_path", ["", "/behind", "/behind/"])
async def test_every_path_is_answered_as_by_all_routes(root_path: str) -> None:
    narrowed = await answers(an_app(narrows=True), root_path)
    assert narrowed == await answers(an_app(narrows=False), root_path)


async def test_routes_that_come_and_go_later_count() -> None:
    app = create_app([Chain(path="/a", runnable=echo())])
    before = await request(app, "GET", "/a/late")
    app.router.routes.insert(0, Route("/a/{anything}", said))
    inserted = await request(app, "GET", "/a/late")
    app.router.routes[0] = Route("/a/late/{more}", said)
    replaced = await request(app, "GET", "/a/late")

    assert (before.status, inserted.status, replaced.status) == (404, 200, 404)


async def test_a_chain_of_many_is_matched_against_its_own_routes() -> None:
    app = create_app([Chain(path=f"/{name}", runnable=echo()) for name in "klmnopqrstuvw"])
    matched: list[str] = []
    for route in app.router.routes:
        own = route.matches
        route.matches = lambda scope, own=own, route=route: (  # type: ignore[method-assign, misc]
            matched.append(getattr(route, "path", "")) or own(scope)  # type: ignore[func-returns-value]
        )

    await request(app, "POST", "/q/invoke", json={"input": 1})

    assert matched
    assert [path for path in matched if not path.startswith("/q")] == []


async def test_a_routers_own_class_of_routes_handles_the_requests_of_chains() -> None:
    class Marking(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def marking(request: Request) -> Response:
                response = await handler(request)
                response.headers["x-marked"] = "yes"
                return response

            return marking

    app = FastAPI()
    app.router.route_class = Marking
    add_routes(app, echo(), path="/a")

    response = await request(app, "POST", "/a/invoke", json={"input": 1})

    assert (response.status, response.headers["x-marked"]) == (200, "yes")
