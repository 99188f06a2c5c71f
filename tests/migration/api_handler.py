"""Endpoints of one's own in front of a chain."""

from typing import Annotated, Any

import langserve
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langserve import APIHandler

prompt = PromptTemplate.from_template("Hello {name}").configurable_fields(
    template=ConfigurableField(id="greeting")
)
chain = prompt | RunnableLambda(lambda value: value.text)
handler = APIHandler(chain, path="/v2")
VERSION_OF = langserve.__name__

app = FastAPI()


async def user(x_user: Annotated[str | None, Header()] = None) -> str:
    """Return who it is."""
    if x_user is None:
        raise HTTPException(403, "Nobody")
    return x_user


@app.post("/v2/invoke")
async def invoke(request: Request) -> Response:
    """Invoke the chain."""
    return await handler.invoke(request)


@app.post("/v2/greet")
async def greet(request: Request, name: Annotated[str, Depends(user)]) -> Response:
    """Invoke the chain with a greeting of the server's."""
    config = {"configurable": {"greeting": f"{name} greets {{name}}"}}
    return await handler.invoke(request, server_config=config)


@app.post("/v2/batch")
async def batch(request: Request) -> Response:
    """Run the chain for several."""
    return await handler.batch(request)


@app.post("/v2/stream")
async def stream(request: Request) -> Response:
    """Stream the chain."""
    return await handler.stream(request)


@app.post("/v2/stream_events")
async def stream_events(request: Request) -> Response:
    """Stream what happens inside."""
    return await handler.astream_events(request)


@app.get("/v2/input_schema")
async def input_schema(request: Request) -> Any:
    """Tell what it takes."""
    return await handler.input_schema(request)


@app.get("/v2/config_schema")
async def config_schema(request: Request) -> Any:
    """Tell what may be configured."""
    return await handler.config_schema(request)
