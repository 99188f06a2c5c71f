"""The three verbs asked alike, so that a test can say what holds for each of them."""

from typing import Any, Unpack

from starlette.types import ASGIApp

from tests._asgi import RequestOptions
from tests._bridge import Response, request

VERBS = ["invoke", "batch", "stream"]
SCHEMAS = ["input_schema", "output_schema", "config_schema"]
ENDPOINTS = [*VERBS, *SCHEMAS]


def body_of(verb: str, value: Any = 1, **members: Any) -> dict[str, Any]:
    """Return the body that asks a verb to run once; `members` are added, such as `config`."""
    return {**({"inputs": [value]} if verb == "batch" else {"input": value}), **members}


async def ask(
    app: ASGIApp,
    verb: str,
    value: Any = 1,
    *,
    path: str = "/chain",
    members: dict[str, Any] | None = None,
    **options: Unpack[RequestOptions],
) -> Response:
    """Ask a verb to run once."""
    options["json"] = body_of(verb, value, **(members or {}))
    return await request(app, "POST", f"{path}/{verb}", **options)


def output_of(verb: str, response: Response) -> Any:
    """Return the one output, or chunk, of a run that succeeded."""
    assert response.status == 200, response.text
    if verb == "stream":
        events = response.events()
        assert events[-1].event == "end", response.text
        [chunk] = [event.json() for event in events if event.event == "data"]
        return chunk
    output = response.json()["output"]
    return output[0] if verb == "batch" else output


def run_id_of(verb: str, response: Response) -> str:
    """Return the id of the one run."""
    assert response.status == 200, response.text
    metadata = response.events()[0].json() if verb == "stream" else response.json()["metadata"]
    return str(metadata["run_ids"][0] if verb == "batch" else metadata["run_id"])
