"""Bad input: a problem document that says what to change, whatever was sent."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from langchain_core.messages import AnyMessage, BaseMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel
from starlette.responses import JSONResponse

from chainserve import Chain, add_routes
from chainserve.settings import Settings
from tests._apps import assert_problem, make_app
from tests._bridge import request

pytestmark = pytest.mark.anyio

VERBS = ["invoke", "batch", "stream"]
JSON = {"content-type": "application/json"}


def echo_app(**options: Any) -> FastAPI:
    return make_app(lambda value: value, **options)


def body_of(verb: str, value: bytes) -> bytes:
    """Return the body that asks a verb to run with an input."""
    return b'{"inputs":[%s]}' % value if verb == "batch" else b'{"input":%s}' % value


MALFORMED = {
    "not JSON": b"hello",
    "an unfinished object": b'{"input": 1',
    "a trailing comma": b'{"input": 1,}',
    "two values": b'{"input": 1} {}',
    "NaN": b'{"input": NaN}',
    "infinity": b'{"input": -Infinity}',
    "a lone high surrogate": b'{"input": "\\ud800"}',
    "a lone low surrogate": b'{"input": "\\udc00x"}',
    "a raw NUL": b'{"input": "a\x00b"}',
    "a raw line break": b'{"input": "a\nb"}',
    "invalid UTF-8": b'{"input": "\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"input": 1}',
    "deep lists": b'{"input": ' + b"[" * 300 + b"]" * 300 + b"}",
    "very deep lists": b"[" * 100_000,
    "deep objects": b'{"input": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
    "an int of 5000 digits": b'{"input": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_json_is_refused_with_where_it_breaks(verb: str, body: bytes) -> None:
    response = await request(echo_app(), "POST", f"/chain/{verb}", body=body, headers=JSON)

    problem = assert_problem(response, 422, "invalid_json")
    assert problem["detail"] == ["Invalid JSON body"]
    assert "line 1 column" in problem["message"] or "line 2 column" in problem["message"]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", 'The body is empty. Send JSON, such as {"input": …}.'),
        (b" \n", 'The body is empty. Send JSON, such as {"input": …}.'),
        (b"{'input': 1}", "JSON needs double quotes"),
        (b"{\"input\":\n 'x'}", "JSON needs double quotes"),
        (b"{input: 1}", "JSON needs double quotes"),
        (b'{"input": 1e999}', "a number is out of range"),
        (b'{"input": [{"a": -1E+999}]}', "a number is out of range"),
        (b'{"input": 1' + b"0" * 400 + b".0}", "a number is out of range"),
    ],
)
async def test_a_common_mistake_in_json_is_told_with_its_mend(body: bytes, hint: str) -> None:
    response = await request(echo_app(), "POST", "/chain/invoke", body=body, headers=JSON)

    problem = assert_problem(response, 422, "invalid_json")
    assert problem["detail"] == ["Invalid JSON body"]
    assert hint in problem["message"]


async def test_a_mistake_of_another_kind_has_no_hint_of_quotes() -> None:
    for body in (b'{"input": 1', b'{"input": 1,}', b"hello"):
        response = await request(echo_app(), "POST", "/chain/invoke", body=body, headers=JSON)
        assert "quotes" not in response.json()["message"]


class Topic(BaseModel):
    """An input with a field."""

    topic: str


@pytest.mark.parametrize(
    ("verb", "body", "place", "message"),
    [
        ("invoke", b'{"input": {}}', ["topic"], "input.topic: Field required"),
        ("stream", b'{"input": {"topic": 1}}', ["topic"], "input.topic: Input should be a valid"),
        ("batch", b'{"inputs": [{}]}', ["inputs", 0, "topic"], "inputs.0.topic: Field required"),
        ("invoke", b"{}", ["input"], 'input: Field required. Send {"input": …}.'),
        ("runs", b'{"topic": "x"}', ["input"], 'input: Field required. Send {"input": …}.'),
        ("batch", b"{}", ["inputs"], 'inputs: Field required. Send {"inputs": […]}.'),
        ("invoke", b"[]", [], 'Send {"input": …}.'),
        ("invoke", b'{"input": {"topic": "x"}, "config": 1}', ["config"], "config: Input should"),
        (
            "invoke",
            b'{"input": {"topic": "x"}, "config": {"tags": 1}}',
            ["tags"],
            "config.tags: Input should",
        ),
    ],
)
async def test_the_message_names_the_place_from_the_top_of_the_body(
    verb: str, body: bytes, place: list[Any], message: str
) -> None:
    app = echo_app(input_type=Topic, config_keys=["tags"])
    response = await request(app, "POST", f"/chain/{verb}", body=body, headers=JSON)

    problem = assert_problem(response, 422, "invalid_input")
    assert problem["detail"][0]["loc"] == place
    assert message in problem["message"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("body", [b"null", b"[]", b"1", b'"input"', b"{}", b'{"Input": 1}'])
async def test_a_body_without_its_members_is_refused(verb: str, body: bytes) -> None:
    response = await request(echo_app(), "POST", f"/chain/{verb}", body=body, headers=JSON)

    problem = assert_problem(response, 422, "invalid_input")
    assert isinstance(problem["detail"], list)
    assert {"type", "loc", "msg", "input"} <= problem["detail"][0].keys()


@pytest.mark.parametrize("inputs", [b"5", b'"12"', b"null", b'{"a": 1}'])
async def test_batch_inputs_that_are_no_list_are_refused(inputs: bytes) -> None:
    body = b'{"inputs":%s}' % inputs
    response = await request(echo_app(), "POST", "/chain/batch", body=body, headers=JSON)

    problem = assert_problem(response, 422, "invalid_input")
    assert problem["detail"][0]["loc"] == ["inputs"]


def count_words(value: str) -> int:
    return len(value.split())


async def test_an_input_of_the_wrong_type_is_refused_before_anything_runs() -> None:
    ran: list[str] = []
    app = make_app(RunnableLambda(ran.append).with_types(input_type=str))
    response = await request(app, "POST", "/chain/stream", json={"input": 5})

    problem = assert_problem(response, 422, "invalid_input")
    assert problem["message"] == "input: Input should be a valid string"
    assert ran == []


async def test_a_bad_batch_item_is_named_and_no_item_runs() -> None:
    ran: list[str] = []
    app = make_app(RunnableLambda(ran.append).with_types(input_type=str))
    response = await request(app, "POST", "/chain/batch", json={"inputs": ["a", 5, "b"]})

    problem = assert_problem(response, 422, "invalid_input")
    assert problem["detail"][0]["loc"] == ["inputs", 1]
    assert ran == []


async def test_more_errors_than_anyone_reads_are_counted() -> None:
    app = make_app(RunnableLambda(lambda value: value).with_types(input_type=list[str]))
    response = await request(app, "POST", "/chain/invoke", json={"input": [1] * 5000})

    problem = assert_problem(response, 422, "invalid_input")
    assert problem["message"] == "input: 5000 values do not fit the schema"
    assert len(response.body) < 1000


async def test_a_large_wrong_input_is_not_sent_back_whole() -> None:
    app = make_app(RunnableLambda(lambda value: value).with_types(input_type=list[BaseMessage]))
    response = await request(app, "POST", "/chain/invoke", json={"input": {"x": "y" * 10**6}})

    assert_problem(response, 422, "invalid_input")
    assert len(response.body) < 10_000


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "value",
    [
        b'"a\\u0000b"',
        b'"\\ud83d\\ude00"',
        b"123456789012345678901234567890",
        b'{"a":1,"a":2}',
        b"[" * 150 + b"]" * 150,
        b"1e300",
        b'"1e400"',
        b'{"":{"root":1}}',
        b'{"__proto__":1,"lc":1,"type":"constructor","id":["os","system"]}',
    ],
)
async def test_unusual_but_valid_json_is_data(verb: str, value: bytes) -> None:
    response = await request(
        echo_app(), "POST", f"/chain/{verb}", body=body_of(verb, value), headers=JSON
    )

    assert response.status == 200
    assert b"error" not in response.body


@pytest.mark.parametrize("verb", VERBS)
async def test_a_nul_comes_back_as_it_was_sent(verb: str) -> None:
    response = await request(
        echo_app(), "POST", f"/chain/{verb}", body=body_of(verb, b'"a\\u0000b"'), headers=JSON
    )

    assert b'"a\\u0000b"' in response.body


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "text/json"]
)
async def test_json_under_another_content_type_is_refused(content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = await request(
        echo_app(), "POST", "/chain/invoke", body=b'{"input": 1}', headers=headers
    )

    problem = assert_problem(response, 415, "unsupported_media_type")
    assert "application/json" in problem["message"]


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"]
)
async def test_json_by_any_of_its_names_is_accepted(content_type: str) -> None:
    response = await request(
        echo_app(),
        "POST",
        "/chain/invoke",
        body=b'{"input": 1}',
        headers={"content-type": content_type},
    )

    assert response.status == 200


async def test_a_compressed_body_is_refused() -> None:
    response = await request(
        echo_app(),
        "POST",
        "/chain/invoke",
        body=b"\x1f\x8b",
        headers={**JSON, "content-encoding": "gzip"},
    )

    assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["identity", "Identity", " "])
async def test_a_body_that_says_it_is_not_compressed_is_taken(encoding: str) -> None:
    headers = {**JSON, "content-encoding": encoding}
    response = await request(
        echo_app(), "POST", "/chain/invoke", json={"input": 1}, headers=headers
    )

    assert response.status == 200


@pytest.mark.parametrize("verb", VERBS)
async def test_a_body_that_announces_too_much_is_refused_unread(verb: str) -> None:
    app = echo_app(settings=Settings(max_body_bytes=100))
    body = b'{"input": "' + b"x" * 200 + b'"}'
    response = await request(app, "POST", f"/chain/{verb}", body=body, headers=JSON)

    problem = assert_problem(response, 413, "body_too_large")
    assert "100 bytes" in problem["message"]
    assert response.headers["connection"] == "close"


async def test_an_endless_body_is_read_to_the_bound_and_no_further() -> None:
    pieces = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pieces
        yield b'{"input": "'
        while True:
            pieces += 1
            yield b"x" * 100

    app = echo_app(settings=Settings(max_body_bytes=1000))
    response = await request(app, "POST", "/chain/invoke", body=endless(), headers=JSON)

    assert_problem(response, 413, "body_too_large")
    assert pieces <= 11


async def test_a_chain_has_its_own_bounds() -> None:
    app = FastAPI()
    echo: RunnableLambda[Any, Any] = RunnableLambda(lambda value: value)
    chain = Chain(path="/small", runnable=echo, max_body_bytes=50, max_batch_size=2)
    add_routes(app, chain)

    large = await request(app, "POST", "/small/invoke", json={"input": "x" * 60})
    many = await request(app, "POST", "/small/batch", json={"inputs": [1, 2, 3]})
    few = await request(app, "POST", "/small/batch", json={"inputs": [1, 2]})

    assert_problem(large, 413, "body_too_large")
    assert "bound of 2" in assert_problem(many, 413, "batch_too_large")["message"]
    assert few.status == 200


async def test_a_batch_over_the_default_bound_is_refused() -> None:
    response = await request(echo_app(), "POST", "/chain/batch", json={"inputs": [1] * 101})

    assert_problem(response, 413, "batch_too_large")


async def test_configs_and_inputs_of_different_number_are_refused_as_langserve_does() -> None:
    response = await request(
        echo_app(), "POST", "/chain/batch", json={"inputs": [1, 2], "config": [{}]}
    )

    problem = assert_problem(response, 422, "invalid_config")
    assert problem["detail"] == "Number of configs (1) must match number of inputs (2)"


@pytest.mark.parametrize("config", [5, "x", [1]])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_config_of_the_wrong_type_is_refused(verb: str, config: Any) -> None:
    body = {"inputs": [1]} if verb == "batch" else {"input": 1}
    response = await request(echo_app(), "POST", f"/chain/{verb}", json={**body, "config": config})

    assert_problem(response, 422, "invalid_input")


async def test_an_application_with_its_own_answer_to_invalid_bodies_keeps_it() -> None:
    app = echo_app()

    @app.exception_handler(RequestValidationError)
    async def answer(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"mine": error.errors()[0]["loc"]}, status_code=400)

    response = await request(app, "POST", "/chain/invoke", body=b"{", headers=JSON)

    assert response.status == 400
    assert response.json() == {"mine": ["body"]}


async def test_the_server_goes_on_after_bad_input() -> None:
    app = echo_app()
    for body in MALFORMED.values():
        await request(app, "POST", "/chain/invoke", body=body, headers=JSON)

    response = await request(app, "POST", "/chain/invoke", json={"input": "still here"})

    assert response.json()["output"] == "still here"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "message",
    [
        {"type": "tool", "content": "no call id"},
        {"type": "ai", "content": "", "tool_calls": "x"},
        {"type": "ai", "content": "", "tool_calls": [1]},
        {"type": "human"},
        {"type": "nothing", "content": ""},
        {"type": ["human"], "content": ""},
        {"type": {}, "content": ""},
        {"type": "ai", "content": {"a": 1}, "additional_kwargs": 5},
    ],
)
async def test_a_malformed_message_is_refused_whatever_its_validator_raises(
    verb: str, message: dict[str, Any]
) -> None:
    app = make_app(RunnableLambda(lambda value: value).with_types(input_type=list[AnyMessage]))
    body = {"inputs": [[message]]} if verb == "batch" else {"input": [message]}
    response = await request(app, "POST", f"/chain/{verb}", json=body)

    assert_problem(response, 422, "invalid_input")


@pytest.mark.parametrize("verb", VERBS)
async def test_an_int_over_64_bits_can_stand_in_an_error(verb: str) -> None:
    app = make_app(RunnableLambda(lambda value: value).with_types(input_type=list[str]))
    body = body_of(verb, b"[18446744073709551616]")
    response = await request(app, "POST", f"/chain/{verb}", body=body, headers=JSON)

    problem = assert_problem(response, 422, "invalid_input")
    assert problem["detail"][0]["input"] == 2**64


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fields", [5, True, "session_id", ["session_id"]])
async def test_configurable_that_is_no_object_is_no_failure(verb: str, fields: Any) -> None:
    body = {"inputs": [1]} if verb == "batch" else {"input": 1}
    response = await request(
        echo_app(), "POST", f"/chain/{verb}", json={**body, "config": {"configurable": fields}}
    )

    assert response.status in (200, 422), response.text


@pytest.mark.parametrize("member", ["inputs", "config"])
async def test_a_batch_over_its_bound_is_refused_before_its_items_are_looked_at(
    member: str,
) -> None:
    body = {"inputs": [1], member: [1] * 1000}
    response = await request(echo_app(), "POST", "/chain/batch", json=body)

    assert_problem(response, 413, "batch_too_large")
