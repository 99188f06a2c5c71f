"""A provider that fails in every way: one terminal event or a status, and never its text."""

import asyncio
from typing import Any

import httpx
import httpx2
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from chainserve import RemoteRunnable
from chainserve.translation import upstream_cause
from tests._apps import assert_problem, make_app
from tests._bridge import open_stream, request
from tests._openai import (
    Garbage,
    OpenAIServer,
    Reset,
    Script,
    Status,
    Tokens,
    Truncate,
    refused_base_url,
)

pytestmark = pytest.mark.anyio

PROVIDER_TEXT = "scripted"
TIMEOUT = 0.2


def chain_at(base_url: str, **options: Any) -> Runnable[Any, Any]:
    model = ChatOpenAI(
        base_url=base_url, api_key=SecretStr("sk-canary"), model="test", max_retries=0, **options
    )
    return model | StrOutputParser()


FAILURES: dict[str, tuple[Script, int, str]] = {
    "429": (Status(429, {"retry-after": "7"}), 429, "upstream_rate_limited"),
    "500": (Status(500), 502, "upstream_error"),
    "503": (Status(503), 502, "upstream_error"),
    "401": (Status(401), 502, "upstream_authentication"),
    "403": (Status(403), 502, "upstream_authentication"),
    "400": (Status(400), 502, "upstream_error"),
    "408": (Status(408), 504, "upstream_timeout"),
    "504": (Status(504), 504, "upstream_timeout"),
    "HTML": (Status(502, {"content-type": "text/html"}, b"<html>"), 502, "upstream_error"),
    "a reset before the first token": (Reset(after=0), 502, "upstream_error"),
    "garbage before the first token": (Garbage(after=0), 502, "upstream_error"),
    "a truncated answer": (Truncate(after=0), 502, "upstream_error"),
}


@pytest.mark.parametrize(("script", "status", "code"), FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("verb", ["invoke", "batch"])
async def test_a_failing_provider_is_a_status_of_its_own(
    verb: str, script: Script, status: int, code: str
) -> None:
    async with OpenAIServer(default=script) as upstream:
        app = make_app(chain_at(upstream.base_url))
        body = {"inputs": ["a", "b"]} if verb == "batch" else {"input": "a"}
        response = await request(app, "POST", f"/chain/{verb}", json=body)

    assert_problem(response, status, code)
    assert PROVIDER_TEXT not in response.text
    assert "canary" not in response.text


@pytest.mark.parametrize(("script", "status", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_failing_provider_is_the_one_terminal_event_of_a_stream(
    script: Script, status: int, code: str
) -> None:
    async with OpenAIServer(default=script) as upstream:
        app = make_app(chain_at(upstream.base_url))
        response = await request(app, "POST", "/chain/stream", json={"input": "a"})

    terminal = [event for event in response.events() if event.event in ("error", "end")]
    assert [event.event for event in terminal] == ["error"]
    assert terminal[0].json()["status_code"] == status
    assert PROVIDER_TEXT not in response.text
    assert code


@pytest.mark.parametrize("script", [Reset(after=3), Garbage(after=3), Truncate(after=3)])
async def test_tokens_before_a_break_arrive_and_the_break_is_an_error(script: Script) -> None:
    async with OpenAIServer(default=script) as upstream:
        app = make_app(chain_at(upstream.base_url))
        response = await request(app, "POST", "/chain/stream", json={"input": "a"})

    events = response.events()
    text = "".join(event.json() for event in events if event.event == "data")
    assert text == "t0 t1 t2 "
    assert [event.event for event in events if event.event in ("error", "end")] == ["error"]
    assert events[-1].json()["status_code"] == 502


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_a_provider_that_hangs_is_a_timeout(verb: str) -> None:
    forever = asyncio.Event()
    async with OpenAIServer(default=Tokens(["a"], gates={0: forever})) as upstream:
        app = make_app(chain_at(upstream.base_url, timeout=TIMEOUT))
        response = await request(app, "POST", f"/chain/{verb}", json={"input": "a"})

    if verb == "invoke":
        assert_problem(response, 504, "upstream_timeout")
    else:
        assert response.events()[-1].json()["status_code"] == 504


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_a_provider_that_is_not_there_is_a_bad_gateway(verb: str) -> None:
    app = make_app(chain_at(refused_base_url()))
    response = await request(app, "POST", f"/chain/{verb}", json={"input": "a"})

    if verb == "invoke":
        assert_problem(response, 502, "upstream_error")
    else:
        assert response.events()[-1].json()["status_code"] == 502


async def test_the_providers_retry_after_is_passed_on() -> None:
    async with OpenAIServer(default=Status(429, {"retry-after": "7"})) as upstream:
        app = make_app(chain_at(upstream.base_url))
        response = await request(app, "POST", "/chain/invoke", json={"input": "a"})

    assert response.headers["retry-after"] == "7"


async def test_a_retry_after_that_is_no_number_is_not_passed_on() -> None:
    async with OpenAIServer(default=Status(429, {"retry-after": "soon\u00b2"})) as upstream:
        app = make_app(chain_at(upstream.base_url))
        response = await request(app, "POST", "/chain/invoke", json={"input": "a"})

    assert response.status == 429
    assert "retry-after" not in response.headers


async def test_why_a_provider_failed_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    base_url = refused_base_url()
    app = make_app(chain_at(base_url))
    response = await request(app, "POST", "/chain/invoke", json={"input": "a"})

    assert response.status == 502
    [line] = [entry for entry in caplog.messages if "upstream failed" in entry]
    assert "ConnectionError" in line
    assert base_url.removesuffix("/v1") in line


async def test_tokens_stream_from_a_provider_as_they_come() -> None:
    gate = asyncio.Event()
    async with OpenAIServer(default=Tokens(["Hel", "lo"], gates={1: gate})) as upstream:
        app = make_app(chain_at(upstream.base_url))
        async with open_stream(app, "POST", "/chain/stream", json={"input": "a"}) as stream:
            text = ""
            while text != "Hel":
                event = await stream.next_event()
                assert event is not None
                text += event.json() if event.event == "data" else ""
            gate.set()
            rest = [event async for event in stream.events()]

    assert "".join(event.json() for event in rest if event.event == "data") == "lo"
    assert rest[-1].event == "end"


# What the log may say of it.


REMOTE: dict[str, tuple[Any, int, str]] = {
    "401": (httpx2.Response(401, json={"detail": PROVIDER_TEXT}), 502, "upstream_authentication"),
    "422": (httpx2.Response(422, json={"detail": PROVIDER_TEXT}), 502, "upstream_error"),
    "500": (httpx2.Response(500, text=PROVIDER_TEXT), 502, "upstream_error"),
    "504": (httpx2.Response(504, text=PROVIDER_TEXT), 504, "upstream_timeout"),
    "429": (
        httpx2.Response(429, headers={"retry-after": "7"}, text=PROVIDER_TEXT),
        429,
        "upstream_rate_limited",
    ),
    "a page": (httpx2.Response(200, html=PROVIDER_TEXT), 502, "upstream_error"),
    "a cut stream": (
        httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b": x\n\n"),
        502,
        "upstream_error",
    ),
    "an error in a stream": (
        httpx2.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=b'event: error\ndata: {"status_code": 403, "message": "scripted"}\n\n',
        ),
        502,
        "upstream_authentication",
    ),
}


@pytest.mark.parametrize(("answer", "status", "code"), REMOTE.values(), ids=REMOTE.keys())
async def test_a_chain_on_another_server_is_an_upstream_too(
    answer: Any, status: int, code: str
) -> None:
    transport = httpx2.MockTransport(lambda _: answer)
    remote = RemoteRunnable[Any, Any](
        "http://inner.test/chain", client_kwargs={"transport": transport}, verify=False
    )
    app = make_app(remote)
    streamed = await request(app, "POST", "/chain/stream", json={"input": 1})
    assert f'"status_code": {status}' in streamed.text
    invoked = streamed
    if answer.headers.get("content-type") != "text/event-stream":
        invoked = await request(app, "POST", "/chain/invoke", json={"input": 1})
        assert_problem(invoked, status, code)
    for response in (streamed, invoked):
        assert PROVIDER_TEXT not in response.text
        assert "inner.test" not in response.text


async def raised(runnable: Runnable[Any, Any]) -> Exception:
    """Return what a chain raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any provider's error
        await runnable.ainvoke("a")
    return caught.value


async def test_a_providers_answer_is_told_with_its_class_its_words_and_its_host() -> None:
    async with OpenAIServer(default=Status(401)) as upstream:
        error = await raised(chain_at(upstream.base_url))

    cause = upstream_cause(error)
    assert cause.keys() == {"error", "cause", "upstream"}
    assert cause["error"].endswith("AuthenticationError")
    assert cause["cause"].startswith("Error code: 401")
    assert cause["upstream"] == upstream.base_url.removesuffix("/v1")


async def test_a_provider_that_is_not_there_is_told_with_its_host() -> None:
    base_url = refused_base_url()
    cause = upstream_cause(await raised(chain_at(base_url)))

    assert "Connection" in cause["error"]
    assert base_url.startswith(cause["upstream"])


REQUEST = httpx.Request("POST", "https://me:secret@[::1]:8443/v1/chat?key=secret")


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (ValueError(), {"error": "builtins.ValueError"}),
        (ValueError("one\n two"), {"error": "builtins.ValueError", "cause": "one two"}),
        (
            httpx.ReadTimeout("no", request=REQUEST),
            {"error": "httpx.ReadTimeout", "cause": "no", "upstream": "https://[::1]:8443"},
        ),
        (httpx.ReadError("cut"), {"error": "httpx.ReadError", "cause": "cut"}),
        (
            httpx.ReadError("cut", request=httpx.Request("GET", "/relative")),
            {"error": "httpx.ReadError", "cause": "cut"},
        ),
    ],
    ids=str,
)
def test_what_is_not_known_is_left_out(error: Exception, fields: dict[str, str]) -> None:
    assert upstream_cause(error) == fields


@pytest.mark.parametrize(
    "secret", ["sk-proj-abcdef123456", "sk-ant-api03-abc_def", "gsk_abcdef123", "AIzaSyA1234567890"]
)
def test_a_key_that_a_provider_repeats_is_not_told(secret: str) -> None:
    text = f"Incorrect API key provided: {secret}. See x.example/?key={secret}&a=1 Bearer {secret}"
    cause = upstream_cause(ValueError(text))["cause"]

    assert secret not in cause
    assert secret[5:] not in cause
    assert cause.startswith("Incorrect API key provided: ***")


def test_a_long_message_is_cut() -> None:
    cause = upstream_cause(ValueError("x" * 10_000))["cause"]

    assert len(cause) == 300
    assert cause.endswith("x…")
