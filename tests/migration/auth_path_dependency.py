"""Some chains are for those who log in, and one is for everybody."""

from fastapi import Depends, FastAPI
from fastapi.exceptions import HTTPException
from fastapi.security import OAuth2PasswordBearer
from langchain_core.runnables import RunnableLambda
from langserve import add_routes
from starlette.requests import Request

app = FastAPI()
bearer = OAuth2PasswordBearer(tokenUrl="token")


async def logged_in(request: Request, token: str = Depends(bearer)) -> str:
    """Return who it is."""
    users = {"ann-token": "ann", "bob-token": "bob"}
    if token not in users:
        raise HTTPException(401, "Invalid credentials", {"WWW-Authenticate": "Bearer"})
    request.state.user = users[token]
    return users[token]


add_routes(
    app,
    RunnableLambda(lambda number: number + 1).with_types(input_type=int),
    path="/add_one",
    dependencies=[Depends(logged_in)],
)
add_routes(
    app,
    RunnableLambda(lambda number: number - 1).with_types(input_type=int),
    path="/subtract_one",
)
