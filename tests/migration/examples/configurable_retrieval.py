"""Retrieval from shelves that callers choose, and from those that are the caller's own."""

from typing import Any

from fastapi import FastAPI, Request
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from langserve import add_routes

SHELVES = {
    "garden": ["Ferns like shade.", "Roses like sun.", "Moss likes rain and shade."],
    "kitchen": ["Salt the water.", "Roses make a syrup."],
}


class Shelf(BaseRetriever):
    """Finds the sentences that share a word with the question."""

    shelf: str = "garden"
    owner: str = ""
    k: int = 2

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        words = set(query.lower().split())
        found = [
            Document(text, metadata={"shelf": self.shelf, "owner": self.owner})
            for text in SHELVES.get(self.shelf, [])
            if words & set(text.lower().rstrip(".").split())
        ]
        return found[: self.k]


shelf = Shelf().configurable_fields(
    shelf=ConfigurableField(id="shelf", name="Shelf"),
    owner=ConfigurableField(id="owner", name="Owner"),
    k=ConfigurableField(id="k", name="How many"),
)
other = Shelf(shelf="kitchen").configurable_alternatives(
    ConfigurableField(id="room"), default_key="kitchen", garden=Shelf(shelf="garden", k=1)
)


def joined(found: list[Document]) -> str:
    return " ".join(document.page_content for document in found)


def of_caller(config: dict[str, Any], request: Request) -> dict[str, Any]:
    configurable = {**config.get("configurable", {}), "owner": request.headers.get("x-user", "?")}
    return {**config, "configurable": configurable}


chain = {
    "context": other | joined,
    "question": RunnablePassthrough(),
} | ChatPromptTemplate.from_template("{context} {question}")

app = FastAPI()
add_routes(app, shelf, path="/shelf")
add_routes(app, shelf, path="/own", per_req_config_modifier=of_caller)
add_routes(app, chain.with_types(input_type=str), path="/answer")
