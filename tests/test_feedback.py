"""Feedback, feedback tokens and trace links, with a LangSmith on a socket beside both servers."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import HTTPException

from chainserve import APIHandler, Chain, ConfigurationError
from chainserve.schema import (
    FeedbackCreateRequest,
    FeedbackCreateRequestTokenBased,
    PublicTraceLinkCreateRequest,
)
from tests._apps import assert_problem, make_app
from tests._bridge import request
from tests._chains import echo
from tests._langsmith import SHARED, TOKEN
from tests._processes import ServerProcess
from tests._sse import decode_events

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Servers:
    """Both servers and the LangSmith that they use."""

    langsmith: httpx.Client
    langserve: httpx.Client
    chainserve: httpx.Client
    processes: dict[str, ServerProcess]

    def script(self, **script: Any) -> None:
        self.langsmith.put("/script", json=script).raise_for_status()

    def asked(self, path: str = "") -> list[Any]:
        return [one for one in self.langsmith.get("/asked").json() if path in one["path"]]

    def both(self) -> list[httpx.Client]:
        return [self.langserve, self.chainserve]


_ONE_REQUEST_EACH = httpx.Limits(max_keepalive_connections=0)
"""uvicorn closes a connection after an error of LangServe's, which the next request would meet."""


@pytest.fixture(scope="module")
def running() -> Iterator[Servers]:
    with ExitStack() as stack:

        def started(module: str, **environment: str) -> ServerProcess:
            arguments = ["-m", "uvicorn", f"{module}:app", "--port", "0"]
            return stack.enter_context(closing(ServerProcess(arguments, environment)))

        stub = started("tests._langsmith")
        address = f"http://127.0.0.1:{stub.port()}"
        traced = {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_API_KEY": "ls-key",
            "LANGSMITH_ENDPOINT": address,
        }
        processes = {
            package: started("tests._langsmith_server", PACKAGE=package, **traced)
            for package in ("langserve", "chainserve")
        }
        langsmith, langserve, ours = (
            stack.enter_context(
                httpx.Client(base_url=url, timeout=20, verify=False, limits=_ONE_REQUEST_EACH)
            )
            for url in (
                address,
                *(f"http://127.0.0.1:{one.port()}" for one in processes.values()),
            )
        )
        yield Servers(langsmith, langserve, ours, processes)


@pytest.fixture
def servers(running: Servers) -> Servers:
    running.script()
    return running


_VOLATILE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[0-9:.]+Z?"
)


def shown(response: httpx.Response) -> tuple[int, str]:
    """Return a response without ids and times of its own."""
    text = response.text.replace(TOKEN, "<token>").replace("2030-01-01T00:00:00", "<expiry>")
    return response.status_code, _VOLATILE.sub("<>", text)


RUN = str(uuid4())
SAME: dict[str, tuple[str, str, Any]] = {
    "invoke": ("POST", "/echo/invoke", {"input": 1}),
    "batch": ("POST", "/echo/batch", {"inputs": [1, 2]}),
    "an empty batch": ("POST", "/echo/batch", {"inputs": []}),
    "feedback": ("POST", "/echo/feedback", {"run_id": RUN, "key": "k", "score": 1}),
    "feedback with a comment": (
        "POST",
        "/linked/feedback",
        {"run_id": RUN, "key": "k", "value": {"a": 1}, "comment": "c", "score": 0.5},
    ),
    "HEAD feedback": ("HEAD", "/echo/feedback", None),
    "feedback that is off": ("POST", "/plain/feedback", {"run_id": RUN, "key": "k"}),
    "HEAD feedback that is off": ("HEAD", "/plain/feedback", None),
    "token feedback": ("POST", "/echo/token_feedback", {"token_or_url": TOKEN, "score": 1}),
    "a link": ("PUT", "/linked/public_trace_link", {"run_id": RUN}),
    "HEAD link": ("HEAD", "/linked/public_trace_link", None),
    "a link that is off": ("PUT", "/plain/public_trace_link", {"run_id": RUN}),
}


@pytest.mark.parametrize("name", SAME)
def test_both_answer_the_same(servers: Servers, name: str) -> None:
    method, path, body = SAME[name]
    theirs, ours = (client.request(method, path, json=body) for client in servers.both())

    if theirs.status_code == 404:
        assert ours.status_code == 404
    else:
        assert shown(ours) == shown(theirs)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/echo/feedback", {"run_id": RUN, "key": "k", "score": 1, "comment": "c"}),
        ("/echo/token_feedback", {"token_or_url": TOKEN, "score": 1, "metadata": {"a": 1}}),
    ],
)
def test_both_send_the_same_to_langsmith(servers: Servers, path: str, body: Any) -> None:
    sent = []
    for client in servers.both():
        servers.script()
        assert client.post(path, json=body).status_code == 200
        [asked] = servers.asked("/feedback")
        sent.append(
            {name: value for name, value in asked["body"].items() if name in (*body, "metadata")}
        )

    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    "path", ["/echo/feedback", "/linked/public_trace_link", "/echo/token_feedback"]
)
@pytest.mark.parametrize("body", [{}, {"run_id": "x", "key": "k", "token_or_url": 1.5}, [], "x"])
def test_a_bad_body_is_refused_by_both(servers: Servers, path: str, body: Any) -> None:
    method = "PUT" if "link" in path else "POST"
    theirs, ours = (client.request(method, path, json=body) for client in servers.both())

    assert (theirs.status_code, ours.status_code) == (422, 422)
    assert ours.json()["detail"][0]["loc"] == theirs.json()["detail"][0]["loc"]


def test_a_bad_body_is_told_as_langserve_tells_it(servers: Servers) -> None:
    body = {"run_id": "x", "score": "good", "value": [1]}
    theirs, ours = (client.post("/echo/feedback", json=body) for client in servers.both())

    assert ours.json()["detail"] == theirs.json()["detail"]


def test_feedback_on_no_run_is_refused(servers: Servers) -> None:
    body = {"run_id": None, "key": "k"}
    theirs, ours = (client.post("/echo/feedback", json=body) for client in servers.both())

    assert (theirs.status_code, ours.status_code) == (500, 422)
    assert [one for one in servers.asked() if one["path"] == "/feedback"] == []


# Tokens in answers.


def _metadata(client: httpx.Client) -> str:
    """Return the metadata event of a stream, which is left once it was read."""
    text = ""
    with client.stream("POST", "/ticking/stream", json={"input": 1}) as answer:
        for piece in answer.iter_text():
            text += piece
            if found := re.search(r"event: metadata\r\ndata: .*?\r\n\r\n", text):
                return _VOLATILE.sub("<>", found[0])
    raise AssertionError(f"no metadata in {text}")


def test_metadata_has_langserves_bytes(servers: Servers) -> None:
    theirs, ours = map(_metadata, servers.both())

    assert ours == theirs


@pytest.mark.parametrize("verb", ["stream", "stream_log", "stream_events"])
@pytest.mark.parametrize("delay", [0, 0.3])
def test_no_chunk_is_lost_to_a_token_and_metadata_comes_first(
    servers: Servers, verb: str, delay: float
) -> None:
    servers.script(delay=delay)
    response = servers.chainserve.post(f"/chunks/{verb}", json={"input": 1})
    events = decode_events(response.content)

    [token] = events[0].json()["feedback_tokens"]
    assert events[0].event == "metadata"
    assert token["key"] == "correctness"
    assert token["token_url"].endswith(f"/feedback/tokens/{TOKEN}")
    assert token["expires_at"] == "2030-01-01T00:00:00+00:00"
    assert events[-1].event == "end"
    if verb == "stream":
        assert [event.json() for event in events if event.event == "data"] == [*"abcde"]


def test_langserve_loses_chunks_while_it_waits_for_a_token(servers: Servers) -> None:
    servers.script(delay=0.3)
    events = decode_events(servers.langserve.post("/chunks/stream", json={"input": 1}).content)

    assert [event.json() for event in events if event.event == "data"] != [*"abcde"]


@pytest.mark.parametrize("script", [{"status": 500}, {"status": 403}, {"delay": 5}])
def test_no_answer_fails_with_langsmith(servers: Servers, script: Any) -> None:
    servers.script(**script)
    invoked = servers.chainserve.post("/echo/invoke", json={"input": 1}).json()
    streamed = decode_events(servers.chainserve.post("/chunks/stream", json={"input": 1}).content)

    assert (invoked["output"], invoked["metadata"]["feedback_tokens"]) == (1, [])
    assert [event.event for event in streamed] == ["metadata", *["data"] * 5, "end"]
    assert "feedback_tokens" not in streamed[0].json()
    servers.processes["chainserve"].until_printed("no feedback token")
    assert "ls-key" not in servers.processes["chainserve"].output


def test_langserve_fails_with_langsmith(servers: Servers) -> None:
    servers.script(status=403)

    assert servers.langserve.post("/echo/invoke", json={"input": 1}).status_code == 500


def test_a_background_run_tells_its_token_in_its_log(servers: Servers) -> None:
    started = servers.chainserve.post("/chunks/runs", json={"input": 1}).json()
    log = servers.chainserve.get(f"/chunks/{started['stream_url']}").content

    assert decode_events(log)[0].json()["feedback_tokens"][0]["key"] == "correctness"


def test_no_token_is_asked_for_where_none_is_given(servers: Servers) -> None:
    servers.chainserve.post("/plain/invoke", json={"input": 1})

    assert servers.asked("tokens") == []


def test_a_langsmith_that_fails_is_asked_once_for_a_token(servers: Servers) -> None:
    servers.script(status=500)
    answer = servers.chainserve.post("/echo/invoke", json={"input": 1}).json()
    asked = [one["body"]["run_id"] for one in servers.asked("tokens")]

    assert asked.count(answer["metadata"]["run_id"]) == 1  # To ask again would keep it waiting.


@pytest.mark.parametrize("body", ["<html>", "{}", "[]", '{"url": "u", "expires_at": "soon"}'])
def test_no_answer_fails_with_what_langsmith_says(servers: Servers, body: str) -> None:
    servers.script(body=body)
    invoked = servers.chainserve.post("/echo/invoke", json={"input": 1})
    linked = servers.chainserve.put("/linked/public_trace_link", json={"run_id": RUN})

    assert invoked.json()["metadata"]["feedback_tokens"] == []
    assert (linked.status_code, linked.json()["code"]) == (502, "langsmith_error")


def test_a_background_invoke_tells_its_token_in_its_log(servers: Servers) -> None:
    started = servers.chainserve.post("/echo/runs", json={"input": 1, "mode": "invoke"}).json()
    log = decode_events(servers.chainserve.get(f"/echo/{started['stream_url']}").content)

    assert [event.event for event in log] == ["metadata", "data", "end"]
    assert log[0].json()["feedback_tokens"][0]["key"] == "correctness"


# What LangSmith does not do.


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/echo/feedback", {"run_id": RUN, "key": "k"}),
        ("PUT", "/linked/public_trace_link", {"run_id": RUN}),
    ],
)
def test_a_run_that_langsmith_has_not_taken_in_yet_is_spoken_of_again(
    servers: Servers, method: str, path: str, body: Any
) -> None:
    servers.script(statuses=[404, 404])

    assert servers.chainserve.request(method, path, json=body).status_code == 200
    assert len([one for one in servers.asked() if one["body"].get("run_id") == RUN]) == 3


@pytest.mark.parametrize("status", [400, 422])
def test_what_langsmith_refuses_is_the_callers_to_mend(servers: Servers, status: int) -> None:
    servers.script(status=status)
    response = servers.chainserve.post("/echo/token_feedback", json={"token_or_url": TOKEN})

    assert (response.status_code, response.json()["code"]) == (422, "feedback_refused")
    assert str(status) in response.json()["message"]


@pytest.mark.parametrize(("script", "status"), [({"status": 500}, 502), ({"status": 404}, 404)])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/echo/feedback", {"run_id": RUN, "key": "k"}),
        ("POST", "/echo/token_feedback", {"token_or_url": TOKEN}),
        ("PUT", "/linked/public_trace_link", {"run_id": RUN}),
    ],
)
def test_a_failure_of_langsmiths_is_told_without_its_words(
    servers: Servers, method: str, path: str, body: Any, script: Any, status: int
) -> None:
    servers.script(**script)
    response = servers.chainserve.request(method, path, json=body)

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text


def test_the_server_answers_others_while_langsmith_thinks(servers: Servers) -> None:
    servers.script(delay=0.5)
    body = {"run_id": RUN, "key": "k"}
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(servers.chainserve.post, "/echo/feedback", json=body)
        with httpx.Client(base_url=servers.chainserve.base_url, verify=False) as client:
            while not servers.asked("/feedback"):
                pass
            assert client.post("/plain/invoke", json={"input": 1}).status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 200


# Who may.


@pytest.mark.parametrize(
    "token",
    [
        "http://127.0.0.1:1/feedback/tokens/" + TOKEN,
        "https://evil.test/" + TOKEN,
        "//evil.test/" + TOKEN + "x",
        "file:///etc/passwd",
        "not a token",
        "",
        "http://[",
    ],
)
def test_a_token_of_another_place_is_refused_before_anything_is_asked(
    servers: Servers, token: str
) -> None:
    response = servers.chainserve.post("/echo/token_feedback", json={"token_or_url": token})

    assert response.status_code == 422, response.text
    assert servers.asked() == []


def test_a_token_may_be_its_url(servers: Servers) -> None:
    url = servers.chainserve.post("/echo/invoke", json={"input": 1}).json()["metadata"][
        "feedback_tokens"
    ][0]["token_url"]
    response = servers.chainserve.post("/echo/token_feedback", json={"token_or_url": url})

    assert response.status_code == 200, response.text
    assert servers.asked(f"/feedback/tokens/{TOKEN}")


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [("POST", "/owned/feedback", {"key": "k"}), ("PUT", "/owned/public_trace_link", {})],
)
def test_only_the_owner_of_a_run_may_speak_of_it(
    servers: Servers, method: str, path: str, more: dict[str, Any]
) -> None:
    def ask(user: str, run_id: Any) -> httpx.Response:
        body = {"run_id": run_id, **more}
        return servers.chainserve.request(method, path, json=body, headers={"x-user": user})

    started = servers.chainserve.post(
        "/owned/invoke", json={"input": 1}, headers={"x-user": "ann"}
    ).json()
    run_id = started["metadata"]["run_id"]
    servers.script()

    foreign, unknown = ask("bob", run_id), ask("ann", str(uuid4()))
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.text == unknown.text
    assert servers.asked() == []
    assert ask("ann", run_id).status_code == 200
    servers.chainserve.delete(f"/owned/runs/{run_id}", headers={"x-user": "ann"})
    assert ask("ann", run_id).status_code == 404


def test_a_link_alone_works_with_us(servers: Servers) -> None:
    theirs, ours = (
        client.put("/links/public_trace_link", json={"run_id": RUN}) for client in servers.both()
    )

    assert theirs.status_code == 500
    assert ours.json()["public_url"].endswith(f"/public/{SHARED}/r")


# Without tracing.

ON: dict[str, Any] = {
    "enable_feedback_endpoint": True,
    "enable_public_trace_link_endpoint": True,
    "token_feedback_config": {"key_configs": [{"key": "k"}]},
}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "feedback"),
        ("HEAD", "feedback"),
        ("POST", "token_feedback"),
        ("PUT", "public_trace_link"),
        ("HEAD", "public_trace_link"),
    ],
)
async def test_without_tracing_nothing_can_be_sent_and_head_says_so(
    method: str, target: str
) -> None:
    body = {"run_id": RUN, "key": "k", "token_or_url": TOKEN}
    app = make_app(echo(), **ON)
    response = await request(app, method, f"/chain/{target}", json=body)

    if method == "HEAD":
        assert response.status == 400
    else:
        assert_problem(response, 400, "feedback_not_enabled")
    invoked = (await request(app, "POST", "/chain/invoke", json={"input": 1})).json()
    assert invoked["metadata"]["feedback_tokens"] == []


async def test_routes_are_where_the_options_and_lists_say() -> None:
    async def mounted(**options: Any) -> set[str]:
        app = make_app(echo(), **options)
        asked = {"feedback": "POST", "token_feedback": "POST", "public_trace_link": "PUT"}
        return {
            target
            for target, method in asked.items()
            if (await request(app, method, f"/chain/{target}", json={})).status != 404
        }

    assert await mounted() == {"token_feedback"}
    assert await mounted(**ON) == {"feedback", "token_feedback", "public_trace_link"}
    assert await mounted(enabled_endpoints=["invoke"]) == set()
    assert await mounted(enabled_endpoints=["invoke"], **ON) == {"feedback", "public_trace_link"}
    assert await mounted(disabled_endpoints=["feedback", "token_feedback"], **ON) == {
        "public_trace_link"
    }


@pytest.mark.parametrize(
    "config", [{}, {"key_configs": []}, {"key_configs": [{"key": "a"}, {"key": "b"}]}, {"key": "a"}]
)
def test_a_config_without_its_one_key_is_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="token_feedback_config must have one key"):
        Chain(path="/chain", runnable=echo(), token_feedback_config=config)


async def test_the_handlers_methods_say_that_nothing_is_traced() -> None:
    handler = APIHandler(echo(), path="/x", **ON)

    assert not await handler.check_feedback_enabled()
    assert not await handler.check_public_trace_link_enabled()
    for call in (
        handler.create_feedback(FeedbackCreateRequest(run_id=uuid4(), key="k")),
        handler.create_feedback_from_token(FeedbackCreateRequestTokenBased(token_or_url=TOKEN)),
        handler.create_public_trace_link(PublicTraceLinkCreateRequest(run_id=uuid4())),
    ):
        with pytest.raises(HTTPException) as refused:
            await call
        assert refused.value.status_code == 400


@pytest.mark.parametrize("package", ["langserve", "chainserve"])
def test_a_handlers_methods_send_what_they_are_given(servers: Servers, package: str) -> None:
    client: httpx.Client = getattr(servers, package)
    answers = [
        client.post("/handled/feedback", json={"run_id": RUN, "key": "k", "score": 1}),
        client.post("/handled/token_feedback", json={"token_or_url": TOKEN, "score": 1}),
        client.put("/handled/public_trace_link", json={"run_id": RUN}),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].json()["key"] == "k"
    assert answers[2].json()["public_url"].endswith(f"/public/{SHARED}/r")
    asked = [one["path"] for one in servers.asked()]
    assert {"/feedback", f"/feedback/tokens/{TOKEN}", f"/runs/{RUN}/share"} <= {*asked}
