"""The tutorial: a folder made of its blocks, its commands, and its page in a real browser."""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests._bridge import WAIT_SECONDS
from tests._browser import opened
from tests._openai import OpenAIServer, Reset, Stall, Status, Tokens
from tests._processes import ServerProcess, free_port
from tests._proxy import Fault, FaultProxy, proxy
from tests._system import require_program

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
ADDRESS = "127.0.0.1:8000"
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "CHAINSERVE_DEMO_PAUSE": "0", "CHAINSERVE_RETRY_MS": "10"}
QUESTION = "Why is the sky blue?"
REFUSED_TEXT = (
    "The server refused, or no longer knows this answer. "
    "Reload to ask again; if it stays, see the server's log."
)
ANSWER = (
    "This is the offline demo: set OPENAI_API_KEY to let a real model answer.\n\n"
    f"You wrote: “Answer in a few sentences: {QUESTION}”\n\n"
    "I count 10 words in it. The longest: sentences, Answer, blue."
)


def blocks(language: str) -> list[str]:
    """Return the tutorial's code in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL, flags=re.MULTILINE | re.DOTALL)


def file(name: str) -> str:
    """Return the block that the text says to save under a name."""
    [block] = re.findall(
        rf"^[^\n]*Save this as `{name}`.*?^```\w+\n(.*?)^```$",
        TUTORIAL,
        flags=re.MULTILINE | re.DOTALL,
    )
    return str(block)


CUT, RESUMED, GET, REFUSED, POST, PLAIN = blocks("bash")
WIRE = "\n".join(blocks("text"))
CLIENT, RUN = (block for block in blocks("python") if ADDRESS in block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder; its server listens on the port that PORT says."""
    folder = tmp_path_factory.mktemp("tutorial")
    server = file("chat.py")
    assert "port=8000" in server
    server = server.replace("port=8000", 'port=int(__import__("os").environ["PORT"])')
    (folder / "chat.py").write_text(server)
    (folder / "index.html").write_text(file("index.html"))
    (folder / "more.py").write_text(file("more.py"))
    return folder


@pytest.fixture(scope="module")
def chat(folder: Path) -> Iterator[int]:
    """Start the server as the text says; gives its port."""
    process = ServerProcess(["chat.py"], {**ENVIRONMENT, "PORT": "0"}, folder)
    yield process.port()
    process.close()


def run(*command: str) -> str:
    """Run a command and return its output, line ends as they are."""
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def run_shell(block: str, port: int) -> str:
    """Run shell commands against the server at another port; an HTTP error is a failure."""
    require_program("curl", package="curl")
    block = block.replace(ADDRESS, f"127.0.0.1:{port}").replace("curl ", "curl -sS --fail ")
    return run("bash", "-ec", block)


def run_python(block: str, port: int) -> str:
    """Run Python code, in a process of its own, against the server at another port."""
    return run(sys.executable, "-c", block.replace(ADDRESS, f"127.0.0.1:{port}"))


def without_ids(events: str) -> str:
    """Return a stream of events with what differs from run to run taken out."""
    return re.sub(
        r'(?m)^(id: )\S+(\.\d+)$|^(retry: )\d+$|("run_id": )"[0-9a-f-]{36}"', r"\1\2\3\4", events
    )


def test_all_blocks_and_commands_are_known() -> None:
    assert CUT == GET
    assert len(blocks("python")) == 4
    assert len(blocks("html")) == len(blocks("text")) == 1
    assert "".join(blocks("console")).splitlines() == [
        "$ python3 -m venv .venv",
        "$ . .venv/bin/activate",
        '$ pip install "/path/to/chainserve[server]"',
        "$ python chat.py",
        "$ CHAINSERVE_DEMO_PAUSE=0.5 python chat.py",
        "$ uvicorn more:app --port 8000",
    ]


@pytest.mark.parametrize("block", [GET, POST], ids=["GET", "POST"])
def test_curl_prints_the_bytes_that_are_shown(block: str, chat: int) -> None:
    printed = run_shell(block, chat)
    assert printed.count("\r\n") == printed.count("\n")

    first, last = without_ids(WIRE).split("…\n\n")
    printed = without_ids(printed.replace("\r\n", "\n"))
    assert printed.startswith(first)
    assert printed.endswith(last)


def test_curl_prints_plain_text(chat: int) -> None:
    assert run_shell(PLAIN, chat) == ANSWER


def test_curl_prints_why_the_server_refuses(chat: int) -> None:
    address = f"127.0.0.1:{chat}"
    printed = run("bash", "-ec", REFUSED.replace("curl ", "curl -sS ").replace(ADDRESS, address))

    assert printed.startswith("HTTP/1.1 422 ")
    assert '"code":"invalid_input"' in printed
    assert "input.question: Field required" in printed
    with pytest.raises(AssertionError, match="422"):
        run_shell(REFUSED, chat)


async def test_the_python_client_goes_on_after_a_cut(chat: int) -> None:
    async with proxy(chat) as before:
        before.add(Fault("/stream_chat", after_bytes=1500))
        assert await asyncio.to_thread(run_python, CLIENT, before.port) == ANSWER

        first, second = before.requests
        assert "last-event-id" not in first.headers
        assert "last-event-id" in second.headers


def test_a_run_is_started_and_read_later(folder: Path) -> None:
    process = ServerProcess(["-m", "uvicorn", "more:app", "--port", "0"], ENVIRONMENT, folder)
    try:
        assert run_python(RUN, process.port()) == f"success {ANSWER}\n"
    finally:
        process.close()


@dataclass
class Visit:
    """The tutorial's page in a tab; its server's model follows a script."""

    page: Page
    model: OpenAIServer
    proxy: FaultProxy

    async def ask(self, question: str = QUESTION) -> None:
        await self.page.get_by_label("Question").fill(question)
        await self.page.get_by_role("button", name="Ask").click()

    async def shows(self, answer: str, state: str) -> None:
        """Wait until the page shows an answer, to the last character, and a state."""
        await expect(self.page.get_by_role("status")).to_have_text(state)
        await self.page.wait_for_function(
            "(text) => answer.textContent === text", arg=answer, timeout=5000
        )


@pytest.fixture(scope="module")
async def model(anyio_backend: str) -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as model:
        yield model


@pytest.fixture(scope="module")
async def scripted(folder: Path, model: OpenAIServer) -> AsyncIterator[int]:
    """Start the server, as the text says, with a model that the tests script; gives its port."""
    process = ServerProcess(
        ["chat.py"], {**ENVIRONMENT, "PORT": "0", "OPENAI_BASE_URL": model.base_url}, folder
    )
    yield await asyncio.to_thread(process.port)
    process.close()


@asynccontextmanager
async def visiting(
    browser: Browser, port: int, model: OpenAIServer, *, expected: str = "net::ERR_"
) -> AsyncIterator[Visit]:
    model.requests.clear()
    async with proxy(port) as before, opened(browser) as tab:
        tab.expected = ["net::ERR_", expected]
        await tab.page.goto(f"{before.base_url}/")
        yield Visit(tab.page, model, before)


async def test_curl_goes_on_where_it_was_cut(scripted: int, model: OpenAIServer) -> None:
    gate = asyncio.Event()
    model.enqueue(Tokens(["Because ", "of ", "light."], gates={2: gate}))
    seen = await curl_until_ctrl_c(CUT, scripted, after=b"data: of \r\n")
    [shown] = re.findall(r"Last-Event-ID: (\S+)'", RESUMED)
    assert f"id: {shown}\n" in WIRE
    gate.set()
    rest = await asyncio.to_thread(run_shell, RESUMED.replace(shown, last_id(seen)), scripted)

    assert re.findall("(?m)^data: (.*)\r$", seen)[1:] == ["Because ", "of "]
    assert rest.startswith("data: light.\r\n")
    assert "event: end" in rest


async def curl_until_ctrl_c(block: str, port: int, *, after: bytes) -> str:
    """Run curl until it has printed a line and the id after it; return what it printed."""
    require_program("curl", package="curl")
    command = shlex.split(block.replace(ADDRESS, f"127.0.0.1:{port}"))
    curl = await asyncio.create_subprocess_exec(*command, "-sS", stdout=asyncio.subprocess.PIPE)
    assert curl.stdout is not None
    async with asyncio.timeout(WAIT_SECONDS):
        printed = await curl.stdout.readuntil(after)
        printed += await curl.stdout.readuntil(b"\r\n\r\n")
        curl.send_signal(signal.SIGINT)
        await curl.communicate()
    return printed.decode()


def last_id(events: str) -> str:
    """Return the last cursor in a stream of events."""
    return str(re.findall("(?m)^id: (.*)\r$", events)[-1])


@pytest.fixture
async def visit(browser: Browser, scripted: int, model: OpenAIServer) -> AsyncIterator[Visit]:
    async with visiting(browser, scripted, model) as visit:
        yield visit


async def test_the_answer_grows_and_the_page_stops_at_its_end(visit: Visit) -> None:
    gate = asyncio.Event()
    visit.model.enqueue(Tokens(["The sky\n\n", "<img src=x onerror=ran=1>"], gates={1: gate}))
    await visit.ask()
    await visit.shows("The sky\n\n", "Answering…")
    gate.set()
    await visit.shows("The sky\n\n<img src=x onerror=ran=1>", "Done")

    assert await visit.page.locator("img").count() == 0
    assert await visit.page.evaluate("source.readyState === EventSource.CLOSED")
    assert len(visit.proxy.to("/stream_chat")) == 1
    assert QUESTION in str(visit.model.requests[0].body)


async def test_a_reload_in_the_middle_goes_on_with_the_same_run(visit: Visit) -> None:
    gate = asyncio.Event()
    visit.model.enqueue(Tokens(["Because ", "of ", "light."], gates={2: gate}))
    await visit.ask()
    await visit.shows("Because of ", "Answering…")
    await visit.page.reload()
    await visit.shows("Because of ", "Answering…")
    await expect(visit.page.get_by_label("Question")).to_have_value(QUESTION)
    gate.set()
    await visit.shows("Because of light.", "Done")
    await visit.page.reload()
    await visit.shows("Because of light.", "Done")

    assert len(visit.proxy.to("/stream_chat")) == 2
    assert len(visit.model.requests) == 1


async def test_a_page_that_is_cut_reconnects_and_misses_nothing(visit: Visit) -> None:
    gate = asyncio.Event()
    visit.model.enqueue(Tokens(["Because ", "of ", "light."], gates={2: gate}))
    cut = visit.proxy.add(Fault("/stream_chat", after_events=3, stalls=True))
    away = visit.proxy.add(Fault("/stream_chat", after_bytes=0, stalls=True))
    await visit.ask()
    await visit.shows("Because of ", "Answering…")
    cut.go.set()
    await visit.shows("Because of ", "Reconnecting…")
    away.go.set()
    gate.set()
    await visit.shows("Because of light.", "Done")

    assert len(visit.model.requests) == 1


async def test_a_second_question_replaces_the_first(visit: Visit) -> None:
    visit.model.enqueue(Stall(), Tokens(["two"]))
    await visit.ask("First?")
    await visit.shows("t0 ", "Answering…")
    await visit.ask("Second?")
    await visit.shows("two", "Done")

    first, second = visit.proxy.to("/stream_chat")
    assert first.target.rpartition("=")[2] != second.target.rpartition("=")[2]


async def test_the_servers_error_is_shown_with_its_message(visit: Visit) -> None:
    visit.model.enqueue(Status(401))
    await visit.ask()
    await visit.shows("", "The model's provider refused this server's credentials.")
    visit.model.enqueue(Reset(after=2))
    await visit.ask()
    broke_off = "The model's provider could not be reached, or broke off its answer."
    await visit.shows("t0 t1 ", broke_off)
    await visit.page.reload()
    await visit.shows("t0 t1 ", broke_off)

    assert len(visit.proxy.to("/stream_chat")) == 2


async def test_a_server_that_stops_tells_and_one_that_was_killed_is_waited_for(
    browser: Browser, folder: Path, model: OpenAIServer
) -> None:
    environment = {**ENVIRONMENT, "PORT": str(free_port()), "OPENAI_BASE_URL": model.base_url}
    processes = ServerProcesses(folder, environment)
    with closing(processes):
        port = await processes.start()
        async with visiting(browser, port, model, expected="404") as visit:
            model.enqueue(Stall(), Stall())
            await visit.ask()
            await visit.shows("t0 ", "Answering…")
            printed = await processes.press_ctrl_c()
            await visit.shows("t0 ", "The run was cancelled: the server is shutting down.")
            assert "Cancel 1 running task(s)" in printed
            assert "Traceback" not in printed
            await processes.start()
            await visit.ask()
            await visit.shows("t0 ", "Answering…")
            processes.kill()
            await visit.shows("t0 ", "Reconnecting…")
            await processes.start()
            await visit.shows("t0 ", REFUSED_TEXT)
            model.enqueue(Tokens(["two"]))
            await visit.page.reload()
            await visit.shows("two", "Done")


class ServerProcesses:
    """The tutorial's server, started again and again on the same port."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._started: list[ServerProcess] = []

    async def start(self) -> int:
        self._started.append(ServerProcess(["chat.py"], self._environment, self._folder))
        return await asyncio.to_thread(self._started[-1].port)

    async def press_ctrl_c(self) -> str:
        """Stop the server that was started last; return what it printed."""
        process = self._started[-1]
        process.signal(signal.SIGINT)
        await asyncio.to_thread(process.wait, WAIT_SECONDS)
        return process.output

    def kill(self) -> None:
        self._started[-1].signal(signal.SIGKILL)

    def close(self) -> None:
        for process in self._started:
            process.close()
