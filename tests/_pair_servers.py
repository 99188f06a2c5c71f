"""What a LangServe user puts around a chain: mounts, config modifiers, handlers, serializers."""

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from tests import _pair_chains as chains
from tests._pairs import Package


def customer_kept(package: Package) -> Mapping[str, Any]:
    kept = type("Kept", (package.CustomUserType,), {"__annotations__": KEPT_FIELDS})
    return {"input_type": kept}


def show_kept(value: Any) -> str:
    return f"{value!r} {type(value.address).__name__}"


KEPT_FIELDS = {"name": str, "address": chains.Address}


def by_header(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return {**config, "configurable": {"template": request.headers["x-template"]}}


async def by_header_async(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return by_header(config, request)


def set_by_key(config: dict[str, Any], request: Request) -> dict[str, Any]:
    config["configurable"]["template"] = request.headers["x-template"]
    return config


def changed_in_place(config: dict[str, Any], request: Request) -> dict[str, Any]:
    config.setdefault("metadata", {})["user"] = request.headers["x-user"]
    config.setdefault("tags", []).append("served")
    return config


def showing_what_it_got(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return {"metadata": {"got": config}}


def refusing(config: dict[str, Any], request: Request) -> dict[str, Any]:
    raise HTTPException(401, {"reason": "no key"}, headers={"www-authenticate": "Bearer"})


def choosing_the_run_id(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return {**config, "run_id": chains.FIXED_UUID}


USER: ContextVar[str] = ContextVar("user", default="nobody")


def setting_the_user(config: dict[str, Any], request: Request) -> dict[str, Any]:
    USER.set(request.headers["x-user"])
    return config


async def setting_the_user_async(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return setting_the_user(config, request)


async def user_of(request: Request) -> None:
    USER.set(request.headers["x-user"])


async def _who(value: Any) -> str:
    return USER.get()


def who() -> chains.AnyRunnable:
    return RunnableLambda(_who)


def at_root(package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]) -> ASGIApp:
    app = FastAPI()
    package.add_routes(app, runnable, **options)
    return app


def on_router(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    return _with_router(APIRouter(prefix="/v1"), "", package, runnable, options)


def on_included_router(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    return _with_router(APIRouter(), "/api/v2", package, runnable, options)


def _with_router(
    router: APIRouter,
    prefix: str,
    package: Package,
    runnable: Runnable[Any, Any],
    options: Mapping[str, Any],
) -> ASGIApp:
    package.add_routes(router, runnable, path="/chain", **options)
    app = FastAPI()
    app.include_router(router, prefix=prefix)
    return app


def in_sub_application(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    sub = FastAPI()
    package.add_routes(sub, runnable, path="/chain", **options)
    app = FastAPI()
    app.mount("/sub", sub)
    return app


def beside_others(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    app = FastAPI()
    package.add_routes(app, chains.text_chain(), path="/other")
    package.add_routes(app, runnable, path="/chain", **options)
    package.add_routes(app, chains.sync_double(), path="/chain/more")
    return app


def with_middleware(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=adding_a_header)
    package.add_routes(app, runnable, path="/chain", **options)
    return app


async def adding_a_header(request: Request, call_next: Callable[..., Any]) -> Response:
    response: Response = await call_next(request)
    response.headers["x-served"] = "yes"
    return response


async def no_key(request: Request) -> None:
    if request.headers.get("x-key") != "right":
        raise HTTPException(401, "No key.", headers={"www-authenticate": "Bearer"})


def too_many() -> Exception:
    return HTTPException(429, "Slow down.", headers={"retry-after": "3"})


def with_handlers(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": type(error).__name__}, 418)

    async def answer_invalid(request: Request, error: Any) -> Response:
        body = jsonable_encoder(error.body)
        return JSONResponse({"invalid": error.errors(), "body": body}, 400)

    app = FastAPI()
    app.add_exception_handler(ValueError, answer)
    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    package.add_routes(app, runnable, path="/chain", **options)
    return app


def with_last_resort(
    package: Package, runnable: Runnable[Any, Any], options: Mapping[str, Any]
) -> ASGIApp:
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"sorry": type(error).__name__}, 500)

    app = FastAPI()
    app.add_exception_handler(Exception, answer)
    package.add_routes(app, runnable, path="/chain", **options)
    return app


def plain_serializer(package: Package) -> Mapping[str, Any]:
    """A serializer for complex numbers, as LangServe's documentation describes it."""

    def as_pair(value: Any) -> Any:
        if isinstance(value, complex):
            return {"re": value.real, "im": value.imag}
        if isinstance(value, BaseModel):
            return value.model_dump()
        raise TypeError

    def dumps(self: Any, obj: Any) -> bytes:
        return orjson.dumps(obj, default=as_pair)

    def loadd(self: Any, obj: Any) -> Any:
        return obj

    base = package.WellKnownLCSerializer.__mro__[1]
    return {"serializer": type("Complex", (base,), {"dumps": dumps, "loadd": loadd})()}


def spacious_serializer(package: Package) -> Mapping[str, Any]:
    def dumps(self: Any, obj: Any) -> bytes:
        return json.dumps(obj, default=str).encode()

    return {"serializer": type("Spacious", (package.WellKnownLCSerializer,), {"dumps": dumps})()}


def typed_and_serialized(package: Package) -> Mapping[str, Any]:
    def dumps(self: Any, obj: Any) -> bytes:
        name = obj.name.upper() if isinstance(obj, chains.Customer) else "lost"
        return orjson.dumps({"name": name})

    serializer = type("Upper", (package.WellKnownLCSerializer,), {"dumps": dumps})()
    return {"serializer": serializer, "output_type": chains.Customer}
