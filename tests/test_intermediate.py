"""`stream_log` and `stream_events`: what a caller is told of a run's steps, and what not."""

import asyncio
import copy
import json
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import jsonpatch
import pytest
from fastapi import FastAPI
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.base import RunnableSerializable
from langchain_core.tools import tool
from langchain_core.tracers import log_stream
from langchain_core.tracers.log_stream import RunLogPatch

from chainserve import Chain, EndedRun, add_routes
from tests._apps import assert_problem, make_app, only_run
from tests._bridge import Response, open_stream, request
from tests._chains import GatedChain, echo, failing
from tests._pair_chains import (
    configurable_prompt,
    generic_model,
    text_chain,
    with_alternatives,
)
from tests._runs import decode, read_log, start_run

pytestmark = pytest.mark.anyio

STREAMS = ["stream_log", "stream_events"]
SECRET = "the system prompt"


def secretive(**options: Any) -> FastAPI:
    """Return an application whose chain has a step that no caller should see."""
    secret: Runnable[Any, Any] = RunnableLambda(lambda _: SECRET).with_config(run_name="secret")
    shown: Runnable[Any, Any] = RunnableLambda(lambda _: "shown").with_config(run_name="shown")
    return make_app(shown | secret | RunnableLambda(lambda _: "end"), **options)


async def ask(app: FastAPI, target: str, value: Any = 1, **members: Any) -> Response:
    return await request(app, "POST", f"/chain/{target}", json={"input": value, **members})


def data_of(response: Response) -> list[Any]:
    """Return the data of a stream that came to its end."""
    assert response.status == 200, response.text
    events = response.events()
    assert events[-1].event == "end", response.text
    return [event.json() for event in events[:-1]]


def names_of(target: str, response: Response) -> set[str]:
    """Return the names of the steps that a caller was told of, the root run's aside."""
    if target == "stream_log":
        ops = [op for data in data_of(response) for op in data["ops"]]
        return {op["path"].split("/")[2].split(":")[0] for op in ops if "/logs/" in op["path"]}
    return {event["name"] for event in data_of(response)} - {"/chain"}


# What is told.


@pytest.mark.parametrize("target", STREAMS)
async def test_every_step_is_told_of_unless_the_chain_says_otherwise(target: str) -> None:
    response = await ask(secretive(), target)

    assert names_of(target, response) >= {"secret", "shown"}
    assert SECRET in response.text


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("target", STREAMS)
@pytest.mark.filterwarnings("ignore:astream_events version='v1' is deprecated")
async def test_only_allowed_steps_and_the_root_run_are_told_of(target: str, version: str) -> None:
    app = secretive(stream_log_name_allow_list=["shown"], astream_events_version=version)

    response = await ask(app, target)

    assert names_of(target, response) == {"shown"}
    assert SECRET not in response.text
    assert '"final_output"' in response.text or "on_chain_end" in response.text


@pytest.mark.parametrize("target", STREAMS)
async def test_no_filter_of_a_caller_shows_what_is_not_allowed(target: str) -> None:
    app = secretive(stream_log_name_allow_list=["shown"])

    for members in (
        {"include_names": ["secret"]},
        {"include_types": ["chain"]},
        {"include_tags": ["seq:step:1"]},
        {"include_names": ["secret"], "include_tags": ["seq:step:1", "seq:step:2"]},
    ):
        response = await ask(app, target, **members)
        assert names_of(target, response) <= {"shown"}
        assert SECRET not in response.text


@pytest.mark.parametrize("target", STREAMS)
async def test_the_allow_list_holds_in_the_background_too(target: str) -> None:
    app = secretive(stream_log_name_allow_list=["shown"])

    run_id = await start_run(app, mode=target, include_tags=["seq:step:1"])
    events = await read_log(app, run_id)

    assert events[-1].event == "end"
    assert SECRET not in json.dumps([event.data for event in events])


@pytest.mark.parametrize("target", STREAMS)
@pytest.mark.parametrize("name", ["shown/final_output", "shown/streamed_output", "shown:2", "a~1b"])
async def test_a_steps_name_does_not_make_it_another_step(target: str, name: str) -> None:
    entry = {"id": "x", "name": "shown", "type": "chain", "secret": SECRET}
    hidden: Runnable[Any, Any] = RunnableLambda(lambda _: entry).with_config(run_name=name)
    shown: Runnable[Any, Any] = RunnableLambda(lambda _: "yes").with_config(run_name="shown")
    last: Runnable[Any, Any] = RunnableLambda(lambda _: "yes")
    app = make_app(shown | hidden | last, stream_log_name_allow_list=["shown"])

    response = await ask(app, target)

    assert SECRET not in response.text
    assert "yes" in response.text


@pytest.mark.parametrize("target", STREAMS)
async def test_of_a_steps_exception_its_class_alone_is_told(target: str) -> None:
    @tool
    def lookup(value: str) -> str:
        """Look a value up."""
        raise RuntimeError(SECRET)

    caught = lookup.with_fallbacks([RunnableLambda(lambda _: "sorry")], exception_key="error")
    lost: Runnable[Any, Any] = RunnableLambda(lambda _: {"value": "a"}) | lookup
    for runnable, name in ((lost, "lost"), (RunnableLambda(dict) | caught, "caught")):
        value = {"value": "a"}
        response = await ask(make_app(runnable), target, value)

        assert SECRET not in response.text
        assert response.events()[-1].event == ("error" if name == "lost" else "end")
    assert ("RuntimeError" in response.text) is (target == "stream_events")


@pytest.mark.parametrize("target", STREAMS)
async def test_a_chain_that_is_cancelled_from_within_has_not_succeeded(target: str) -> None:
    async def cancelled(_: Any) -> Any:
        helper = asyncio.create_task(asyncio.Event().wait())
        helper.cancel()
        await helper

    response = await ask(make_app(RunnableLambda(cancelled)), target)

    assert response.events()[-1].json()["status_code"] == 499


async def test_fields_that_a_caller_did_not_set_are_not_in_the_metadata() -> None:
    app = make_app(configurable_prompt() | with_alternatives("model", echo(), other=echo()))

    for field, noted in (("template", {}), ("model", {"model": "other"})):
        config = {"configurable": {field: "other"}}
        [first, *_] = data_of(await ask(app, "stream_events", {"topic": "x"}, config=config))
        assert first["metadata"] == noted


async def test_a_custom_event_of_the_root_run_is_told_of_by_its_own_name() -> None:
    async def dispatching(value: Any, config: RunnableConfig) -> Any:
        await adispatch_custom_event("progress", {"done": 1}, config=config)
        await adispatch_custom_event("secret", {"prompt": SECRET}, config=config)
        return value

    response = await ask(
        make_app(RunnableLambda(dispatching), stream_log_name_allow_list=["progress"]),
        "stream_events",
    )

    custom = [event for event in data_of(response) if event["event"] == "on_custom_event"]
    assert [(event["name"], event["data"]) for event in custom] == [("progress", {"done": 1})]


class Remote(RunnableSerializable[Any, Any]):
    """Has a log of its own, as a client of another server has."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return input

    async def astream_log(self, *args: Any, **kwargs: Any) -> AsyncIterator[RunLogPatch]:  # type: ignore[override]
        state: dict[str, Any] = {"id": "1", "streamed_output": [], "final_output": None, "logs": {}}
        yield RunLogPatch({"op": "replace", "path": "", "value": state})
        yield RunLogPatch({"op": "add", "path": "/logs/far", "value": {"final_output": SECRET}})
        yield RunLogPatch({"op": "add", "path": "/streamed_output/-", "value": "far"})


async def test_a_runnable_that_logs_by_itself_is_asked_for_its_log() -> None:
    response = await ask(make_app(Remote()), "stream_log")

    assert [op["path"] for data in data_of(response) for op in data["ops"]] == [
        "",
        "/logs/far",
        "/streamed_output/-",
    ]


async def test_of_a_log_from_elsewhere_only_the_root_run_is_allowed() -> None:
    app = make_app(Remote(), stream_log_name_allow_list=["far"])

    response = await ask(app, "stream_log")

    assert SECRET not in response.text
    assert "/streamed_output/-" in response.text


@pytest.mark.parametrize("target", STREAMS)
async def test_what_the_server_notes_for_itself_is_not_told(target: str) -> None:
    app = make_app(
        text_chain(),
        config_keys=["metadata"],
        per_req_config_modifier=lambda config, request: {
            **config,
            "metadata": {**config.get("metadata", {}), "__internal": SECRET, "tenant": "a"},
        },
    )

    response = await ask(app, target, {"topic": "cats"}, config={"metadata": {"mine": 1}})

    assert '"tenant":"a"' in response.text
    assert '"mine":1' in response.text
    assert "__" not in response.text


# What cannot be written, and what fails.


class Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr either")


def unwritable_values() -> dict[str, Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return {
        "a set": {1, 2},
        "bytes": b"\xff",
        "an exception": ValueError("wrong"),
        "a class": Unwritable,
        "an object without a repr": Unwritable(),
        "keys that are no text": {1: {(2, 3): "x"}},
        "a large int": 2**70,
        "a lone surrogate": "\ud800",
        "a cycle": cycle,
        "not a number": float("nan"),
    }


@pytest.mark.parametrize("target", STREAMS)
@pytest.mark.parametrize("name", [*unwritable_values()])
async def test_a_step_may_hold_what_has_no_json_form(target: str, name: str) -> None:
    value = unwritable_values()[name]
    chain: Runnable[Any, Any] = RunnableLambda(lambda _: {"value": value, "text": "kept"})
    response = await ask(make_app(chain | RunnableLambda(lambda _: "answer")), target)

    assert "kept" in response.text
    assert "answer" in response.text
    data_of(response)


@pytest.mark.parametrize("target", STREAMS)
async def test_a_failure_ends_the_stream_as_it_ends_any(target: str) -> None:
    response = await ask(make_app(failing(after=1)), target)

    assert response.events()[-1].event == "error"
    assert response.events()[-1].json() == {"status_code": 500, "message": "Internal Server Error"}


# One way with all streams: runs, wires, cancelling, hooks.


@pytest.mark.parametrize("target", STREAMS)
@pytest.mark.parametrize("mode", ["post", "background"])
async def test_a_stream_of_steps_is_resumed_like_any(target: str, mode: str) -> None:
    app = make_app(text_chain())
    if mode == "background":
        run_id = await start_run(app, {"topic": "cats"}, mode=target)
        whole = await read_log(app, run_id)
    else:
        response = await request(
            app,
            "POST",
            f"/chain/{target}",
            json={"input": {"topic": "cats"}, "on_disconnect": "continue"},
            headers={"prefer": "resumable"},
        )
        whole = decode("id", response.body)
        run_id = whole[0].data["run_id"]
    assert (whole[0].event, whole[-1].event) == ("metadata", "end")

    for event in whole[:-1]:
        rest = await read_log(app, run_id, after=event.id)
        assert rest == whole[event.seq + 1 :]
    again = await request(
        app,
        "POST",
        f"/chain/{target}",
        json={"input": {"topic": "cats"}},
        headers={"last-event-id": whole[2].id},
    )
    assert decode("id", again.body) == whole[3:]


@pytest.mark.parametrize("target", STREAMS)
async def test_a_background_run_has_the_mode_and_the_final_output(target: str) -> None:
    app = make_app(text_chain())
    run_id = await start_run(app, {"topic": "cats"}, mode=target)
    await read_log(app, run_id)

    shown = (await request(app, "GET", f"/chain/runs/{run_id}")).json()

    assert (shown["mode"], shown["status"]) == (target, "success")
    invoked = await ask(app, "invoke", {"topic": "cats"})
    assert shown["output"] == invoked.json()["output"]


async def test_a_mode_is_there_where_its_endpoint_is() -> None:
    app = make_app(echo(), enabled_endpoints=["stream_events", "invoke", "runs"])

    response = await request(app, "POST", "/chain/runs", json={"input": 1, "mode": "stream_log"})

    problem = assert_problem(response, 422, "invalid_input")
    assert "invoke, stream_events" in problem["message"]
    assert (await request(app, "POST", "/chain/stream_log", json={"input": 1})).status == 404


@pytest.mark.parametrize("target", STREAMS)
async def test_leaving_cancels_the_run(target: str) -> None:
    chain = GatedChain(["a", "b"], before=1)
    app = make_app(chain)

    async with open_stream(app, "POST", f"/chain/{target}", json={"input": 1}) as response:
        await response.next_event()
        run = only_run(app)
        async with asyncio.timeout(20):
            await chain.reached[1].wait()

    async with asyncio.timeout(1):
        await run.ended.wait()
    assert run.status == "cancelled"
    assert chain.cancellations == 1


@pytest.mark.parametrize("target", STREAMS)
async def test_a_deadline_between_two_steps_ends_the_stream(target: str) -> None:
    app = FastAPI()
    chain = GatedChain(["a", "b"], before=1)
    add_routes(app, Chain(path="/chain", runnable=chain, run_timeout=0.05))

    response = await ask(app, target)

    assert response.events()[-1].json()["status_code"] == 504


@pytest.mark.parametrize("target", STREAMS)
async def test_the_hook_is_told_what_a_run_had_said(target: str) -> None:
    ended: list[EndedRun] = []
    done = asyncio.Event()

    async def on_end(run: EndedRun) -> None:
        ended.append(run)
        done.set()

    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=failing(after=2), on_end=on_end))
    response = await ask(app, target)
    async with asyncio.timeout(20):
        await done.wait()

    [run] = ended
    assert (run.mode, run.status) == (target, "error")
    assert run.output
    assert str(run.output) in "".join(str(data) for data in _root_chunks(target, response))


def _root_chunks(target: str, response: Response) -> Iterator[Any]:
    for event in response.events():
        if event.event != "data":
            continue
        if target == "stream_log":
            ops = event.json()["ops"]
            yield from (op["value"] for op in ops if op["path"] == "/streamed_output/-")
        elif event.json()["event"] == "on_chain_stream":
            yield event.json()["data"]["chunk"]


# LangChain's log, which is deprecated.


async def test_a_run_log_is_served_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        response = await ask(make_app(text_chain()), "stream_log", {"topic": "cats"})

    assert data_of(response)
    assert not recwarn.list


def test_langchain_still_has_what_the_run_log_is_made_with() -> None:
    """Fails when langchain-core removes it: `stream_log` then needs an implementation of ours."""
    assert callable(Runnable.astream_log)
    assert callable(log_stream._astream_log_implementation)
    assert callable(log_stream.LogStreamCallbackHandler.include_run)
    assert callable(log_stream.LogStreamCallbackHandler._on_run_create)


CHAINS: dict[str, tuple[Callable[[], Runnable[Any, Any]], Any]] = {
    "prompt, model and parser": (text_chain, {"topic": "cats"}),
    "function": (lambda: RunnableLambda(str), 1),
    "nested": (
        lambda: ChatPromptTemplate.from_template("{a}") | (generic_model() | StrOutputParser()),
        {"a": "x"},
    ),
}


@pytest.mark.parametrize("name", [*CHAINS])
async def test_a_run_log_is_the_one_that_langchain_makes(name: str) -> None:
    make, value = CHAINS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patches = [patch async for patch in make().astream_log(value)]
    expected = _state([op for patch in patches for op in patch.ops])

    response = await ask(make_app(make()), "stream_log", value)
    state = _state([op for data in data_of(response) for op in data["ops"]])

    assert state["final_output"] == expected["final_output"]
    assert state["streamed_output"] == expected["streamed_output"]
    assert [*state["logs"]] == [*expected["logs"]]


def _state(ops: list[Any]) -> Any:
    state = jsonpatch.apply_patch(None, copy.deepcopy(ops))
    return json.loads(json.dumps(state, default=lambda obj: obj.model_dump()))
