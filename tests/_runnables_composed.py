"""Runnables to compare: those that hold others, tools, retrievers, and graphs."""

from __future__ import annotations

import warnings
from typing import Any, TypedDict

from langchain_core._api import LangChainDeprecationWarning
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RouterRunnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnablePick,
)
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

from tests._equivalence import Case
from tests._journal import Journal
from tests._steps import (
    AnyRunnable,
    passing,
    scripted,
    seeing,
    setting,
    source,
    taking,
    text_chunks,
)

PROMPT = ChatPromptTemplate.from_template("{question}")
QUESTION = {"question": "why?"}
THREE = ("one", "two", "three")


class State(TypedDict, total=False):
    """The state of the graphs."""

    question: str
    answer: str


class Library(BaseRetriever):
    """Finds two documents about everything."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(f"{query} {number}", metadata={"page": number}) for number in (1, 2)]


@tool
async def weather(city: str) -> str:
    """Tell the weather."""
    if city == "nowhere":
        raise ValueError("there is no weather")
    return f"sunny in {city}"


def _answer(journal: Journal) -> AnyRunnable:
    return PROMPT | scripted(*text_chunks("a", "b"))(journal) | StrOutputParser()


def _flaky(journal: Journal) -> AnyRunnable:
    tries = []

    async def fail_once(value: Any) -> Any:
        tries.append(value)
        journal.note("tries", len(tries))
        if len(tries) % 2:
            raise ValueError("not at first")
        return value

    return RunnableLambda(fail_once, name="flaky")


def _branching(journal: Journal) -> AnyRunnable:
    return RunnableBranch(
        (lambda value: value == "hi", source(journal, *THREE) | passing(journal, "first")),
        (_is_long, passing(journal, "second")),
        source(journal, "default") | passing(journal, "default"),
    )


def _is_long(value: Any) -> bool:
    return len(value) > 3


def _configurable(journal: Journal) -> AnyRunnable:
    field = ConfigurableField(id="responses", name="Responses")
    model = FakeListChatModel(responses=["ab"]).configurable_fields(responses=field)
    return PROMPT | model | StrOutputParser()


def _alternatives(journal: Journal) -> AnyRunnable:
    steps = (source(journal, "default") | passing(journal, "a")).configurable_alternatives(
        ConfigurableField(id="which"),
        default_key="usual",
        other=source(journal, *THREE) | passing(journal, "b"),
    )
    return passing(journal, "before") | steps | passing(journal, "after")


def _remembering(journal: Journal) -> AnyRunnable:
    histories: dict[str, InMemoryChatMessageHistory] = {}
    prompt = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("past"), ("human", "{question}")]
    )
    model = scripted(*text_chunks("a", "b"))(journal)

    def history(session_id: str) -> InMemoryChatMessageHistory:
        return histories.setdefault(session_id, InMemoryChatMessageHistory())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainDeprecationWarning)
        return RunnableWithMessageHistory(
            prompt | model,
            history,
            input_messages_key="question",
            history_messages_key="past",
        )


def _graph(journal: Journal) -> AnyRunnable:
    chain = _answer(journal)

    async def answer(state: State, config: RunnableConfig) -> State:
        return {"answer": await chain.ainvoke({"question": state["question"]}, config)}

    async def stream(state: State) -> State:
        pieces = [piece async for piece in chain.astream({"question": state["answer"]})]
        return {"answer": "|".join(pieces)}

    graph = StateGraph(State)
    graph.add_node("answer", answer)
    graph.add_node("stream", stream)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "stream")
    graph.add_edge("stream", END)
    return graph.compile()


def _graph_of_chains(journal: Journal) -> AnyRunnable:
    graph = StateGraph(State)
    chain: AnyRunnable = RunnablePick("question") | passing(journal) | _as_answer
    graph.add_node("chain", chain)
    graph.add_edge(START, "chain")
    graph.add_edge("chain", END)
    return graph.compile() | RunnablePick("answer")


def _as_answer(text: Any) -> State:
    return {"answer": f"about {text}"}


def _failing(journal: Journal, *before: Any) -> AnyRunnable:
    return source(journal, *before, ValueError("no"), name="failing") | passing(
        journal, "failing on"
    )


COMPOSED = {
    "parallel": Case(
        lambda j: RunnableParallel(a=source(j, *THREE) | passing(j), b=passing(j, "b")),
        inputs=("h", "i"),
        concurrent=True,
    ),
    "parallel of one": Case(lambda j: RunnableParallel(a=source(j, *THREE)) | passing(j)),
    "parallel of none": Case(lambda j: RunnableParallel({}) | passing(j)),
    "parallel in a sequence": Case(
        lambda j: (
            passing(j) | {"a": source(j, *THREE), "b": _upper} | seeing(j) | passing(j, "after")
        ),
        concurrent=True,
    ),
    "parallel in parallel": Case(
        lambda j: RunnableParallel(
            a={"b": source(j, "x"), "c": passing(j, "c")}, d=passing(j, "d")
        ),
        inputs=("h", "i"),
        concurrent=True,
    ),
    "parallel in which one goes on": Case(
        lambda j: RunnableParallel(a=source(j, "x"), b=source(j, *THREE, *THREE) | passing(j)),
        concurrent=True,
    ),
    "parallel in which one ends early": Case(
        lambda j: RunnableParallel(a=source(j), b=source(j, *THREE) | passing(j)), concurrent=True
    ),
    "context variables in parallel": Case(
        lambda j: (
            RunnableParallel(a=passing(j) | setting(j, "a") | passing(j, "after")) | passing(j)
        ),
        inputs=("a", "b", "c"),
    ),
    "parallel that raises in the end": Case(
        lambda j: RunnableParallel(a=_failing(j, *THREE), b=source(j, "x")), concurrent=True
    ),
    "parallel that raises": Case(lambda j: RunnableParallel(a=_failing(j, "x")) | passing(j)),
    "parallel models": Case(
        lambda j: RunnableParallel(a=_answer(j), b=_answer(j)), input=QUESTION, concurrent=True
    ),
    "assign": Case(
        lambda j: RunnablePassthrough.assign(answer=_answer(j)) | RunnablePick("answer"),
        input=QUESTION,
        concurrent=True,
    ),
    "assign a chain": Case(
        lambda j: RunnablePassthrough.assign(answer=_answer(j)), input=QUESTION, concurrent=True
    ),
    "assign a chain that raises": Case(
        lambda j: RunnablePassthrough.assign(a=_failing(j, *THREE)) | passing(j),
        input=QUESTION,
        concurrent=True,
    ),
    "assign to chunks": Case(
        lambda j: (
            passing(j) | RunnablePassthrough.assign(b=lambda value: sorted(value)) | passing(j)
        ),
        input={"x": 1, "y": 2},
        inputs=({"x": 1}, {"y": 2}),
        concurrent=True,
    ),
    "assign to what is no dict": Case(
        lambda j: RunnablePassthrough.assign(b=passing(j)) | passing(j), concurrent=True
    ),
    "pick one": Case(
        lambda j: source(j, {"a": 1}, {"b": 2}, {"a": 3}) | RunnablePick("a") | passing(j)
    ),
    "pick some": Case(
        lambda j: source(j, {"a": 1}, {"b": 2}, {"c": 3}) | RunnablePick(["a", "c"]) | passing(j)
    ),
    "a branch": Case(_branching),
    "another branch in a sequence": Case(
        lambda j: passing(j) | _branching(j) | passing(j, "after"),
        input="longer",
        inputs=("lo", "ng"),
    ),
    "the default branch": Case(_branching, input="no"),
    "each": Case(
        lambda j: RunnableEach(bound=passing(j) | RunnableLambda(_upper)),
        input=["a", "b"],
        config=lambda: {"max_concurrency": 1},
    ),
    "map in a sequence": Case(
        lambda j: source(j, ["a"], ["b"]) | RunnableLambda(_upper).map() | passing(j),
        config=lambda: {"max_concurrency": 1},
    ),
    "a fallback at the start": Case(
        lambda j: _failing(j).with_fallbacks([source(j, *THREE) | passing(j)]) | passing(j, "after")
    ),
    "a fallback too late": Case(
        lambda j: _failing(j, "x").with_fallbacks([source(j, *THREE) | passing(j)])
    ),
    "fallbacks that fail": Case(lambda j: _failing(j).with_fallbacks([_failing(j)]) | passing(j)),
    "a fallback within a sequence": Case(
        lambda j: passing(j) | _failing(j).with_fallbacks([passing(j, "fallback")]) | passing(j),
        inputs=("a", "b"),
    ),
    "a retry": Case(
        lambda j: (
            passing(j)
            | _flaky(j).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
            | passing(j)
        )
    ),
    "retries that fail": Case(
        lambda j: _failing(j).with_retry(stop_after_attempt=1, wait_exponential_jitter=False)
    ),
    "fields": Case(_configurable, input=QUESTION),
    "fields that are configured": Case(
        _configurable, input=QUESTION, config=lambda: {"configurable": {"responses": ["other"]}}
    ),
    "the usual alternative": Case(_alternatives),
    "another alternative": Case(_alternatives, config=lambda: {"configurable": {"which": "other"}}),
    "no such alternative": Case(_alternatives, config=lambda: {"configurable": {"which": "none"}}),
    "a history": Case(
        _remembering, input=QUESTION, config=lambda: {"configurable": {"session_id": "s"}}
    ),
    "a history without a session": Case(_remembering, input=QUESTION),
    "a router": Case(
        lambda j: (
            RouterRunnable({"a": source(j, *THREE) | passing(j), "b": passing(j)}) | passing(j)
        ),
        input={"key": "a", "input": "hi"},
    ),
    "no such route": Case(
        lambda j: RouterRunnable({"a": passing(j)}), input={"key": "x", "input": "hi"}
    ),
    "a tool": Case(lambda j: weather | passing(j), input={"city": "Bonn"}),
    "a tool that raises": Case(lambda j: weather | passing(j), input={"city": "nowhere"}),
    "a tool given a call": Case(
        lambda j: weather,
        input={"type": "tool_call", "name": "weather", "args": {"city": "Bonn"}, "id": "call_1"},
    ),
    "a retriever": Case(lambda j: passing(j) | Library() | passing(j, "after"), inputs=("h", "i")),
    "retrieval": Case(
        lambda j: (
            {"question": RunnablePassthrough(), "docs": Library() | _joined}
            | PROMPT
            | scripted(*text_chunks("a", "b"))(j)
            | StrOutputParser()
        ),
        concurrent=True,
    ),
    "a graph": Case(_graph, input=QUESTION, concurrent=True),
    "a graph of chains in a sequence": Case(_graph_of_chains, input=QUESTION, concurrent=True),
    "a step that takes two of parallel": Case(
        lambda j: RunnableParallel(a=source(j, *THREE, slow=True)) | taking(j, 2)
    ),
    "a message through a lambda": Case(
        lambda j: scripted(*text_chunks("a", "b"))(j) | RunnableLambda(_told) | passing(j)
    ),
}


def _upper(text: Any) -> Any:
    return text.upper() if isinstance(text, str) else text


def _joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


def _told(message: AIMessage) -> str:
    return f"said {message.content}"
