"""Who may see and steer a run: its owner alone, and only below the path that started it."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import anyio.lowlevel
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from langchain_core.runnables import Runnable
from starlette.requests import Request

from chainserve import Chain, add_routes, add_stream_route, create_app
from chainserve.lzstring import compress
from chainserve.settings import Settings
from chainserve.types import RunId
from tests._apps import assert_problem, executor_of, make_app, only_run
from tests._bridge import Response, open_stream, request
from tests._chains import GatedChain, echo, streaming
from tests._verbs import VERBS, ask, body_of

pytestmark = pytest.mark.anyio

BY_KEY = {"endpoint": "runs", "idempotency_key": "key"}
HASH = compress("{}")
ANN, BEN, NOBODY = {"x-user": "ann"}, {"x-user": "ben"}, dict[str, str]()


def by_name(request: Request) -> str | None:
    return request.headers.get("x-user")


async def by_name_later(request: Request) -> str | None:
    await asyncio.sleep(0)
    return request.headers.get("x-user")


class ByName:
    """A principal that is an object, which answers with something to wait for."""

    def __call__(self, request: Request) -> Any:
        return by_name_later(request)


PRINCIPALS: dict[str, Callable[[Any], Any]] = {
    "a function": by_name,
    "a coroutine function": by_name_later,
    "an object": ByName(),
}


def on_the_chain(runnable: Runnable[Any, Any], principal: Any) -> FastAPI:
    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=runnable, principal=principal))
    return app


def on_the_application(runnable: Runnable[Any, Any], principal: Any) -> FastAPI:
    return create_app([Chain(path="/chain", runnable=runnable)], Settings(), principal=principal)


WHERE = [on_the_chain, on_the_application]


class Probe(NamedTuple):
    """A request for a run that somebody may know or not."""

    method: str
    target: str
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    body: Any = None


@dataclass
class Known:
    """What is known of a run: enough to ask for it in every way there is."""

    run_id: str
    cursor: str

    def probes(self, path: str = "/chain") -> list[Probe]:
        """Return a request for each way."""
        run, by_header = f"{path}/runs/{self.run_id}", {"last-event-id": self.cursor}
        by_query = f"last_event_id={self.cursor}"
        return [
            Probe("GET", run),
            Probe("GET", f"{run}/"),
            Probe("GET", run, {"prefer": "wait=5"}),
            Probe("GET", f"{path}/c/{HASH}/runs/{self.run_id}"),
            Probe("GET", f"{run}/stream"),
            Probe("GET", f"{run}/stream", by_header),
            Probe("GET", f"{run}/stream?{by_query}"),
            Probe("GET", f"{run}/stream?format=text"),
            Probe("GET", f"{run}/stream", {"accept": "application/x-ndjson"}),
            Probe("POST", f"{path}/stream", by_header, {"input": 1}),
            Probe("POST", f"{path}/stream?{by_query}", {}, {"input": 1}),
            Probe("GET", f"{path}/stream?input=1", by_header),
            Probe("GET", f"{path}/stream?input=1&{by_query}"),
            Probe("POST", f"{run}/cancel"),
            Probe("POST", f"{path}/runs/cancel", {}, BY_KEY),
            Probe("DELETE", run),
        ]


async def send(app: FastAPI, probe: Probe, headers: dict[str, str]) -> Response:
    options: Any = {"headers": {**headers, **probe.headers}}
    if probe.body is not None:
        options["json"] = probe.body
    return await request(app, probe.method, probe.target, **options)


@asynccontextmanager
async def live_run(
    app: FastAPI, chain: GatedChain, headers: dict[str, str], path: str = "/chain"
) -> AsyncIterator[Known]:
    """Start a run that stops at its second chunk, and let it end."""
    headers = {**headers, "idempotency-key": BY_KEY["idempotency_key"]}
    started = await request(app, "POST", f"{path}/runs", json={"input": 1}, headers=headers)
    assert started.status == 202, started.text
    run_id = started.json()["run_id"]
    async with asyncio.timeout(20):
        await chain.reached[1].wait()
    yield await known(app, run_id)
    chain.gate.set()
    await until_ended(app, run_id)


async def known(app: FastAPI, run_id: str) -> Known:
    """Return a cursor of a run as its owner would have it from the stream."""
    record = await executor_of(app).store.get(RunId(run_id))
    assert record is not None
    return Known(run_id, f"{short(run_id)}.{record.epoch}.0")


def short(run_id: str) -> str:
    """Return a run's id as its cursors have it."""
    return urlsafe_b64encode(UUID(run_id).bytes).rstrip(b"=").decode()


async def until_ended(app: FastAPI, run_id: str) -> None:
    if (run := executor_of(app).find(RunId(run_id))) is not None:
        async with asyncio.timeout(20):
            await run.ended.wait()


def nobodys(run: Known) -> Known:
    """Return what would be known of a run that never was."""
    run_id = str(uuid4())
    return Known(run_id, f"{short(run_id)}.{run.cursor.split('.')[1]}.0")


async def assert_hidden(
    app: FastAPI, run: Known, headers: dict[str, str], path: str = "/chain"
) -> None:
    """Assert that a caller is told of a run what it is told of one that never was."""
    unknown = nobodys(run)
    for probe, same in zip(run.probes(path), unknown.probes(path), strict=True):
        answer, expected = await send(app, probe, headers), await send(app, same, headers)
        assert_problem(answer, 404, "run_not_found")
        assert (answer.status, answer.body) == (expected.status, expected.body), probe
        kept = [header for header in answer.headers.raw if header[0] != b"x-request-id"]
        assert kept == [header for header in expected.headers.raw if header[0] != b"x-request-id"]
    listed = await request(app, "GET", f"{path}/runs", headers=headers)
    assert run.run_id not in listed.text


async def assert_seen(
    app: FastAPI, run: Known, headers: dict[str, str], path: str = "/chain"
) -> None:
    """Assert that a caller is answered in every way; the run is forgotten by that."""
    for probe in run.probes(path):
        answer = await send(app, probe, headers)
        assert answer.status in (200, 204), (probe, answer.text)


# Principals.


@pytest.mark.parametrize("make", WHERE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("kind", PRINCIPALS)
async def test_a_run_is_its_owners_alone_while_it_lives_and_afterwards(
    make: Callable[..., FastAPI], kind: str
) -> None:
    chain = GatedChain()
    app = make(chain, PRINCIPALS[kind])
    async with live_run(app, chain, ANN) as run:
        for others in (BEN, NOBODY):
            await assert_hidden(app, run, others)
        live = executor_of(app).find(RunId(run.run_id))
        assert live is not None
        assert live.cancel_reason is None
    for others in (BEN, NOBODY):
        await assert_hidden(app, run, others)
    assert (await request(app, "GET", f"/chain/runs/{run.run_id}", headers=ANN)).status == 200

    await assert_seen(app, run, ANN)
    await assert_hidden(app, run, ANN)


async def test_a_run_of_somebody_unknown_is_not_of_somebody_known() -> None:
    chain = GatedChain()
    app = on_the_chain(chain, by_name)
    async with live_run(app, chain, NOBODY) as run:
        await assert_hidden(app, run, ANN)
        assert (await request(app, "GET", f"/chain/runs/{run.run_id}")).status == 200


async def test_those_whom_nobody_knows_are_not_shown_each_others_runs() -> None:
    app = on_the_chain(echo(), by_name)
    await ask(app, "invoke", headers=NOBODY)

    assert_problem(await request(app, "GET", "/chain/runs"), 403, "principal_required")


async def test_owners_are_told_apart_to_the_letter() -> None:
    chain = GatedChain()
    chain.gate.set()
    app = on_the_chain(chain, by_name)
    async with live_run(app, chain, ANN) as run:
        for name in ("Ann", "ann ", "", "None", "null"):
            header = {"x-user": name}
            answer = await request(app, "GET", f"/chain/runs/{run.run_id}", headers=header)
            assert_problem(answer, 404, "run_not_found")


async def test_the_chains_principal_goes_before_the_applications() -> None:
    chain = GatedChain()
    chain.gate.set()
    declared = Chain(path="/chain", runnable=chain, principal=by_name)
    app = create_app([declared], Settings(), principal=lambda _: "everybody")
    async with live_run(app, chain, ANN) as run:
        await assert_hidden(app, run, BEN)


@pytest.mark.parametrize("make", WHERE, ids=lambda make: make.__name__)
async def test_the_runs_of_a_batch_and_of_a_plain_invoke_are_their_owners_alone(
    make: Callable[..., FastAPI],
) -> None:
    app = make(echo(), by_name)
    batch = await ask(app, "batch", headers=ANN)
    invoke = await ask(app, "invoke", headers=ANN)
    run_ids = [*batch.json()["metadata"]["run_ids"], invoke.json()["metadata"]["run_id"]]
    for run_id in run_ids:
        await assert_hidden(app, await known(app, run_id), BEN)
        assert (await request(app, "GET", f"/chain/runs/{run_id}", headers=ANN)).status == 200


async def test_a_plain_route_resumes_its_owners_runs_alone() -> None:
    app = FastAPI()
    declared = Chain(path="/unused", runnable=streaming("a", "b"), principal=by_name)
    add_stream_route(app, declared, "/plain")
    stream = await request(app, "POST", "/plain", json=1, headers=ANN)
    cursor = stream.events()[0].id
    assert cursor is not None
    for method, body in (("POST", b"1"), ("GET", b"")):
        for headers in (BEN, NOBODY, ANN):
            options: Any = {"content-type": "application/json", "last-event-id": cursor}
            answer = await request(app, method, "/plain", body=body, headers={**headers, **options})
            if headers is ANN:
                assert [event.data for event in answer.events()][:2] == ["a", "b"]
            else:
                assert_problem(answer, 404, "run_not_found")


async def test_a_principal_that_refuses_guards_every_verb() -> None:
    def strict(request: Request) -> str:
        if "x-user" not in request.headers:
            raise HTTPException(401, "Who is it?", {"www-authenticate": "Bearer"})
        return request.headers["x-user"]

    chain = GatedChain()
    app = on_the_chain(chain, strict)
    async with live_run(app, chain, ANN) as run:
        started = chain.started
        for probe in [*run.probes(), *starts(), Probe("GET", "/chain/runs")]:
            answer = await send(app, probe, NOBODY)
            assert answer.status == 401, probe
            assert answer.headers["www-authenticate"] == "Bearer"
        assert chain.started == started


async def test_a_principal_that_fails_lets_nobody_in() -> None:
    def broken(request: Request) -> str:
        raise KeyError("secret-reason")

    app = on_the_chain(echo(), broken)
    for probe in [*Known(str(uuid4()), "").probes()[:1], *starts(), Probe("GET", "/chain/runs")]:
        answer = await send(app, probe, ANN)
        assert_problem(answer, 500, "internal_error")
        assert "secret-reason" not in answer.text
    assert not executor_of(app).live


def starts() -> list[Probe]:
    """Return a request for each way to start a run."""
    return [
        *(Probe("POST", f"/chain/{verb}", {}, body_of(verb)) for verb in VERBS),
        Probe("POST", "/chain/stream", {"prefer": "resumable"}, body_of("stream")),
        Probe("POST", "/chain/runs", {}, {"input": 1}),
        Probe("POST", "/chain/runs", {}, {"input": 1, "mode": "invoke"}),
        Probe("GET", "/chain/stream?input=1"),
    ]


# What others may not do to a run although they know its id or key.


KEY = {"idempotency-key": "k"}
KEYED = [
    *(Probe("POST", f"/chain/{verb}", KEY, body_of(verb)) for verb in VERBS),
    Probe("POST", "/chain/runs", KEY, {"input": 1}),
    Probe("GET", "/chain/stream?input=1", KEY),
    Probe("GET", "/chain/stream?input=1&idempotency_key=k"),
]


def run_ids_of(response: Response) -> list[str]:
    assert response.status in (200, 202), response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        return [response.events()[0].json()["run_id"]]
    answer = response.json()
    details = answer.get("metadata", answer)
    return list(details.get("run_ids") or [details["run_id"]])


@pytest.mark.parametrize("probe", KEYED, ids=lambda probe: f"{probe.method} {probe.target}")
@pytest.mark.parametrize("make", WHERE, ids=lambda make: make.__name__)
async def test_a_key_leads_to_its_owners_run_alone(
    make: Callable[..., FastAPI], probe: Probe
) -> None:
    app = make(streaming("a", "b"), by_name)
    runs = {
        name: [run_ids_of(await send(app, probe, headers)) for _ in range(2)]
        for name, headers in (("ann", ANN), ("ben", BEN), ("nobody", NOBODY))
    }

    for first, again in runs.values():
        assert first == again
    assert len({first[0] for first, _ in runs.values()}) == 3


async def test_a_key_of_another_body_is_refused_to_its_owner_alone() -> None:
    app = on_the_chain(echo(), by_name)
    await ask(app, "invoke", 1, headers={**ANN, **KEY})

    others = await ask(app, "invoke", 2, headers={**BEN, **KEY})
    owners = await ask(app, "invoke", 2, headers={**ANN, **KEY})
    assert others.json()["output"] == 2
    assert_problem(owners, 422, "idempotency_key_reused")


async def test_a_key_attaches_to_no_live_run_of_somebody_else() -> None:
    chain = GatedChain()
    app = on_the_chain(chain, by_name)
    body = {"input": 1}
    first = await request(app, "POST", "/chain/runs", json=body, headers={**ANN, **KEY})
    second = await request(app, "POST", "/chain/runs", json=body, headers={**BEN, **KEY})
    again = await request(app, "POST", "/chain/runs", json=body, headers={**ANN, **KEY})

    assert run_ids_of(first) == run_ids_of(again) != run_ids_of(second)
    assert len(executor_of(app).live) == 2
    chain.gate.set()


async def test_the_id_of_somebody_elses_run_takes_nothing_from_it() -> None:
    app = FastAPI()
    declared: dict[str, Any] = {"config_keys": ["run_id"], "principal": by_name}
    add_routes(app, Chain(path="/chain", runnable=streaming("a"), **declared))
    add_routes(app, Chain(path="/other", runnable=streaming("b"), **declared))
    config = {"run_id": str(uuid4())}
    await ask(app, "stream", headers=ANN, members={"config": config})
    for path, headers in (("/chain", BEN), ("/other", BEN), ("/other", ANN)):
        await ask(app, "stream", path=path, headers=headers, members={"config": config})

    found = await request(app, "GET", f"/chain/runs/{config['run_id']}", headers=ANN)
    assert found.status == 200
    assert found.json()["output"] == "a"


# Paths.


async def test_a_run_is_found_only_below_the_chain_that_started_it() -> None:
    chain, other = GatedChain(), echo()
    app = make_app(chain)
    for path in ("/other", "/chain/below", ""):
        add_routes(app, other, path=path)
    async with live_run(app, chain, NOBODY) as run:
        for path in ("/other", "/chain/below", ""):
            await assert_hidden(app, run, NOBODY, path)
    await assert_seen(app, run, NOBODY)


async def test_a_run_is_found_only_in_the_mounted_application_that_started_it() -> None:
    chain = GatedChain()
    app = FastAPI()
    for mount in ("/one", "/two"):
        inner = FastAPI()
        add_routes(inner, chain, path="/chain")
        app.mount(mount, inner)
    async with live_run(app, chain, NOBODY, "/one/chain") as run:
        await assert_hidden(app, run, NOBODY, "/two/chain")
    await assert_seen(app, run, NOBODY, "/one/chain")


async def test_a_run_is_found_only_with_the_router_that_started_it() -> None:
    chain = GatedChain()
    router = APIRouter(prefix="/own")
    add_routes(router, chain, path="/chain")
    app = FastAPI()
    for prefix in ("/v1", "/v2"):
        app.include_router(router, prefix=prefix)
    async with live_run(app, chain, NOBODY, "/v1/own/chain") as run:
        await assert_hidden(app, run, NOBODY, "/v2/own/chain")
    await assert_seen(app, run, NOBODY, "/v1/own/chain")


def of_tenants(runnable: Runnable[Any, Any]) -> FastAPI:
    router = APIRouter()
    add_routes(router, runnable, path="/chain")
    app = FastAPI()
    app.include_router(router, prefix="/tenants/{tenant}")
    return app


async def test_a_run_is_found_only_by_the_tenant_that_started_it() -> None:
    chain = GatedChain()
    app = of_tenants(chain)
    async with live_run(app, chain, NOBODY, "/tenants/acme/chain") as run:
        for tenant in ("other", "ACME", "acme%20", "gr%C3%B6%C3%9Fe"):
            await assert_hidden(app, run, NOBODY, f"/tenants/{tenant}/chain")
    await assert_seen(app, run, NOBODY, "/tenants/acme/chain")


async def test_a_tenants_name_cannot_write_lines_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "chainserve")
    app = of_tenants(echo())
    await ask(app, "invoke", path="/tenants/a%0Aforged%1B[2J/chain")

    [line] = [entry for entry in caplog.messages if "mode=invoke" in entry]
    assert line.isprintable(), line


async def test_a_key_is_one_tenants_alone() -> None:
    app = of_tenants(echo())
    runs = [
        run_ids_of(await ask(app, "invoke", path=f"/tenants/{tenant}/chain", headers=KEY))
        for tenant in ("acme", "other", "acme")
    ]

    assert runs[0] == runs[2] != runs[1]


@pytest.mark.parametrize("below", ["", "/"])
async def test_a_key_is_the_same_with_a_slash_and_without(below: str) -> None:
    app = make_app(echo())
    first = await ask(app, "invoke", headers=KEY)
    second = await request(
        app, "POST", f"/chain/invoke{below}", json=body_of("invoke"), headers=KEY
    )

    assert run_ids_of(first) == run_ids_of(second)


async def test_a_config_in_the_url_finds_the_same_runs() -> None:
    chain = GatedChain()
    app = make_app(chain)
    async with live_run(app, chain, NOBODY, f"/chain/c/{HASH}") as run:
        pass
    await assert_seen(app, run, NOBODY)


# Guards.


async def with_a_key(x_key: str = Header("")) -> None:
    if x_key != "good":
        raise HTTPException(401, "No key.")


def guarded_by_dependencies(runnable: Runnable[Any, Any]) -> FastAPI:
    return make_app(runnable, dependencies=[Depends(with_a_key)])


def guarded_by_a_modifier(runnable: Runnable[Any, Any]) -> FastAPI:
    def modify(config: dict[str, Any], request: Request) -> dict[str, Any]:
        if request.headers.get("x-key") != "good":
            raise HTTPException(401, "No key.")
        return config

    return make_app(runnable, per_req_config_modifier=modify)


def guarded_by_an_async_modifier(runnable: Runnable[Any, Any]) -> FastAPI:
    async def modify(config: dict[str, Any], request: Request) -> dict[str, Any]:
        await with_a_key(request.headers.get("x-key", ""))
        return config

    return make_app(runnable, per_req_config_modifier=modify)


@pytest.mark.parametrize(
    "make",
    [guarded_by_dependencies, guarded_by_a_modifier, guarded_by_an_async_modifier],
    ids=lambda make: make.__name__,
)
async def test_a_guard_stands_before_every_verb(make: Callable[..., FastAPI]) -> None:
    chain = GatedChain()
    app = make(chain)
    key = {"x-key": "good"}
    async with live_run(app, chain, key) as run:
        started = chain.started
        for probe in [*run.probes(), *starts(), *KEYED, Probe("GET", "/chain/runs")]:
            answer = await send(app, probe, NOBODY)
            assert (answer.status, answer.json()) == (401, {"detail": "No key."}), probe
        assert chain.started == started
        live = executor_of(app).find(RunId(run.run_id))
        assert live is not None
        assert live.cancel_reason is None
    await assert_seen(app, run, key)


async def test_a_guard_answers_the_same_for_runs_there_are_and_are_not() -> None:
    app = guarded_by_a_modifier(echo())
    started = await request(
        app,
        "POST",
        "/chain/runs",
        json={"input": 1},
        headers={"x-key": "good", "prefer": "wait=5"},
    )
    run = await known(app, started.json()["run_id"])
    for probe, same in zip(run.probes(), nobodys(run).probes(), strict=True):
        there, not_there = await send(app, probe, NOBODY), await send(app, same, NOBODY)
        assert (there.status, there.body) == (not_there.status, not_there.body)


async def test_a_modifier_runs_once_for_a_start_and_its_config_reaches_the_chain() -> None:
    calls: list[str] = []
    configs: list[Any] = []

    def modify(config: dict[str, Any], request: Request) -> dict[str, Any]:
        calls.append(request.method + request.url.path)
        return {**config, "tags": ["from the server"]}

    def note(value: Any, config: Any) -> Any:
        configs.append(config["tags"])
        return value

    app = make_app(note, per_req_config_modifier=modify)
    for probe in starts():
        calls.clear()
        answer = await send(app, probe, {"prefer": "wait=5", **probe.headers})
        assert answer.status in (200, 202), answer.text
        for run_id in run_ids_of(answer):
            await until_ended(app, run_id)
        assert calls == [probe.method + probe.target.partition("?")[0]]
    assert configs == [["from the server"]] * len(starts())


async def test_a_modifier_runs_once_for_each_other_verb() -> None:
    calls: list[str] = []

    def modify(config: dict[str, Any], request: Request) -> dict[str, Any]:
        calls.append(request.method)
        return config

    app = make_app(
        streaming("a"), per_req_config_modifier=modify, settings=Settings(list_all_runs=True)
    )
    headers = {"prefer": "wait=5", "idempotency-key": BY_KEY["idempotency_key"]}
    [run_id] = run_ids_of(await ask(app, "runs", headers=headers))
    for probe in [*(await known(app, run_id)).probes(), Probe("GET", "/chain/runs")]:
        calls.clear()
        answer = await send(app, probe, NOBODY)
        assert answer.status in (200, 204), (probe, answer.text)
        assert calls == [probe.method]


async def test_a_modifier_may_tell_principals_apart() -> None:
    """The principal is asked after the guards, so that it may trust what they let through."""
    order: list[str] = []

    def modify(config: dict[str, Any], request: Request) -> dict[str, Any]:
        order.append("modifier")
        request.state.user = request.headers["x-user"]
        return config

    def whose(request: Request) -> str:
        order.append("principal")
        user: str = request.state.user
        return user

    chain = GatedChain()
    app = FastAPI()
    add_routes(
        app,
        Chain(path="/chain", runnable=chain, per_req_config_modifier=modify, principal=whose),
    )
    async with live_run(app, chain, ANN) as run:
        await assert_hidden(app, run, BEN)
    assert order[:2] == ["modifier", "principal"]
    await assert_seen(app, run, ANN)


async def test_an_id_that_another_caller_uses_later_is_not_read_on_in() -> None:
    run_id = "0d0f0000-1111-4222-8333-444455556666"
    chain = GatedChain(["a", "b"], before=1)
    served = Chain(path="/chain", runnable=chain, config_keys=["run_id"], principal=by_name)
    app = FastAPI()
    add_routes(app, served)
    body = {"input": 1, "config": {"run_id": run_id}}
    ann, ben = {"x-user": "ann", "prefer": "resumable"}, {"x-user": "ben"}

    async with open_stream(
        app, "POST", "/chain/stream", json=body, headers=ann, read=False
    ) as anns:
        await anns.send_blocked.wait()
        chain.gate.set()
        async with asyncio.timeout(20):
            await chain.finished.wait()
            while executor_of(app).live:
                await anyio.lowlevel.checkpoint()
        gone = await request(app, "DELETE", f"/chain/runs/{run_id}", headers=ann)
        assert gone.status == 204
        chain.gate.clear()
        async with open_stream(app, "POST", "/chain/stream", json=body, headers=ben) as bens:
            await bens.next_event()
            anns.resume_reading()
            read_by_ann = [event.event async for event in anns.events()]
            assert only_run(app).readers == 1
            chain.gate.set()
            read_by_ben = [event.event async for event in bens.events()]

    assert read_by_ann == ["metadata", "error"]
    assert read_by_ben == ["data", "data", "end"]
