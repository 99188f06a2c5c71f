"""A chain that asks another server, by the name that its importers use."""

from typing import Any

import langserve as ls
from fastapi import FastAPI, Request
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langserve import RemoteRunnable
from pydantic import BaseModel

app = FastAPI()
ls.add_routes(app, RunnableLambda(str.upper).with_types(input_type=str), path="/upper")


class Count(BaseModel):
    letters: int


def counted(word: str) -> Count:
    return Count(letters=len(word))


ls.add_routes(app, RunnableLambda(counted), path="/count")


def where_asked(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return {**config, "metadata": {"server": str(request.base_url)}}


async def ask_both(word: str, config: RunnableConfig) -> dict[str, Any]:
    server = config["metadata"]["server"]
    upper: RemoteRunnable[str, str] = RemoteRunnable(f"{server}upper/", timeout=20)
    count: RemoteRunnable[str, Any] = ls.client.RemoteRunnable(f"{server}count")
    streamed = [chunk async for chunk in upper.astream(word)]
    both = await upper.abatch([word, f"{word}!"])
    return {"streamed": streamed, "both": both, "count": await count.ainvoke(word)}


ls.add_routes(
    app,
    RunnableLambda(ask_both).with_types(input_type=str, output_type=dict),
    path="/ask",
    per_req_config_modifier=where_asked,
    enabled_endpoints=["invoke", "stream"],
)
