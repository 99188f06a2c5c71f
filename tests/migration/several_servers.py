"""Routers, an application below another, a serializer, and steps that callers may see."""

from typing import Any

import orjson
from fastapi import APIRouter, FastAPI
from langchain_core.runnables import RunnableLambda
from langserve import add_routes
from langserve.serialization import Serializer, WellKnownLCSerializer


class Money:
    """An amount that no default serializer knows."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


class MoneySerializer(Serializer):
    """Writes amounts in a way of its own."""

    def dumps(self, obj: Any) -> bytes:
        """Return JSON."""
        return orjson.dumps(obj, default=self._default)

    def loadd(self, obj: Any) -> Any:
        """Return what stands for itself."""
        return WellKnownLCSerializer().loadd(obj)

    def _default(self, obj: Any) -> Any:
        if isinstance(obj, Money):
            return {"money": obj.cents}
        return orjson.loads(WellKnownLCSerializer().dumps(obj))


async def cents(value: float):
    """Return an amount."""
    return Money(round(value * 100))


app = FastAPI()
router = APIRouter(prefix="/v1")
add_routes(router, RunnableLambda(cents), path="/money", serializer=MoneySerializer())
app.include_router(router)

inner = FastAPI()
add_routes(
    inner, RunnableLambda(lambda value: value * 2).with_types(input_type=int), path="/double"
)
app.mount("/inner", inner)

add_routes(
    app,
    RunnableLambda(lambda value: value[::-1]).with_types(input_type=str),
    path="/reversed",
    disabled_endpoints=["batch", "playground"],
    include_callback_events=True,
)
add_routes(app, RunnableLambda(lambda value: value), path="/old", astream_events_version="v1")
