"""docs/streaming.md: its two terminals, its commands and its code, run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests._processes import ServerProcess
from tests._sse import EventDecoder, ReceivedEvent, decode_events
from tests._system import require_program

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "streaming.md").read_text()
pytestmark = pytest.mark.anyio
PAUSE = "0.02"


def blocks(language: str) -> list[str]:
    """Return the document's code in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def command(words: str) -> str:
    """Return the one command that has these words."""
    [block] = [block for block in blocks("bash") if words in block]
    return block


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    environment = {"PYTHONPATH": str(ROOT), "CHAINSERVE_DEMO_PAUSE": PAUSE, "PORT": "0"}
    process = ServerProcess(["server.py"], environment)
    yield f"127.0.0.1:{process.port()}"
    process.close()


class Terminal:
    """A shell in which the document's commands run, against the server of the test."""

    def __init__(self, address: str, **variables: str) -> None:
        require_program("curl", package="curl")
        self._address = address
        self._environment = {"PATH": os.environ["PATH"], **variables}

    def start(self, block: str) -> "subprocess.Popen[bytes]":
        """Start a command, whose output is read later."""
        block = block.replace("127.0.0.1:8000", self._address)
        return subprocess.Popen(
            ["bash", "-ec", block.replace("curl ", "curl -sS --fail ")],
            env=self._environment,
            stdout=subprocess.PIPE,
        )

    def run(self, block: str) -> bytes:
        """Run a command and return its output."""
        process = self.start(block)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output
        return output


def read_events(process: "subprocess.Popen[bytes]", count: int) -> list[ReceivedEvent]:
    """Read so many events from a command that goes on."""
    assert process.stdout is not None
    decoder, events = EventDecoder(), list[ReceivedEvent]()
    while len(events) < count:
        events += decoder.feed(os.read(process.stdout.fileno(), 1))
    return events


def read_rest(process: "subprocess.Popen[bytes]") -> list[ReceivedEvent]:
    output, _ = process.communicate(timeout=30)
    return decode_events(output)


def told(events: list[ReceivedEvent]) -> list[tuple[str | None, str, str | None]]:
    """Return what events say; each connection has a `retry` of its own."""
    return [(event.id, event.event, event.data) for event in events]


def test_two_terminals_read_leave_resume_and_cancel_one_run(address: str) -> None:
    run = Terminal(address).run(command('echo "$run"')).decode().strip()
    terminal = Terminal(address, run=run)

    first, second = (terminal.start(command('/stream"\n')) for _ in range(2))
    seen = read_events(first, 4)
    first.kill()
    first.communicate()
    assert seen[-1].id is not None
    resumed = Terminal(address, run=run, last=seen[-1].id).start(command("Last-Event-ID: $last"))
    rest = read_events(resumed, 1)
    ended = terminal.run(command("$run/cancel")).decode()
    rest += read_rest(resumed)
    whole = read_rest(second)

    assert '"status":"cancelled"' in ended
    assert whole[-1].event == "error"
    assert whole[-1].json()["status_code"] == 499
    assert whole[-1].json()["message"] == "The run was cancelled on request."
    assert told(seen) + told(rest) == told(whole)
    assert '"cancelled"' in terminal.run(command('runs/$run"\n')).decode()
    assert told(decode_events(terminal.run(command('/stream"\n')))) == told(whole)


def test_a_script_gets_the_last_id_without_its_line_end(address: str) -> None:
    run = Terminal(address).run(command('echo "$run"')).decode().strip()
    terminal = Terminal(address, run=run)
    whole = decode_events(terminal.run(command('/stream"\n')))

    assert terminal.run(command("tr -d")).decode() == f"{whole[-1].id}\n"


def test_an_input_fits_a_parameter(address: str) -> None:
    events = decode_events(Terminal(address).run(command("--data-urlencode")))

    assert events[-1].event == "end"
    assert all(event.id for event in events)


def test_text_comes_as_text(address: str) -> None:
    text = Terminal(address).run(command("text/plain")).decode()

    assert "offline demo" in text
    assert "data:" not in text


def test_a_request_that_is_repeated_under_its_key_gets_the_same_run(address: str) -> None:
    terminal = Terminal(address)

    first, second = (decode_events(terminal.run(command("Idempotency-Key"))) for _ in range(2))

    assert told(first) == told(second)
    assert first[-1].event == "end"
    found = terminal.run(command("runs/cancel")).decode()
    assert '"status":"success"' in found  # It had ended, so nothing was left to do.


async def test_the_page_reads_its_run_to_the_end(address: str, browser: Browser) -> None:
    [script] = blocks("js")
    script = script.replace("source.close());", "{ source.close(); window.ended = true; });", 1)
    script = script.replace("console.log(", "window.said.push(")
    async with await browser.new_context(bypass_csp=True) as context:
        page = await context.new_page()
        await page.goto(f"http://{address}/")
        await page.evaluate(f"(async () => {{ window.said = []; {script} }})()")
        await page.wait_for_function("window.ended", timeout=20_000)
        assert "offline demo" in await page.evaluate("said.join('')")


@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_code_runs(block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
