"""Applications and requests that many tests need, and how they judge an error."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from langchain_core.runnables import Runnable, RunnableLambda

from chainserve import add_routes
from chainserve.executor import RunExecutor
from chainserve.runs import Run
from chainserve.runtime import runtimes_on
from chainserve.settings import Settings
from tests._bridge import Response


def make_app(
    runnable: Runnable[Any, Any] | Callable[..., Any], path: str = "/chain", **options: Any
) -> FastAPI:
    """Return an application with one chain; `settings` are those of its runtime."""
    app = FastAPI()
    runtimes_on(app.router, options.pop("settings", None) or Settings())
    if not isinstance(runnable, Runnable):
        runnable = RunnableLambda(runnable)
    add_routes(app, runnable, path=path, **options)
    return app


def executor_of(app: FastAPI) -> RunExecutor:
    """Return the executor of an application on this event loop."""
    return runtimes_on(app.router).current().executor


def only_run(app: FastAPI) -> Run:
    """Return the one run that is live."""
    [run] = executor_of(app).live
    return run


def assert_problem(response: Response, status: int, code: str) -> dict[str, Any]:
    """Assert that a response is a problem document, and return its members."""
    assert response.status == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "code", "message"}
    assert problem["status"] == status
    assert problem["code"] == code
    assert isinstance(problem["message"], str)
    assert problem["message"]
    return problem
