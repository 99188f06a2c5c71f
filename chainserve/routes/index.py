"""The server's own routes: what it serves, and whether it lives and is ready."""

from collections.abc import Sequence
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse

from chainserve.chain import Chain
from chainserve.registry import why_not_streaming
from chainserve.types import ENDPOINT_NAMES, SERVED_ENDPOINTS, PlaygroundType


class ChainDescription(BaseModel):
    """A served chain, as `GET /chains` describes it."""

    path: str = Field(description="The path below which its routes are.")
    title: str
    description: str
    tags: list[str]
    model: str | None = Field(description='The model that answers; "offline-demo" needs no key.')
    examples: list[Any] = Field(description="Inputs worth trying.")
    endpoints: list[str] = Field(description="The LangServe endpoints that are mounted.")
    streams: bool = Field(description="Whether its output comes in more than one piece.")
    playground_type: PlaygroundType


class Health(BaseModel):
    """The answer of a probe."""

    status: str


def index_routes(chains: Sequence[Chain]) -> APIRouter:
    """Return the routes `/`, `/chains`, `/livez` and `/readyz`."""
    router = APIRouter(tags=["server"])
    descriptions = [describe(chain) for chain in chains]

    @router.get("/chains", summary="Chains")
    async def list_chains() -> list[ChainDescription]:
        """List the chains that are served."""
        return descriptions

    @router.get("/livez", summary="Liveness")
    async def livez() -> Health:
        """Answer as long as the process does."""
        return Health(status="ok")

    @router.get("/readyz", summary="Readiness")
    async def readyz() -> Health:
        """Answer when the server takes requests."""
        return Health(status="ok")

    @router.get("/", include_in_schema=False)
    async def front_page(request: Request) -> HTMLResponse:
        """Link to the chains and their documents."""
        root = request.scope.get("root_path", "").rstrip("/")
        return HTMLResponse(_page(descriptions, root), headers=_PAGE_HEADERS)

    return router


def describe(chain: Chain) -> ChainDescription:
    """Return what `GET /chains` says of a chain."""
    return ChainDescription(
        path=chain.path,
        title=chain.title,
        description=chain.description,
        tags=list(chain.tags),
        model=chain.model,
        examples=list(chain.examples),
        endpoints=[name for name in ENDPOINT_NAMES if name in chain.endpoints & SERVED_ENDPOINTS],
        streams=why_not_streaming(chain.runnable) is None,
        playground_type=chain.playground_type,
    )


_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>chainserve</title>
<style>
  :root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}
  body {{ max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }}
  li {{ margin: 1.25rem 0; }}
  small, code {{ opacity: .75; }}
</style>
<h1>chainserve</h1>
<p><a href="{root}/docs">API documentation</a> · <a href="{root}/chains">chains as JSON</a></p>
<ul>
{items}
</ul>
"""

_ITEM = """<li><strong>{title}</strong> <code>{path}</code> <small>{model}</small><br>
{description}<br>
<a href="{root}{path}/input_schema">input schema</a></li>"""


def _page(descriptions: Sequence[ChainDescription], root: str) -> str:
    """Return the front page; all that is not ours is escaped."""
    items = [
        _ITEM.format(
            root=escape(root),
            path=escape(item.path),
            title=escape(item.title),
            model=escape(item.model or ""),
            description=escape(item.description),
        )
        for item in descriptions
    ]
    return _PAGE.format(root=escape(root), items="\n".join(items))
