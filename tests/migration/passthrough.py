"""What callers send comes back beside the answer."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langserve import add_routes
from langserve.schema import CustomUserType
from typing_extensions import TypedDict


class Question(TypedDict):
    """What is asked, and what is kept for the caller."""

    thing: str
    language: str
    info: dict[str, Any]


class Kept(CustomUserType):
    """Something to be kept."""

    note: str


prompt = ChatPromptTemplate.from_messages([("human", "translate `{thing}` to {language}")])
translate = prompt | RunnableLambda(lambda value: value.to_messages()[0].content[::-1])


def info(value: dict) -> Any:
    """Return what is kept."""
    return value["info"]


chain = RunnableParallel({"output": translate, "info": RunnableLambda(info)})
same: Callable[[Any], Any] = RunnablePassthrough()

app = FastAPI()
add_routes(app, chain, path="/v1", input_type=Question)
add_routes(
    app,
    RunnablePassthrough.assign(upper=lambda value: value["thing"].upper()),
    path="/v2",
    input_type=Question,
)
add_routes(app, RunnableLambda(lambda kept: kept.note).with_types(input_type=Kept), path="/v3")
