"""A chat for each user, whom a cookie names, and for each of the user's conversations."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyCookie
from langchain_core.chat_history import BaseChatMessageHistory, InMemoryChatMessageHistory
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langserve import add_routes
from typing_extensions import TypedDict

HISTORIES: dict[tuple[str, str], InMemoryChatMessageHistory] = {}


def history_of(user_id: str, conversation_id: str) -> BaseChatMessageHistory:
    return HISTORIES.setdefault((user_id, conversation_id), InMemoryChatMessageHistory())


def with_user(config: dict[str, Any], request: Request) -> dict[str, Any]:
    user = request.cookies.get("user_id")
    if user is None:
        raise HTTPException(status_code=400, detail="No cookie says who you are.")
    config = config.copy()
    config["configurable"] = {**config.get("configurable", {}), "user_id": user}
    return config


class Line(TypedDict):
    human_input: str


def reply(prompt: Any) -> AIMessage:
    before = sum(message.type == "human" for message in prompt.to_messages()) - 1
    return AIMessage(f"{before} before: {prompt.to_messages()[-1].content}", id="fixed")


prompt = ChatPromptTemplate.from_messages(
    [MessagesPlaceholder(variable_name="history"), ("human", "{human_input}")]
)
chat = RunnableWithMessageHistory(
    prompt | RunnableLambda(reply),
    history_of,
    input_messages_key="human_input",
    history_messages_key="history",
    history_factory_config=[
        ConfigurableFieldSpec(
            id="user_id",
            annotation=str,
            name="User",
            description="Who.",
            default="",
            is_shared=True,
        ),
        ConfigurableFieldSpec(
            id="conversation_id",
            annotation=str,
            name="Conversation",
            description="Which.",
            default="",
            is_shared=True,
        ),
    ],
).with_types(input_type=Line)

app = FastAPI()
cookie = APIKeyCookie(name="user_id", auto_error=False)


@app.get("/me")
def me(user: Annotated[str | None, Depends(cookie)]) -> dict[str, str | None]:
    return {"user": user}


add_routes(
    app,
    chat,
    path="/talk",
    per_req_config_modifier=with_user,
    disabled_endpoints=["playground", "batch"],
)
