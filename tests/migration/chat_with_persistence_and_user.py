"""Conversations of users, who are told apart by a cookie."""

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langserve import add_routes
from pydantic import BaseModel

HISTORIES: dict[tuple[str, str], InMemoryChatMessageHistory] = {}


def history(user_id: str, conversation_id: str) -> InMemoryChatMessageHistory:
    """Return the history of one of a user's conversations."""
    return HISTORIES.setdefault((user_id, conversation_id), InMemoryChatMessageHistory())


def of_the_user(config: dict[str, Any], request: Request) -> dict[str, Any]:
    """Put the user in whom the cookie names."""
    user = request.cookies.get("user_id")
    if user is None:
        raise HTTPException(400, "No user id found. Please set a cookie named 'user_id'.")
    config["configurable"] = {**config.get("configurable", {}), "user_id": user}
    return config


class Said(BaseModel):
    """What a person says."""

    human_input: str


prompt = ChatPromptTemplate.from_messages(
    [MessagesPlaceholder("history"), ("human", "{human_input}")]
)


def answer(value) -> AIMessage:
    """Repeat all that was said."""
    said = [message.content for message in value.to_messages() if message.type == "human"]
    return AIMessage(" / ".join(said), id="a")


chain = RunnableWithMessageHistory(
    prompt | RunnableLambda(answer),
    history,
    input_messages_key="human_input",
    history_messages_key="history",
    history_factory_config=[
        ConfigurableFieldSpec(id="user_id", annotation=str, name="User", is_shared=True),
        ConfigurableFieldSpec(id="conversation_id", annotation=str, name="Talk", is_shared=True),
    ],
).with_types(input_type=Said)

app = FastAPI()
add_routes(app, chain, per_req_config_modifier=of_the_user, path="/chat")
