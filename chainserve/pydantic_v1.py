"""In the place of `langserve.pydantic_v1`: says what to import instead."""

raise ImportError(
    "chainserve works with pydantic 2 and has no pydantic_v1. In its place write: "
    "from pydantic import BaseModel, Field"
)
