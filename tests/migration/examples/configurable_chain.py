"""A prompt that callers may rewrite, a model that they may choose, and links with a config."""

from fastapi import FastAPI
from langchain_core.language_models import FakeListChatModel, ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField
from langserve import add_routes

model = FakeListChatModel(responses=["Salt."]).configurable_alternatives(
    ConfigurableField(id="cook", name="Cook", description="Who answers."),
    default_key="terse",
    parrot=ParrotFakeChatModel(),
    chatty=FakeListChatModel(responses=["A pinch of salt, and then another one."]),
)
prompt = PromptTemplate.from_template("What does {dish} need?").configurable_fields(
    template=ConfigurableField(id="question", name="Question", description="With a {{dish}}.")
)
choice = ChatPromptTemplate.from_template("Recipe for {dish}").configurable_alternatives(
    ConfigurableField(id="kind"),
    default_key="recipe",
    wine=ChatPromptTemplate.from_template("Wine for {dish}"),
)

app = FastAPI()
add_routes(app, prompt | model | StrOutputParser(), path="/cook")
add_routes(app, choice, path="/choice", config_keys=["configurable", "tags"])
add_routes(
    app,
    prompt | model,
    path="/fixed",
    config_keys=(),
    disabled_endpoints=["config_hashes"],
)
