"""Compiled graphs and agents as served chains."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from chainserve import Chain, ConfigurationError, RemoteStatusError, add_routes
from tests._apps import assert_problem, make_app
from tests._bridge import Response, request
from tests._chains import echo
from tests._pairs import CHAINSERVE
from tests.test_client import served

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:`config_schema` is deprecated"),  # LangGraph's
]


class Calculator(BaseChatModel):
    """Calls the tool `add` once, and then says what came of it, word by word."""

    @property
    def _llm_type(self) -> str:
        return "calculator"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if isinstance(messages[-1], ToolMessage):
            heard = sum(message.type == "human" for message in messages)
            for word in ("It ", "is ", str(messages[-1].content), f" ({heard})."):
                yield ChatGenerationChunk(message=AIMessageChunk(content=word))
            return
        call = tool_call_chunk(name="add", args='{"a": 1, "b": 2}', id="c1", index=0)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        chunks = [chunk.message for chunk in self._stream(messages)]
        total: Any = chunks[0]
        for chunk in chunks[1:]:
            total = total + chunk
        message = AIMessage(total.content, tool_calls=total.tool_calls)
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent(**options: Any) -> Any:
    return create_agent(Calculator(), [add], **options)


def input_of(text: str = "1 + 2?") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def ask(app: FastAPI, verb: str, value: Any = None, **members: Any) -> Response:
    headers = members.pop("headers", {})
    body = {"input": input_of() if value is None else value, **members}
    return await request(app, "POST", f"/chain/{verb}", json=body, headers=headers)


def thread(name: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


# Text.


@pytest.mark.parametrize("make", [agent, lambda: agent().with_config(tags=["a"])])
async def test_the_text_of_an_agent_is_what_its_model_says(make: Any) -> None:
    response = await ask(make_app(make()), "stream", headers={"accept": "text/plain"})

    assert (response.status, response.text) == (200, "It is 3 (1).")


async def test_a_page_gets_the_text_as_events() -> None:
    app = make_app(agent())
    response = await request(
        app,
        "GET",
        "/chain/stream?format=text&messages="
        "%5B%7B%22role%22%3A%22user%22%2C%22content%22%3A%22hi%22%7D%5D",
    )

    told = [event.data for event in response.events() if event.event == "message"]
    assert [text for text in told if text] == ["It ", "is ", "3", " (1)."]


async def test_other_wires_have_the_steps_as_langgraph_streams_them() -> None:
    response = await ask(make_app(agent()), "stream")

    chunks = [event.json() for event in response.events() if event.event == "data"]
    assert [[*chunk] for chunk in chunks] == [["model"], ["tools"], ["model"]]


async def test_what_the_chains_author_chose_to_stream_stays() -> None:
    bound: Any = agent().bind(stream_mode="values")
    copied: Any = agent().copy(update={"stream_mode": "custom"})
    for graph, expected in ((bound, 4), (copied, 0)):
        response = await ask(make_app(graph), "stream", headers={"accept": "text/plain"})
        assert len(response.text.splitlines()) == expected


# Messages.


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "hi"}],
        [{"type": "human", "content": "hi"}],
        [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}],
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "content": "1", "tool_call_id": "c"},
            {"role": "user", "content": "hi"},
        ],
    ],
)
@pytest.mark.parametrize("verb", ["invoke", "stream", "stream_events", "runs"])
async def test_messages_may_name_a_role_or_a_type(verb: str, messages: Any) -> None:
    response = await ask(make_app(agent()), verb, {"messages": messages})

    assert response.status in (200, 202), response.text


async def test_a_chain_of_another_shape_is_given_its_input_as_it_is() -> None:
    response = await ask(make_app(echo()), "invoke", {"role": "user", "content": "hi"})

    assert response.json()["output"] == {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    "message", [{"role": "nobody", "content": "x"}, {"role": "tool", "content": "x"}, {"x": 1}, 1]
)
async def test_what_is_no_message_is_refused(message: Any) -> None:
    assert_problem(
        await ask(make_app(agent()), "invoke", {"messages": [message]}), 422, "invalid_input"
    )


# Threads.


async def test_a_thread_remembers_what_was_said_in_it() -> None:
    app = make_app(agent(checkpointer=InMemorySaver()))
    answers = [
        (await ask(app, "invoke", config=thread(name))).json()["output"]["messages"][-1]["content"]
        for name in ("a", "a", "b")
    ]

    assert answers == ["It is 3 (1).", "It is 3 (2).", "It is 3 (1)."]


@pytest.mark.parametrize("verb", ["invoke", "stream", "stream_log", "stream_events", "runs"])
async def test_a_graph_with_a_checkpointer_asks_for_the_thread(verb: str) -> None:
    app = make_app(agent(checkpointer=InMemorySaver()))

    problem = assert_problem(await ask(app, verb), 422, "invalid_config")

    assert "thread_id" in problem["message"]
    assert (await ask(app, verb, config=thread("a"))).status in (200, 202)


async def test_a_batch_asks_for_the_thread_too() -> None:
    app = make_app(agent(checkpointer=InMemorySaver()))
    body = {"inputs": [input_of()], "config": [{}]}

    refused = await request(app, "POST", "/chain/batch", json=body)

    assert_problem(refused, 422, "invalid_config")


async def test_the_server_may_choose_the_thread() -> None:
    app = make_app(
        agent(checkpointer=InMemorySaver()),
        per_req_config_modifier=lambda config, request: {
            **config,
            "configurable": {"thread_id": request.headers["x-user"]},
        },
    )
    answers = [
        (await ask(app, "invoke", config=thread("a"), headers={"x-user": user})).json()["output"]
        for user in ("ann", "bob", "ann")
    ]

    assert [one["messages"][-1]["content"][-4:] for one in answers] == ["(1).", "(1).", "(2)."]


# Arguments.


def app_with(**options: Any) -> FastAPI:
    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=agent(), **options))
    return app


@pytest.mark.parametrize("mode", ["values", ["updates", "custom"], "messages"])
async def test_a_caller_may_send_arguments_that_are_listed(mode: Any) -> None:
    app = app_with(kwargs_keys=["stream_mode"])

    response = await ask(app, "stream", kwargs={"stream_mode": mode})
    chunks = [event.json() for event in response.events() if event.event == "data"]

    assert chunks
    if mode == "values":
        assert [len(chunk["messages"]) for chunk in chunks] == [1, 2, 3, 4]
    else:
        assert all(len(chunk) == 2 for chunk in chunks)


async def test_other_arguments_are_left_out_as_langserve_does() -> None:
    response = await ask(app_with(), "stream", kwargs={"stream_mode": "values", "debug": True})

    chunks = [event.json() for event in response.events() if event.event == "data"]
    assert [[*chunk] for chunk in chunks] == [["model"], ["tools"], ["model"]]


@pytest.mark.parametrize(
    ("options", "headers"), [({"strict_config": True}, {}), ({}, {"prefer": "handling=strict"})]
)
@pytest.mark.parametrize("verb", ["invoke", "stream", "stream_events", "runs"])
async def test_a_strict_chain_or_caller_is_told(
    verb: str, options: dict[str, Any], headers: dict[str, str]
) -> None:
    app = app_with(kwargs_keys=["stream_mode"], **options)

    problem = assert_problem(
        await ask(app, verb, kwargs={"debug": True}, headers=headers), 422, "invalid_config"
    )

    assert "kwargs_keys=['debug']" in problem["message"]
    harmless: list[Any] = [{"stream_mode": "updates"}, {"version": "v2"}, {}, [{}], []]
    for accepted in harmless:
        answer = await ask(app, verb, kwargs=accepted, headers=headers)
        assert answer.status in (200, 202), (accepted, answer.text)


async def test_the_inputs_of_a_batch_share_their_arguments() -> None:
    app = app_with(kwargs_keys=["stream_mode"])
    body = {"inputs": [input_of()] * 2, "kwargs": [{"stream_mode": "updates"}, {}]}

    refused = await request(app, "POST", "/chain/batch", json=body)

    assert_problem(refused, 422, "invalid_config")
    body["kwargs"] = [{"stream_mode": "updates"}] * 2
    assert (await request(app, "POST", "/chain/batch", json=body)).status == 200


async def test_the_client_sends_arguments_and_is_told_if_they_are_not_taken() -> None:
    async with served(CHAINSERVE, agent()) as client:
        with pytest.raises(RemoteStatusError, match="kwargs_keys"):
            await client.ainvoke(input_of(), stream_mode="values")
        assert (await client.ainvoke(input_of()))["messages"][-1].content == "It is 3 (1)."


@pytest.mark.parametrize("name", ["input", "config"])
def test_arguments_that_are_the_servers_own_cannot_be_listed(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Chain(path="/chain", runnable=echo(), kwargs_keys=[name])


async def test_a_graph_of_ones_own_is_served_as_any() -> None:
    def shout(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(str(state["messages"][-1].content).upper())]}

    builder = StateGraph(MessagesState)
    builder.add_node("shout", shout)
    builder.add_edge(START, "shout")
    graph: Any = builder.compile()
    for runnable in (graph, graph | RunnableLambda(lambda state: state)):
        response = await ask(make_app(runnable), "invoke", input_of("hi"))
        assert response.json()["output"]["messages"][-1]["content"] == "HI"
