"""What a `RemoteRunnable` sends, and what it makes of answers of any kind."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import httpx2
import langserve
import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_core.tracers.log_stream import RunLog

from chainserve import (
    RemoteRunnable,
    RemoteStatusError,
    StreamInterruptedError,
    UnexpectedAnswerError,
    answers as answers_module,
)
from chainserve.serialization import WellKnownLCSerializer
from chainserve.wire.parser import EventParser

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:astream_log is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]

Remote = RemoteRunnable[Any, Any]
SSE = {"content-type": "text/event-stream"}


def answered(
    content: bytes | Callable[[Any], Any], status: int = 200, **headers: str
) -> RemoteRunnable[Any, Any]:
    """Return a client whose server answers every request so; headers have underscores."""

    def answer(request: Any) -> Any:
        if callable(content):
            return content(request)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.Response(status, content=content, headers=named)

    return Remote(
        "http://test/x",
        client_kwargs={"transport": httpx2.MockTransport(answer)},
        verify=False,
    )


def told(content: bytes) -> RemoteRunnable[Any, Any]:
    """Return a client whose server answers every request with these bytes of a stream."""
    return answered(content, content_type="text/event-stream")


async def _all(stream: Any) -> list[Any]:
    return [value async for value in stream]


async def _read_into(read: list[Any], stream: Any) -> None:
    async for value in stream:
        read.append(value)  # noqa: PERF401 - what came before an error counts


async def raised_by(client: RemoteRunnable[Any, Any], verb: str) -> list[Any]:
    """Return what both forms of a verb raise."""
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "invoke": (lambda: client.invoke(1), lambda: client.ainvoke(1)),
        "batch": (lambda: client.batch([1, 2]), lambda: client.abatch([1, 2])),
        "stream": (lambda: list(client.stream(1)), lambda: _all(client.astream(1))),
    }
    sync, in_loop = calls[verb]
    with pytest.raises(Exception) as first:  # noqa: PT011 - the caller looks at it
        await asyncio.to_thread(sync)
    with pytest.raises(Exception) as second:  # noqa: PT011 - the caller looks at it
        await in_loop()
    return [first.value, second.value]


# Answers that are hostile, or broken.

DEEP = b"[" * 100_000 + b"]" * 100_000
LESS_DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    ("verb", "content", "says"),
    [
        ("invoke", b'{"output":' + DEEP + b"}", "nested too deeply"),
        ("batch", b'{"output":' + DEEP + b"}", "nested too deeply"),
        ("invoke", b"\xff\xfe", "no JSON object with an output"),
        ("invoke", b"", "no JSON object with an output"),
        ("invoke", b'"output"', "no JSON object with an output"),
        ("invoke", b'{"outputs": 1}', "no JSON object with an output"),
        ("batch", b'{"output": 5}', "no list of 2 outputs"),
        ("batch", b'{"output": [5]}', "no list of 2 outputs"),
        ("batch", b'{"output": [5, 6, 7]}', "no list of 2 outputs"),
        ("batch", b'{"output": {"a": 1, "b": 2}}', "no list of 2 outputs"),
    ],
)
async def test_an_answer_of_another_form_is_told(verb: str, content: bytes, says: str) -> None:
    for error in await raised_by(answered(content), verb):
        assert isinstance(error, UnexpectedAnswerError)
        assert says in str(error)
        assert len(str(error)) < 1000


@pytest.mark.parametrize("data", [DEEP, LESS_DEEP, b"{", b"", b"NaN1"])
async def test_a_chunk_that_cannot_be_read_is_told(data: bytes) -> None:
    client = told(b"event: data\ndata: " + data + b"\n\nevent: end\n\n")
    for error in await raised_by(client, "stream"):
        assert isinstance(error, UnexpectedAnswerError)
        assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "beside",
    [
        '"callback_events": 7', '"callback_events": [1, null]', '"metadata": 5',
        '"metadata": {"run_id": null, "run_ids": 5, "feedback_tokens": 5}',
        '"metadata": {"run_ids": [null, 5], "responses": 1}',
    ],
)  # fmt: skip
async def test_what_is_wrong_beside_an_output_costs_no_output(beside: str) -> None:
    both = f'{{"output": [5, 6], {beside}}}'.encode()

    assert await answered(both).abatch([1, 2]) == [5, 6]
    assert await asyncio.to_thread(answered(both).batch, [1, 2]) == [5, 6]
    assert await answered(both).ainvoke(1) == [5, 6]


@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_an_answer_over_the_bound_is_not_read_to_its_end(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "MAX_ANSWER_BYTES", 10_000)
    sent: list[int] = []

    class Endless(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __iter__(self) -> Any:
            while True:
                sent.append(1)
                yield b" " * 1000

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

    client = answered(lambda _: httpx2.Response(200, stream=Endless()))
    for error in await raised_by(client, verb):
        assert isinstance(error, UnexpectedAnswerError)
        assert "larger than 10000 bytes" in str(error)
    assert len(sent) < 30


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_of_an_error_no_more_is_read_than_is_of_use(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "MAX_ERROR_BYTES", 10_000)
    client = answered(b"x" * 1_000_000, 502)
    for error in await raised_by(client, verb):
        assert isinstance(error, RemoteStatusError)
        assert len(error.response.content) == 10_000
        assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("detail", "expected"),
    [('"x"', "x"), ('[{"msg": "y"}]', '[{"msg": "y"}]'), ("5", "5"), ("null", "null")],
)
async def test_a_detail_of_any_form_is_kept(detail: str, expected: str) -> None:
    for error in await raised_by(answered(b'{"detail": %b}' % detail.encode(), 422), "invoke"):
        assert error.detail == json.loads(detail)
        assert str(error).endswith(expected)


async def test_a_code_or_a_message_of_another_form_is_no_trouble() -> None:
    body = b'{"detail": "d", "code": [1], "message": {"a": 1}}'
    for error in await raised_by(answered(body, 400), "invoke"):
        assert (error.status_code, error.code, error.detail) == (400, "http_error", "d")
    stream = told(b'event: error\ndata: {"status_code": 429, "message": 5, "code": 7}\n\n')
    for error in await raised_by(stream, "stream"):
        assert (error.status_code, error.code, str(error)) == (429, "http_error", "5")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (b"429", 429), (b'"429"', 429), (b"599", 599), (b"1e400", 500), (b"-1e400", 500),
        (b"NaN", 500), (b"99", 500), (b"600", 500), (b"-5", 500), (b"1" + b"0" * 30, 500),
        (b"true", 500), (b"null", 500), (b"[429]", 500), (b'"\\u0664\\u0662\\u0669"', 500),
    ],
)  # fmt: skip
async def test_a_status_that_is_none_costs_no_message(status: bytes, expected: int) -> None:
    body = b'{"message": "m", "code": "c", "status_code": %b}' % status
    stream = told(b"event: error\ndata: %b\n\n" % body)
    for error in await raised_by(stream, "stream"):
        assert isinstance(error, RemoteStatusError)
        assert (error.status_code, error.code, str(error)) == (expected, "c", "m")
        assert (error.response.status_code, error.response.text) == (expected, "m")


async def test_half_a_character_in_a_message_is_shown_as_a_question_mark() -> None:
    body = b'{"status_code": 503, "message": "a\\ud800"}'
    for client, verb in (
        (told(b"event: error\ndata: %b\n\n" % body), "stream"),
        (answered(body, 503), "invoke"),
    ):
        for error in await raised_by(client, verb):
            assert (error.status_code, str(error)[-2:]) == (503, "a?")


@pytest.mark.parametrize("package", [httpx, httpx2])
@pytest.mark.parametrize(
    ("status", "name", "value"),
    [
        (503, b"server", "B\u00fcro-Proxy".encode()),
        (503, b"server", b"B\xfcro-Proxy"),
        (307, b"location", "http://other.test/\u00fc".encode()),
    ],
)
async def test_an_error_may_have_headers_of_any_characters(
    package: Any, status: int, name: bytes, value: bytes
) -> None:
    def answer(_: Any) -> Any:
        return package.Response(status, headers=[(name, value)], content=b'{"detail": "later"}')

    client = Remote(
        "http://test/x",
        client_kwargs={"transport": package.MockTransport(answer)},
        headers=[(b"user-agent", b"B\xfcro"), (b"x-key", b"B\xfcro")],
        verify=False,
    )
    for verb in ("invoke", "stream"):
        for error in await raised_by(client, verb):
            assert isinstance(error, RemoteStatusError)
            assert (error.status_code, error.detail) == (status, "later")
            assert (name, value) in error.response.headers.raw
            assert error.request.headers["user-agent"] == "B\u00fcro"
            assert error.request.headers["x-key"] == "<redacted>"


async def test_headers_of_an_error_are_those_that_came() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-encoding", b"gzip")]
    content = gzip.compress(b"no")
    client = answered(lambda _: httpx2.Response(500, headers=cookies, content=content))
    for error in await raised_by(client, "invoke"):
        assert error.response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert "content-encoding" not in error.response.headers
        assert error.response.text == "no"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"ops": 1}', "no patch of a run log"),
        (b"5", "no patch of a run log"),
        (b'{"ops": [{"op": "remove", "path": "/x"}]}', "does not fit"),
        (b'{"ops": [5]}', "does not fit"),
    ],
)
async def test_what_is_no_patch_of_a_log_is_told(data: bytes, expected: str) -> None:
    client = told(b"event: data\ndata: " + data + b"\n\nevent: end\n\n")
    with pytest.raises(UnexpectedAnswerError, match=expected):
        await _all(client.astream_log(1, diff=False))


async def test_what_is_no_event_of_a_run_is_told() -> None:
    with pytest.raises(UnexpectedAnswerError, match="no event of a run"):
        await _all(told(b"event: data\ndata: 5\n\nevent: end\n\n").astream_events(1))


async def test_patches_that_do_not_fit_fail_no_stream_of_patches() -> None:
    class Keeper(AsyncCallbackHandler):
        ended: Any = 5

        async def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
            Keeper.ended = outputs

    patch = b'event: data\ndata: {"ops": [{"op": "remove", "path": "/x"}]}\n\nevent: end\n\n'
    [one] = await _all(told(patch).astream_log(1, {"callbacks": [Keeper()]}))
    assert one.ops == [{"op": "remove", "path": "/x"}]
    assert Keeper.ended is None


async def test_each_whole_log_stays_as_it_was() -> None:
    first = [{"op": "replace", "path": "", "value": {"streamed_output": [], "final_output": None}}]
    more = [{"op": "add", "path": "/streamed_output/-", "value": "a"}]
    events = [
        b"event: data\ndata: " + json.dumps({"ops": ops}).encode() + b"\n\n"
        for ops in (first, more, more)
    ]
    logs: list[Any] = await _all(
        told(b"".join(events) + b"event: end\n\n").astream_log(1, diff=False)
    )

    assert all(isinstance(log, RunLog) for log in logs)
    assert [log.state["streamed_output"] for log in logs] == [[], ["a"], ["a", "a"]]


async def test_a_large_piece_of_a_stream_is_read_in_small_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    feed = EventParser.feed

    def noting(parser: EventParser, data: bytes) -> Any:
        sizes.append(len(data))
        return feed(parser, data)

    monkeypatch.setattr(EventParser, "feed", noting)
    client = told(b"event: data\r\ndata: 1\r\n\r\n" * 20_000 + b"event: end\r\n\r\n")

    assert await _all(client.astream(1)) == [1] * 20_000
    assert max(sizes) <= 2**16
    stream: Any = client.stream(1)
    sizes.clear()
    assert next(stream) == 1
    assert len(sizes) == 1
    stream.close()


# Cut connections.


class _Cut(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Any:
        yield b"event: data\ndata: 1\n\n"
        raise self._error

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


@pytest.mark.parametrize("error", [httpx2.ReadError("x"), httpx2.RemoteProtocolError("x")])
async def test_a_cut_is_told_alike_and_caught_as_httpx_told_it(error: Exception) -> None:
    client = answered(lambda _: httpx2.Response(200, headers=SSE, stream=_Cut(error)))
    for raised in await raised_by(client, "stream"):
        assert isinstance(raised, StreamInterruptedError)
        for caught in (httpx.ReadError, httpx.RemoteProtocolError, httpx.TransportError):
            assert isinstance(raised, caught)
        assert isinstance(raised, type(error))
        assert raised.request.url == "http://test/x/stream"  # type: ignore[attr-defined]
    assert client.last_run is not None
    assert client.last_run.status == "lost"


@pytest.mark.parametrize("verb", ["invoke", "stream"])
@pytest.mark.parametrize(
    "error", [httpx2.ReadError("x"), httpx2.ReadTimeout("x"), httpx2.DecodingError("x")], ids=repr
)
async def test_an_error_whose_body_is_cut_is_told_all_the_same(error: Any, verb: str) -> None:
    client = answered(lambda _: httpx2.Response(503, stream=_Cut(error)))
    for raised in await raised_by(client, verb):
        assert isinstance(raised, RemoteStatusError)
        assert raised.status_code == 503


async def test_what_follows_the_end_of_a_stream_costs_no_stream() -> None:
    class Followed(_Cut):
        def __iter__(self) -> Any:
            yield b"event: end\n\n"
            raise self._error

    broken = Followed(httpx2.DecodingError("x"))
    client = answered(lambda _: httpx2.Response(200, headers=SSE, stream=broken))
    assert list(client.stream(1)) == await _all(client.astream(1)) == []


async def test_an_answer_that_is_cut_is_told_as_httpx_tells_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chainserve.retries.FIRST_RETRY_MS", 1)
    client = answered(lambda _: httpx2.Response(200, stream=_Cut(httpx2.ReadError("x"))))
    for raised in await raised_by(client, "invoke"):
        assert type(raised).__name__ == "ReadError"
        assert isinstance(raised, httpx.ReadError)
        assert isinstance(raised, httpx2.ReadError)


async def test_a_sequence_tries_again_after_a_cut() -> None:
    whole = b'event: data\ndata: "a"\n\nevent: end\n\n'
    answers = [httpx2.Response(200, headers=SSE, stream=_Cut(httpx2.ReadError("x"))),
               httpx2.Response(200, headers=SSE, content=whole)]  # fmt: skip
    client = answered(lambda _: answers.pop(0))
    second: Any = client.with_fallbacks([client], exceptions_to_handle=(StreamInterruptedError,))
    read: list[Any] = []
    with pytest.raises(StreamInterruptedError):  # Chunks that came cannot be taken back.
        await _read_into(read, second.astream(1))
    assert read == [1]
    assert await _all(second.astream(1)) == ["a"]


# What is known of a run.


async def test_usage_is_added_up_from_what_a_stream_carries() -> None:
    def piece(count: int) -> bytes:
        usage: Any = {"input_tokens": count, "output_tokens": 1, "total_tokens": count + 1}
        chunk = AIMessageChunk(content="a", usage_metadata=usage)
        return b"event: data\ndata: " + WellKnownLCSerializer().dumps(chunk) + b"\n\n"

    client = told(piece(7) + piece(0) + b"event: end\n\n")
    await _all(client.astream(1))
    assert client.last_run is not None
    assert client.last_run.usage == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}

    end = b'event: end\ndata: {"usage": {"input_tokens": 1}}\n\n'
    client = told(piece(7) + end)
    await _all(client.astream(1))
    assert client.last_run is not None
    assert client.last_run.usage == {"input_tokens": 1}


@pytest.mark.parametrize(
    "usage",
    [
        {"input_token_details": {"a": None}},
        {"input_tokens": 1.5},
        {"output_token_details": 5},
        json.loads('{"a":' * 200 + "1" + "}" * 200),
    ],
    ids=["nothing", "a fraction", "no details", "deep"],
)
async def test_tokens_that_cannot_be_counted_cost_no_stream(usage: dict[str, Any]) -> None:
    counted = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2} | usage
    message = {"type": "ai", "content": "x", "usage_metadata": counted}
    piece = b"event: data\ndata: " + json.dumps(message).encode() + b"\n\n"
    client = told(piece * 2 + b"event: end\n\n")

    assert len(await _all(client.astream(1))) == 2
    assert len(await asyncio.to_thread(lambda: list(client.stream(1)))) == 2


async def test_ids_and_tokens_of_another_form_are_none() -> None:
    for deep in (b'{"run_id": %b}', b'{"run_ids": [%b, 5, "a"]}'):
        body = b'{"output": 1, "metadata": %b}' % (deep % (b"[" * 800 + b"]" * 800))
        client = answered(body)
        assert await client.ainvoke(1) == 1
        assert client.last_run is not None
        assert client.last_run.run_ids == (("a",) if b"run_ids" in deep else ())


async def test_a_refused_run_is_an_error() -> None:
    client = answered(b"no", 422)
    for verb in ("invoke", "stream"):
        await raised_by(client, verb)
        assert client.last_run is not None
        assert (client.last_run.status, client.last_run.run_id) == ("error", None)


# Values.


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**70), 10**40])
async def test_numbers_of_any_size_come_as_they_were_sent(number: int) -> None:
    body = b'{"output": [%d]}' % number
    stream = b"event: data\ndata: [%d]\n\nevent: end\n\n" % number

    assert await answered(body).ainvoke(1) == [number]
    assert await _all(told(stream).astream(1)) == [[number]]


async def test_half_a_character_costs_no_stream() -> None:
    stream = b'event: data\ndata: "a\\ud800"\n\nevent: data\ndata: "\\ud83d\\ude00"\n\n'
    assert await _all(told(stream + b"event: end\n\n").astream(1)) == ["a\ud800", "\U0001f600"]


class _Unaddable(AsyncCallbackHandler):
    outputs: Any = 5

    async def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        _Unaddable.outputs = outputs


@pytest.mark.parametrize("pieces", [[1, "a"], [{"a": 1}, "x"], [None, None], [[1], 2]])
async def test_chunks_that_do_not_add_up_are_read_all_the_same(pieces: list[Any]) -> None:
    stream = b"".join(b"event: data\ndata: %b\n\n" % json.dumps(one).encode() for one in pieces)
    client = told(stream + b"event: end\n\n")

    assert await _all(client.astream(1, {"callbacks": [_Unaddable()]})) == pieces
    assert _Unaddable.outputs is None


# Requests.


async def sent_by(call: Callable[[RemoteRunnable[Any, Any]], Any]) -> Any:
    bodies: list[Any] = []

    def answer(request: Any) -> Any:
        bodies.append((str(request.url), json.loads(request.content)))
        return httpx2.Response(200, json={"output": [1]})

    await call(answered(answer))
    return bodies[0]


@pytest.mark.parametrize("value", [{1}, object(), [1, object()], {"a": {"b": b"x"}}, {(1,): 2}])
async def test_an_input_that_cannot_be_sent_names_its_place(value: Any) -> None:
    client = answered(b"")
    for raised in [
        await raised_with(client.ainvoke, value),
        await raised_with(client.abatch, [value]),
    ]:
        assert type(raised) is TypeError
        assert "The input cannot be sent as JSON: input" in str(raised)
        assert "output" not in str(raised)


async def raised_with(call: Any, value: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
        await call(value)
    return caught.value


@pytest.mark.parametrize("number", [2**70, "a\ud800"])
async def test_inputs_configs_and_arguments_may_hold_what_orjson_refuses(number: Any) -> None:
    config: Any = {"configurable": {"a": number}}
    _, body = await sent_by(lambda client: client.ainvoke(number, config, n=number))

    assert body["input"] == body["config"]["configurable"]["a"] == body["kwargs"]["n"] == number


@pytest.mark.parametrize(
    "names", [["a", "b"], ("a", "b"), {"a", "b"}, frozenset("ab"), {"a": 1, "b": 2}.keys()]
)
@pytest.mark.parametrize("verb", ["astream_log", "astream_events"])
async def test_names_of_steps_may_be_in_a_collection_of_any_kind(verb: str, names: Any) -> None:
    sent: list[Any] = []

    def answer(request: Any) -> Any:
        sent.append(json.loads(request.content))
        return httpx2.Response(200, headers=SSE, content=b"event: end\n\n")

    assert await _all(getattr(answered(answer), verb)(1, include_names=names)) == []
    assert sorted(sent[0]["include_names"]) == ["a", "b"]
    assert sent[0]["exclude_names"] is None


async def test_names_of_steps_that_cannot_be_sent_are_told() -> None:
    names: Any = [object()]
    with pytest.raises(
        TypeError, match=r"sent as JSON: include_names\[0\] is of type object\. Turn"
    ):
        await _all(answered(b"").astream_log(1, include_names=names))


async def test_a_config_that_holds_itself_is_sent_without_that() -> None:
    metadata: dict[str, Any] = {"a": 1, "id": UUID(int=1)}
    metadata["self"] = metadata
    _, body = await sent_by(lambda client: client.ainvoke(1, {"metadata": metadata}))

    assert body["config"]["metadata"]["a"] == 1
    assert body["config"]["metadata"]["id"] == str(UUID(int=1))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://test/x", "http://test/x/invoke"),
        ("http://test/x/", "http://test/x/invoke"),
        ("http://test", "http://test/invoke"),
        ("http://test/x?key=1&b=2", "http://test/x/invoke?key=1&b=2"),
        ("http://test/x/c/N4XyA/", "http://test/x/c/N4XyA/invoke"),
        ("http://test/a%20b/%E4?c=%2F", "http://test/a%20b/%E4/invoke?c=%2F"),
        ("http://[::1]:80/x", "http://[::1]/x/invoke"),
    ],
)
async def test_the_url_of_an_endpoint_is_below_that_of_the_chain(url: str, expected: str) -> None:
    seen: list[str] = []

    def answer(request: Any) -> Any:
        seen.append(str(request.url))
        return httpx2.Response(200, json={"output": 1})

    client = Remote(url, client_kwargs={"transport": httpx2.MockTransport(answer)}, verify=False)
    await client.ainvoke(1)
    assert seen == [expected]


@pytest.mark.parametrize("url", ["localhost:8000/x", "/x", "", "http:///x", "x"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="starts with http:// or https://"):
        Remote(url)


def test_other_routes_are_relative_to_the_chain() -> None:
    def answer(request: Any) -> Any:
        return httpx2.Response(200, text=str(request.url))

    ours = answered(answer)
    theirs: Any = langserve.RemoteRunnable(
        "http://test/x",
        client_kwargs={
            "transport": httpx.MockTransport(lambda r: httpx.Response(200, text=str(r.url)))
        },
        verify=False,
    )
    for path in ("input_schema", "/input_schema"):
        found = ours.sync_client.get(path).text
        assert found == theirs.sync_client.get(path).text == "http://test/x/input_schema"


async def test_no_message_shows_what_a_url_may_hold() -> None:
    def answer(_: Any) -> Any:
        return httpx2.Response(500)

    client = Remote(
        "http://user:pa55@test/x?key=s3cret",
        client_kwargs={"transport": httpx2.MockTransport(answer)},
        verify=False,
    )
    shown = [repr(client)]
    for verb in ("invoke", "batch", "stream"):
        for error in await raised_by(client, verb):
            shown += [repr((error, vars(error))), str(error.request.url), str(error.response.url)]
    for text in shown:
        assert "pa55" not in text
        assert "s3cret" not in text
        assert "test/x" in text


async def test_redirects_are_followed_where_that_is_wanted() -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append((request.method, request.url.path, request.content))
        if request.url.path.startswith("/x"):
            return httpx2.Response(307, headers={"location": f"http://test/y{request.url.path}"})
        if request.url.path.endswith("stream"):
            return httpx2.Response(
                200, headers=SSE, content=b"event: data\ndata: 1\n\nevent: end\n\n"
            )
        return httpx2.Response(200, json={"output": 1})

    client = Remote(
        "http://test/x",
        client_kwargs={"transport": httpx2.MockTransport(answer), "follow_redirects": True},
        verify=False,
    )
    assert await client.ainvoke(1) == 1
    assert await _all(client.astream(1)) == [1]
    assert seen[0][0] == seen[1][0] == "POST"
    assert seen[0][2] == seen[1][2]


# As a runnable.


async def test_its_schemas_and_names_are_those_of_any_runnable() -> None:
    client = answered(b'{"output": 1}')
    theirs: Any = langserve.RemoteRunnable("http://test/x", verify=False)

    assert client.get_name() == theirs.get_name() == "RemoteRunnable"
    for name in ("get_input_schema", "get_output_schema"):
        assert (
            getattr(client, name)().model_json_schema()
            == getattr(theirs, name)().model_json_schema()
        )
    assert (client | RunnableLambda(lambda x: x)).get_graph().draw_mermaid()


async def test_an_input_that_comes_in_pieces_is_sent_whole() -> None:
    sent: list[Any] = []

    def answer(request: Any) -> Any:
        sent.append(json.loads(request.content)["input"])
        return httpx2.Response(
            200, headers=SSE, content=b'event: data\ndata: "x"\n\nevent: end\n\n'
        )

    async def pieces(_: Any) -> Any:
        yield "a"
        yield "b"

    def sync_pieces(_: Any) -> Any:
        yield "a"
        yield "b"

    client = answered(answer)
    both: Any = RunnableGenerator(sync_pieces, pieces) | client
    assert await _all(both.astream(1)) == ["x"]
    assert await asyncio.to_thread(lambda: list(both.stream(1))) == ["x"]
    assert sent == ["ab", "ab"]


async def test_an_input_of_messages_is_sent_as_langserve_sends_it() -> None:
    message = HumanMessage([{"type": "text", "text": "x"}], id="1", name="n")
    history = [message, AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "c"}])]
    url, body = await sent_by(lambda client: client.ainvoke({"messages": history}))
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json={"output": 1})

    theirs: Any = langserve.RemoteRunnable(
        "http://test/x", client_kwargs={"transport": httpx.MockTransport(answer)}, verify=False
    )
    await theirs.ainvoke({"messages": history})
    assert (url, body) == ("http://test/x/invoke", seen[0])
