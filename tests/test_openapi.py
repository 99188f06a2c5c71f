"""The OpenAPI document: valid whatever is served, and true to what the routes take and answer."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from urllib.parse import quote
from uuid import uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header
from jsonschema import Draft202012Validator
from langchain_core.messages import AnyMessage
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableLambda,
    RunnableSerializable,
)
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, computed_field
from typing_extensions import TypedDict

from chainserve import (
    Chain,
    ConfigurationError,
    add_routes,
    add_stream_route,
    create_app,
    discover,
)
from chainserve.settings import Settings
from chainserve.types import RunId
from chainserve.wire.cursors import Cursor
from tests._apps import make_app
from tests._bridge import Response, request
from tests._chains import answering, echo
from tests._sse import decode_events
from tests._verbs import SCHEMAS, VERBS, ask, body_of, output_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
PROBLEMS = {"413", "415", "422", "500"}
STREAMS = {"text/event-stream", "application/x-ndjson", "text/plain"}
STEPS = ["stream_log", "stream_events"]
RUN_ROUTES = [
    "runs", "runs/cancel", "runs/{run_id}", "runs/{run_id}/stream", "runs/{run_id}/cancel",
]  # fmt: skip
Document = dict[str, Any]


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int = 0


def another_person() -> type[BaseModel]:
    """Return another class of the same name."""

    class Person(BaseModel):
        nickname: str
        friends: list[str] = []

    return Person


class Node(BaseModel):
    """A tree."""

    value: int
    children: list["Node"] = []


class Left(BaseModel):
    """One of two that refer to each other."""

    right: Optional["Right"] = None


class Right(BaseModel):
    """The other."""

    left: Left | None = None


class Entry(TypedDict):
    """A typed dict."""

    key: str
    value: list[int]


class Circle(BaseModel):
    """A shape."""

    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    """Another."""

    kind: Literal["square"]
    side: float


Shape = Annotated[Circle | Square, Field(discriminator="kind")]


class Opaque:
    """A class that has no JSON schema."""


class HoldsOpaque(BaseModel):
    """A model that has no JSON schema."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    opaque: Opaque | None = None
    name: str = "x"


class Computed(BaseModel):
    """A model whose output has more than its input."""

    name: str = Field(validation_alias="called")

    @computed_field
    def length(self) -> int:
        """The length of the name."""
        return len(self.name)


class ProblemDetails(BaseModel):
    """The application's own idea of a problem."""

    mine: int


class Knobs(RunnableSerializable[Any, Any]):
    """Has fields to be configured."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    style: str = "plain"
    function: Callable[[int], int] = abs
    opaque: Opaque = Opaque()

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return input


def knobs(*names: str) -> Runnable[Any, Any]:
    fields: dict[str, Any] = {name: ConfigurableField(id=name) for name in names}
    return Knobs().configurable_fields(**fields)


def app_with(*chains: tuple[str, Runnable[Any, Any]], **options: Any) -> FastAPI:
    app = FastAPI(**options)
    for path, runnable in chains:
        add_routes(app, runnable, path=path)
    return app


def router_with(path: str, runnable: Runnable[Any, Any], prefix: str = "") -> APIRouter:
    router = APIRouter(prefix=prefix)
    add_routes(router, runnable, path=path)
    return router


def two_routers_that_are_included_with_prefixes() -> FastAPI:
    app = FastAPI()
    app.include_router(router_with("/chain", echo(Person)), prefix="/v1")
    app.include_router(router_with("/chain", echo(Entry)), prefix="/v2")
    return app


def two_routers_at_the_empty_path() -> FastAPI:
    app = FastAPI()
    app.include_router(router_with("", echo(Person)), prefix="/v1")
    app.include_router(router_with("", echo(str)), prefix="/v2")
    return app


def one_router_twice() -> FastAPI:
    app, router = FastAPI(), router_with("/chain", echo(Person), "/own")
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    return app


def beside_the_users_own_routes() -> FastAPI:
    app = app_with(("/chain", echo(Person)))

    class HTTPValidationError(BaseModel):
        mine: str

    @app.post("/people", operation_id="people")
    async def people(person: Person, x_mine: Annotated[str, Header()]) -> Person:
        return person

    @app.post("/mine")
    async def mine(error: HTTPValidationError) -> list[Person]:
        return []

    return app


def beside_a_users_model(name: str) -> Callable[[], FastAPI]:
    def build() -> FastAPI:
        app = app_with(("/chain", echo(Person)))
        model: Any = type(name, (BaseModel,), {"__annotations__": {"mine": int}})

        @app.post("/mine")
        async def mine(body: model) -> model:
            return body

        return app

    return build


def with_dependencies() -> FastAPI:
    async def key(x_key: Annotated[str, Header()] = "") -> None:
        pass

    app = FastAPI(dependencies=[Depends(key)])
    add_routes(app, echo(Person), path="/chain", dependencies=[Depends(key)])
    return app


def with_a_sub_application() -> FastAPI:
    app = app_with(("/chain", echo(Person)))
    app.mount("/sub", app_with(("/chain", echo(Node))))
    return app


ECHO = echo(Person)
OTHER_PERSON = another_person()

APPS: dict[str, Callable[[], FastAPI]] = {
    "one chain": lambda: app_with(("/chain", echo())),
    "the shipped chains": lambda: create_app(discover(ROOT / "chains"), Settings()),
    "the empty path": lambda: app_with(("", echo(Person))),
    "the empty path and others": lambda: app_with(("", echo(Person)), ("/a", echo(Person))),
    "an odd path": lambda: app_with(("/größe/1.2", echo(Person)), ("/---", echo(Node))),
    "a path that starts with a digit": lambda: app_with(("/2nd", echo(Person))),
    "input models of one name": lambda: app_with(("/a", echo(Person)), ("/b", echo(OTHER_PERSON))),
    "equal schemas": lambda: app_with(("/a", echo(Person)), ("/b", echo(Person))),
    "equal runnables": lambda: app_with(("/a", ECHO), ("/b", ECHO)),
    "paths that differ in punctuation": lambda: app_with(
        ("/a-b", echo(Person)), ("/a_b", echo(Node)), ("/a/b", echo(str)), ("/a.b", echo(int))
    ),
    "paths that run together": lambda: app_with(("/a", echo(Person)), ("/aInvoke", echo(Node))),
    "a recursive model": lambda: app_with(("/chain", echo(Node)), ("/list", echo(list[Node]))),
    "models that refer to each other": lambda: app_with(("/l", echo(Left)), ("/r", echo(Right))),
    "lists of messages": lambda: app_with(("/chain", echo(list[AnyMessage]))),
    "many types": lambda: app_with(
        ("/typed-dict", echo(Entry)),
        ("/union", echo(Shape)),
        ("/optional", echo(Person | None)),
        ("/dict", echo(dict[str, Person])),
        ("/tuple", echo(tuple[int, str])),
        ("/none", echo(type(None))),
    ),
    "a type without a JSON schema": lambda: app_with(("/chain", echo(Opaque))),
    "a model without a JSON schema": lambda: app_with(("/chain", echo(HoldsOpaque))),
    "a function as input": lambda: app_with(("/chain", echo(Callable[[int], int]))),
    "a field without a JSON schema": lambda: app_with(("/chain", knobs("style", "opaque"))),
    "a function as a field": lambda: app_with(("/chain", knobs("style", "function"))),
    "a model that computes": lambda: app_with(("/chain", echo(Computed))),
    "thirty chains": lambda: app_with(*((f"/chain{n}", echo(Person)) for n in range(30))),
    "a router with a prefix": lambda: including(router_with("/chain", echo(Person), "/v1")),
    "two routers with prefixes": two_routers_that_are_included_with_prefixes,
    "two routers at the empty path": two_routers_at_the_empty_path,
    "one router twice": one_router_twice,
    "routes of the user's own": beside_the_users_own_routes,
    "the user's ProblemDetails": beside_a_users_model("ProblemDetails"),
    "the user's chainInvokeRequest": beside_a_users_model("chainInvokeRequest"),
    "the user's chainInput": beside_a_users_model("chainInput"),
    "the user's chainBodies": beside_a_users_model("chainBodies"),
    "the user's FeedbackToken": beside_a_users_model("FeedbackToken"),
    "dependencies with parameters": with_dependencies,
    "a sub-application": with_a_sub_application,
    "one schema for both directions": lambda: app_with(
        ("/chain", echo(Computed)), separate_input_output_schemas=False
    ),
    "plain routes": lambda: with_plain_routes(),
    "endpoints left out": lambda: make_app(echo(), enabled_endpoints=["stream", "input_schema"]),
}


def with_plain_routes() -> FastAPI:
    app = app_with(("/chain", echo(Person)))
    add_stream_route(app, echo(Person))
    add_stream_route(app, echo(Node), "/stream-chat")
    add_stream_route(app, echo(str), "/chain/plain")
    return app


def including(router: APIRouter) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    return app


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    """The documents that were made so far: some take long."""
    return {}


async def document_named(name: str, documents: dict[str, Document]) -> Document:
    if name not in documents:
        documents[name] = await document_of(APPS[name]())
    return documents[name]


async def document_of(app: FastAPI) -> Document:
    response = await request(app, "GET", "/openapi.json")
    assert response.status == 200, response.text
    document: Document = response.json()
    return document


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def references(part: Any) -> Iterator[str]:
    """Yield every reference in a part of a document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        yield from (part.get("discriminator") or {}).get("mapping", {}).values()
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for inner in parts:
        yield from references(inner)


def resolved(document: Document, part: dict[str, Any]) -> dict[str, Any]:
    """Return a part, or what it refers to."""
    while "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def accepts(document: Document, schema: dict[str, Any], value: Any) -> bool:
    """Tell whether a value fits a schema of a document."""
    return Draft202012Validator({**schema, "components": document["components"]}).is_valid(value)


def body_schema(document: Document, path: str) -> dict[str, Any]:
    operation = document["paths"][path]["post"]
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema


# Valid, whatever is served.


@pytest.mark.parametrize("name", APPS)
async def test_the_document_is_sound_and_has_each_route_once(
    name: str, documents: dict[str, Document]
) -> None:
    document = await document_named(name, documents)

    assert document["openapi"].startswith("3.1")
    known = document.get("components", {}).get("schemas", {})
    dangling = {ref for ref in references(document) if ref.rpartition("/")[2] not in known}
    assert dangling == set()
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert not any(path.endswith("/") and path != "/" for path in document["paths"])
    assert not any("playground" in path for path in document["paths"])


@pytest.mark.parametrize("name", APPS)
async def test_every_verb_is_documented_with_its_bodies(
    name: str, documents: dict[str, Document]
) -> None:
    document = await document_named(name, documents)
    verbs = [
        (path, path.rpartition("/")[2], operation)
        for method, path, operation in operations(document)
        if method == "POST" and path.rpartition("/")[2] in VERBS
    ]

    assert verbs
    for path, verb, operation in verbs:
        body = operation["requestBody"]
        assert body["required"] is True
        assert set(body["content"]) == {"application/json"}
        model = resolved(document, body_schema(document, path))
        assert model["required"] == ["inputs" if verb == "batch" else "input"]
        answers = operation["responses"]
        assert set(answers) >= {"200", *PROBLEMS}
        media_types = STREAMS if verb == "stream" else {"application/json"}
        assert set(answers["200"]["content"]) == media_types
        for status in PROBLEMS:
            assert set(answers[status]["content"]) == {"application/problem+json"}
            [content] = answers[status]["content"].values()
            problem = resolved(document, content["schema"])
            assert {"title", "status", "detail", "code", "message"} <= set(problem["properties"])


VALIDATED = [
    "the shipped chains",
    "input models of one name",
    "a recursive model",
    "lists of messages",
    "many types",
    "one router twice",
    "routes of the user's own",
    "plain routes",
]


@pytest.mark.parametrize("name", VALIDATED)
async def test_the_document_is_valid_openapi(name: str, documents: dict[str, Document]) -> None:
    document: Any = await document_named(name, documents)

    OpenAPIV31SpecValidator(document).validate()


async def test_a_sub_application_has_a_valid_document_of_its_own() -> None:
    app = with_a_sub_application()
    sub = await request(app, "GET", "/sub/openapi.json")

    assert sub.status == 200
    document: Any = sub.json()
    OpenAPIV31SpecValidator(document).validate()
    names = [*VERBS, *STEPS, *RUN_ROUTES, *SCHEMAS, "token_feedback"]
    assert set(document["paths"]) == {f"/chain/{name}" for name in names}


@pytest.mark.parametrize("target", ["/docs", "/redoc", "/docs/oauth2-redirect"])
async def test_the_documents_pages_answer(target: str) -> None:
    for app in (make_app(echo()), create_app([], Settings())):
        assert (await request(app, "GET", target)).status == 200


async def test_an_app_without_a_document_is_served_all_the_same() -> None:
    app = app_with(("/chain", echo()), openapi_url=None)

    assert (await request(app, "GET", "/openapi.json")).status == 404
    assert output_of("invoke", await ask(app, "invoke")) == 1


async def test_a_router_excluded_from_the_document_is_not_in_it() -> None:
    app = FastAPI()
    app.include_router(router_with("/chain", echo(Person)), include_in_schema=False)

    assert (await document_of(app))["paths"] == {}
    assert (await ask(app, "invoke", {"name": "Ann"})).status == 200


# True to the routes.


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (str, ["", "x"], [1, None, {}]),
        (Person, [{"name": "Ann"}, {"name": "Ann", "age": 3}], [{}, {"name": 1}, "Ann"]),
        (Node, [{"value": 1, "children": [{"value": 2}]}], [{"value": 1, "children": [{}]}]),
        (list[Node], [[], [{"value": 1}]], [{"value": 1}, [{}]]),
        (Entry, [{"key": "k", "value": [1]}], [{"key": "k"}]),
        (Shape, [{"kind": "square", "side": 1}], [{"kind": "square", "radius": 1}]),
        (Person | None, [None, {"name": "Ann"}], [{}]),
        (dict[str, int], [{}, {"a": 1}], [{"a": "x"}, []]),
        (tuple[int, str], [[1, "a"]], [[1], ["a", 1]]),
        (Computed, [{"called": "Ann"}], [{"name": "Ann"}, {"length": 3}, {}]),
    ],
    ids=str,
)
async def test_the_bodies_schema_accepts_what_the_route_accepts(
    type_: Any, good: list[Any], bad: list[Any]
) -> None:
    app = make_app(RunnableLambda(lambda _: None).with_types(input_type=type_))
    document = await document_of(app)
    for verb in VERBS:
        schema = body_schema(document, f"/chain/{verb}")
        for value, status in [*((value, 200) for value in good), *((value, 422) for value in bad)]:
            body = body_of(verb, value, config={}, kwargs={})
            response = await request(app, "POST", f"/chain/{verb}", json=body)
            assert response.status == status, response.text
            assert accepts(document, schema, body) == (status == 200), body


async def test_the_bodies_schema_accepts_every_form_of_a_config() -> None:
    app = make_app(knobs("style"), config_keys=["configurable", "tags", "metadata"])
    document = await document_of(app)
    configs: list[Any] = [{}, {"configurable": {"style": "x"}}, {"tags": ["a"], "metadata": {}}]
    for verb in VERBS:
        schema = body_schema(document, f"/chain/{verb}")
        lists = [[config] for config in configs] if verb == "batch" else []
        for config in [*configs, *lists]:
            body = body_of(verb, 1, config=config)
            assert accepts(document, schema, body), body
            assert (await request(app, "POST", f"/chain/{verb}", json=body)).status == 200
        assert accepts(document, schema, body_of(verb))


@pytest.mark.parametrize("value", [{"name": "Ann", "age": 3}])
async def test_the_answers_schema_accepts_the_answer(value: Any) -> None:
    app = make_app(answering(value), output_type=Person)
    document = await document_of(app)
    for verb in ("invoke", "batch"):
        answers = document["paths"][f"/chain/{verb}"]["post"]["responses"]
        schema = answers["200"]["content"]["application/json"]["schema"]
        answer = (await ask(app, verb)).json()
        assert accepts(document, schema, answer)
        assert not accepts(document, schema, {**answer, "output": 5})
        assert not accepts(document, schema, {"output": answer["output"]})


async def test_the_problems_schema_accepts_the_problems() -> None:
    app = make_app(echo(int))
    document = await document_of(app)
    for body in (b"{", b"{}", b'{"input": "x"}'):
        response = await request(
            app, "POST", "/chain/invoke", body=body, headers={"content-type": "application/json"}
        )
        answers = document["paths"]["/chain/invoke"]["post"]["responses"]
        content = answers[str(response.status)]["content"][response.headers["content-type"]]
        assert accepts(document, content["schema"], response.json())


async def test_the_stream_is_documented_with_its_events() -> None:
    document = await document_of(make_app(echo(Person)))
    answer = document["paths"]["/chain/stream"]["post"]["responses"]["200"]
    content = answer["content"]["text/event-stream"]

    shown = decode_events(content["example"].encode())
    assert [event.event for event in shown] == ["metadata", "data", "end"]
    assert "run_id" in shown[0].json()
    shown[1].json()
    assert shown[2].data is None
    for event in ("metadata", "data", "error", "end"):
        assert f"`{event}`" in answer["description"]


def shown_bodies(document: Document, path: str) -> Iterator[Any]:
    """Yield the example bodies of an operation."""
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    if "example" in content:
        yield content["example"]
    yield from (example["value"] for example in content.get("examples", {}).values())
    schema = resolved(document, content["schema"])
    yield from schema.get("examples", [])


async def test_every_example_that_is_shown_works_when_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chains = discover(ROOT / "chains")
    app = create_app(chains, Settings())
    for chain in chains:
        for step in getattr(chain.runnable, "steps", ()):
            if getattr(step, "model_name", None) == "offline-demo":
                monkeypatch.setattr(step, "pause", 0)
    document = await document_of(app)
    described = (await request(app, "GET", "/chains")).json()
    for entry in described:
        for verb in ("invoke", "batch"):
            path = f"{entry['path']}/{verb}"
            bodies = [*shown_bodies(document, path)]
            if entry["path"] != "/agent":  # Its model is inside the graph, and takes its time.
                bodies += [body_of(verb, example) for example in entry["examples"]]
            for body in bodies:
                assert accepts(document, body_schema(document, path), body), body
                response = await request(app, "POST", path, json=body)
                assert response.status == 200, response.text


# The run routes.


def parameters(document: Document, method: str, path: str) -> dict[str, tuple[str, bool]]:
    """Return where each parameter of an operation is, and whether it must be sent."""
    return {
        parameter["name"]: (parameter["in"], parameter["required"])
        for parameter in document["paths"][path][method].get("parameters", [])
    }


RUN_ID = {"run_id": ("path", True)}
CURSOR = {"last_event_id": ("query", False), "format": ("query", False)}
KEY = {"idempotency-key": ("header", False)}
OPERATIONS: dict[tuple[str, str], tuple[str, dict[str, tuple[str, bool]], set[str]]] = {
    ("post", "runs"): ("202", {**KEY, "prefer": ("header", False)}, {"application/json"}),
    ("get", "runs"): ("200", {}, {"application/json"}),
    ("get", "runs/{run_id}"): (
        "200",
        {**RUN_ID, "prefer": ("header", False)},
        {"application/json"},
    ),
    ("delete", "runs/{run_id}"): ("204", RUN_ID, set()),
    ("get", "runs/{run_id}/stream"): ("200", {**RUN_ID, **CURSOR}, STREAMS),
    ("post", "runs/cancel"): ("200", {"prefer": ("header", False)}, {"application/json"}),
    ("post", "runs/{run_id}/cancel"): (
        "200",
        {**RUN_ID, "prefer": ("header", False)},
        {"application/json"},
    ),
    ("post", "stream"): (
        "200",
        {**KEY, "last-event-id": ("header", False), "prefer": ("header", False)},
        STREAMS,
    ),
    ("get", "stream"): (
        "200",
        {
            "input": ("query", False),
            "config": ("query", False),
            "idempotency_key": ("query", False),
            "on_disconnect": ("query", False),
            **CURSOR,
        },
        STREAMS,
    ),
    ("post", "invoke"): ("200", KEY, {"application/json"}),
    ("post", "batch"): ("200", KEY, {"application/json"}),
}


@pytest.mark.parametrize(("method", "name"), OPERATIONS)
async def test_each_operation_is_documented_with_its_parameters_and_its_answer(
    method: str, name: str, documents: dict[str, Document]
) -> None:
    document = await document_named("one chain", documents)
    status, expected, media_types = OPERATIONS[method, name]

    assert parameters(document, method, f"/chain/{name}") == expected
    operation = document["paths"][f"/chain/{name}"][method]
    answers = [code for code in operation["responses"] if code.startswith("2")]
    assert status in answers
    assert set(operation["responses"][status].get("content", {})) == media_types
    assert operation["description"]


@pytest.mark.parametrize(
    ("method", "name", "statuses"),
    [
        ("post", "invoke", {"410", "429", "499", "502", "504"}),
        ("post", "batch", {"410", "429", "499", "502", "504"}),
        *[(method, name, {"400", "422", "500"}) for method, name in OPERATIONS],
        *[("get", name, {"400", "422", "500"}) for name in SCHEMAS],
    ],
)
async def test_each_operation_is_documented_with_how_it_may_end(
    method: str, name: str, statuses: set[str], documents: dict[str, Document]
) -> None:
    document = await document_named("one chain", documents)
    answers = document["paths"][f"/chain/{name}"][method]["responses"]

    assert statuses <= answers.keys()
    for status in statuses:
        schema = resolved(
            document, answers[status]["content"]["application/problem+json"]["schema"]
        )
        assert {"code", "message"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("method", "name", "status", "headers"),
    [
        ("post", "runs", "202", {"Location", "Preference-Applied"}),
        ("post", "runs", "200", {"Location", "Preference-Applied"}),
        ("get", "runs/{run_id}", "200", {"Preference-Applied"}),
        ("post", "stream", "200", {"Location", "Preference-Applied"}),
        ("get", "stream", "200", {"Location"}),
        ("post", "invoke", "429", {"Retry-After"}),
        ("post", "batch", "429", {"Retry-After"}),
    ],
)
async def test_the_headers_of_an_answer_are_documented(
    method: str, name: str, status: str, headers: set[str], documents: dict[str, Document]
) -> None:
    document = await document_named("one chain", documents)
    answer = document["paths"][f"/chain/{name}"][method]["responses"][status]

    assert answer["headers"].keys() == headers
    assert all(header["description"] for header in answer["headers"].values())
    assert answer["description"]


async def test_each_operation_has_a_summary_and_a_description() -> None:
    document = await document_of(with_plain_routes())

    for _, path, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"].endswith("."), path


async def test_the_tokens_of_a_run_are_documented() -> None:
    document = await document_of(make_app(echo()))
    answer = document["paths"]["/chain/stream"]["post"]["responses"]["200"]

    assert "`usage`" in answer["description"]
    assert "usage" in document["components"]["schemas"]["RunDetails"]["properties"]


async def test_the_modes_of_a_chain_are_documented() -> None:
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["stream", "invoke"]),
        ({"disabled_endpoints": ["stream"]}, ["invoke"]),
    ]
    for lists, modes in cases:
        document = await document_of(make_app(echo(), **lists))
        schema = body_schema(document, "/chain/runs")
        for mode in ("stream", "invoke", "batch"):
            body = {"input": 1, "mode": mode}
            assert accepts(document, schema, body) == (mode in modes)
        assert accepts(document, schema, {"input": 1, "on_disconnect": "cancel"})
        assert not accepts(document, schema, {"input": 1, "on_disconnect": "stop"})


async def test_endpoints_that_are_left_out_are_not_documented() -> None:
    cases: list[tuple[dict[str, Any], list[str], list[str]]] = [
        ({"disabled_endpoints": ["runs"]}, RUN_ROUTES, ["stream", "invoke"]),
        ({"disabled_endpoints": ["stream"]}, ["stream"], RUN_ROUTES),
        ({"enabled_endpoints": ["batch"]}, ["stream", "invoke", *RUN_ROUTES], ["batch"]),
    ]
    for lists, hidden, shown in cases:
        paths = (await document_of(make_app(echo(), **lists)))["paths"]
        assert not {f"/chain/{name}" for name in hidden} & paths.keys()
        assert {f"/chain/{name}" for name in shown} <= paths.keys()


async def test_a_plain_route_is_documented_with_its_bare_input() -> None:
    document = await document_of(with_plain_routes())

    schema = body_schema(document, "/stream_chat")
    assert accepts(document, schema, {"name": "Ann"})
    assert not accepts(document, schema, {"input": {"name": "Ann"}})
    assert document["paths"]["/stream_chat"].keys() == {"post", "get"}
    for method in ("post", "get"):
        answer = document["paths"]["/stream_chat"][method]["responses"]["200"]
        assert set(answer["content"]) == STREAMS


RUNS = [
    ("post", "runs", {"json": {"input": 1}}, 202),
    ("post", "runs", {"json": {"input": 1}, "headers": {"prefer": "wait=5"}}, 200),
    ("post", "runs", {"json": {"input": "x"}}, 422),
    ("post", "runs", {"body": b"1"}, 415),
    ("get", "runs", {}, 200),
    ("get", "runs/{run_id}", {}, 200),
    ("get", "runs/{unknown}", {}, 404),
    ("get", "runs/{run_id}/stream", {}, 200),
    ("get", "runs/{run_id}/stream", {"query": {"last_event_id": "{last}"}}, 204),
    ("get", "runs/{run_id}/stream", {"query": {"last_event_id": "x"}}, 400),
    ("get", "runs/{run_id}/stream", {"query": {"format": "x"}}, 422),
    ("get", "runs/{run_id}/stream", {"headers": {"accept": "application/pdf"}}, 406),
    ("get", "runs/{unknown}/stream", {}, 404),
    ("get", "runs/{invoked}/stream", {}, 410),
    ("post", "runs/{run_id}/cancel", {}, 200),
    ("post", "runs/{unknown}/cancel", {}, 404),
    ("post", "runs/cancel", {"json": {"endpoint": "invoke", "idempotency_key": "k"}}, 404),
    ("post", "runs/cancel", {"json": {"endpoint": "invoke", "idempotency_key": ""}}, 400),
    ("post", "runs/cancel", {"json": {}}, 422),
    ("post", "runs/{run_id}/cancel", {"headers": {"origin": "https://else.example"}}, 403),
    ("post", "stream", {"json": {"input": 1}, "headers": {"last-event-id": "x"}}, 400),
    ("post", "stream", {"json": {"input": 1}, "headers": {"last-event-id": "{last}"}}, 204),
    ("post", "stream", {"json": {"input": 1}, "headers": {"last-event-id": "{lost}"}}, 404),
    ("get", "stream", {"query": {"input": "1"}}, 200),
    ("get", "stream", {"query": {"input": "x"}}, 422),
    ("get", "stream", {"query": {"input": "1", "last_event_id": "x"}}, 400),
    ("get", "stream", {"query": {"input": "1", "last_event_id": "{last}"}}, 204),
    ("get", "stream", {"query": {"input": "1", "last_event_id": "{lost}"}}, 404),
    ("get", "stream", {"query": {"input": "1"}, "headers": {"accept": "application/pdf"}}, 406),
    ("get", "stream", {"query": {"input": "1"}, "headers": {"sec-fetch-dest": "image"}}, 403),
    ("delete", "runs/{live}", {}, 409),
    ("delete", "runs/{run_id}", {}, 204),
    ("delete", "runs/{unknown}", {}, 404),
]


@pytest.mark.parametrize(("method", "name", "options", "status"), RUNS, ids=str)
async def test_every_status_that_is_answered_is_documented_with_its_body(
    method: str, name: str, options: dict[str, Any], status: int, documents: dict[str, Document]
) -> None:
    gate = asyncio.Event()

    async def wait_for_two(value: int) -> int:
        if value == 2:
            await gate.wait()
        return value

    app = make_app(wait_for_two, input_type=int, settings=Settings(list_all_runs=True))
    document = documents.get("integers") or await document_of(app)
    documents["integers"] = document
    streamed = await request(app, "GET", "/chain/stream?input=1")
    live = await request(app, "POST", "/chain/runs", json={"input": 2})
    ids = {
        "run_id": streamed.events()[0].json()["run_id"],
        "last": streamed.events()[-1].id,
        "lost": Cursor(RunId(str(uuid4())), "epoch", 0).encode().decode(),
        "invoked": (await ask(app, "invoke")).json()["metadata"]["run_id"],
        "live": live.json()["run_id"],
        "unknown": str(uuid4()),
    }
    for part in options.keys() & {"query", "headers"}:
        filled = {key: value.format_map(ids) for key, value in options[part].items()}
        options = {**options, part: filled}
    response = await request(app, method.upper(), f"/chain/{name.format_map(ids)}", **options)
    gate.set()

    assert response.status == status, response.text
    shown = re.sub("{[a-z_]+}", "{run_id}", name)
    answers = document["paths"][f"/chain/{shown}"][method]["responses"]
    assert str(status) in answers
    media_type = response.headers.get("content-type", "").partition(";")[0]
    content = answers[str(status)].get("content", {})
    assert set(content) >= ({media_type} if response.body else set())
    if "json" in media_type:
        assert accepts(document, content[media_type]["schema"], response.json()), response.text


@pytest.mark.parametrize(
    "name", ["one chain", "the empty path", "an odd path", "one router twice", "plain routes"]
)
async def test_a_route_that_only_documents_is_never_reached(
    name: str, documents: dict[str, Document]
) -> None:
    app = APPS[name]()
    document = await document_named(name, documents)
    odd = ["x", str(uuid4()), "%0A", "a%0A", "%20", "..", "{run_id}", "c"]
    for method, path, _ in operations(document):
        for filled in {path.replace("{run_id}", run_id) for run_id in odd}:
            target = quote(filled, safe="/%")
            for slash in ("", "/", "%0A", "?input=1"):
                response = await request(app, method, f"{target}{slash}", json={"input": 1})
                assert response.status != 500, (method, target, slash)


# The schema routes.


def plain(response: Response) -> Any:
    assert response.status == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


@pytest.mark.parametrize(
    "type_",
    [str, Person, Node, list[Node], Entry, Shape, Person | None, list[AnyMessage], Computed, Any],
    ids=lambda type_: str(type_)[:30],
)
async def test_the_schema_routes_answer_the_runnables_own_schemas(type_: Any) -> None:
    runnable = echo(type_)
    app = make_app(runnable)

    sent = plain(await request(app, "GET", "/chain/input_schema"))
    answered = plain(await request(app, "GET", "/chain/output_schema"))
    config = plain(await request(app, "GET", "/chain/config_schema"))

    assert sent == runnable.get_input_jsonschema()
    assert answered == runnable.get_output_jsonschema()
    assert config == runnable.get_config_jsonschema(include=["configurable"])
    for schema in (sent, answered, config):
        Draft202012Validator.check_schema(schema)


async def test_declared_types_are_the_schemas() -> None:
    app = make_app(echo(), input_type=Person, output_type=list[int])

    sent = plain(await request(app, "GET", "/chain/input_schema"))
    answered = plain(await request(app, "GET", "/chain/output_schema"))

    assert sent["properties"].keys() == {"name", "age"}
    assert answered["items"] == TypeAdapter(int).json_schema()


@pytest.mark.parametrize("name", [name for name in APPS if "function" in name or "without" in name])
async def test_a_schema_route_answers_for_a_type_without_a_json_schema(name: str) -> None:
    app = APPS[name]()
    for schema in SCHEMAS:
        assert isinstance(plain(await request(app, "GET", f"/chain/{schema}")), dict)


async def test_what_has_a_json_schema_is_shown_beside_what_has_none() -> None:
    app = app_with(("/chain", knobs("style", "opaque")))

    schema = plain(await request(app, "GET", "/chain/config_schema"))

    assert "style" in str(schema)


async def test_a_chain_with_a_model_of_pydantic_1_is_refused_when_it_is_mounted() -> None:
    class OldSchema(RunnableLambda[Any, Any]):
        def get_input_schema(self, config: Any = None) -> Any:
            return type("Old", (), {})

    with pytest.raises(ConfigurationError, match="pydantic 1 model"):
        add_routes(FastAPI(), OldSchema(lambda value: value), path="/chain")


async def test_tags_and_names_of_a_chain_are_in_the_document() -> None:
    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=echo(), tags=["text", "data"]))
    add_routes(app, echo(), path="/other")
    document = await document_of(app)

    assert document["paths"]["/chain/invoke"]["post"]["tags"] == ["text", "data"]
    assert document["paths"]["/other/invoke"]["post"]["tags"] == ["other"]
    assert {operation["summary"] for _, _, operation in operations(document)} == {
        "Invoke",
        "Batch",
        "Stream",
        "Stream by GET",
        "Stream log",
        "Stream events",
        "Token feedback",
        "Start a run",
        "List runs",
        "Show a run",
        "Forget a run",
        "Stream a run",
        "Cancel a run",
        "Cancel the run of a key",
        "Input schema",
        "Output schema",
        "Config schema",
    }
