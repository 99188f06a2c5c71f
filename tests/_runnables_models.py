"""Runnables to compare: models of every kind, and parsers behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.language_models import (
    FakeListChatModel,
    FakeListLLM,
    FakeMessagesListChatModel,
    FakeStreamingListLLM,
    GenericFakeChatModel,
    ParrotFakeChatModel,
)
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import (
    BaseTransformOutputParser,
    CommaSeparatedListOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    JsonOutputToolsParser,
    MarkdownListOutputParser,
    NumberedListOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
    StrOutputParser,
    XMLOutputParser,
)
from langchain_core.output_parsers.openai_functions import (
    JsonOutputFunctionsParser,
    OutputFunctionsParser,
    PydanticOutputFunctionsParser,
)
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import BaseModel, PrivateAttr

from tests._equivalence import Case
from tests._handlers import handler
from tests._journal import Journal
from tests._steps import (
    AnyRunnable,
    ScriptedModel,
    ThreadModel,
    WholeModel,
    passing,
    scripted,
    seeing,
    source,
    taking,
    text_chunks,
)

PROMPT = ChatPromptTemplate.from_messages([("system", "be brief"), ("human", "{question}")])
QUESTION = {"question": "why?"}
USAGE = UsageMetadata(input_tokens=7, output_tokens=2, total_tokens=9)


class Joke(BaseModel):
    """A joke to parse."""

    setup: str = ""
    punchline: str = ""


class OwnStr(StrOutputParser):
    """A parser of the application's own that notes in which thread it parses."""

    _journal: Journal = PrivateAttr()

    def watched_by(self, journal: Journal) -> OwnStr:
        """Let the journal know."""
        self._journal = journal
        return self

    def parse(self, text: str) -> str:
        self._journal.note("parses", text)
        return f"[{text}]"


class Picky(BaseTransformOutputParser[str]):
    """A parser that refuses the third chunk."""

    seen: int = 0

    def parse(self, text: str) -> str:
        self.seen += 1
        if self.seen == 3:
            raise ValueError("this is the third")
        return text.upper()


class CountingLimiter(BaseRateLimiter):
    """A limiter that notes when it is asked."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def acquire(self, *, blocking: bool = True) -> bool:
        self._journal.note("limiter", blocking)
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        self._journal.note("async limiter", blocking)
        return True


def _tool_script(*arguments: str, call_id: str = "call_1", index: int = 0) -> list[AIMessageChunk]:
    first = tool_call_chunk(name="Joke", args="", id=call_id, index=index)
    rest = [tool_call_chunk(args=piece, index=index) for piece in arguments]
    return [AIMessageChunk(content="", tool_call_chunks=[part]) for part in (first, *rest)]


def _function_script(*arguments: str) -> list[AIMessageChunk]:
    calls = [{"name": "Joke", "arguments": ""}, *({"arguments": piece} for piece in arguments)]
    return [AIMessageChunk(content="", additional_kwargs={"function_call": call}) for call in calls]


JSON = json.dumps({"setup": "Why?", "punchline": "Because.", "tags": [1, {"a": None}]})
PIECES = [JSON[start : start + 7] for start in range(0, len(JSON), 7)]
ARGUMENTS = ['{"setup": "Wh', 'y?", "punch', 'line": "Beca', 'use."}']
TOOLS = (
    *_tool_script(*ARGUMENTS),
    *_tool_script('{"setup": "S', '2"}', call_id="call_2", index=1),
)
WITH_USAGE = (
    AIMessageChunk(content="", response_metadata={"model_name": "scripted"}),
    *text_chunks("a", "b"),
    AIMessageChunk(
        content="",
        response_metadata={"finish_reason": "stop", "nested": {"a": [1]}},
        usage_metadata=USAGE,
    ),
    AIMessageChunk(content="", chunk_position="last"),
)
KWARGS = (
    AIMessageChunk(
        content="a", additional_kwargs={"refusal": "n", "list": [{"index": 0, "t": "x"}]}
    ),
    AIMessageChunk(
        content="b", additional_kwargs={"refusal": "o", "list": [{"index": 0, "t": "y"}]}
    ),
)
BLOCKS = (
    AIMessageChunk(content=[{"type": "text", "text": "a", "index": 0}]),
    AIMessageChunk(content=[{"type": "text", "text": "b", "index": 0}]),
    AIMessageChunk(content=[{"type": "reasoning", "reasoning": "hm", "index": 1}]),
)
MIXED = (AIMessageChunk(content="a"), *BLOCKS, AIMessageChunk(content=["c"]))
ERROR = ValueError("the model fails")


def _parsed(parser: Callable[[], Any], *script: Any) -> Case:
    """Return a prompt, a model that streams the script, and a parser."""
    texts = [AIMessageChunk(content=part) if isinstance(part, str) else part for part in script]
    return Case(lambda j: PROMPT | scripted(*texts)(j) | parser(), input=QUESTION)


def _listing(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def _messages(*messages: AIMessage | str) -> Iterator[AIMessage | str]:
    return iter(messages * 4)


def _limited(journal: Journal) -> AnyRunnable:
    model = ScriptedModel(script=text_chunks("a", "b"), rate_limiter=CountingLimiter(journal))
    return PROMPT | model | StrOutputParser()


def _with_own_handlers(journal: Journal) -> AnyRunnable:
    return ScriptedModel(
        script=text_chunks("a", "b"),
        callbacks=[handler(journal, "inline")],
        tags=["of the model"],
        metadata={"of": "the model"},
    )


MODELS = {
    "a model alone": Case(scripted(*text_chunks("a", "b", "c"))),
    "a model given messages": Case(
        scripted(*text_chunks("a", "b")),
        input=[HumanMessage("hi"), AIMessage("you"), ("user", "x")],
    ),
    "a model in a sequence": Case(lambda j: PROMPT | scripted(*WITH_USAGE)(j), input=QUESTION),
    "a model, then text": _parsed(StrOutputParser, *WITH_USAGE),
    "a model that says it ends": Case(scripted(*text_chunks("a"), *WITH_USAGE[-1:])),
    "generation info": Case(
        scripted(*text_chunks("a", "b"), info={"finish_reason": "stop", "logprobs": {"a": [0.5]}})
    ),
    "merged keywords": Case(lambda j: scripted(*KWARGS)(j) | passing(j)),
    "merged tool calls": Case(lambda j: scripted(*TOOLS)(j) | passing(j)),
    "a list as content": Case(lambda j: scripted(*BLOCKS)(j) | passing(j)),
    "contents that differ": Case(lambda j: scripted(*MIXED)(j) | passing(j) | seeing(j)),
    "contents in the version v1": Case(scripted(*MIXED, output_version="v1")),
    "tool calls in the version v1": Case(scripted(*TOOLS[:3], output_version="v1")),
    "ids of its own": Case(lambda j: scripted(*text_chunks("a", "b", id="mine"))(j) | passing(j)),
    "ids that come late": Case(
        scripted(*text_chunks("a"), *text_chunks("b", id="mine"), *text_chunks("c", id="lc_x"))
    ),
    "a model that raises at once": Case(lambda j: scripted(ERROR)(j) | passing(j)),
    "a model that raises after two": Case(
        lambda j: PROMPT | scripted(*text_chunks("a", "b"), ERROR)(j) | StrOutputParser(),
        input=QUESTION,
    ),
    "a model that streams nothing": Case(lambda j: scripted()(j) | StrOutputParser()),
    "metadata that cannot be merged": Case(
        scripted(
            *text_chunks("a", response_metadata={"a": 1}),
            *text_chunks("b", response_metadata={"a": "x"}),
        )
    ),
    "a model that is limited": Case(_limited, input=QUESTION),
    "a model with handlers of its own": Case(lambda j: _with_own_handlers(j) | StrOutputParser()),
    "a model that is told to stop": Case(
        lambda j: scripted(*text_chunks("a", "b"))(j).bind(stop=["x"], extra=1) | StrOutputParser()
    ),
    "a model whose streaming is off": Case(
        lambda j: scripted(*text_chunks("a"), disable_streaming=True)(j) | StrOutputParser()
    ),
    "a model that does not stream": Case(lambda j: WholeModel() | StrOutputParser()),
    "a model that streams in a thread": Case(
        lambda j: PROMPT | ThreadModel() | StrOutputParser(), input=QUESTION
    ),
    "a model that is left early": Case(
        lambda j: scripted(*text_chunks("a", "b", "c", "d"))(j) | taking(j, 2)
    ),
    "FakeListChatModel": Case(
        lambda j: PROMPT | FakeListChatModel(responses=["abc", "de"]) | StrOutputParser(),
        input=QUESTION,
    ),
    "FakeListChatModel that raises": Case(
        lambda j: FakeListChatModel(responses=["abc"], error_on_chunk_number=2) | StrOutputParser()
    ),
    "FakeMessagesListChatModel": Case(
        lambda j: FakeMessagesListChatModel(responses=[AIMessage("hello", id="x")]) | passing(j)
    ),
    "a model with a config": Case(
        lambda _: FakeListChatModel(responses=["abc"]).with_config(tags=["bound"], run_name="named")
    ),
    "a model with a config and types": Case(
        lambda _: FakeListChatModel(responses=["abc"]).with_config(tags=["a"]).with_types()
    ),
    "a model with listeners": Case(
        lambda j: FakeListChatModel(responses=["abc"]).with_listeners(
            on_end=lambda run: j.note("has ended", run.name)
        )
    ),
    "GenericFakeChatModel": Case(
        lambda j: PROMPT | GenericFakeChatModel(messages=_messages("hello big world")),
        input=QUESTION,
    ),
    "GenericFakeChatModel with a function": Case(
        lambda j: GenericFakeChatModel(
            messages=_messages(
                AIMessage(
                    "", additional_kwargs={"function_call": {"name": "f", "arguments": "a,b"}}
                )
            )
        )
    ),
    "ParrotFakeChatModel": Case(lambda j: ParrotFakeChatModel() | passing(j)),
    "FakeListLLM": Case(lambda j: FakeListLLM(responses=["one", "two"]) | StrOutputParser()),
    "FakeStreamingListLLM": Case(
        lambda j: PROMPT | FakeStreamingListLLM(responses=["abc"]) | StrOutputParser(),
        input=QUESTION,
    ),
    "FakeStreamingListLLM that raises": Case(
        lambda j: FakeStreamingListLLM(responses=["abc"], error_on_chunk_number=1) | passing(j)
    ),
    "a parser alone": Case(lambda j: StrOutputParser(), input="x", inputs=("a", "b")),
    "a parser given messages": Case(
        lambda j: StrOutputParser(), input=AIMessage("x"), inputs=(AIMessage("x"), "b")
    ),
    "a parser given what it cannot read": Case(
        lambda j: source(j, "a", 5, "b") | StrOutputParser()
    ),
    "a parser given lists": _parsed(StrOutputParser, *MIXED),
    "a text parser of our own": Case(
        lambda j: scripted(*text_chunks("a", "b", "c"))(j) | OwnStr().watched_by(j)
    ),
    "a parser that raises at the third": _parsed(Picky, "a", "b", "c", "d"),
    "JSON": _parsed(JsonOutputParser, *PIECES),
    "JSON, then a step": Case(
        lambda j: source(j, *PIECES) | JsonOutputParser() | passing(j) | seeing(j)
    ),
    "JSON in differences": _parsed(lambda: JsonOutputParser(diff=True), *PIECES),
    "JSON that is broken": _parsed(JsonOutputParser, '{"a": ', "nonsense]", "}"),
    "JSON in a code block": _parsed(JsonOutputParser, "Sure: ```json\n", *PIECES, "\n```"),
    "JSON given messages that are whole": Case(
        lambda j: source(j, ToolMessage('{"a": 1}', tool_call_id="x")) | JsonOutputParser()
    ),
    "a pydantic model": _parsed(lambda: PydanticOutputParser(pydantic_object=Joke), *PIECES),
    "a pydantic model that is wrong": _parsed(
        lambda: PydanticOutputParser(pydantic_object=Joke), '{"setup": ', "[1]", "}"
    ),
    "XML": _parsed(XMLOutputParser, *_listing("<a><b>one</b><c>two</c><d><e>x</e></d></a>")),
    "XML that is broken": _parsed(XMLOutputParser, "<a><b>", "</a>"),
    "a list with commas": _parsed(
        CommaSeparatedListOutputParser, *_listing("one, two, three, four")
    ),
    "a list in Markdown": _parsed(MarkdownListOutputParser, *_listing("- one\n- two\n- three")),
    "a numbered list": _parsed(NumberedListOutputParser, *_listing("1. one\n2. two\n3. three")),
    "tools in pydantic": _parsed(lambda: PydanticToolsParser(tools=[Joke]), *TOOLS),
    "the first tool in pydantic": _parsed(
        lambda: PydanticToolsParser(tools=[Joke], first_tool_only=True), *TOOLS
    ),
    "tools in JSON": _parsed(JsonOutputToolsParser, *TOOLS),
    "tools in JSON with ids": _parsed(
        lambda: JsonOutputToolsParser(return_id=True, first_tool_only=True), *TOOLS
    ),
    "one tool in JSON": _parsed(
        lambda: JsonOutputKeyToolsParser(key_name="Joke", first_tool_only=True), *TOOLS
    ),
    "a function": _parsed(
        lambda: OutputFunctionsParser(args_only=False), *_function_script(*ARGUMENTS)
    ),
    "a function in JSON": _parsed(JsonOutputFunctionsParser, *_function_script(*ARGUMENTS)),
    "a function in differences": _parsed(
        lambda: JsonOutputFunctionsParser(diff=True), *_function_script(*ARGUMENTS)
    ),
    "a function in pydantic": _parsed(
        lambda: PydanticOutputFunctionsParser(pydantic_schema=Joke), *_function_script(*ARGUMENTS)
    ),
}
