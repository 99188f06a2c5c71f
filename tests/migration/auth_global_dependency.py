"""All routes ask for a token."""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from langchain_core.runnables import RunnableLambda
from langserve import add_routes


async def check_token(x_token: Annotated[str, Header()]) -> None:
    """Refuse a request without the right token."""
    if x_token != "secret-token":
        raise HTTPException(status_code=400, detail="X-Token header invalid")


app = FastAPI(title="Guarded", dependencies=[Depends(check_token)])
add_routes(app, RunnableLambda(lambda text: text.title()), path="/title", input_type=str)
