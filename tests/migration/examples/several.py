"""Chains on routers and in applications within the application, with a serializer of their own."""

from datetime import date
from typing import Any

from fastapi import APIRouter, FastAPI
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda
from langserve import add_routes
from langserve.serialization import WellKnownLCSerializer


class Dated(WellKnownLCSerializer):
    """Writes dates as people do."""

    def dumps(self, obj: Any) -> bytes:
        return super().dumps(self._readable(obj))

    def dumpd(self, obj: Any) -> Any:
        return super().dumpd(self._readable(obj))

    def _readable(self, obj: Any) -> Any:
        if isinstance(obj, date):
            return f"{obj.day}.{obj.month}.{obj.year}"
        if isinstance(obj, list):
            return [self._readable(value) for value in obj]
        if isinstance(obj, dict):
            return {name: self._readable(value) for name, value in obj.items()}
        return obj


def born(year: int) -> dict[str, Any]:
    return {"year": year, "day": date(year, 5, 4)}


chain = (
    PromptTemplate.from_template("Say {word}").with_config(run_name="ask")
    | FakeListChatModel(responses=["word"]).with_config(run_name="think")
    | StrOutputParser().with_config(run_name="read")
).with_config(run_name="say")

router = APIRouter(prefix="/v2", tags=["second"])
add_routes(router, RunnableLambda(born), path="/born", output_type=Any, serializer=Dated())
add_routes(
    router,
    chain,
    path="/say",
    enabled_endpoints=["invoke", "stream", "stream_log", "stream_events"],
    astream_events_version="v1",
)

inner = FastAPI()
add_routes(inner, RunnableLambda(str.title), path="/title", input_type=str)


def upper(word: str) -> str:
    return word.upper()


app = FastAPI()
add_routes(app, RunnableLambda(len).with_types(input_type=str))
add_routes(
    app,
    RunnableLambda(upper),
    path="/upper",
    stream_log_name_allow_list=["upper"],
)
add_routes(
    app,
    RunnableLambda(upper),
    path="/events",
    include_callback_events=True,
    enabled_endpoints=["invoke", "batch"],
)
app.include_router(router, prefix="/api")
app.mount("/inner", inner)
