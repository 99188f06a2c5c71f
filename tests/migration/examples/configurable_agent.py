"""Agents: a loop of our own whose rounds are configurable, and one that LangChain makes."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableSerializable,
)
from langchain_core.tools import tool
from langserve import add_routes
from pydantic import BaseModel


@tool
def word_length(word: str) -> int:
    """Count the letters of a word."""
    return len(word)


class WordModel(BaseChatModel):
    """Asks for the length of the last word that it was given, then tells it."""

    @property
    def _llm_type(self) -> str:
        return "words"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            message = AIMessage(f"It has {last.content} letters.")
        else:
            word = str(last.content).split()[-1].strip("?.!")
            call = {"name": "word_length", "args": {"word": word}, "id": "call-1"}
            message = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])


class Question(BaseModel):
    """What to ask the agent."""

    question: str


class Loop(RunnableSerializable[Any, dict[str, Any]]):
    """Calls the model and its tools in turn, for a number of rounds."""

    model: WordModel
    rounds: int = 3

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        question = input["question"] if isinstance(input, dict) else input.question
        messages: list[BaseMessage] = [HumanMessage(question)]
        for _ in range(self.rounds):
            message = await self.model.ainvoke(messages, config)
            messages.append(message)
            if not message.tool_calls:
                yield {"output": message.content}
                return
            for call in message.tool_calls:
                result = await word_length.ainvoke(call["args"], config)
                yield {"tool": call["name"], "result": result}
                messages.append(ToolMessage(str(result), tool_call_id=call["id"]))
        yield {"output": "I ran out of rounds."}

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[dict[str, Any]]:
        raise NotImplementedError("This agent is asynchronous.")

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        steps = [step async for step in self.astream(input, config)]
        return {"output": steps[-1]["output"], "steps": len(steps) - 1}

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        raise NotImplementedError("This agent is asynchronous.")


agent = Loop(model=WordModel()).configurable_fields(
    rounds=ConfigurableField(id="rounds", name="Rounds", description="How long it may think.")
)

app = FastAPI()
add_routes(
    app,
    agent.with_types(input_type=Question, output_type=dict),
    path="/agent",
    enabled_endpoints=["invoke", "batch", "stream", "config_schema", "config_hashes"],
)
add_routes(
    app,
    create_agent(WordModel(), [word_length]),
    path="/graph",
    enabled_endpoints=["invoke", "stream", "stream_events"],
)
