"""A conversation that is remembered by its session, in a file for each."""

import json
import re
import tempfile
from pathlib import Path

from fastapi import FastAPI, HTTPException
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, messages_from_dict, messages_to_dict
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langserve import add_routes
from typing_extensions import TypedDict

FOLDER = Path(tempfile.mkdtemp())


class FileHistory(BaseChatMessageHistory):
    """Keeps the messages of a session in a file."""

    def __init__(self, session_id: str) -> None:
        if re.fullmatch(r"[A-Za-z0-9_-]+", session_id) is None:
            raise HTTPException(400, f"Session ID `{session_id}` is not in a valid format.")
        self.path = FOLDER / f"{session_id}.json"

    @property
    def messages(self) -> list[BaseMessage]:
        """What was said."""
        return messages_from_dict(json.loads(self.path.read_text())) if self.path.exists() else []

    def add_messages(self, messages) -> None:
        """Add what was said now."""
        self.path.write_text(json.dumps(messages_to_dict([*self.messages, *messages])))

    def clear(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)


class Said(TypedDict):
    """What a person says."""

    human_input: str


def answer(prompt) -> AIMessage:
    """Say how much was said before."""
    return AIMessage(f"That is message {len(prompt.to_messages())}.", id="a")


prompt = ChatPromptTemplate.from_messages(
    [("system", "Count."), MessagesPlaceholder("history"), ("human", "{human_input}")]
)
chain = RunnableWithMessageHistory(
    prompt | RunnableLambda(answer),
    FileHistory,
    input_messages_key="human_input",
    history_messages_key="history",
).with_types(input_type=Said)

app = FastAPI()
add_routes(app, chain, path="/chat")
