"""A file in the body, in base64."""

import base64

from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda
from langserve import CustomUserType, add_routes
from pydantic import Field


class FileProcessingRequest(CustomUserType):
    """A file, and how much of it is looked at."""

    file: str = Field(..., json_schema_extra={"widget": {"type": "base64file"}})
    num_chars: int = 10


def process(request: FileProcessingRequest) -> str:
    """Return the start of the file."""
    return base64.b64decode(request.file.encode()).decode()[: request.num_chars]


app = FastAPI()
add_routes(
    app,
    RunnableLambda(process).with_types(input_type=FileProcessingRequest),
    config_keys=["configurable"],
    path="/file",
)
