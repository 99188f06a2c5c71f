"""One server, as its users would run it: `python -m benchmarks.serve KIND PORT CASE...`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from benchmarks.cases import Case, case_named
from benchmarks.in_process import answer
from benchmarks.processes import HOST
from chainserve.wire.sse import encode_event


def serve_chainserve(cases: Sequence[Case], port: int) -> None:
    """Serve with this package and its default settings."""
    from chainserve import Chain, create_app, run

    chains = []
    for case in cases:
        runnable = case.build(case.chunks)
        chains += [Chain(path=path, runnable=runnable) for path in case.paths]
    os.environ["PORT"] = str(port)
    run(create_app(chains))


def serve_langserve(cases: Sequence[Case], port: int) -> None:
    """Serve with LangServe, as its documentation shows it."""
    import uvicorn
    from fastapi import FastAPI
    from langserve import add_routes

    app = FastAPI()
    for case in cases:
        runnable = case.build(case.chunks)
        for path in case.paths:
            add_routes(app, runnable, path=path)
    uvicorn.run(app, host=HOST, port=port)


def serve_starlette(cases: Sequence[Case], port: int) -> None:
    """Serve the bytes of the answers, which are known before: the least that a server can do."""
    import uvicorn

    routes = [constant(case, asyncio.run(answer(case))) for case in cases]
    uvicorn.run(Starlette(routes=routes), host=HOST, port=port, access_log=False)


def constant(case: Case, chunks: Sequence[bytes]) -> Route:
    """Return a route that answers with these chunks, each by itself, or with the one output."""
    blocks = [encode_event("data", chunk) for chunk in chunks]
    blocks.append(encode_event("end", None))

    async def each() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    async def stream(request: Request) -> Response:
        await request.body()
        return StreamingResponse(each(), media_type="text/event-stream")

    async def output(request: Request) -> Response:
        await request.body()
        return Response(b'{"output":%b}' % b"".join(chunks), media_type="application/json")

    return Route(case.target, stream if case.streams else output, methods=["POST"])


_SERVE = {
    "chainserve": serve_chainserve,
    "langserve": serve_langserve,
    "starlette": serve_starlette,
}

if __name__ == "__main__":
    kind, port, *names = sys.argv[1:]
    _SERVE[kind]([case_named(name) for name in names], int(port))
