"""A retriever whose collection and number of results callers choose."""

from typing import Any

from fastapi import FastAPI
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField
from langserve import add_routes

COLLECTIONS = {
    "animals": ["cats sleep", "dogs bark", "cats and dogs play"],
    "plants": ["trees grow", "cats hide in trees"],
}


class Shelf(BaseRetriever):
    """Ranks texts by the words that they share with the question."""

    collection: str = "animals"
    limit: int = 2

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        asked = set(query.lower().split())
        texts = COLLECTIONS[self.collection]
        ranked = sorted(texts, key=lambda text: -len(asked & set(text.split())))
        return [
            Document(text, metadata={"collection": self.collection, "rank": rank})
            for rank, text in enumerate(ranked[: self.limit])
        ]


retriever = Shelf().configurable_fields(
    collection=ConfigurableField(id="collection", name="Collection"),
    limit=ConfigurableField(id="limit", name="Limit"),
)
app = FastAPI()
add_routes(app, retriever, path="/retriever")
