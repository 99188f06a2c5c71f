"""Callers choose the prompt and the model, in the config or in the URL."""

from typing import Any

from fastapi import FastAPI, Request
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import ConfigurableField
from langserve import add_routes

model = FakeListChatModel(responses=["high"]).configurable_alternatives(
    ConfigurableField(id="llm", name="Model"),
    default_key="high",
    low=FakeListChatModel(responses=["low"]),
)
prompt = PromptTemplate.from_template("Tell me of {topic}.").configurable_fields(
    template=ConfigurableField(id="prompt", name="Prompt", description="What to ask")
)


def by_header(config: dict[str, Any], request: Request) -> dict[str, Any]:
    """Let a header choose the model."""
    if (model := request.headers.get("x-model")) is not None:
        config.setdefault("configurable", {})["llm"] = model
    return config


app = FastAPI()
add_routes(app, prompt | model | StrOutputParser(), path="/configurable_chain")
add_routes(app, prompt, path="/configurable_prompt", config_keys=["configurable", "tags"])
add_routes(
    app, prompt | model | StrOutputParser(), path="/by_header", per_req_config_modifier=by_header
)
