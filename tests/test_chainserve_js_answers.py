"""What `chainserve.js` makes of answers that no chain gives: errors that say what came."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from chainserve.errors import RunNotFoundError
from chainserve.problems import problem_response
from tests._chains import streaming
from tests._js import run_node
from tests._processes import free_port
from tests._runs import UNKNOWN_RUN
from tests._server import serve
from tests.test_chainserve_js import staged

pytestmark = pytest.mark.anyio

Answer: TypeAlias = Callable[[Request], Response]
RESUMABLE = {"preference-applied": "resumable"}
EVENT_STREAM = "text/event-stream"


class Server:
    """Answers the requests for a chain one after the other, the last answer again and again.

    To the client's question whether it is chainserve it says so.

    Attributes:
        requests: What was asked below the chain's URL.
        url: The chain's URL.
    """

    def __init__(self, answers: Sequence[Answer | Response], *, is_chainserve: bool = True) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self.app = FastAPI()
        self._answers = [*answers]
        self._is_chainserve = is_chainserve
        self.app.api_route("/{path:path}", methods=["GET", "POST"])(self._answer)

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        if path.startswith("chain/runs/"):
            error = RunNotFoundError()
            return problem_response(error) if self._is_chainserve else Response(status_code=404)
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer if isinstance(answer, Response) else answer(request)

    async def play(self, **options: Any) -> Any:
        """Call a method of the client once."""
        return await run_node("scenarios.mjs", "ask", self.url, options)


@asynccontextmanager
async def answering(
    *answers: Answer | Response, is_chainserve: bool = True
) -> AsyncIterator[Server]:
    """Serve the answers in their order."""
    server = Server(answers, is_chainserve=is_chainserve)
    async with serve(server.app) as served:
        server.url = f"{served.base_url}/chain"
        yield server


def events(
    *pieces: bytes, headers: Mapping[str, str] = RESUMABLE, media_type: str = EVENT_STREAM
) -> Answer:
    """Answer an event stream; a new one each time."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return lambda _: StreamingResponse(body(), media_type=media_type, headers=headers)


def event(name: str, data: Any, number: int | None = None) -> bytes:
    id_ = b"" if number is None else b"id: %d\r\n" % number
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return b"event: %b\r\ndata: %b\r\n%b\r\n" % (name.encode(), text, id_)


HTML = Response("<!doctype html><h1>Welcome to the hotel</h1>", media_type="text/html")
FIRST, LAST = event("data", "a", 1), event("end", {"status": "success"}, 3)
SECOND = event("data", "b", 2)


def of_langserve(*pieces: bytes) -> Answer:
    return events(*pieces, headers={})


STATUS, CUT, UNEXPECTED = "RemoteStatusError", "StreamInterruptedError", "UnexpectedAnswerError"
GAP = event("gap", {"earliest": "9", "lost": 7}, 8)
NAMELESS = event("error", {"message": {"a": 1}}, 1)
WRONG: dict[str, tuple[str, Any, str, str]] = {
    "a page for an output": ("invoke", HTML, UNEXPECTED, "Welcome to the hotel"),
    "a page for a list": ("batch", HTML, UNEXPECTED, "no list of 1 outputs"),
    "a page for a stream": ("stream", HTML, UNEXPECTED, "no event stream but text/html"),
    "a page for a run": ("start", HTML, UNEXPECTED, "no JSON object with a run_id"),
    "no status of a run": ("start", JSONResponse({"run_id": "x"}), UNEXPECTED, "and a status"),
    "a part of JSON": ("invoke", Response('{"output": [1, 2'), UNEXPECTED, "no JSON object"),
    "no output": ("invoke", JSONResponse({"out": 1}), UNEXPECTED, "with an output"),
    "too few outputs": ("batch", JSONResponse({"output": []}), UNEXPECTED, "list of 1 outputs"),
    "nothing": ("invoke", Response(status_code=204), UNEXPECTED, "no JSON object"),
    "nothing to stream": ("stream", Response(status_code=204), UNEXPECTED, "but untyped"),
    "a chunk that is no JSON": ("stream", events(event("data", b"{")), UNEXPECTED, "a chunk"),
    "a chunk without data": ("stream", events(b"event: data\r\n\r\n"), UNEXPECTED, "a chunk"),
    "an event without end": ("stream", events(*[b"x" * 500] * 9), UNEXPECTED, "than 2000 bytes"),
    "an error that is no JSON": ("stream", events(event("error", b"oops", 1)), STATUS, "oops"),
    "an error of any form": ("stream", events(NAMELESS), STATUS, '{"a":1}'),
    "a gap": ("stream", events(FIRST, GAP, LAST), CUT, "7 of its events are gone"),
    "a stream that is too short": ("stream", of_langserve(FIRST), CUT, "may not be all"),
    "a stream of nothing": ("stream", of_langserve(b""), CUT, "may not be all"),
    "half an end": ("stream", of_langserve(FIRST, b"event: end\r\n"), CUT, "may not be all"),
    "a status": ("invoke", Response("busy", status_code=409), STATUS, "409 Conflict for http://"),
    "a detail": ("invoke", JSONResponse({"detail": "No."}, 403), STATUS, ": No."),
    "a problem": ("stream", problem_response(RunNotFoundError()), STATUS, "404 Not Found for"),
}


@pytest.mark.parametrize(("verb", "answer", "name", "message"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_answer_is_an_error_that_says_so(
    verb: str, answer: Any, name: str, message: str
) -> None:
    async with answering(answer) as server:
        args = [[1]] if verb == "batch" else [1]
        told = await server.play(verb=verb, args=args, client={"maxEventBytes": 2000})

    assert told["error"]["name"] == name
    assert message in told["error"]["message"]
    assert told["run"]["status"] in ("error", "lost")
    assert len(server.requests) == 1


async def test_a_url_is_shown_without_its_query() -> None:
    async with answering(HTML) as server:
        told = await run_node("scenarios.mjs", "ask", f"{server.url}?key=secret#there", {})

    assert server.requests[0].url.path == "/chain/stream"
    assert server.requests[0].url.query == "key=secret"
    assert "secret" not in told["error"]["message"]
    assert server.url in told["error"]["message"]


async def test_events_of_other_names_and_usage_of_any_form_are_no_trouble() -> None:
    usage = [{"total_tokens": 1, "details": {"x": 1}}, {"total_tokens": 2, "details": {"x": 2}}, 3]
    pieces = [event("data", {"usage_metadata": one}, number) for number, one in enumerate(usage)]
    async with answering(
        events(event("hello", 1), b"data: 1\r\n\r\n", event("metadata", [1]), *pieces, LAST)
    ) as server:
        told = await server.play()

    assert told["chunks"] == [{"usage_metadata": one} for one in usage]
    assert told["run"]["usage"] == {"total_tokens": 3, "details": {"x": 3}}
    assert told["run"]["status"] == "success"


# Again, or not.


def refusal(status: int, **headers: str) -> Response:
    return Response("Try later.", status_code=status, headers=headers)


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_what_a_proxy_answers_for_a_while_is_asked_again(status: int, verb: str) -> None:
    right = JSONResponse({"output": 1}) if verb == "invoke" else events(FIRST, LAST)
    async with answering(refusal(status), refusal(status), right) as server:
        told = await server.play(verb=verb)

    assert "error" not in told
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert (len(server.requests), len(keys)) == (3, 1)


async def test_what_a_proxy_answers_again_and_again_is_told() -> None:
    async with answering(refusal(503)) as server:
        told = await server.play(client={"maxRetries": 2})

    assert (told["error"]["name"], told["error"]["status"]) == ("RemoteStatusError", 503)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [500, 429, 401, 404])
async def test_a_start_that_is_refused_otherwise_is_not_asked_again(status: int) -> None:
    async with answering(refusal(status)) as server:
        told = await server.play()

    assert told["error"]["status"] == status
    assert len(server.requests) == 1


async def test_what_the_server_itself_refuses_is_not_asked_again() -> None:
    problem = JSONResponse(
        {"status": 503, "code": "lost", "message": "It is lost."},
        503,
        media_type="application/problem+json",
    )
    async with answering(problem) as server:
        started = await server.play()
    async with answering(events(FIRST), problem) as server:
        resumed = await server.play()

    assert (started["error"]["status"], started["error"]["code"]) == (503, "lost")
    assert resumed["error"]["name"] == "StreamInterruptedError"
    assert resumed["error"]["cause"]["code"] == "lost"
    assert resumed["error"]["message"].endswith("It is lost.")


async def test_another_server_is_not_asked_again() -> None:
    async with answering(refusal(503), events(FIRST, LAST), is_chainserve=False) as server:
        told = await server.play()

    assert told["error"]["status"] == 503
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_stream_is_resumed_after_what_a_proxy_answers(status: int) -> None:
    rest = events(SECOND, LAST)
    async with answering(events(FIRST), refusal(status), events(b"retry: 1\n\n"), rest) as server:
        told = await server.play()

    assert told["chunks"] == ["a", "b"]
    ids = [request.headers.get("last-event-id") for request in server.requests]
    assert ids == [None, "1", "1", "1"]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (refusal(401), "401 Unauthorized"),
        (refusal(410), "410 Gone"),
        (Response(status_code=204), "no event stream but untyped"),
        (HTML, "no event stream but text/html"),
    ],
    ids=["401", "410", "204", "a page"],
)
async def test_a_stream_that_cannot_be_resumed_says_why(answer: Response, cause: str) -> None:
    async with answering(events(FIRST), answer) as server:
        told = await server.play()

    assert told["chunks"] == ["a"]
    assert told["error"]["name"] == "StreamInterruptedError"
    assert cause in told["error"]["cause"]["message"]
    assert cause in told["error"]["message"]
    assert told["run"]["status"] == "lost"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        of_langserve(event("data", "a"), LAST),
        events(event("metadata", {}, 0), FIRST, LAST),
        events(FIRST, LAST),
    ],
    ids=["without ids", "from the start", "with the last chunk"],
)
async def test_a_stream_that_starts_anew_in_place_of_going_on_is_an_error(answer: Answer) -> None:
    async with answering(events(FIRST), answer) as server:
        told = await server.play()

    assert told["chunks"] == ["a"]
    assert told["error"]["name"] == "StreamInterruptedError"
    assert len(server.requests) == 2


async def test_what_comes_again_and_again_is_no_progress() -> None:
    async with answering(events(b"retry: 1\r\n", event("other", 1, 1))) as server:
        told = await server.play()

    assert told["error"]["name"] == "StreamInterruptedError"
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "unusable",
    ["", "id: 1\r\n", "id: ü\r\n", f"id: {'x' * 1025}\r\n"],
    ids=["none", "of the last chunk", "of other letters", "long"],
)
async def test_a_chunk_that_would_come_twice_is_not_asked_for(unusable: str) -> None:
    chunk = f"event: data\r\ndata: 2\r\n{unusable}\r\n".encode()
    async with answering(events(FIRST, chunk)) as server:
        told = await server.play()

    assert told["chunks"] == ["a", 2]
    assert told["error"]["name"] == "StreamInterruptedError"
    assert len(server.requests) == 1


@pytest.mark.parametrize(("after", "pause"), [("7", 7000), ("3600", 60_000), ("soon", 1000)])
async def test_a_server_may_ask_for_a_longer_pause(after: str, pause: int) -> None:
    async with answering(refusal(503, **{"retry-after": after})) as server:
        options = {"client": {"maxRetries": 1, "timeout": 2**31}}
        told = await run_node("scenarios.mjs", "pauses", server.url, options)

    assert told["pauses"] == [pause]
    assert told["error"]["status"] == 503


# Redirects.


def to(location: str, status: int = 307) -> Response:
    return RedirectResponse(location, status)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_within_the_origin_is_followed(status: int) -> None:
    async with answering(to("/chain/stream/", status), events(FIRST, LAST)) as server:
        told = await server.play()

    assert told["chunks"] == ["a"]
    first, second = server.requests
    assert (second.method, second.url.path) == ("POST", "/chain/stream/")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("location", "status", "count"),
    [
        ("http://other.example/chain/stream?key=secret", 307, 1),
        ("//127.0.0.1:1/chain", 308, 1),
        ("/login", 302, 1),
        ("/login", 303, 1),
        ("/chain/stream", 307, 6),
    ],
)
@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_any_other_redirect_is_an_error_that_says_where_it_leads(
    verb: str, location: str, status: int, count: int
) -> None:
    async with answering(to(location, status)) as server:
        told = await server.play(verb=verb)

    assert (told["error"]["name"], told["error"]["status"]) == ("RemoteStatusError", status)
    assert location.partition("?")[0] in told["error"]["message"]
    assert "secret" not in told["error"]["message"]
    assert len(server.requests) == count


# Runs that are not there, servers neither.


@pytest.mark.parametrize("verb", ["wait", "cancel", "join"])
async def test_a_run_that_is_unknown_or_of_another_chain_is_told(verb: str) -> None:
    async with staged(streaming("a")) as stage:
        stage.app.mount("/sub", stage.app)  # Whose runs are those of another path.
        run = (await stage.play("ask", verb="start"))["value"]["runId"]
        for url, sent in ((stage.url, UNKNOWN_RUN), (f"{stage.url}/../sub/chain", run)):
            told = await run_node("scenarios.mjs", "ask", url, {"verb": verb, "args": [sent]})
            assert told["error"]["status"] == 404
            assert told["error"]["code"] == "run_not_found"
        odd = await stage.play("ask", verb=verb, args=["a/../../b?c#d"])
        none = await run_node(
            "scenarios.mjs", "each", stage.url, {"verb": verb, "args": ["", ".."]}
        )

    assert odd["error"]["status"] == 404
    assert [told["error"]["name"] for told in none] == ["TypeError", "TypeError"]


async def test_a_refused_connection_is_told_after_its_attempts() -> None:
    url = f"http://127.0.0.1:{free_port()}/chain"
    for verb in ("invoke", "stream", "wait"):
        options = {"verb": verb, "args": ["x"], "client": {"maxRetries": 2}}
        told = await run_node("scenarios.mjs", "ask", url, options)
        assert (told["error"]["name"], told["error"]["code"]) == (
            "RemoteError",
            "connection_failed",
        )
        assert "ECONNREFUSED" in told["error"]["message"]


async def test_what_is_no_url_of_a_chain_is_refused_at_once() -> None:
    told = await run_node("scenarios.mjs", "refused", "http://host/")

    assert [one["name"] for one in told] == ["TypeError"] * 4
    assert "http://" in told[1]["message"]
    assert "Authorization" in told[2]["message"]
    assert "secret" not in str(told)


async def test_what_is_no_json_is_not_sent() -> None:
    assert await run_node("scenarios.mjs", "unsendable", "http://host/") == ["TypeError"] * 3
