"""Where chainserve does not answer what LangServe 0.3.3 answers: each on purpose, each shown.

`test_langserve_pairs.py` has what is the same.
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda
from starlette.requests import Request

from tests import _pair_chains as chains
from tests._chains import answering, echo, failing, streaming
from tests._pairs import (
    CHAINSERVE,
    LANGSERVE,
    Answer,
    Package,
    Pair,
    Pairs,
    ask,
    ask_over_socket,
    batch,
    forget_oracle_state,
    invoke,
    option,
    stream,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


@dataclass(frozen=True, slots=True)
class Difference:
    """A request that the two answer differently.

    Attributes:
        pair: The runnable and the request.
        theirs: LangServe's status, and a part of its body.
        ours: chainserve's.
    """

    pair: Pair
    theirs: tuple[int, bytes]
    ours: tuple[int, bytes]


def raw(chain: Any, target: str, body: bytes, **headers: str) -> Pair:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Pair(chain=chain, target=target, body=body, headers=named)


FAILED = (500, b"Internal Server Error")
STREAM_FAILED = (200, b'event: error\r\ndata: {"status_code": 500, "message": "Internal Server')
INVALID_JSON = (422, b'"detail":["Invalid JSON body"]')
MORE_KEYS = {"text": "x", "more": 1}


def too_many() -> Exception:
    return HTTPException(429, "Slow down.")


class NoSuchCustomerError(Exception):
    status_code = 404
    detail = "No customer 5."


def indented(package: Package) -> Mapping[str, Any]:
    def dumps(self: Any, obj: Any) -> bytes:
        return json.dumps(obj, indent=1).encode()

    return {"serializer": type("Indented", (package.WellKnownLCSerializer,), {"dumps": dumps})()}


def provider_limit() -> Exception:
    request = httpx.Request("POST", "http://provider.test")
    response = httpx.Response(429, headers={"retry-after": "7"}, request=request)
    return httpx.HTTPStatusError("limit", request=request, response=response)


def tagging(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return {**config, "metadata": {"user": "ann"}}


def choice_by_address() -> chains.AnyRunnable:
    return chains.with_alternatives("base_url", echo(), other=answering("other"))


DIFFERENCES: dict[str, Difference] = {
    # Some clients end a line at these characters.
    **{
        f"{name} is escaped in a stream": Difference(
            stream(partial(streaming, {character: f"a{character}b"}), 1),
            (200, f'data: {{"{character}":"a{character}b"}}\r\n'.encode()),
            (200, f'data: {{"{escape}":"a{escape}b"}}\r\n'.encode()),
        )
        for name, character, escape in (
            ("U+0085", "\x85", "\\u0085"),
            ("U+2028", "\u2028", "\\u2028"),
            ("U+2029", "\u2029", "\\u2029"),
        )
    },
    # The same numbers, written by another library.
    "a float with a small exponent": Difference(
        invoke(echo, 1e-5), (200, b'"output":1e-05'), (200, b'"output":0.00001')
    ),
    # A prompt says what it is, whichever chain gave it.
    "a chat prompt has its type": Difference(
        invoke(partial(answering, ChatPromptValue(messages=[HumanMessage("hi")])), 1),
        (200, b'"id":null}]}'),
        (200, b'"id":null}],"type":"ChatPromptValueConcrete"}'),
    ),
    # Null is nothing, in a config as anywhere in it.
    "tags that are null": Difference(
        invoke(echo, 1, {"tags": None}, options=option(config_keys=("tags",))),
        (422, b'"detail":[{'),
        (200, b'"output":1'),
    ),
    # A sentence of our own, as an answer of our own.
    "configurable fields that no caller may set": Difference(
        invoke(
            chains.configurable_prompt,
            {"topic": "x"},
            {"configurable": {"template": "y"}},
            options=option(config_keys=()),
        ),
        (422, b"has been disallowed by the server"),
        (422, b"does not let a caller set configurable fields"),
    ),
    # An output is what the chain gave.
    "the key root is kept": Difference(
        invoke(partial(answering, {"root": 1, "other": 2}), 1),
        (200, b'{"output":1,'),
        (200, b'{"output":{"root":1,"other":2},'),
    ),
    "the key root is kept in a batch": Difference(
        batch(partial(answering, {"root": 1, "other": 2}), [1]),
        (200, b'{"output":[1],'),
        (200, b'{"output":[{"root":1,"other":2}],'),
    ),
    "a key that begins with _sa is kept": Difference(
        invoke(partial(answering, {"_sa": 1}), 1),
        (200, b'{"output":{},'),
        (200, b'{"output":{"_sa":1},'),
    ),
    "keys that an inferred schema does not know are kept": Difference(
        invoke(chains.annotated(chains.Answered, MORE_KEYS), 1),
        (200, b'{"output":{"text":"x"},'),
        (200, b'{"output":{"text":"x","more":1},'),
    ),
    "keys that an inferred schema does not know are kept in a batch": Difference(
        batch(chains.annotated(chains.Answered, MORE_KEYS), [1]),
        (200, b'{"output":[{"text":"x"}],'),
        (200, b'{"output":[{"text":"x","more":1}],'),
    ),
    "what assign passes through is kept": Difference(
        invoke(chains.assigned, {"text": "abc"}),
        (200, b'{"output":{"length":3},'),
        (200, b'{"output":{"text":"abc","length":3},'),
    ),
    "an inferred schema does not convert": Difference(
        invoke(chains.annotated(int, "5"), 1), (200, b'{"output":5,'), (200, b'{"output":"5",')
    ),
    "an inferred schema does not refuse": Difference(
        invoke(chains.annotated(int, "five"), 1), FAILED, (200, b'{"output":"five",')
    ),
    "a datetime is written the same in every verb": Difference(
        invoke(chains.annotated(datetime.datetime, chains.MOMENT), 1),
        (200, b'{"output":"2024-01-02T03:04:05.000678Z",'),
        (200, b'{"output":"2024-01-02T03:04:05.000678+00:00",'),
    ),
    "an int of more than 64 bits is written": Difference(
        invoke(echo, 2**70), FAILED, (200, b'{"output":1180591620717411303424,')
    ),
    "an int of more than 64 bits is written, declared": Difference(
        invoke(chains.typed(int, 2**70), 1), FAILED, (200, b'{"output":1180591620717411303424,')
    ),
    "a key that is an int is written": Difference(
        invoke(partial(answering, {1: 2}), 1), FAILED, (200, b'{"output":{"1":2},')
    ),
    "a lone surrogate is escaped": Difference(
        invoke(partial(answering, "\ud800"), 1), FAILED, (200, b'{"output":"\\ud800",')
    ),
    "an output that is not JSON is named": Difference(
        invoke(partial(answering, {"a": [{1}]}), 1),
        FAILED,
        (500, b"The output cannot be written as JSON: output.a[0] is of type set."),
    ),
    "a chunk that is not JSON is named": Difference(
        stream(partial(streaming, "a", {1}), 1),
        STREAM_FAILED,
        (200, b'"message": "The output cannot be written as JSON: output is of type set.'),
    ),
    "a serializer's line breaks become spaces in a stream": Difference(
        stream(partial(answering, {"a": 1}), 1, options=indented),
        (200, b'data: {\r\ndata:  "a": 1\r\ndata: }\r\n\r\n'),
        (200, b'data: {  "a": 1 }\r\n\r\n'),
    ),
    # Errors keep what they say.
    "HTTPException keeps its status in a stream": Difference(
        stream(chains.raising(too_many), 1),
        STREAM_FAILED,
        (200, b'event: error\r\ndata: {"status_code": 429, "message": "Slow down."}\r\n\r\n'),
    ),
    "HTTPException keeps its status in the middle of a stream": Difference(
        stream(partial(failing, after=2, error=too_many()), 1),
        STREAM_FAILED,
        (200, b'event: error\r\ndata: {"status_code": 429, "message": "Slow down."}\r\n\r\n'),
    ),
    "a provider's error is not the server's": Difference(
        invoke(chains.raising(provider_limit), 1), FAILED, (429, b'"code":"upstream_rate_limited"')
    ),
    "a provider's error is not the server's in a stream": Difference(
        stream(chains.raising(provider_limit), 1),
        STREAM_FAILED,
        (200, b'data: {"status_code": 429, "message": "The model\'s provider limits'),
    ),
    "an unexpected error is a problem document": Difference(
        invoke(chains.failing_function, 1), FAILED, (500, b'"code":"internal_error"')
    ),
    "an unexpected error of a batch is a problem document": Difference(
        batch(chains.failing_function, [1]), FAILED, (500, b'"code":"internal_error"')
    ),
    "an error with a status and a detail of its own keeps them": Difference(
        invoke(chains.raising(NoSuchCustomerError), 1), FAILED, (404, b'"detail":"No customer 5."')
    ),
    # Requests.
    "a bad item of a batch is the caller's mistake": Difference(
        batch(chains.sync_double, [1, "x"]),
        FAILED,
        (422, b'"detail":[{"type":"int_parsing","loc":["inputs",1],'),
    ),
    "inputs that are no list are the caller's mistake": Difference(
        batch(echo, 5), FAILED, (422, b'"loc":["inputs"]')
    ),
    "a str is no list of inputs": Difference(
        batch(echo, "12"), (200, b'{"output":["1","2"],'), (422, b'"loc":["inputs"]')
    ),
    "config may be null": Difference(
        Pair(chain=echo, target="invoke", body={"input": 1, "config": None}),
        FAILED,
        (200, b'{"output":1,'),
    ),
    "config may be null in a stream": Difference(
        Pair(chain=echo, target="stream", body={"input": 1, "config": None}),
        FAILED,
        (200, b"event: end\r\n\r\n"),
    ),
    "config may be null in a batch": Difference(
        Pair(chain=echo, target="batch", body={"inputs": [1], "config": None}),
        (422, b"Value for 'config' key must be a dict or list if provided"),
        (200, b'{"output":[1],'),
    ),
    "another media type is refused": Difference(
        raw(echo, "invoke", b'{"input":1}', content_type="text/plain"),
        (200, b'{"output":1,'),
        (415, b'"code":"unsupported_media_type"'),
    ),
    "a body that is not UTF-8 is refused": Difference(
        raw(echo, "invoke", b'{"input":"\xff"}'), FAILED, INVALID_JSON
    ),
    "a byte order mark is refused": Difference(
        raw(echo, "invoke", b'\xef\xbb\xbf{"input":1}'), (200, b'{"output":1,'), INVALID_JSON
    ),
    "NaN is not JSON": Difference(
        raw(echo, "invoke", b'{"input":NaN}'), (200, b'{"output":null,'), INVALID_JSON
    ),
    "a lone surrogate is refused": Difference(
        raw(partial(RunnableLambda, len), "invoke", b'{"input":"\\ud800"}'),
        (200, b'{"output":1,'),
        INVALID_JSON,
    ),
    "deep nesting is refused": Difference(
        raw(partial(RunnableLambda, len), "invoke", b'{"input":' + b"[" * 300 + b"]" * 300 + b"}"),
        (200, b'{"output":1,'),
        INVALID_JSON,
    ),
    "a message without a type is the caller's mistake": Difference(
        invoke(chains.usage_model, [{"content": "x"}]), FAILED, (422, b'"code":"invalid_input"')
    ),
    "a document without text is the caller's mistake": Difference(
        invoke(chains.telling_type(Document), {"metadata": {}}),
        FAILED,
        (422, b'"code":"invalid_input"'),
    ),
    "a validator's reason is told": Difference(
        invoke(chains.telling_type(chains.Even), {"number": 3}),
        (422, b'"ctx":{"error":{}}'),
        (422, b'"ctx":{"error":"odd"}'),
    ),
    "a message as a pair is the caller's mistake": Difference(
        invoke(chains.usage_model, [["human", "hi"]]), FAILED, (422, b'"code":"invalid_input"')
    ),
    "a batch has a bound": Difference(
        batch(echo, [0] * 101), (200, b'{"output":[0,'), (413, b'"code":"batch_too_large"')
    ),
    "a path with a slash at its end is answered directly": Difference(
        Pair(chain=echo, target="invoke/", body={"input": 1}), (307, b""), (200, b'{"output":1,')
    ),
    # Configs.
    "a batch keeps the server's part of the config": Difference(
        batch(chains.telling_config, [1], options=option(per_req_config_modifier=tagging)),
        (200, b'"metadata":{"__langserve_endpoint":"batch","__useragent":"pairs/1"},'),
        (
            200,
            b'"metadata":{"__langserve_endpoint":"batch","__useragent":"pairs/1","user":"ann"},',
        ),
    ),
    "a field that looks like a key or an address is refused": Difference(
        invoke(choice_by_address, 1, {"configurable": {"base_url": "other"}}),
        (200, b'{"output":"other",'),
        (422, b"A caller may not set base_url."),
    ),
}


@pytest.mark.parametrize("difference", DIFFERENCES.values(), ids=DIFFERENCES.keys())
async def test_they_differ_on_purpose(difference: Difference) -> None:
    theirs = await ask(LANGSERVE, difference.pair)
    ours = await ask(CHAINSERVE, difference.pair)

    assert (theirs.status, _part(difference.theirs, theirs)) == difference.theirs
    assert (ours.status, _part(difference.ours, ours)) == difference.ours
    assert ours.body != theirs.body


def _part(expected: tuple[int, bytes], answer: Answer) -> bytes:
    """Return the expected part if it is there, else the whole body."""
    return expected[1] if expected[1] in answer.body else answer.body


# Errors: LangServe's `detail`, in a problem document.

INVALID: Pairs = {
    "no JSON": raw(echo, "invoke", b"{"),
    "no JSON for a batch": raw(echo, "batch", b"{"),
    "no JSON for a stream": raw(echo, "stream", b"{"),
    "no body": raw(echo, "invoke", b""),
    "no input": raw(echo, "invoke", b'{"inputs":[1]}'),
    "no inputs": raw(echo, "batch", b'{"input":1}'),
    "an input of the wrong type": invoke(chains.sync_double, "x"),
    "an input of the wrong type for a stream": stream(chains.sync_double, "x"),
    "an input without a variable of the prompt": invoke(chains.prompt, {}),
    "several errors at once": invoke(
        chains.telling_type(chains.Customer), {"name": 1, "age": "x", "addresses": [{}]}
    ),
    "no member of a union": invoke(chains.telling_type(int | list[str]), {"a": 1}),
    "a message of no known type": invoke(chains.messages_in, [{"type": "robot", "content": "x"}]),
    "config is a number": raw(echo, "invoke", b'{"input":1,"config":5}'),
    "config is a list": raw(echo, "invoke", b'{"input":1,"config":[{}]}'),
    "a batch's config is a number": raw(echo, "batch", b'{"inputs":[1],"config":5}'),
    "a batch's config is a list of numbers": raw(echo, "batch", b'{"inputs":[1],"config":[5]}'),
    "a field of the wrong type": invoke(
        chains.configurable_model, "hi", {"configurable": {"responses": 5, "first": "x"}}
    ),
    "a field of the wrong type in a batch": batch(
        chains.configurable_model, ["hi"], {"configurable": {"first": "x"}}
    ),
    "a field that is null": stream(
        chains.configurable_model, "hi", {"configurable": {"first": None}}
    ),
    "no such alternative": invoke(chains.model_choice, "hi", {"configurable": {"llm": "best"}}),
    "tags of the wrong type": invoke(echo, 1, {"tags": 5}, options=option(config_keys=("tags",))),
    "a run id that is none": invoke(
        echo, 1, {"run_id": "x"}, options=option(config_keys=("run_id",))
    ),
    "more configs than inputs": batch(echo, [1], [{}, {}]),
    "fewer configs than inputs": batch(echo, [1, 2], [{}]),
    "configs without inputs": batch(echo, [], [{}]),
    "an input of the chosen alternative's type": invoke(
        chains.input_choice, "x", {"configurable": {"kind": "customer"}}
    ),
}


@pytest.mark.parametrize("pair", INVALID.values(), ids=INVALID.keys())
async def test_both_refuse_with_the_same_status_and_detail(pair: Pair) -> None:
    theirs = await ask(LANGSERVE, pair)
    ours = await ask(CHAINSERVE, pair)

    assert (ours.status, ours.detail) == (theirs.status, theirs.detail)
    assert ours.headers["content-type"] == "application/problem+json"
    problem = json.loads(ours.body)
    assert problem.keys() == {"type", "title", "status", "detail", "code", "message"}
    assert problem["status"] == ours.status


async def test_an_unexpected_error_says_nothing_of_the_chain() -> None:
    for pair in (invoke(chains.failing_function, 1), stream(chains.failing_function, 1)):
        theirs = await ask(LANGSERVE, pair)
        ours = await ask(CHAINSERVE, pair)

        assert b"secret" not in theirs.body + ours.body


async def test_a_serializer_that_writes_nan_is_an_error() -> None:
    pair = invoke(partial(answering, {"a": float("nan")}), 1, options=indented)

    assert (await ask(LANGSERVE, pair)).status == 500
    assert (await ask(CHAINSERVE, pair)).status == 500


async def test_a_first_chunk_that_is_not_json_is_no_chunk_and_brings_no_metadata() -> None:
    pair = stream(partial(streaming, {1}), 1)

    assert (await ask(LANGSERVE, pair)).body.startswith(b"event: metadata\r\n")
    assert (await ask(CHAINSERVE, pair)).body.startswith(b"event: error\r\n")


async def test_a_key_that_is_not_json_is_named() -> None:
    ours = await ask(CHAINSERVE, invoke(partial(answering, {"a": {chains.FIXED_UUID: 1}}), 1))

    assert b"The output cannot be written as JSON: output.a has a key of type UUID" in ours.body


async def test_the_body_of_a_broken_stream_comes_to_its_end() -> None:
    pair = stream(partial(failing, after=1), 1)
    theirs = await ask_over_socket(LANGSERVE, pair)
    ours = await ask_over_socket(CHAINSERVE, pair)

    assert ours.body == theirs.body
    assert (theirs.complete, ours.complete) == (False, True)


async def test_each_names_its_version_in_the_metadata_of_a_run() -> None:
    def metadata_of(value: Any, config: Any) -> list[str]:
        return sorted(name for name in config["metadata"] if name.endswith("_version"))

    pair = invoke(partial(RunnableLambda, metadata_of), 1)

    assert b'["__langserve_version"]' in (await ask(LANGSERVE, pair)).body
    assert b'["__chainserve_version"]' in (await ask(CHAINSERVE, pair)).body
