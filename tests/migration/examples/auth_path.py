"""One chain is open, another is for those with an account."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langserve import add_routes

ACCOUNTS = {"key-of-ida": "ida"}
bearer = HTTPBearer(auto_error=False)


def account(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> str:
    if credentials is None or credentials.credentials not in ACCOUNTS:
        raise HTTPException(401, "Sign in first.", headers={"WWW-Authenticate": "Bearer"})
    return ACCOUNTS[credentials.credentials]


model = FakeListChatModel(responses=["The tide comes in twice a day."])
prompt = ChatPromptTemplate.from_messages([("system", "You know the sea."), ("human", "{about}")])

app = FastAPI()
add_routes(app, prompt, path="/prompt")
add_routes(
    app,
    prompt | model | StrOutputParser(),
    path="/sea",
    dependencies=[Depends(account)],
)
