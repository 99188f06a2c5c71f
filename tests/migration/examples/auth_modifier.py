"""Who asks decides which notes are searched: the caller's own, and nobody else's."""

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from langchain_core.documents import Document
from langchain_core.runnables import (
    ConfigurableFieldSpec,
    RunnableConfig,
    RunnableLambda,
    RunnableSerializable,
)
from langserve import add_routes

KEYS = {"red": "ruth", "blue": "bela"}
NOTES = [
    Document("Ruth waters the ferns on Monday.", metadata={"owner": "ruth"}),
    Document("Bela feeds the ferns in May.", metadata={"owner": "bela"}),
    Document("Ruth repots the ivy.", metadata={"owner": "ruth"}),
]


class OwnNotes(RunnableSerializable[str, list[Document]]):
    """Searches the notes of the user whom the config names."""

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return [
            ConfigurableFieldSpec(
                id="user", name="User", annotation=str, default="", is_shared=True
            )
        ]

    def invoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        user = (config or {}).get("configurable", {}).get("user", "")
        return [
            note
            for note in NOTES
            if note.metadata["owner"] == user and input.lower() in note.page_content.lower()
        ]


def user_of(config: dict[str, Any], request: Request) -> dict[str, Any]:
    key = request.headers.get("x-key")
    if key not in KEYS:
        raise HTTPException(status_code=401, detail="Who are you?")
    configurable = {**config.get("configurable", {}), "user": KEYS[key]}
    return {**config, "configurable": configurable}


def count(notes: list[Document]) -> int:
    return len(notes)


app = FastAPI()
add_routes(
    app,
    OwnNotes(),
    path="/notes",
    config_keys=["configurable"],
    per_req_config_modifier=user_of,
    enabled_endpoints=["invoke", "batch", "stream"],
)
add_routes(
    app,
    OwnNotes() | RunnableLambda(count),
    path="/count",
    config_keys=[],
    per_req_config_modifier=user_of,
    disabled_endpoints=["playground", "stream_log"],
)
