"""Servers written for LangServe, changed by `chainserve migrate` alone, answer what they answered.

Each module of `tests/migration/` is run as it is, with LangServe, and as `chainserve migrate
--write` leaves a copy of it.
"""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chainserve.cli import main
from chainserve.lzstring import compress
from tests._bridge import IncompleteBodyError, open_stream
from tests._pairs import forget_oracle_state, normalised
from tests._sse import decode_events

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
    pytest.mark.filterwarnings("ignore:Including callback events"),
    pytest.mark.filterwarnings("ignore:astream_events version='v1' is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
    pytest.mark.filterwarnings("ignore::UserWarning:langserve"),
]

FOLDER = Path(__file__).parent / "migration"


@dataclass(frozen=True)
class Asked:
    """A request to a server."""

    target: str
    body: Any = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def each_verb(path: str, value: Any, config: Any = None, **headers: str) -> list[Asked]:
    """Return the requests that run a chain."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    rest = {} if config is None else {"config": config}
    return [
        Asked(f"{path}/invoke", {"input": value, **rest}, headers=named),
        Asked(f"{path}/batch", {"inputs": [value, value], **rest}, headers=named),
        Asked(f"{path}/stream", {"input": value, **rest}, headers=named),
        Asked(f"{path}/stream_log", {"input": value, **rest}, headers=named),
        Asked(f"{path}/stream_events", {"input": value, **rest}, headers=named),
    ]


def schemas(path: str, **headers: str) -> list[Asked]:
    """Return the requests for a chain's schemas."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    kinds = ("input", "output", "config")
    return [Asked(f"{path}/{kind}_schema", method="GET", headers=named) for kind in kinds]


def hashed(config: Any) -> str:
    return compress(json.dumps(config))


TOKEN = {"x_token": "secret-token"}
ANN = {"authorization": "Bearer ann-token"}
SESSION = {"configurable": {"session_id": "s1"}}
OTHER = {"configurable": {"session_id": "s2"}}
COOKIE = {"cookie": "user_id=ann"}
TALK = {"configurable": {"conversation_id": "c1"}}
LOW = {"configurable": {"llm": "low", "prompt": "What is {topic}?"}}
PLANTS = {"configurable": {"collection": "plants", "limit": 1}}
FILE = {"file": "aGVsbG8gd29ybGQ=", "num_chars": 5}
QUESTION = {"thing": "cat", "language": "Welsh", "info": {"id": 5}}

SERVERS: dict[str, Sequence[Asked]] = {
    "auth_global_dependency": [
        *each_verb("/title", "a b", **TOKEN),
        *each_verb("/title", "a b", x_token="wrong"),
        *each_verb("/title", "a b"),
        *schemas("/title", **TOKEN),
        *schemas("/title"),
    ],
    "auth_path_dependency": [
        *each_verb("/add_one", 1, **ANN),
        *each_verb("/add_one", 1, authorization="Bearer x"),
        *each_verb("/add_one", 1),
        *each_verb("/subtract_one", 1),
        *schemas("/add_one"),
        *schemas("/subtract_one"),
    ],
    "auth_per_user": [
        *each_verb("/notes", "what do cats like?", x_user="ann")[:3],
        *each_verb("/notes", "what do cats like?", x_user="bob")[:3],
        *each_verb("/notes", "cats", {"configurable": {"user_id": "ann"}}, x_user="bob")[:2],
        *each_verb("/notes", "cats"),
    ],
    "chat_with_persistence": [
        *each_verb("/chat", {"human_input": "hi"}, SESSION)[:1],
        *each_verb("/chat", {"human_input": "hi"}, SESSION)[2:],
        Asked(  # Two inputs of one session would write its file at once.
            "/chat/batch", {"inputs": [{"human_input": "hi"}] * 2, "config": [SESSION, OTHER]}
        ),
        Asked(
            "/chat/invoke",
            {"input": {"human_input": "x"}, "config": {"configurable": {"session_id": "../x"}}},
        ),
        *schemas("/chat"),
    ],
    "chat_with_persistence_and_user": [
        *each_verb("/chat", {"human_input": "hi"}, TALK, **COOKIE)[:1],
        *each_verb("/chat", {"human_input": "you"}, TALK, **COOKIE)[:1],
        *each_verb("/chat", {"human_input": "who"}, TALK, cookie="user_id=bob")[:1],
        *each_verb("/chat", {"human_input": "and"}, TALK, **COOKIE)[2:3],
        *each_verb("/chat", {"human_input": "hi"}, TALK),
        *schemas("/chat"),
    ],
    "configurable_chain": [
        *each_verb("/configurable_chain", {"topic": "cats"}),
        *each_verb("/configurable_chain", {"topic": "cats"}, LOW),
        *each_verb(f"/configurable_chain/c/{hashed(LOW)}", {"topic": "cats"}),
        *schemas("/configurable_chain"),
        *schemas(f"/configurable_chain/c/{hashed(LOW)}"),
        *each_verb("/configurable_prompt", {"topic": "cats"}, {**LOW, "tags": ["a"]}),
        *schemas("/configurable_prompt"),
        *each_verb("/by_header", {"topic": "cats"}, x_model="low"),
        *each_verb("/configurable_chain", {"wrong": "cats"})[:1],
    ],
    "configurable_agent": [
        *each_verb("/agent", {"input": "How long is elephant?"}),
        *each_verb("/agent", {"input": "How long is ox?"}, {"configurable": {"style": "loud"}}),
        *each_verb("/spoken", {"input": "How long is ox?"}),
        *schemas("/agent"),
    ],
    "configurable_retrieval": [
        *each_verb("/retriever", "cats sleep")[:3],
        *each_verb("/retriever", "cats", {"configurable": {"collection": "plants", "limit": 1}})[
            :3
        ],
        *schemas("/retriever"),
    ],
    "file_processing": [
        *each_verb("/file", FILE),
        *each_verb("/file", {"file": 5})[:1],
        *schemas("/file"),
    ],
    "widgets": [
        *each_verb("/count", {"chat_history": [["a", "b"]], "question": "c"}),
        *each_verb("/last", {"messages": [{"type": "human", "content": "hi"}]}),
        *schemas("/count"),
        *schemas("/last"),
        Asked("/last/feedback", {"run_id": "6f1c2f0e-8d1a-4a57-9a86-4a2f6f0f3f11", "key": "k"}),
    ],
    "passthrough": [
        *each_verb("/v1", QUESTION)[:2],  # Its parts stream in no certain order.
        *each_verb("/v2", QUESTION)[2:],  # LangServe answers the others with 500.
        *each_verb("/v3", {"note": "x"}),
        *schemas("/v1"),
        *schemas("/v3"),
    ],
    "api_handler": [
        *each_verb("/v2", {"name": "ann"})[:3],
        *each_verb("/v2", {"name": "ann"}, {"configurable": {"greeting": "Bye {name}"}})[:3],
        Asked("/v2/stream_events", {"input": {"name": "ann"}}),
        Asked("/v2/greet", {"input": {"name": "ann"}}, headers={"x-user": "bob"}),
        Asked("/v2/greet", {"input": {"name": "ann"}}),
        Asked("/v2/input_schema", method="GET"),
        Asked("/v2/config_schema", method="GET"),
    ],
    "several_servers": [
        *each_verb("/v1/money", 1.5)[:3],
        *each_verb("/inner/double", 4),
        *schemas("/inner/double"),
        *each_verb("/reversed", "abc"),
        *each_verb("/old", 1),
    ],
}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the servers that `chainserve migrate` has changed."""
    folder = tmp_path_factory.mktemp("migrated")
    shutil.copytree(
        FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    assert main(["migrate", "--write", str(folder)]) == 0
    return folder


def load(path: Path) -> ModuleType:
    """Return a module, executed anew."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_server_is_asked_and_none_names_langserve_afterwards(migrated: Path) -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == SERVERS.keys()
    for path in migrated.glob("*.py"):
        assert "langserve" not in path.read_text().replace("LangServe", "")


@pytest.mark.parametrize("name", SERVERS)
async def test_a_migrated_server_answers_what_it_answered(name: str, migrated: Path) -> None:
    forget_oracle_state()
    theirs, ours = load(FOLDER / f"{name}.py").app, load(migrated / f"{name}.py").app

    for asked in SERVERS[name]:
        expected, found = await answer(theirs, asked), await answer(ours, asked)
        assert found == expected, asked


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")


async def answer(app: Any, asked: Asked) -> Any:
    """Return what a server answers, without what is random in it."""
    headers = {"user-agent": "test", **asked.headers}
    if asked.body is not None:
        headers["content-type"] = "application/json"
    async with open_stream(
        app,
        asked.method,
        asked.target,
        body=b"" if asked.body is None else json.dumps(asked.body).encode(),
        headers=headers,
        raise_app_errors=False,
    ) as response:
        pieces = response.chunks()
        try:
            async for _ in pieces:
                pass
        except IncompleteBodyError:
            pass
    body = normalised(b"".join(response.sends))
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return [_plain(event.event, event.data) for event in decode_events(body)]
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if asked.target.endswith("feedback"):
        return response.status  # The sentence is our own.
    if response.status >= 400:
        # A refusal has more members here; that of a run that failed was plain text.
        return response.status, told["detail"] if response.status < 500 and told else None
    return response.status, _without_marks(told)


def _plain(event: str, data: str | None) -> Any:
    if not data:
        return event, None
    told = json.loads(_TIME.sub("<time>", data))
    return event, _without_marks(told)


def _without_marks(value: Any) -> Any:
    """Return JSON data without what servers note for themselves in metadata."""
    if isinstance(value, dict):
        return {k: _without_marks(v) for k, v in value.items() if not k.startswith("__")}
    return [_without_marks(item) for item in value] if isinstance(value, list) else value
