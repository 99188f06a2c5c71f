"""`chainserve call`: an answer as it comes, its end as an exit code, and Ctrl-C."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from select import select
from typing import Any

import pytest

from tests._bridge import WAIT_SECONDS
from tests._command import ENVIRONMENT, Done, Here, here as here, run, serve
from tests._elsewhere import elsewhere as elsewhere
from tests._processes import HOST, ROOT, ask, asking, free_port
from tests._proxy import Fault, proxy

APPLICATION = """\
import asyncio

from fastapi import Depends, FastAPI, Header, HTTPException
from langchain_core.messages import AIMessageChunk, AnyMessage
from langchain_core.runnables import RunnableGenerator
from pydantic import BaseModel

from chainserve import Chain, Settings, add_routes, create_app


class Question(BaseModel):
    question: str


class Two(Question):
    data: str


class Gate:
    def __init__(self):
        self.opened = asyncio.Event()

    async def wait(self, inputs):
        await whole(inputs)
        await self.opened.wait()
        yield "opened"

    async def open(self, inputs):
        await whole(inputs)
        self.opened.set()
        yield "open"


async def whole(inputs):
    return [value async for value in inputs][-1]


async def say(inputs):
    for letter in await whole(inputs):
        yield letter


async def answer(inputs):
    yield "You asked: "
    yield (await whole(inputs))["question"]


async def chat(inputs):
    for piece in ("You said: ", (await whole(inputs))[-1].content, ""):
        yield AIMessageChunk(content=piece)


async def mixed(inputs):
    await whole(inputs)
    for chunk in ("\\n\\na text", {"a": "\\u00e9"}, 1, "more\\n", "\\n"):
        yield chunk


async def drive(inputs):
    yield f"{await whole(inputs)}: \\x1b[2J\\x9b31m\\t\\x07\\r\\n"
    raise HTTPException(503, "The oven is \\x1b]0;cold\\x07.")


async def fails(inputs):
    await whole(inputs)
    yield "some "
    raise HTTPException(503, "The oven is cold.")


async def endless(inputs):
    await whole(inputs)
    yield "one "
    await asyncio.Event().wait()


async def flood(inputs):
    await whole(inputs)
    yield "x" * 1_000_000
    await asyncio.Event().wait()


async def silent(inputs):
    await whole(inputs)
    await asyncio.Event().wait()
    yield ""


gate = Gate()
runnables = {"say": (say, str), "answer": (answer, Question), "chat": (chat, list[AnyMessage])}
runnables |= {"two": (answer, Two), "drive": (drive, str)}
runnables |= {"mixed": (mixed, str), "fails": (fails, str), "endless": (endless, str)}
runnables |= {"silent": (silent, str), "flood": (flood, str)}
runnables |= {"wait": (gate.wait, str), "open": (gate.open, str)}
app = create_app(
    [
        Chain(path=f"/{name}", runnable=RunnableGenerator(function), input_type=input_type)
        for name, (function, input_type) in runnables.items()
    ],
    Settings(list_all_runs=True, retry_ms=10),
)


def check(x_key: str = Header("")):
    if x_key != "a: b":
        raise HTTPException(401, "No key.")


keyed = FastAPI(dependencies=[Depends(check)])
add_routes(keyed, RunnableGenerator(say), path="/say")
app.mount("/key", keyed)
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("called")
    (folder / "app.py").write_text(APPLICATION)
    process = serve(folder, "app:app")
    yield process.port()
    process.close()


@pytest.fixture
def call(here: Here, port: int) -> Here:
    """Call a chain, in this process."""

    def call_here(*arguments: str, stdin: bytes = b"", **variables: str) -> Done:
        return here("call", *arguments, stdin=stdin, **{"PORT": str(port), **variables})

    return call_here


class Calling:
    """A call that runs; its standard output can be read, and it gets Ctrl-C."""

    def __init__(
        self,
        port: int,
        *arguments: str,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chainserve", "call", *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **ENVIRONMENT, "PORT": str(port)},
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
        )

    def __enter__(self) -> "Calling":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def read(self, count: int) -> bytes:
        assert self.process.stdout is not None
        found = b""  # It is unbuffered, so each read may have less.
        while data := self.process.stdout.read(count - len(found)):
            found += data
        return found

    def read_line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupt(self) -> tuple[int, bytes, str]:
        """Send it Ctrl-C, and return its exit code and what else it wrote."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, out, err.decode()


def read_all(leader: int) -> bytes:
    """Return what a terminal gets until nobody has it open any more."""
    shown = b""
    with suppress(OSError):
        while data := os.read(leader, 10_000):
            shown += data
    return shown


def runs_of(port: int, path: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(ask(port, "GET", f"{path}/runs")[1])["runs"]
    return runs


@pytest.mark.parametrize("place", ["say", "/say", "/say/", "\\say", "http://{address}/say/"])
def test_a_chain_is_called_by_its_path_or_its_url(place: str, call: Here, port: int) -> None:
    done = call(place.format(address=f"{HOST}:{port}"), "Hello")

    assert (done.code, done.out, done.err) == (0, "Hello\n", "")


def test_the_server_is_where_an_option_or_the_environment_says(here: Here, port: int) -> None:
    url = f"http://{HOST}:{port}/"
    assert here("call", "say", "Hi", "--url", url, PORT="1").out == "Hi\n"
    assert here("call", "say", "Hi", CHAINSERVE_URL=url, PORT="1").out == "Hi\n"
    assert here("call", "say", "Hi", "--url", f"{url}?a=/", PORT="1").out == "Hi\n"


def test_this_machine_is_reached_without_the_proxy_of_the_environment(call: Here) -> None:
    proxy = f"http://{HOST}:{free_port()}"

    assert call("say", "Hi", HTTP_PROXY=proxy, ALL_PROXY=proxy).out == "Hi\n"


@pytest.mark.parametrize(
    ("chain", "given", "out"),
    [
        ("answer", "Why?", "You asked: Why?\n"),
        ("answer", '{"question": "How?"}', "You asked: How?\n"),
        ("answer", "42", "You asked: 42\n"),
        ("chat", "Hello", "You said: Hello\n"),
        ("chat", '[{"role": "user", "content": "Hi"}]', "You said: Hi\n"),
        ("mixed", "x", '\n\na text\n{"a":"é"}\n1\nmore\n'),
    ],
)
def test_an_input_may_be_json_or_a_text(chain: str, given: str, out: str, call: Here) -> None:
    done = call(chain, given)

    assert (done.code, done.out, done.err) == (0, out, "")


@pytest.mark.parametrize("arguments", [["-"], [], ["--timeout", "9", "-"]])
def test_an_input_may_come_from_standard_input(arguments: list[str], call: Here) -> None:
    done = call("say", *arguments, stdin="\ufeffTwo\nlines, é\r\n".encode())

    assert (done.code, done.out) == (0, "Two\nlines, é\n")


def test_each_event_is_a_line_of_json(call: Here) -> None:
    done = call("answer", "Why?", "--json", "--config", '{"tags": ["a"]}')
    events = [json.loads(line) for line in done.out.splitlines()]

    assert done.code == 0
    assert [event["event"] for event in events] == ["metadata", "data", "data", "end"]
    assert [event["data"] for event in events[1:3]] == ["You asked: ", "Why?"]
    assert events[3]["data"]["status"] == "success"
    assert len({event["id"] for event in events}) == 4


def test_events_of_langserves_wire_are_lines_too(here: Here, elsewhere: str) -> None:
    done = here("call", f"{elsewhere}/done", "x", "--json")

    assert done.code == 0
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"event": "data", "data": "all", "id": None},
        {"event": "end", "data": None, "id": None},
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_run_that_was_started_before_can_be_read(
    options: list[str], call: Here, port: int
) -> None:
    started = ask(port, "POST", "/chat/runs", {"input": [{"role": "user", "content": "Hi"}]})
    done = call("chat", "--run-id", json.loads(started[1])["run_id"], *options)

    assert done.code == 0
    assert "Hi" in done.out
    assert options or done.out == "You said: Hi\n"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_run_that_fails_is_told_on_standard_error(options: list[str], call: Here) -> None:
    done = call("fails", "x", *options)

    assert done.code == 1
    assert done.err.startswith("chainserve call: ")
    assert done.err.count("The oven is cold.") == 1
    assert "some " in done.out


def test_a_joined_run_that_failed_is_told_too(call: Here, port: int) -> None:
    started = ask(port, "POST", "/fails/runs", {"input": "x"})
    done = call("fails", "--run-id", json.loads(started[1])["run_id"])

    assert (done.code, done.out) == (1, "some \n")
    assert "The oven is cold." in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["nowhere", "x"], 1, "`chainserve list URL` lists the chains of a server."),
        (["answer", '{"question": 1}'], 1, "Input should be a valid string"),
        (["say", "--run-id", "nope"], 1, "There is no such run here."),
        (["nowhere", "x", "--json"], 1, "There is no /nowhere/stream."),
    ],
)
def test_what_the_server_refuses_is_told_with_its_words(
    arguments: list[str], code: int, part: str, call: Here
) -> None:
    ended, out, err = call(*arguments)

    assert (ended, out) == (code, "")
    assert part in err


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize(
    ("path", "code", "part"),
    [
        ("page", 3, "answered no event stream but text/html. Is it the URL of a chain?"),
        ("missing", 3, "<h1>Not here</h1> Is it the URL of a chainserve?"),
        ("old", 1, "Not Found"),
        ("cut", 4, "ended without its terminal event: the connection was cut"),
        ("gap", 4, "has a gap: the server no longer keeps 2 of its events."),
        ("moved", 3, "It is at http://elsewhere.invalid/; redirects are followed"),
    ],
)
def test_what_is_no_whole_answer_has_an_exit_code_of_its_own(
    path: str, code: int, part: str, options: list[str], here: Here, elsewhere: str
) -> None:
    ended, out, err = here("call", f"{elsewhere}/{path}", "x", *options)

    assert ended == code
    assert part in err
    assert ("half" in out) == (path in ("cut", "gap"))


@pytest.mark.parametrize("options", [[], ["--json"], ["--run-id", "a"]])
def test_a_server_that_is_not_there_is_told_with_what_to_do(options: list[str], here: Here) -> None:
    given = [] if "--run-id" in options else ["x"]
    ended, _, err = here("call", "say", *given, *options, PORT=str(free_port()))

    assert ended == 3
    assert "cannot be reached" in err
    assert "Start it with `chainserve serve`, or give the URL of the one that runs." in err


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_asked(
    here: Here,
) -> None:
    with socket.create_server((HOST, 0)) as listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        ended, _, err = here("call", "say", '["x"]', "--url", url, "--timeout", "0.1")

    assert ended == 4
    assert "was lost: timed out" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["say"],
        ["say", "-"],
        ["say", "x", "--config", "[]"],
        ["say", "x", "--config", "{"],
        ["say", "x", "--header", "Name"],
        ["say", "x", "--header", ": value"],
        ["say", "x", "--header", "A name: value"],
        ["say", "x", "--header", "Name: é"],
        ["say", "x", "--header", "Name: value\nOther: value"],
        ["say", "x", "--timeout", "0"],
        ["say", "x", "--timeout", "soon"],
        ["say", "x", "--run-id", "a"],
        ["say", "x", "--url", "127.0.0.1:8000"],
        ["say", "x", "--url", "http://"],
        ["say", "x", "--url", "http://host:none"],
        ["ftp://host/say", "x"],
    ],
)
def test_bad_usage_is_told(arguments: list[str], here: Here) -> None:
    ended, _, err = here("call", *arguments)

    assert ended == 2
    assert "chainserve call: " in err


def test_what_may_be_secret_is_in_no_message(here: Here) -> None:
    for arguments in (["--header", "Key sk-1"], ["--header", "sk-1"], ["--url", "http://me:sk-1@"]):
        done = here("call", "say", "x", *arguments)

        assert done.code == 2
        assert "sk-1" not in done.err


def test_a_proxy_that_needs_a_package_is_told(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    done = here("call", "http://host.invalid/say", "x", ALL_PROXY="socks5://127.0.0.1:1")

    assert done.code == 2
    assert "socksio" in done.err


def test_an_object_without_a_place_for_text_is_bad_usage(call: Here) -> None:
    done = call("two", "x")

    assert done.code == 2
    assert "the fields question (required), data (required)" in done.err


def test_headers_are_sent(call: Here) -> None:
    done = call("key/say", "x", "--header", "X-Key: a: b")
    refused = call("key/say", "x")

    assert (done.code, done.out) == (0, "x\n")
    assert (refused.code, refused.out) == (1, "")
    assert "No key." in refused.err


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_ctrl_c_cancels_the_run_and_says_so(options: list[str], port: int) -> None:
    with Calling(port, "endless", "x", *options) as calling:
        calling.read(3)  # Each chunk is written as it comes, for this run has no end.
        run_id = runs_of(port, "/endless")[0]["run_id"]
        code, _, err = calling.interrupt()

    assert (code, err) == (130, f"cancelled run {run_id}\n")
    with asking(port, "GET", f"/endless/runs/{run_id}") as answer:
        assert json.load(answer)["status"] == "cancelled"


def test_ctrl_c_before_the_first_word_cancels_the_run_too(port: int) -> None:
    with Calling(port, "silent", "x", "--json") as calling:
        # The server knows of a run before its client does: what is told here, the client knows.
        told = json.loads(calling.read_line())
        code, out, err = calling.interrupt()
    [run] = runs_of(port, "/silent")

    assert (told["event"], told["data"]["run_id"]) == ("metadata", run["run_id"])
    assert (code, out, err) == (130, b"", f"cancelled run {run['run_id']}\n")
    assert run["status"] == "cancelled"


@pytest.mark.anyio
@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_a_stream_that_is_cut_is_read_on(options: list[str], port: int) -> None:
    async with proxy(port) as broken:
        for count in (3, 2):
            broken.add(Fault("/say/stream", after_events=count))
        done = await asyncio.to_thread(
            run, "call", "say", "Well said.", *options, PORT=str(broken.port)
        )

    assert (done.code, done.err) == (0, "")
    assert len(broken.to("/say/stream")) == 3
    if options:
        events = [json.loads(line) for line in done.out.splitlines()]
        assert "".join(one["data"] for one in events if one["event"] == "data") == "Well said."
        assert [one["event"] for one in events][::11] == ["metadata", "end"]
    else:
        assert done.out == "Well said.\n"


@pytest.mark.anyio
async def test_a_terminal_shows_that_it_is_asked_again(port: int) -> None:
    leader, follower = pty.openpty()
    async with proxy(port) as broken:
        broken.add(Fault("/say/stream", after_events=3))
        with Calling(broken.port, "say", "Well said.", stderr=follower) as calling:
            os.close(follower)
            out, _ = await asyncio.to_thread(calling.process.communicate, timeout=WAIT_SECONDS)
    shown = read_all(leader).decode()
    os.close(leader)

    assert out == b"Well said.\n"
    assert "Asking again in " in shown
    assert all(len(line) < 80 for line in shown.split("\r"))
    assert shown.endswith(" \r")


@pytest.mark.anyio
async def test_a_terminal_shows_one_text_however_often_its_stream_is_cut(port: int) -> None:
    leader, follower = pty.openpty()
    async with proxy(port) as broken:
        for count in (4, 1, 0, 3):
            broken.add(Fault("/say/stream", after_events=count))
        ends = {"stdout": follower, "stderr": follower}
        with Calling(broken.port, "say", "Well said.", **ends) as calling:
            os.close(follower)
            assert await asyncio.to_thread(calling.process.wait, timeout=WAIT_SECONDS) == 0
        assert len(broken.to("/say/stream")) == 5
    shown = read_all(leader).decode()
    os.close(leader)

    assert shown.rpartition("\r")[0].endswith("Well said.")
    assert shown.count("\n") == 1


def test_ctrl_c_leaves_a_run_that_was_joined(port: int) -> None:
    run_id = json.loads(ask(port, "POST", "/endless/runs", {"input": "x"})[1])["run_id"]
    with Calling(port, "endless", "--run-id", run_id) as calling:
        assert calling.read(3) == b"one"
        code, out, err = calling.interrupt()

    assert (code, out, err) == (130, b" ", f"left run {run_id}, which goes on\n")
    assert json.loads(ask(port, "GET", f"/endless/runs/{run_id}")[1])["status"] == "running"
    ask(port, "POST", f"/endless/runs/{run_id}/cancel")


def test_a_cancelling_that_nobody_confirms_is_not_said_to_be_one(elsewhere: str) -> None:
    with Calling(1, f"{elsewhere}/open", "x") as calling:
        calling.read(4)
        code, _, err = calling.interrupt()

    told = "left run a, which the server has not said to be cancelled\n"
    assert (code, err) == (130, told)


def test_ctrl_c_ends_a_call_whose_output_nobody_takes(port: int) -> None:
    with Calling(port, "flood", "x") as calling:
        calling.read(1)  # And nothing after it: the pipe is full at once.
        assert calling.process.stdout is not None
        while len(select([calling.process.stdout], [], [], 0)[0]) < 1:
            pass
        calling.process.send_signal(signal.SIGINT)
        code = calling.process.wait(WAIT_SECONDS)

    assert code == 130
    assert runs_of(port, "/flood")[0]["status"] == "cancelled"


def test_who_reads_no_more_ends_the_run_quietly(port: int) -> None:
    with Calling(port, "say", "x" * 100_000) as calling:
        calling.read(1)
        assert calling.process.stdout is not None
        calling.process.stdout.close()
        assert calling.process.stderr is not None
        err = calling.process.stderr.read()
        code = calling.process.wait(WAIT_SECONDS)
        calling.process.stdout = None

    assert (code, err) == (0, b"")


def test_a_character_that_the_output_cannot_hold_is_replaced(port: int) -> None:
    done = run("call", "say", "naïve", PORT=str(port), PYTHONUTF8="0", PYTHONIOENCODING="ascii")

    assert (done.code, done.out) == (0, "na?ve\n")


def test_an_output_that_cannot_be_written_is_told(port: int) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "chainserve", "call", "say", "x"],
            env={"PATH": os.environ["PATH"], **ENVIRONMENT, "PORT": str(port)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=WAIT_SECONDS,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr == b"chainserve call: [Errno 28] No space left on device\n"


def test_standard_streams_may_be_closed(port: int) -> None:
    command = 'exec "$0" -m chainserve call say Hi <&- >&- 2>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable],
        env={"PATH": os.environ["PATH"], **ENVIRONMENT, "PORT": str(port)},
        timeout=WAIT_SECONDS,
        check=False,
    )

    assert done.returncode == 0


def test_no_chain_drives_the_terminal(port: int) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with Calling(port, "drive", "é", stdout=follower, stderr=follower) as calling:
        os.close(follower)
        shown = read_all(leader)
        assert calling.process.wait(WAIT_SECONDS) == 1
    os.close(leader)

    lines = shown.decode().splitlines()
    assert lines[0].endswith("é: \\x1b[2J\\x9b31m\t\\x07")
    assert lines[1:] == ["chainserve call: The run failed: The oven is \\x1b]0;cold\\x07."]


def test_what_is_no_terminal_gets_what_the_chain_writes(call: Here) -> None:
    assert call("drive", "é").out == "é: \x1b[2J\x9b31m\t\x07\r\n"


def test_a_terminal_shows_how_long_is_waited_until_there_is_output(port: int) -> None:
    leader, follower = pty.openpty()
    with Calling(port, "wait", "x", stderr=follower) as calling:
        os.close(follower)
        shown = b""
        while "waiting… 1 s".encode() not in shown:
            shown += os.read(leader, 100)
        ask(port, "POST", "/open/invoke", {"input": "x"})
        assert calling.read(7) == b"opened\n"
        assert calling.process.wait(WAIT_SECONDS) == 0
        shown += os.read(leader, 1000)
    os.close(leader)

    assert shown.endswith(b"\r" + b" " * len("waiting… 1 s") + b"\r")
