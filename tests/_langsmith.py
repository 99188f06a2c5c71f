"""A LangSmith to be asked over a socket: it answers as scripted, and keeps what it was asked.

`PUT /script` with `{"delay": 0.2, "status": 500}` changes how it answers about feedback, where
`statuses` are those of the first answers and `body` is what all say; `GET /asked` returns what it
was asked since.
"""

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

TOKEN = "00000000-0000-4000-8000-000000000001"
SHARED = "00000000-0000-4000-8000-000000000002"


def stub() -> FastAPI:
    """Return the application."""
    app = FastAPI()
    script: dict[str, Any] = {}
    asked: list[dict[str, Any]] = []

    async def answered(request: Request, body: Any) -> Response:
        sent = await request.json()
        asked.append({"method": request.method, "path": request.url.path, "body": sent})
        # All of it is read before the delay, after which the script may be another test's.
        first, text = script.get("statuses"), script.get("body")
        status = first.pop(0) if first else script.get("status")
        await asyncio.sleep(script.get("delay", 0))
        if status is not None:
            return Response("a secret of LangSmith's", status)
        if text is not None:
            return Response(text)
        return JSONResponse(body)

    @app.put("/script")
    async def set_script(request: Request) -> None:
        script.clear()
        script.update(await request.json())
        asked.clear()

    @app.get("/asked")
    async def get_asked() -> list[dict[str, Any]]:
        return asked

    @app.post("/feedback/tokens")
    async def token(request: Request) -> Response:
        url = f"{request.base_url}feedback/tokens/{TOKEN}"
        body = {"id": TOKEN, "url": url, "expires_at": "2030-01-01T00:00:00+00:00"}
        return await answered(request, body)

    @app.post("/feedback/tokens/{token_id}")
    async def use_token(request: Request) -> Response:
        return await answered(request, {})

    @app.post("/feedback")
    async def feedback(request: Request) -> Response:
        return await answered(request, {})

    @app.put("/runs/{run_id}/share")
    async def share(request: Request) -> Response:
        return await answered(request, {"share_token": SHARED})

    @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH"])
    async def traces() -> dict[str, Any]:
        return {}

    return app


app = stub()
