"""`docs/migration.md`: its steps are done as it says, and each row of its tables has its tests."""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import langserve
import pytest
from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda
from langserve.server import KNOWN_ENDPOINTS

from chainserve import CustomUserType
from chainserve.cli import main
from chainserve.migrate import is_looked_at
from tests._bridge import request
from tests._pairs import normalised
from tests._processes import ROOT, ServerProcess
from tests._system import require_program

pytestmark = pytest.mark.timeout(180)  # A slow machine imports LangChain for ten seconds.

TEXT = (ROOT / "docs" / "migration.md").read_text()
ADDRESS = "127.0.0.1:8000"
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
FILES = ("server.py", "requirements.txt", "ask.py")
ANSWER = "It is on its way."


def blocks(language: str) -> list[str]:
    """Return the document's code in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def file(name: str) -> str:
    """Return the block that the text says to save under a name."""
    pattern = rf"Save this as `{re.escape(name)}`:\n\n```\w+\n(.*?)^```$"
    [block] = re.findall(pattern, TEXT, flags=re.MULTILINE | re.DOTALL)
    return str(block)


def desk(folder: Path) -> Path:
    """Write the document's application into a folder."""
    for name in FILES:
        (folder / name).write_text(file(name))
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application as it was."""
    return desk(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application after the command, which is all that is done to it."""
    folder = desk(tmp_path_factory.mktemp("after"))
    assert main(["migrate", "--write", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def servers(before: Path, after: Path) -> Iterator[dict[str, int]]:
    """The ports of both, each started as the document says."""
    [command] = [line for line in commands() if line.startswith("uvicorn")]
    arguments = ["-m", *shlex.split(command.replace("8000", "0"))]
    processes = {
        folder.name[:5]: ServerProcess(arguments, ENVIRONMENT, folder) for folder in (before, after)
    }
    try:
        yield {name: process.port() for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.close()


def commands() -> list[str]:
    return [line.removeprefix("$ ") for line in "".join(blocks("console")).splitlines()]


def run(*command: str, directory: Path = ROOT) -> bytes:
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT},
        cwd=directory,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_are_these() -> None:
    assert commands() == [
        'pip install "/path/to/chainserve[all]"',
        "chainserve migrate .",
        "chainserve migrate --write .",
        "uvicorn server:app --port 8000",
        "python ask.py http://127.0.0.1:8000/desk",
    ]


def test_the_command_shows_what_the_document_shows(
    before: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(before)

    assert main(["migrate", "."]) == 0
    shown = capfd.readouterr()
    assert [shown.out] == blocks("diff")
    assert shown.err in blocks("text")


def test_what_is_left_by_hand_is_told_as_the_document_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.py").write_text("\n\nfrom langserve.pydantic_v1 import BaseModel, Field\n")
    monkeypatch.chdir(tmp_path)

    assert main(["migrate", "old.py"]) == 3
    assert capfd.readouterr().err.splitlines(keepends=True)[0] in blocks("text")
    assert "The exit code is 3 then." in TEXT


@pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute:DeprecationWarning")
async def test_the_types_of_the_two_packages_do_not_mix() -> None:
    class Order(CustomUserType):
        number: int

    def name_of_type(order: Any) -> str:
        return type(order).__name__

    app = FastAPI()
    chain = RunnableLambda(name_of_type).with_types(input_type=Order)
    langserve.add_routes(app, chain, path="/orders")
    answer = await request(app, "POST", "/orders/invoke", json={"input": {"number": 7}})

    assert answer.json()["output"] == "dict"
    assert "a `CustomUserType` of ours gets a dict" in TEXT


def test_nothing_is_left_to_change(after: Path) -> None:
    assert main(["migrate", "--check", str(after)]) == 0


@pytest.mark.parametrize("block", blocks("bash"))
def test_curl_gets_the_same_of_both(block: str, servers: dict[str, int]) -> None:
    require_program("curl", package="curl")
    answers = []
    for port in servers.values():
        command = block.replace(ADDRESS, f"127.0.0.1:{port}").replace("curl ", "curl -sS --fail ")
        answers.append(normalised(run("bash", "-ec", command)))

    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert answers[0]


def test_a_client_made_from_the_document_is_made_anew(servers: dict[str, int]) -> None:
    operations, schemas = [], []
    for port in servers.values():
        document = httpx.get(f"http://127.0.0.1:{port}/openapi.json").json()
        operations.append(
            {
                f"{method} {path}": operation["operationId"]
                for path, methods in document["paths"].items()
                for method, operation in methods.items()
            }
        )
        schemas.append({*document["components"]["schemas"]})
    theirs, ours = operations
    hashed = {name for name in theirs if "{config_hash}" in name}

    assert len(hashed) > len(theirs) / 3
    assert {*theirs} - {*ours} == hashed
    assert all(ours[name] != theirs[name] for name in theirs.keys() & ours.keys())
    assert schemas[0] - schemas[1]


def test_the_files_that_are_said_to_be_looked_at_are_those() -> None:
    [sentence] = re.findall(r"^Looked at are (.*?)\.\s[A-Z]", TEXT, re.MULTILINE | re.DOTALL)
    names = re.findall(r"`([^`]+)`", sentence)

    assert len(names) > 9
    for name in names:
        assert is_looked_at(Path(name.replace("*", "x"))), name
    assert not is_looked_at(Path("README.md"))


def test_langserves_client_asks_either(servers: dict[str, int]) -> None:
    [code] = [block for block in blocks("python") if ADDRESS in block]
    for port in servers.values():
        printed = run(sys.executable, "-c", code.replace(ADDRESS, f"127.0.0.1:{port}"))
        assert printed.decode() == f"{ANSWER}\n"


def test_each_applications_client_asks_the_new_server(
    before: Path, after: Path, servers: dict[str, int]
) -> None:
    expected = f"{ANSWER}\n{'|'.join(ANSWER)}|\n"
    for folder in (before, after):
        url = f"http://127.0.0.1:{servers['after']}/desk"
        assert run(sys.executable, "ask.py", url, directory=folder).decode() == expected


# The tables. A test is `file::function`, or `file::function[key]` with a key that its cases have.

BYTES = "test_langserve_pairs.py::test_both_answer_the_same_bytes"
STEPS = "test_langserve_events.py::test_both_tell_the_same_steps_in_the_same_bytes"
DIFFER = "test_langserve_differences.py::test_they_differ_on_purpose"
REFUSE = "test_langserve_differences.py::test_both_refuse_with_the_same_status_and_detail"
NAMES = "test_modules.py::test_every_public_name_of_a_module_is_in_its_counterpart"
SERVERS = "migration/test_examples.py::test_an_example_answers_the_same_after_the_command"
LEFT = (
    "migration/test_python.py::test_what_cannot_be_exchanged_stays_and_is_told_with_what_to_write"
)
FEEDBACK = "test_feedback.py::test_both_answer_the_same"
LISTS = "test_add_routes.py::test_a_disabled_endpoint_is_404_and_the_others_are_there"
VERBS = "test_client.py::test_both_clients_read_the_same_answers_of_every_verb"

HELD_BY: dict[str, list[str]] = {
    # Endpoints.
    "POST invoke": [f"{BYTES}[invoke: retry]", SERVERS],
    "POST batch": [
        f"{BYTES}[batch: every plain value]",
        "test_bad_input.py::test_a_batch_over_the_default_bound_is_refused",
    ],
    "POST stream": [f"{BYTES}[stream: many chunks]", f"{DIFFER}[U+2028]"],
    "POST stream_log": [
        STEPS,
        "test_intermediate.py::test_what_the_server_notes_for_itself_is_not_told",
    ],
    "POST stream_events": [
        STEPS,
        "test_intermediate.py::test_a_step_may_hold_what_has_no_json_form",
        "test_intermediate.py::test_of_a_steps_exception_its_class_alone_is_told",
        "test_intermediate.py::test_fields_that_a_caller_did_not_set_are_not_in_the_metadata",
    ],
    "GET input_schema": [f"{BYTES}[a CustomUserType]", SERVERS],
    "GET output_schema": [f"{BYTES}[a CustomUserType]", SERVERS],
    "GET config_schema": [
        f"{BYTES}[no keys]",
        "test_config.py::test_a_refused_field_is_not_offered_by_the_config_schema",
    ],
    "c/{config_hash}/…": [
        "test_config_hash.py::test_a_chain_is_given_what_langserve_gives_it",
        "test_config_hash.py::test_the_bound_is_for_the_config_alone_however_badly_it_compresses",
    ],
    "GET playground/": [
        "test_playground.py::test_an_answer_is_seen_while_the_chain_waits_and_then_finished"
    ],
    "LangServe's playground": [
        "test_langserve_playground.py::test_it_runs_a_chain_and_shows_the_answer"
    ],
    "POST feedback": [f"{FEEDBACK}[feedback with a comment]"],
    "HEAD feedback": [
        f"{FEEDBACK}[HEAD feedback]",
        "test_feedback.py::test_without_tracing_nothing_can_be_sent_and_head_says_so",
    ],
    "POST token_feedback": [
        f"{FEEDBACK}[token feedback]",
        "test_feedback.py::test_a_token_of_another_place_is_refused_before_anything_is_asked",
    ],
    "PUT public_trace_link": [
        f"{FEEDBACK}[a link]",
        "test_feedback.py::test_a_link_alone_works_with_us",
    ],
    "HEAD public_trace_link": [
        "test_feedback.py::test_without_tracing_nothing_can_be_sent_and_head_says_so"
    ],
    "openapi.json": ["test_docs_migration.py::test_a_client_made_from_the_document_is_made_anew"],
    "a path with a slash at its end": [
        f"{DIFFER}[a path with a slash at its end is answered directly]"
    ],
    "sync steps of chains": [
        "test_langserve_limits.py::test_sync_steps_of_many_callers_do_not_wait_for_each_other"
    ],
    "a client that leaves": [
        "test_disconnect.py::test_a_run_whose_only_reader_leaves_is_cancelled_at_once",
        "test_disconnect.py::test_a_whole_batch_is_cancelled_when_its_client_leaves",
    ],
    # Requests and errors.
    "422 with detail": [f"{REFUSE}[no JSON]"],
    "500 as plain text": [f"{DIFFER}[an unexpected error is a problem document]"],
    "an HTTPException of the chain": [
        f"{DIFFER}[HTTPException keeps its status in a stream]",
        "test_add_routes.py::test_fastapis_answer_to_an_http_exception_of_the_chain_stays",
    ],
    "an exception with a status and a detail": [
        f"{DIFFER}[an error with a status and a detail of its own keeps them]"
    ],
    "a bad item of a batch": [f"{DIFFER}[a bad item of a batch is the caller's mistake]"],
    "config: null": [f"{DIFFER}[config may be null]"],
    "a provider's rate limit, time-out or outage": [
        f"{DIFFER}[a provider's error is not the server's]",
        "test_upstream.py::test_a_failing_provider_is_a_status_of_its_own",
        "test_upstream.py::test_a_provider_that_hangs_is_a_timeout",
    ],
    "JSON sent as text/plain": [f"{DIFFER}[another media type is refused]"],
    "a body over 10 MiB": [
        "test_bad_input.py::test_a_body_that_announces_too_much_is_refused_unread"
    ],
    "kwargs": [
        f"{BYTES}[invoke: kwargs are not used]",
        "test_graphs.py::test_a_caller_may_send_arguments_that_are_listed",
    ],
    "an output with a key root": [f"{DIFFER}[the key root is kept]"],
    "an output that does not fit the inferred schema": [
        f"{DIFFER}[an inferred schema does not refuse]",
        f"{BYTES}[invoke: a declared output type converts]",
        f"{BYTES}[invoke: an output type declared by with_types leaves keys out]",
    ],
    # Options.
    "app": [f"{BYTES}[a router included with a prefix]", f"{BYTES}[a sub-application]"],
    "runnable": [
        BYTES,
        "test_add_routes.py::test_options_beside_a_chain_are_refused_by_name",
    ],
    "path": [f"{BYTES}[the empty path]", f"{BYTES}[beside other chains]"],
    "input_type": [f"{BYTES}[an input declared to be]", SERVERS],
    "output_type": [f"{BYTES}[invoke: a declared output type converts]"],
    "config_keys": [
        f"{BYTES}[unknown keys]",
        "test_config.py::test_a_key_can_be_set_where_the_chain_allows_it",
    ],
    "include_callback_events": [
        "test_callback_events.py::test_both_tell_the_same_of_a_run",
        "test_callback_events.py::test_only_we_tell_of_models_and_tools",
    ],
    "per_req_config_modifier": [
        f"{BYTES}[a modifier that refuses]",
        f"{DIFFER}[a batch keeps the server's part of the config]",
    ],
    "enable_feedback_endpoint": [
        "test_feedback.py::test_routes_are_where_the_options_and_lists_say"
    ],
    "token_feedback_config": [
        "test_feedback.py::test_no_chunk_is_lost_to_a_token_and_metadata_comes_first",
        "test_feedback.py::test_no_answer_fails_with_langsmith",
    ],
    "enable_public_trace_link_endpoint": [
        "test_feedback.py::test_routes_are_where_the_options_and_lists_say"
    ],
    "disabled_endpoints": [f"{BYTES}[all but invoke and stream]", LISTS],
    "enabled_endpoints": [
        f"{BYTES}[only batch]",
        "test_add_routes.py::test_an_enabled_endpoint_is_the_only_one",
        "test_runs.py::test_modes_and_routes_follow_the_endpoint_lists",
    ],
    "stream_log_name_allow_list": [
        "test_intermediate.py::test_only_allowed_steps_and_the_root_run_are_told_of",
        "test_langserve_defects.py::test_an_allow_list_works_for_a_sequence",
    ],
    "dependencies": [f"{BYTES}[a dependency that refuses]", SERVERS],
    "playground_type": ["test_pages.py::test_the_page_learns_of_its_chain_from_chain_json"],
    "astream_events_version": [STEPS, SERVERS],
    "serializer": [f"{BYTES}[a serializer of the user's]", SERVERS],
    # Names.
    "langserve": ["test_modules.py::test_every_public_name_of_the_package_is_there"],
    **{
        f"langserve.{name}": [f"{NAMES}[{name}]"]
        for name in (
            "api_handler",
            "callbacks",
            "client",
            "schema",
            "serialization",
            "server",
            "validation",
            "version",
        )
    },
    "langserve.pydantic_v1": [
        "test_modules.py::test_pydantic_v1_says_what_to_write_instead",
        f"{LEFT}[from langserve.pydantic_v1 import]",
    ],
    "langserve.lzstring": [
        "test_lzstring.py::test_a_text_is_compressed_as_lz_string_compresses_it",
        f"{LEFT}[from langserve.lzstring import LZString]",
    ],
    "langserve.playground": [f"{LEFT}[from langserve.playground import]"],
    "langserve.server_sent_events": [f"{LEFT}[from langserve.server_sent_events import]"],
    "names with an underscore": [f"{LEFT}[_register_path_for_app]"],
    "APIHandler": [
        "test_api_handler.py::test_both_handlers_answer_the_same",
        "test_api_handler.py::test_the_models_of_the_bodies_take_what_langserves_take",
    ],
    "CustomUserType": [f"{BYTES}[a CustomUserType]"],
    "WellKnownLCSerializer": [f"{BYTES}[batch: every kind of output]"],
    # Clients.
    "LangServe's RemoteRunnable": [
        "test_langserve_client.py::test_every_verb_answers_as_the_chain_does_in_process"
    ],
    "LangChain.js 0.3's RemoteRunnable": [
        "test_langchain_js.py::test_it_gets_the_same_values_of_both_and_errors_that_it_can_print"
    ],
    "chat-ui, assistant-ui, nlux, fetch-event-source": [
        "test_third_party_clients.py::test_clients_of_langserve_get_the_same_of_both_servers"
    ],
    "RemoteRunnable(url, …)": [
        "test_client.py::test_the_requests_are_those_of_langserves_client",
        "test_client.py::test_no_time_out_is_none_unless_it_is_said",
    ],
    "invoke, ainvoke": [VERBS],
    "batch, abatch": [VERBS, "test_client.py::test_exceptions_are_returned_for_each_input"],
    "stream, astream": [
        VERBS,
        "test_client.py::test_a_stream_that_ends_early_is_no_success",
    ],
    "astream_log": ["test_client.py::test_both_clients_read_the_same_steps"],
    "astream_events": ["test_client.py::test_both_clients_read_the_same_steps"],
    "sync_client, async_client": [
        "test_client.py::test_the_clients_may_be_replaced",
        "test_client.py::test_a_test_may_answer_in_the_place_of_a_server",
        "test_client_connections.py::test_the_library_whose_objects_are_given_is_used",
    ],
    "errors": [
        "test_client.py::test_a_refusal_keeps_the_servers_detail",
        "test_client_connections.py::test_what_one_library_raises_is_caught_as_the_others_too",
    ],
    "use_server_callback_events": [
        "test_callback_events.py::test_a_clients_callbacks_are_told_what_happened_on_the_server",
        "test_callback_events.py::test_a_client_may_leave_them_out",
    ],
    "last_run": ["test_client.py::test_the_last_run_is_known_in_each_task"],
    "start, join, wait, get_run, cancel": [
        "test_client_runs.py::test_a_run_in_the_background_is_started_joined_and_waited_for",
        "test_client_runs.py::test_a_run_is_cancelled_once_however_often_it_is_asked",
    ],
}


def rows() -> list[list[str]]:
    """Return the cells of all rows, without their markup."""
    tables = TEXT.partition("## What is the same, and what is not")[2]
    lines = re.findall(r"^\| (.*) \|$", tables, re.MULTILINE)
    return [[re.sub(r"[`*]", "", cell).strip() for cell in line.split(" | ")] for line in lines]


def test_each_row_has_its_tests() -> None:
    first = [row[0] for row in rows() if row[0] != "LangServe 0.3.3"]

    assert len(first) == len({*first})
    assert {*first} == {*HELD_BY}


def test_each_row_that_differs_says_why_or_what_is_new() -> None:
    for row in rows():
        assert row[1], row
        if row[1] == "same":
            assert len(row) == 2 or not row[2].strip(" |"), row


@cache
def names_in(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", HELD_BY)
def test_the_tests_of_a_row_are_there(row: str) -> None:
    for test in HELD_BY[row]:
        name, _, rest = test.partition("::")
        function, _, key = rest.removesuffix("]").partition("[")
        path = ROOT / "tests" / name
        assert function in names_in(path), test
        assert key in path.read_text(), test


def test_every_option_endpoint_module_and_name_of_langserves_has_a_row() -> None:
    options = set(inspect.signature(langserve.add_routes).parameters)
    modules = {f"langserve.{path.stem}" for path in Path(langserve.__path__[0]).glob("[!_]*.py")}
    first = " ".join(row[0] for row in rows())

    assert options <= {*HELD_BY}
    assert modules <= {*HELD_BY}
    for name in (set(KNOWN_ENDPOINTS) - {"config_hashes"}) | {*langserve.__all__}:
        assert name in first or name in TEXT, name


def test_every_public_method_of_langserves_client_has_a_row() -> None:
    own: Any = vars(langserve.RemoteRunnable)
    methods = {name for name, value in own.items() if callable(value) and name[0] != "_"}
    assert methods
    for name in methods:
        assert any(name in row[0].split(", ") for row in rows()), name
