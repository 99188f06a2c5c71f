"""A server of chains with feedback: `PACKAGE=langserve uvicorn tests._langsmith_server:app`."""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from langchain_core.runnables import RunnableGenerator

from chainserve import Chain
from tests._chains import echo, streaming

PACKAGE = os.environ["PACKAGE"]


async def ticking(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
    """Stream until its reader goes, for LangServe tells metadata between two chunks only."""
    async for _ in inputs:
        pass
    for _ in range(1000):
        yield "x"
        await asyncio.sleep(0.01)


def server() -> FastAPI:
    """Return the application."""
    add_routes = importlib.import_module(PACKAGE).add_routes
    app = FastAPI()
    tokens = {"key_configs": [{"key": "correctness"}]}
    told: dict[str, Any] = {"enable_feedback_endpoint": True, "token_feedback_config": tokens}
    add_routes(app, echo(), path="/echo", **told)
    add_routes(app, streaming(*"abcde"), path="/chunks", token_feedback_config=tokens)
    ticks = RunnableGenerator(ticking).with_types(input_type=int)
    add_routes(app, ticks, path="/ticking", token_feedback_config=tokens)
    linked: dict[str, Any] = {
        "enable_feedback_endpoint": True,
        "enable_public_trace_link_endpoint": True,
    }
    add_routes(app, echo(), path="/linked", **linked)
    add_routes(app, echo(), path="/links", enable_public_trace_link_endpoint=True)
    add_routes(app, echo(), path="/plain")
    module = importlib.import_module(PACKAGE)
    handler = module.APIHandler(echo(), path="/handled", **{**linked, **told})
    app.post("/handled/feedback")(handler.create_feedback)
    app.post("/handled/token_feedback")(handler.create_feedback_from_token)
    app.put("/handled/public_trace_link")(handler.create_public_trace_link)
    if PACKAGE == "chainserve":
        owned = Chain(
            path="/owned",
            runnable=echo(),
            principal=lambda request: request.headers.get("x-user"),
            **{**linked, **told},
        )
        add_routes(app, owned)
    return app


app = server()
