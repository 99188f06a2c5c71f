"""A chat whose sessions are files."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI, HTTPException
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langserve import add_routes
from pydantic import BaseModel, Field

FOLDER = Path(tempfile.mkdtemp(prefix="chats-"))


class FileHistory(BaseChatMessageHistory):
    """The messages of one session, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        if not self._path.exists():
            return []
        return messages_from_dict(json.loads(self._path.read_text()))

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        kept = [message_to_dict(message) for message in [*self.messages, *messages]]
        self._path.write_text(json.dumps(kept))

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)


def history_of(session_id: str) -> FileHistory:
    if not re.fullmatch(r"[\w-]{1,40}", session_id):
        raise HTTPException(status_code=400, detail="A session is named by letters and digits.")
    return FileHistory(FOLDER / f"{session_id}.json")


class Said(BaseModel):
    """What a user says."""

    text: str = Field(description="Words for the assistant.")


def answer(prompt: PromptValue) -> AIMessage:
    said = [message.text for message in prompt.to_messages() if message.type == "human"]
    return AIMessage(f"You said {len(said)}: {', '.join(said)}.", id="counted")


prompt = ChatPromptTemplate.from_messages(
    [("system", "You count."), MessagesPlaceholder("past"), ("human", "{text}")]
)
chat = RunnableWithMessageHistory(
    prompt | RunnableLambda(answer),
    history_of,
    input_messages_key="text",
    history_messages_key="past",
).with_types(input_type=Said)

app = FastAPI()
add_routes(app, chat, path="/chat")
