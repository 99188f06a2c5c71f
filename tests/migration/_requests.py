"""What the example servers are asked, in this order: some of them remember."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chainserve.lzstring import compress


@dataclass(frozen=True, slots=True)
class Difference:
    """Two answers that differ on purpose: why, and a part of each."""

    reason: str
    theirs: str
    ours: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A request.

    Attributes:
        method: The HTTP method.
        path: The path.
        json: The body.
        headers: More header fields.
        difference: How the answers differ, if they may.
        side_by_side: Whether steps run side by side, whose events come in no certain order.
    """

    method: str
    path: str
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    difference: Difference | None = None
    side_by_side: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path} {'' if self.json is None else json.dumps(self.json)}"


def post(path: str, value: Any, config: Any = None, **headers: str) -> Ask:
    """Ask with an input, or with inputs where that is what the path takes."""
    body = {"inputs" if path.endswith("/batch") else "input": value}
    body |= {} if config is None else {"config": config}
    return Ask("POST", path, body, _headers(headers))


def get(path: str, **headers: str) -> Ask:
    """Ask for what is there."""
    return Ask("GET", path, None, _headers(headers))


def verbs(base: str, value: Any, config: Any = None, **headers: str) -> Iterator[Ask]:
    """Ask for one answer, two answers and a stream."""
    yield post(f"{base}/invoke", value, config, **headers)
    yield post(f"{base}/batch", [value, value], config, **headers)
    yield post(f"{base}/stream", value, config, **headers)


def steps(base: str, value: Any, config: Any = None, **headers: str) -> Iterator[Ask]:
    """Ask for what happens within a run."""
    yield post(f"{base}/stream_log", value, config, **headers)
    yield post(f"{base}/stream_events", value, config, **headers)


def schemas(base: str, **headers: str) -> Iterator[Ask]:
    """Ask for the three schemas."""
    for kind in ("input", "output", "config"):
        yield get(f"{base}/{kind}_schema", **headers)


def differing(asked: Ask, reason: str, *, theirs: str, ours: str) -> Ask:
    """Ask for what the two answer differently, on purpose."""
    return replace(asked, difference=Difference(reason, theirs, ours))


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


SESAME = {"x_token": "open sesame"}
IDA = {"authorization": "Bearer key-of-ida"}
RUTH, BELA = {"x_key": "red"}, {"x_key": "blue"}
UNA, OLE = {"cookie": "user_id=una"}, {"cookie": "user_id=ole"}
FILE = base64.b64encode(b"The first twenty characters, and more.").decode()


def hashed(**fields: Any) -> str:
    """Return configurable fields as they stand in a URL."""
    return compress(json.dumps({"configurable": fields}))


def session(name: str) -> dict[str, Any]:
    return {"configurable": {"session_id": name}}


def conversation(name: str) -> dict[str, Any]:
    return {"configurable": {"conversation_id": name}}


def cook(**fields: str) -> dict[str, Any]:
    return {"configurable": fields}


MEASURE = {"messages": [{"type": "human", "content": "Measure harbour"}]}
CHATTY = hashed(cook="chatty")

REQUESTS: dict[str, list[Ask]] = {
    "auth_global": [
        post("/next/invoke", 1),
        post("/next/invoke", 1, x_token="wrong"),
        post("/next/invoke", "one", **SESAME),
        *verbs("/next", 1, **SESAME),
        *steps("/next", 1, **SESAME),
        *schemas("/next", **SESAME),
        get("/next/input_schema"),
        get("/next/playground/"),
        differing(
            get("/openapi.json"),
            "there are more routes",
            theirs='"/next/invoke"',
            ours='"/next/runs"',
        ),
    ],
    "auth_path": [
        *verbs("/prompt", {"about": "tides"}),
        *verbs("/sea", {"about": "tides"}),
        *verbs("/sea", {"about": "tides"}, **IDA),
        *steps("/sea", {"about": "tides"}, **IDA),
        *steps("/sea", {"about": "tides"}),
        *steps("/prompt", {"about": "tides"}),
        post("/sea/stream", {}, **IDA),
        post("/sea/invoke", {"about": "tides"}, authorization="Bearer no-key"),
        *schemas("/sea"),
        *schemas("/sea", **IDA),
    ],
    "auth_modifier": [
        post("/notes/invoke", "ferns"),
        *verbs("/notes", "ferns", **RUTH),
        *verbs("/notes", "ferns", **BELA),
        *verbs("/notes", "ferns", {"configurable": {"user": "ruth"}}, **BELA),
        post("/count/invoke", "ivy", **RUTH),
        post("/count/stream", "ivy", **RUTH),
        differing(
            post("/count/batch", ["ivy", "ivy"], **RUTH),
            "what the modifier sets is not lost in a batch",
            theirs='"output":[0,0]',
            ours='"output":[1,1]',
        ),
        post("/count/invoke", "ivy", {"tags": ["dropped"]}, **RUTH),
        *steps("/count", "ivy", **RUTH),
        get("/notes/input_schema"),
        get("/count/playground/"),
    ],
    "chat_history": [
        post("/chat/invoke", {"text": "one"}, session("a")),
        post("/chat/invoke", {"text": "two"}, session("a")),
        post("/chat/stream", {"text": "three"}, session("a")),
        *steps("/chat", {"text": "four"}, session("c")),
        post("/chat/invoke", {"text": "one"}, session("b")),
        post("/chat/batch", [{"text": "2"}, {"text": "4"}], [session("b"), session("a")]),
        differing(
            post("/chat/stream", {"text": "x"}, session("../up")),
            "an HTTPException keeps its status in a stream",
            theirs='"status_code": 500',
            ours='"status_code": 400, "message": "A session is named by',
        ),
        post("/chat/invoke", {"text": "x"}, session("../up")),
        post("/chat/invoke", {"words": "x"}, session("a")),
        *schemas("/chat"),
    ],
    "chat_history_user": [
        get("/me", **UNA),
        post("/talk/invoke", {"human_input": "hi"}, conversation("1"), **UNA),
        post("/talk/invoke", {"human_input": "there"}, conversation("1"), **UNA),
        post("/talk/stream", {"human_input": "again"}, conversation("1"), **UNA),
        *steps("/talk", {"human_input": "steps"}, conversation("1"), **UNA),
        post("/talk/invoke", {"human_input": "anew"}, conversation("2"), **UNA),
        post("/talk/invoke", {"human_input": "mine"}, conversation("1"), **OLE),
        post("/talk/invoke", {"human_input": "x"}, conversation("1")),
        post("/talk/batch", [{"human_input": "x"}], conversation("1"), **OLE),
        *schemas("/talk"),
    ],
    "configurable_chain": [
        *verbs("/cook", {"dish": "soup"}),
        *verbs("/cook", {"dish": "soup"}, cook(cook="chatty")),
        *verbs("/cook", {"dish": "soup"}, cook(cook="parrot", question="More {dish}?")),
        post("/cook/invoke", {"dish": "soup"}, cook(cook="nobody")),
        post(f"/cook/c/{CHATTY}/invoke", {"dish": "soup"}),
        post(f"/cook/c/{CHATTY}/stream", {"dish": "soup"}, cook(cook="parrot")),
        post("/cook/c/nonsense!/invoke", {"dish": "soup"}),
        *schemas(f"/cook/c/{CHATTY}"),
        *verbs("/choice", {"dish": "soup"}, {**cook(kind="wine"), "tags": ["menu"]}),
        *steps("/choice", {"dish": "soup"}, {**cook(kind="wine"), "tags": ["menu"]}),
        *steps("/cook", {"dish": "soup"}, cook(cook="chatty")),
        *steps(f"/cook/c/{CHATTY}", {"dish": "soup"}),
        *verbs("/fixed", {"dish": "soup"}),
        post(f"/fixed/c/{CHATTY}/invoke", {"dish": "soup"}),
        *schemas("/cook"),
        *schemas("/choice"),
        *schemas("/fixed"),
    ],
    "configurable_agent": [
        *verbs("/agent", {"question": "How long is harbour?"}),
        *verbs("/agent", {"question": "How long is harbour?"}, {"configurable": {"rounds": 1}}),
        post("/agent/invoke", {"question": "x"}, {"configurable": {"rounds": "many"}}),
        post("/agent/invoke", {"ask": "x"}),
        get("/agent/config_schema"),
        differing(
            post("/graph/invoke", MEASURE),
            "an output is not filled up by an inferred schema",
            theirs='"structured_response":null',
            ours="It has 7 letters.",
        ),
        post("/graph/stream", MEASURE),
        replace(post("/graph/stream_events", MEASURE), side_by_side=True),
    ],
    "configurable_retrieval": [
        *verbs("/shelf", "shade"),
        *verbs("/shelf", "roses", {"configurable": {"shelf": "kitchen"}}),
        *verbs("/shelf", "shade", {"configurable": {"k": 1, "owner": "una"}}),
        *verbs("/own", "shade", {"configurable": {"owner": "una"}}, x_user="ole"),
        *verbs("/answer", "roses"),
        *verbs("/answer", "roses", {"configurable": {"room": "garden"}}),
        *steps("/shelf", "roses", {"configurable": {"shelf": "kitchen"}}),
        post("/shelf/invoke", "shade", {"configurable": {"k": "few"}}),
        *schemas("/shelf"),
        *schemas("/answer"),
    ],
    "file_upload": [
        *verbs("/head", {"file": FILE}),
        *steps("/head", {"file": FILE}),
        post("/head/invoke", {"file": FILE, "shown": 3}),
        post("/head/invoke", {"file": "!"}),
        post("/head/stream", {"file": 5}),
        *schemas("/head"),
        differing(
            get("/head/playground/"),
            "the page is another",
            theirs="<title>Playground</title>",
            ours="<title>Playground</title>",
        ),
    ],
    "widgets": [
        *verbs("/chat", {"messages": [{"type": "human", "content": "Hello"}]}),
        post(
            "/chat/invoke",
            {
                "messages": [
                    {"type": "system", "content": "Be kind."},
                    {"type": "human", "content": "Hello"},
                    {"type": "ai", "content": "Hello to you", "tool_calls": []},
                ]
            },
        ),
        post("/chat/invoke", {"messages": [{"type": "robot", "content": "Hello"}]}),
        *steps("/chat", {"messages": [{"type": "human", "content": "Hello"}]}),
        *verbs("/history", {"chat_history": [["a", "b"]], "question": "why"}),
        post("/history/invoke", {"chat_history": [["a"]], "question": "why"}),
        *schemas("/chat"),
        *schemas("/history"),
    ],
    "passthrough": [
        *verbs("/same", {"any": ["thing", None, 1.5]}),
        # What runs side by side streams in no certain order.
        post("/measured/invoke", {"x": 3, "y": 4}),
        post("/measured/batch", [{"x": 3, "y": 4}]),
        *verbs("/assigned", {"x": 3, "y": 4}),
        *steps("/same", {"any": "thing"}),
        post("/measured/invoke", {"x": 3}),
        *schemas("/same"),
        *schemas("/measured"),
        *schemas("/assigned"),
    ],
    "own_endpoints": [
        *verbs("/v1", "word"),
        post("/v1/stream_log", "word"),
        post("/v1/stream_events", "word"),
        post("/v1/invoke", 5),
        *schemas("/v1"),
        post("/grow/5/invoke", 1),
        post("/grow/5/batch", [1, 2]),
        post("/grow/5/invoke", 1, {"configurable": {"by": 7}}),
        post(f"/grow/c/{hashed(by=9)}/invoke", 1),
        post("/grow/c/nonsense!/invoke", 1),
        post("/grow/x/invoke", 1),
    ],
    "several": [
        *verbs("", "four"),
        *verbs("/upper", "word"),
        differing(
            post("/upper/stream_log", "word"),
            "an allow list of steps does not fail",
            theirs="event: error",
            ours="event: end",
        ),
        differing(
            post("/upper/stream_events", "word"),
            "an allow list of steps does not fail",
            theirs="event: error",
            ours="event: end",
        ),
        post("/events/invoke", "word"),
        post("/events/batch", ["a", "b"]),
        post("/events/stream", "word"),
        *verbs("/api/v2/born", 1999),
        post("/api/v2/say/invoke", {"word": "yes"}),
        post("/api/v2/say/stream", {"word": "yes"}),
        post("/api/v2/say/stream_log", {"word": "yes"}),
        post("/api/v2/say/stream_events", {"word": "yes"}),
        post("/api/v2/say/batch", [{"word": "yes"}]),
        *verbs("/inner/title", "a word"),
        *steps("/inner/title", "a word"),
        *schemas("/inner/title"),
        *schemas(""),
        get("/nowhere/input_schema"),
    ],
    "gateway": [
        *verbs("/upper", "word"),
        post("/count/invoke", "word"),
        post("/ask/invoke", "word"),
        post("/ask/stream", "word"),
        post("/ask/batch", ["word"]),
    ],
}
