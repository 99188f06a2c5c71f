"""An agent with a tool, whose style callers may choose."""

from collections.abc import AsyncIterator

from fastapi import FastAPI
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableGenerator, RunnableLambda
from langchain_core.tools import tool
from langserve import add_routes
from pydantic import BaseModel


@tool
def word_length(word: str) -> int:
    """Return the length of a word."""
    return len(word)


class Input(BaseModel):
    """What is asked."""

    input: str


class Output(BaseModel):
    """What is answered."""

    output: str


def decide(messages: list) -> AIMessage:
    """Ask the tool for the last word, once."""
    if isinstance(messages[-1], ToolMessage):
        return AIMessage(f"It has {messages[-1].content} letters.")
    word = messages[-1].content.rstrip("?").split()[-1]
    return AIMessage("", tool_calls=[{"name": "word_length", "args": {"word": word}, "id": "c"}])


model = RunnableLambda(decide, name="model")


async def run(value: dict) -> dict:
    """Ask the model and its tool in turn."""
    messages: list = [HumanMessage(value["input"])]
    while True:
        said = await model.ainvoke(messages)
        messages.append(said)
        if not said.tool_calls:
            return {"output": said.content}
        messages += [await word_length.ainvoke(call) for call in said.tool_calls]


agent = RunnableLambda(run, name="agent").with_types(input_type=Input, output_type=Output)
quiet = agent.configurable_alternatives(
    ConfigurableField(id="style"),
    default_key="full",
    loud=agent | RunnableLambda(lambda answer: {"output": answer["output"].upper()}),
)


async def words(values: AsyncIterator[dict]) -> AsyncIterator[str]:
    """Say the answer word by word."""
    async for value in values:
        for word in value["output"].split():
            yield f"{word} "


app = FastAPI()
add_routes(app, quiet, path="/agent")
add_routes(app, agent | RunnableGenerator(words), path="/spoken", input_type=Input)
