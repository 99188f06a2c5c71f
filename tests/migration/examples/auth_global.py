"""Every route of the application asks for a token."""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from langchain_core.runnables import RunnableLambda
from langserve import add_routes


async def require_token(x_token: Annotated[str, Header()]) -> None:
    if x_token != "open sesame":
        raise HTTPException(status_code=403, detail="This token opens nothing.")


def next_number(number: int) -> int:
    return number + 1


app = FastAPI(title="Behind a token", dependencies=[Depends(require_token)])
add_routes(app, RunnableLambda(next_number), path="/next")
