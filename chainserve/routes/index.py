"""The server's own routes: what it serves, and whether it lives and is ready."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chainserve.chain import Chain
from chainserve.demo import OFFLINE_MODEL_NAME
from chainserve.flow import streams
from chainserve.routes.pages import Page, client_files, playground_file
from chainserve.types import ENDPOINT_NAMES, PlaygroundType


class ChainDescription(BaseModel):
    """A served chain, as `GET /chains` describes it."""

    path: str = Field(description="The path below which its routes are.")
    title: str
    description: str
    tags: list[str]
    model: str | None = Field(description='The model that answers; "offline-demo" needs no key.')
    examples: list[Any] = Field(description="Inputs worth trying.")
    endpoints: list[str] = Field(description="The endpoints that are mounted.")
    streams: bool = Field(description="Whether its output comes in more than one piece.")
    playground_type: PlaygroundType


class Health(BaseModel):
    """The answer of a probe."""

    status: str


def add_index_routes(app: FastAPI, chains: Sequence[Chain]) -> None:
    """Add the routes `/`, `/chains`, `/livez`, `/readyz`, and those of the files for pages."""
    descriptions = [describe(chain) for chain in chains]
    tags: list[Any] = ["server"]

    @app.get("/chains", summary="Chains", tags=tags)
    async def list_chains() -> list[ChainDescription]:
        """List the chains that are served."""
        return descriptions

    @app.get("/livez", summary="Liveness", tags=tags)
    async def livez() -> Health:
        """Answer as long as the process does."""
        return Health(status="ok")

    @app.get("/readyz", summary="Readiness", tags=tags)
    async def readyz() -> Health:
        """Answer when the server takes requests."""
        return Health(status="ok")

    page = Page.of(_front_page(descriptions).encode(), "html")

    @app.get("/", include_in_schema=False)
    async def front_page(request: Request) -> Response:
        """Link to the chains and their documents."""
        return page.answer(request)

    @app.get("/playground.css", include_in_schema=False)
    async def style(request: Request) -> Response:
        """Answer what the front page looks like."""
        return playground_file("playground.css").answer(request)

    modules = client_files()

    @app.get("/chainserve.{rest}", include_in_schema=False)
    async def client(request: Request) -> Response:
        """Answer a module of the client for JavaScript."""
        module = modules.get(f"chainserve.{request.path_params['rest']}")
        if module is None:
            raise HTTPException(404)
        return module.answer(request)


def describe(chain: Chain) -> ChainDescription:
    """Return what `GET /chains` says of a chain."""
    return ChainDescription(
        path=chain.path,
        title=chain.title,
        description=chain.description,
        tags=list(chain.tags),
        model=chain.model,
        examples=list(chain.examples),
        endpoints=[name for name in ENDPOINT_NAMES if name in chain.endpoints],
        streams=streams(chain.runnable),
        playground_type=chain.playground_type,
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>chainserve</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="playground.css">
</head>
<body>
<main>
<h1>chainserve</h1>
<nav aria-label="Documents">
<a href="docs">API documentation</a>
<a href="chains">Chains as JSON</a>
</nav>
<ul class="chains">
{items}
</ul>
</main>
</body>
</html>
"""

_ITEM = """<li>
<div class="heading"><h2>{title}</h2> <code>{path}</code>{badge}</div>
<p>{description}</p>
<p class="links">{links}</p>
</li>"""

_LINKS: Mapping[str, tuple[str, str]] = {
    "playground": ("playground/", "Playground"),
    "input_schema": ("input_schema", "Input schema"),
}
"""What is linked where it is mounted: its URL below the chain's path, and the link's text."""


def _front_page(chains: Sequence[ChainDescription]) -> str:
    """Return the front page; its links are relative, and all that is not ours is escaped."""
    return _PAGE.format(items="\n".join(map(_item, chains)))


def _item(chain: ChainDescription) -> str:
    """Return a chain's entry."""
    return _ITEM.format(
        title=escape(chain.title),
        path=escape(chain.path or "/"),
        badge=_badge(chain.model),
        description=escape(chain.description),
        links="\n".join(_links(chain)),
    )


def _badge(model: str | None) -> str:
    """Return who answers, if that is known."""
    if model is None:
        return ""
    shown = "offline demo" if model == OFFLINE_MODEL_NAME else model
    return f' <span class="badge">{escape(shown)}</span>'


def _links(chain: ChainDescription) -> Iterator[str]:
    """Yield the links to what is mounted."""
    for endpoint, (url, text) in _LINKS.items():
        if endpoint in chain.endpoints:
            # The dot keeps a colon in the path from making it a scheme.
            yield f'<a href="{escape(f".{quote(chain.path)}/{url}")}">{text}</a>'
