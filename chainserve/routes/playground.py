"""The playground of a chain: a page that runs it and shows the answer as it arrives.

The files are the same for all chains and nothing is written into them. What the page knows of its
chain it reads from `chain.json` beside it and from the chain's schemas, by relative URLs, so it
works below any prefix.
"""

from pydantic_core import PydanticSerializationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from chainserve.chain import Chain
from chainserve.errors import ConfigurationError
from chainserve.routes.index import describe
from chainserve.routes.pages import Page, playground_file
from chainserve.routes.requests import answers_errors

_SHOWN = {"title", "description", "model", "examples", "endpoints", "playground_type"}


class PlaygroundRoutes:
    """The handlers of one chain's playground.

    Raises:
        ConfigurationError: An example of the chain cannot be written as JSON.
    """

    def __init__(self, chain: Chain) -> None:
        page = playground_file("index.html")
        self._pages = {
            "": page,
            "index.html": page,
            "playground.js": playground_file("playground.js"),
            "playground.css": playground_file("playground.css"),
            "chain.json": Page.of(_chain_json(chain), "json"),
        }

    @answers_errors
    async def page(self, request: Request) -> Response:
        """Answer the page, or one of the files beside it."""
        page = self._pages.get(request.path_params["file"])
        if page is None:
            raise HTTPException(404)
        return page.answer(request)

    @answers_errors
    async def with_slash(self, request: Request) -> Response:
        """Send the browser to the page; its relative URLs need the slash."""
        return Response(status_code=307, headers={"location": "playground/"})


def _chain_json(chain: Chain) -> bytes:
    """Return what the page shows of its chain."""
    try:
        return describe(chain).model_dump_json(include=_SHOWN).encode()
    except PydanticSerializationError as error:
        raise ConfigurationError(
            f"The examples of {chain.path or '/'} cannot be shown: {error}. Give them as JSON data."
        ) from error
