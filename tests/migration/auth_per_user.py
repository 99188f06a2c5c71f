"""What a user finds depends on who the user is, which a header says."""

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField
from langserve import add_routes

NOTES = [
    Document("Cats like fish.", metadata={"owner": "ann"}),
    Document("Dogs like bones.", metadata={"owner": "ann"}),
    Document("Birds like seeds.", metadata={"owner": "bob"}),
]


class OwnNotes(BaseRetriever):
    """Finds a user's notes that share a word with the question."""

    user_id: str | None = None

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        words = {word.lower().strip("?.") for word in query.split()}
        return [
            note
            for note in NOTES
            if note.metadata["owner"] == self.user_id
            and words & {word.lower().strip(".") for word in note.page_content.split()}
        ]


async def for_the_user(config: dict[str, Any], request: Request) -> dict[str, Any]:
    """Say whose notes they are; a caller cannot."""
    user = request.headers.get("x-user")
    if user is None:
        raise HTTPException(401, "Say who you are in X-User.")
    config["configurable"] = {"user_id": user}
    return config


notes = OwnNotes().configurable_fields(user_id=ConfigurableField(id="user_id"))
app = FastAPI()
add_routes(
    app,
    notes,
    path="/notes",
    per_req_config_modifier=for_the_user,
    enabled_endpoints=["invoke", "batch"],
)
