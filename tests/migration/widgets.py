"""A chat in the playground, whose input says which widget shows it."""

from fastapi import FastAPI
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langserve import CustomUserType, add_routes
from pydantic import Field


class ChatHistory(CustomUserType):
    """Pairs of what was asked and answered, and a question."""

    chat_history: list[tuple[str, str]] = Field(
        ..., json_schema_extra={"widget": {"type": "chat", "input": "question"}}
    )
    question: str


class Messages(CustomUserType):
    """A conversation in messages."""

    messages: list[HumanMessage | AIMessage | SystemMessage] = Field(
        ..., json_schema_extra={"widget": {"type": "chat", "input": "messages"}}
    )


def count(value: ChatHistory) -> str:
    """Say how long the history is."""
    return f"{len(value.chat_history)} before {value.question}"


def last(value: Messages) -> AIMessage:
    """Repeat the last message."""
    return AIMessage(f"{type(value.messages[-1]).__name__}: {value.messages[-1].content}", id="a")


app = FastAPI()
add_routes(app, RunnableLambda(count).with_types(input_type=ChatHistory), path="/count")
add_routes(
    app,
    RunnableLambda(last).with_types(input_type=Messages),
    path="/last",
    playground_type="chat",
    enable_feedback_endpoint=True,
)
