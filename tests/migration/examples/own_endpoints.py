"""Endpoints of one's own, which hand their requests to an APIHandler."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnableSerializable
from langserve import APIHandler


class Grow(RunnableSerializable[int, int]):
    """Adds to a number."""

    by: int = 1

    def invoke(self, input: int, config: Any = None, **kwargs: Any) -> int:
        return input + self.by


app = FastAPI()
handler = APIHandler(RunnableLambda(str.upper).with_types(input_type=str), path="/v1")
grow = APIHandler(
    Grow().configurable_fields(by=ConfigurableField(id="by")),
    path="/grow",
    config_keys=("configurable", "tags"),
)


@app.post("/v1/invoke", include_in_schema=False)
async def invoke(request: Request) -> Response:
    return await handler.invoke(request)


@app.post("/v1/batch")
async def batch(request: Request) -> Response:
    return await handler.batch(request)


@app.post("/v1/stream")
async def stream(request: Request) -> Any:
    return await handler.stream(request)


@app.post("/v1/stream_log")
async def stream_log(request: Request) -> Any:
    return await handler.stream_log(request)


@app.post("/v1/stream_events")
async def stream_events(request: Request) -> Any:
    return await handler.astream_events(request)


@app.get("/v1/{kind}_schema")
async def schema(kind: str, request: Request) -> Any:
    return await getattr(handler, f"{kind}_schema")(request)


async def grow_handler() -> APIHandler:
    return grow


@app.post("/grow/{by}/invoke")
async def grow_by(
    by: int, request: Request, api: Annotated[APIHandler, Depends(grow_handler)]
) -> Response:
    return await api.invoke(request, server_config={"configurable": {"by": by}})


@app.post("/grow/{by}/batch")
async def grow_all_by(
    by: int, request: Request, api: Annotated[APIHandler, Depends(grow_handler)]
) -> Response:
    return await api.batch(request, server_config={"configurable": {"by": by}})


@app.post("/grow/c/{config_hash}/invoke")
async def grow_hashed(config_hash: str, request: Request) -> Response:
    return await grow.invoke(request, config_hash=config_hash)
