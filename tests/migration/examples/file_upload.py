"""A file travels as base64 in a field of the input."""

import base64
import binascii

from fastapi import FastAPI, HTTPException
from langchain_core.runnables import RunnableLambda
from langserve import CustomUserType, add_routes
from pydantic import Field


class Upload(CustomUserType):
    """A file, and how much of it to show."""

    file: str = Field(..., json_schema_extra={"widget": {"type": "base64file"}})
    shown: int = 20


def head_of(upload: Upload) -> str:
    # A CustomUserType arrives as an object, not as a dict.
    try:
        data = base64.b64decode(upload.file, validate=True)
    except binascii.Error:
        raise HTTPException(status_code=422, detail="That is no base64.") from None
    return data.decode("utf-8", errors="replace")[: upload.shown]


app = FastAPI()
add_routes(
    app,
    RunnableLambda(head_of).with_types(input_type=Upload),
    config_keys=["configurable"],
    path="/head",
)
