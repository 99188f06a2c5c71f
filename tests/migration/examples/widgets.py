"""Inputs for which a playground has widgets: chats, and files in the middle of other fields."""

import langserve
from fastapi import FastAPI
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field

app = FastAPI()


class ChatRequest(langserve.CustomUserType):
    """All messages of a conversation."""

    messages: list[HumanMessage | AIMessage | SystemMessage] = Field(
        ..., json_schema_extra={"widget": {"type": "chat", "input": "messages"}}
    )


class HistoryRequest(langserve.schema.CustomUserType):
    """A question, and the pairs of question and answer before it."""

    chat_history: list[tuple[str, str]] = Field(
        ...,
        json_schema_extra={"widget": {"type": "chat", "input": "question", "output": "answer"}},
    )
    question: str


class Reply(BaseModel):
    answer: str
    turns: int


def reply(request: ChatRequest) -> AIMessage:
    kinds = [message.type for message in request.messages]
    return AIMessage(f"{', '.join(kinds)}: {request.messages[-1].content}", id="reply")


def answer(request: HistoryRequest) -> Reply:
    return Reply(answer=request.question.upper(), turns=len(request.chat_history))


langserve.add_routes(
    app,
    RunnableLambda(reply).with_types(input_type=ChatRequest),
    path="/chat",
    playground_type="default",
)
langserve.add_routes(
    app,
    RunnableLambda(answer).with_types(input_type=HistoryRequest),
    path="/history",
    output_type=Reply,
)
