"""One server, as its users would run it: `python -m benchmarks.serve KIND PORT CASE...`."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

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
    from chainserve import run

    os.environ["PORT"] = str(port)
    run(application(cases))


def application(cases: Sequence[Case]) -> Any:
    """Return an application of this package's with some cases."""
    from chainserve import Chain, create_app

    chains = []
    for case in cases:
        runnable = case.build(case.chunks)
        chains += [Chain(path=path, runnable=runnable) for path in case.paths]
    return create_app(chains)


def serve_workers(workers: int, cases: Sequence[Case], port: int) -> None:
    """Serve with the command, which starts so many processes that keep nothing."""
    from chainserve.cli import main

    os.environ["BENCHMARKED"] = " ".join(case.name for case in cases)
    options = ["--port", str(port), "--workers", str(workers), "--stateless"]
    main(["serve", "benchmarks.application:app", *options])


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

    routes = [constant(case) for case in cases]
    uvicorn.run(Starlette(routes=routes), host=HOST, port=port, access_log=False)


def constant(case: Case) -> Route:
    """Return a route that answers with the same chunks, each by itself, or with the one output."""
    known: list[bytes] = []

    async def chunks() -> Sequence[bytes]:
        if not known:  # The first request, before anything is measured.
            known.extend(await answer(case))
            if case.streams:
                known[:] = [encode_event("data", chunk) for chunk in known]
                known.append(encode_event("end", None))
        return known

    async def each(blocks: Sequence[bytes]) -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    async def answered(request: Request) -> Response:
        await request.body()
        blocks = await chunks()
        if case.streams:
            return StreamingResponse(each(blocks), media_type="text/event-stream")
        return Response(b'{"output":%b}' % b"".join(blocks), media_type="application/json")

    return Route(case.target, answered, methods=["POST"])


_SERVE: dict[str, Callable[[Sequence[Case], int], None]] = {
    "chainserve": serve_chainserve,
    "1 worker": partial(serve_workers, 1),
    "2 workers": partial(serve_workers, 2),
    "langserve": serve_langserve,
    "starlette": serve_starlette,
}

if __name__ == "__main__":
    kind, port, *names = sys.argv[1:]
    _SERVE[kind]([case_named(name) for name in names], int(port))
