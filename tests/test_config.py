"""The config of a run: what a caller may set, what the server adds, the same for every verb."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    ConfigurableFieldSingleOption,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableSerializable,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, create_model
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chainserve import Chain, ConfigurationError, add_routes
from chainserve.settings import Settings
from chainserve.version import __version__
from tests._apps import assert_problem, make_app
from tests._bridge import request
from tests._chains import CountingChain, History, echo
from tests._verbs import VERBS, ask, output_of, run_id_of

pytestmark = pytest.mark.anyio

RUN_ID = "0d0f0000-1111-4222-8333-444455556666"


def seen(_: Any, config: RunnableConfig) -> dict[str, Any]:
    """Return what of its config a chain can see."""
    return {
        "tags": config.get("tags"),
        "metadata": config.get("metadata"),
        "recursion_limit": config.get("recursion_limit"),
        "configurable": {
            name: value
            for name, value in config.get("configurable", {}).items()
            if not name.startswith("__")
        },
    }


def with_config(config: Any) -> dict[str, Any]:
    return {"config": config}


def own_metadata(output: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata that is not forced by the server."""
    forced = {"__useragent", "__chainserve_version", "__langserve_endpoint"}
    return {name: value for name, value in output["metadata"].items() if name not in forced}


class Knobs(RunnableSerializable[Any, dict[str, Any]]):
    """Returns how it is set."""

    style: str = "plain"
    length: int = 10
    api_key: str = "SERVER-KEY"
    base_url: str = "http://server.internal"

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        return settings_of(self)


def settings_of(chain: Knobs) -> dict[str, Any]:
    return chain.model_dump(include={"style", "length", "api_key", "base_url"})


def knobs(*names: str) -> Runnable[Any, dict[str, Any]]:
    fields: dict[str, Any] = {name: ConfigurableField(id=name) for name in names}
    return Knobs().configurable_fields(**fields)


def chain_app(runnable: Runnable[Any, Any], **options: Any) -> FastAPI:
    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=runnable, **options))
    return app


# What a caller may send.


@pytest.mark.parametrize("verb", VERBS)
async def test_what_every_langchain_client_sends_is_dropped(verb: str) -> None:
    sent = {
        "tags": ["theirs"],
        "metadata": {"theirs": 1},
        "callbacks": [],
        "recursion_limit": 3,
        "max_concurrency": None,
        "run_name": "theirs",
        "run_id": RUN_ID,
        "configurable": {},
        "unheard of": {"a": [1]},
    }
    response = await ask(make_app(seen), verb, members=with_config(sent))

    output = output_of(verb, response)
    assert output["tags"] == []
    assert own_metadata(output) == {}
    assert output["recursion_limit"] == 25
    assert run_id_of(verb, response) != RUN_ID


@pytest.mark.parametrize("verb", VERBS)
async def test_allowed_keys_are_used(verb: str) -> None:
    app = make_app(seen, config_keys=["tags", "metadata", "recursion_limit"])
    sent = {"tags": ["theirs"], "metadata": {"theirs": 1}, "recursion_limit": 3}

    output = output_of(verb, await ask(app, verb, members=with_config(sent)))

    assert output["tags"] == ["theirs"]
    assert own_metadata(output) == {"theirs": 1}
    assert output["recursion_limit"] == 3


@pytest.mark.parametrize("verb", VERBS)
async def test_with_strict_config_unknown_keys_are_refused_by_name(verb: str) -> None:
    app = chain_app(RunnableLambda(seen), strict_config=True, config_keys=["tags"])

    refused = await ask(app, verb, members=with_config({"tags": [], "zzz": 1, "run_name": "x"}))
    accepted = await ask(app, verb, members=with_config({"tags": ["a"], "zzz": None}))

    message = assert_problem(refused, 422, "invalid_config")["message"]
    assert message == ("These config keys are not accepted: run_name, zzz. Accepted are: tags.")
    assert output_of(verb, accepted)["tags"] == ["a"]


@pytest.mark.parametrize("config", [None, {}])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_config_of_null_is_no_config(verb: str, config: Any) -> None:
    app = chain_app(RunnableLambda(seen), strict_config=True)

    output_of(verb, await ask(app, verb, members=with_config(config)))


@pytest.mark.parametrize("verb", VERBS)
async def test_nulls_inside_a_config_are_absent(verb: str) -> None:
    app = make_app(seen, config_keys=["configurable", "tags", "metadata", "recursion_limit"])
    sent = {"configurable": None, "tags": None, "metadata": None, "recursion_limit": None}

    output = output_of(verb, await ask(app, verb, members=with_config(sent)))

    assert output["recursion_limit"] == 25


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tags", "one"),
        ("tags", [1]),
        ("metadata", []),
        ("recursion_limit", "many"),
        ("recursion_limit", 2.5),
        ("max_concurrency", {}),
        ("run_id", "no uuid"),
        ("run_id", 5),
        ("configurable", "x"),
        ("configurable", [["style", "x"]]),
        ("configurable", {"length": "long"}),
    ],
)
async def test_a_member_of_the_wrong_type_is_refused_with_its_place(key: str, value: Any) -> None:
    app = make_app(knobs("length"), config_keys=[key])
    for verb in VERBS:
        response = await ask(app, verb, members=with_config({key: value}))
        problem = assert_problem(response, 422, "invalid_input")
        assert problem["detail"][0]["loc"][0] == key


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("key", ["max_concurrency", "recursion_limit"])
async def test_a_limit_below_zero_is_refused(verb: str, key: str) -> None:
    app = make_app(seen, config_keys=[key])

    response = await ask(app, verb, members=with_config({key: -1}))

    assert response.status == 422, response.text


OF_LANGGRAPH = pytest.mark.filterwarnings("ignore:`config_schema` is deprecated")


@OF_LANGGRAPH
@pytest.mark.parametrize("verb", VERBS)
async def test_a_recursion_limit_of_zero_for_a_graph_is_refused(verb: str) -> None:
    app = make_app(answering_graph(), config_keys=["recursion_limit"])

    response = await ask(app, verb, {"messages": []}, members=with_config({"recursion_limit": 0}))

    assert response.status == 422, response.text


@pytest.mark.parametrize("verb", VERBS)
async def test_callbacks_from_a_caller_never_reach_a_chain(verb: str) -> None:
    app = FastAPI()
    try:
        add_routes(app, RunnableLambda(seen), path="/chain", config_keys=["callbacks"])
    except ConfigurationError:
        return
    response = await ask(app, verb, members=with_config({"callbacks": ["theirs"]}))

    assert response.status == 422, response.text


@pytest.mark.parametrize("verb", VERBS)
async def test_a_caller_may_choose_the_run_id_where_it_is_allowed(verb: str) -> None:
    app = make_app(seen, config_keys=["run_id"])

    response = await ask(app, verb, members=with_config({"run_id": RUN_ID.upper()}))

    assert run_id_of(verb, response) == RUN_ID


async def test_run_ids_of_a_batch_are_as_chosen_for_each_input() -> None:
    app = make_app(seen, config_keys=["run_id"])
    ids = [RUN_ID[:-1] + digit for digit in "789"]
    body = {"inputs": [1, 2, 3], "config": [{"run_id": run_id} for run_id in ids]}

    response = await request(app, "POST", "/chain/batch", json=body)

    assert response.json()["metadata"]["run_ids"] == ids


async def test_one_run_id_for_a_batch_is_that_of_its_first_run() -> None:
    app = make_app(seen, config_keys=["run_id"])
    body = {"inputs": [1, 2], "config": {"run_id": RUN_ID}}

    response = await request(app, "POST", "/chain/batch", json=body)

    first, second = response.json()["metadata"]["run_ids"]
    assert first == RUN_ID
    assert UUID(second).version == 4


async def test_the_same_run_id_twice_in_a_batch_is_refused_and_can_be_used_afterwards() -> None:
    chain = CountingChain()
    chain.release.set()
    app = make_app(chain, config_keys=["run_id"])
    body = {"inputs": [1, 2], "config": [{"run_id": RUN_ID}, {"run_id": RUN_ID}]}

    refused = await request(app, "POST", "/chain/batch", json=body)
    again = await ask(app, "invoke", members=with_config({"run_id": RUN_ID}))

    assert_problem(refused, 409, "run_id_in_use")
    assert chain.total == 1
    assert run_id_of("invoke", again) == RUN_ID


async def test_a_batch_takes_one_config_for_all_or_one_for_each() -> None:
    app = make_app(knobs("style"))
    one = {"inputs": [1, 2], "config": {"configurable": {"style": "a"}}}
    each = {"inputs": [1, 2], "config": [{"configurable": {"style": name}} for name in "ab"]}
    some = {"inputs": [1, 2], "config": [{}, {"configurable": {"style": "b"}}]}

    styles = []
    for body in (one, each, some):
        response = await request(app, "POST", "/chain/batch", json=body)
        styles.append([output["style"] for output in response.json()["output"]])

    assert styles == [["a", "a"], ["a", "b"], ["plain", "b"]]


async def test_a_bad_config_in_a_batch_runs_nothing() -> None:
    chain = CountingChain()
    app = make_app(chain, config_keys=["tags"])
    body = {"inputs": [1, 2], "config": [{}, {"tags": 5}]}

    response = await request(app, "POST", "/chain/batch", json=body)

    assert_problem(response, 422, "invalid_input")
    assert chain.total == 0


async def test_an_empty_batch_is_answered_with_any_config() -> None:
    configs: list[Any] = [{}, []]
    for config in configs:
        response = await request(
            make_app(seen), "POST", "/chain/batch", json={"inputs": [], "config": config}
        )
        assert response.json() == {"output": [], "metadata": {"responses": [], "run_ids": []}}


async def test_each_config_of_a_batch_has_a_say_in_its_concurrency() -> None:
    chain = CountingChain()
    chain.release.set()
    app = make_app(chain, config_keys=["max_concurrency"], settings=Settings(max_concurrency=4))
    body = {"inputs": [1] * 20, "config": [{"max_concurrency": 2}] * 20}

    assert (await request(app, "POST", "/chain/batch", json=body)).status == 200
    assert 1 <= chain.highest <= 2


# Configurable fields and alternatives.


@pytest.mark.parametrize("verb", VERBS)
async def test_declared_fields_can_be_set_and_undeclared_ones_are_dropped(verb: str) -> None:
    app = make_app(knobs("style", "length"))
    sent = {"configurable": {"style": "ornate", "api_key": "THEIRS", "nonsense": 1}}

    output = output_of(verb, await ask(app, verb, members=with_config(sent)))

    assert output == settings_of(Knobs(style="ornate"))


@pytest.mark.parametrize("verb", VERBS)
async def test_a_field_that_is_not_sent_keeps_what_the_server_bound(verb: str) -> None:
    app = make_app(knobs("style", "length").with_config(configurable={"length": 99}))

    output = output_of(
        verb, await ask(app, verb, members=with_config({"configurable": {"style": "ornate"}}))
    )

    assert (output["style"], output["length"]) == ("ornate", 99)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("options", "outcome"),
    [({}, {}), ({"configurable": ["user"]}, {"user": "ann"})],
    ids=["not allowed", "allowed"],
)
async def test_an_undeclared_field_is_passed_only_where_it_is_allowed(
    verb: str, options: dict[str, Any], outcome: dict[str, Any]
) -> None:
    sent = with_config({"configurable": {"user": "ann", "other": 1}})
    response = await ask(chain_app(RunnableLambda(seen), **options), verb, members=sent)

    assert output_of(verb, response)["configurable"] == outcome


@pytest.mark.parametrize("verb", VERBS)
async def test_an_undeclared_field_is_passed_beside_declared_ones(verb: str) -> None:
    app = chain_app(knobs("style") | RunnableLambda(seen), configurable=["user"])
    sent = with_config({"configurable": {"user": "ann", "style": "ornate", "other": 1}})

    output = output_of(verb, await ask(app, verb, members=sent))

    assert output["configurable"] == {"user": "ann", "style": "ornate"}


SENSITIVE = [
    "api_key",
    "apikey",
    "apiKey",
    "openai_api_key",
    "OPENAI_API_KEY",
    "client_secret",
    "password",
    "credentials",
    "access_token",
    "auth_token",
    "base_url",
    "baseUrl",
    "openai_api_base",
    "azure_endpoint",
    "openai_proxy",
    "anthropic_api_url",
    "ollama_host",
    "model==big/api_key",
]
SENSITIVE_BY_OTHER_NAMES = [
    "api-key",
    "api_token",
    "huggingfacehub_api_token",
    "aws_access_key_id",
    "aws_session_token",
    "authorization",
    "default_headers",
    "url",
    "host",
]


def field_named(name: str) -> Runnable[Any, dict[str, Any]]:
    return Knobs().configurable_fields(style=ConfigurableField(id=name))


@pytest.mark.parametrize("name", SENSITIVE)
async def test_a_field_named_like_a_key_or_an_address_is_refused(name: str) -> None:
    app, sent = make_app(field_named(name)), with_config({"configurable": {name: "THEIRS"}})
    for verb in VERBS if name == "api_key" else ["stream"]:
        problem = assert_problem(await ask(app, verb, members=sent), 422, "invalid_config")
        assert name in problem["message"]
        assert "THEIRS" not in str(problem)


@pytest.mark.parametrize("name", SENSITIVE_BY_OTHER_NAMES)
async def test_a_field_with_another_name_of_a_key_or_an_address_is_refused(name: str) -> None:
    sent = with_config({"configurable": {name: "THEIRS"}})

    response = await ask(make_app(field_named(name)), "invoke", members=sent)

    assert response.status == 422, response.text


@pytest.mark.parametrize(
    "name", ["style", "max_tokens", "keywords", "temperature", "model", "topic", "ghosts"]
)
async def test_a_field_with_a_harmless_name_can_be_set(name: str) -> None:
    sent = with_config({"configurable": {name: "theirs"}})

    output = output_of("invoke", await ask(make_app(field_named(name)), "invoke", members=sent))

    assert output["style"] == "theirs"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_key_can_be_set_where_the_chain_allows_it(verb: str) -> None:
    app = chain_app(knobs("api_key", "base_url"), configurable=["api_key"])
    allowed = with_config({"configurable": {"api_key": "THEIRS"}})
    refused = with_config({"configurable": {"api_key": "THEIRS", "base_url": "http://evil"}})

    output = output_of(verb, await ask(app, verb, members=allowed))
    assert (output["api_key"], output["base_url"]) == ("THEIRS", "http://server.internal")
    assert_problem(await ask(app, verb, members=refused), 422, "invalid_config")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_servers_key_stays_when_other_fields_are_set(verb: str) -> None:
    bound = knobs("style", "api_key").with_config(configurable={"api_key": "BOUND-KEY"})
    sent = with_config({"configurable": {"style": "ornate"}})

    output = output_of(verb, await ask(make_app(bound), verb, members=sent))

    assert (output["style"], output["api_key"]) == ("ornate", "BOUND-KEY")


@pytest.mark.parametrize("target", ["/chain/config_schema", "/openapi.json"])
@pytest.mark.parametrize("allowed", [[], ["api_key", "base_url"]], ids=["refused", "allowed"])
async def test_a_servers_key_or_address_is_never_shown(target: str, allowed: list[str]) -> None:
    bound = knobs("style", "api_key", "base_url").with_config(configurable={"api_key": "BOUND-KEY"})
    app = chain_app(bound, configurable=allowed)

    response = await request(app, "GET", target)

    assert response.status == 200
    assert "SERVER-KEY" not in response.text
    assert "BOUND-KEY" not in response.text
    assert "server.internal" not in response.text


async def test_a_refused_field_is_not_offered_by_the_config_schema() -> None:
    app = chain_app(knobs("style", "api_key", "base_url"), configurable=["base_url"])

    schema = (await request(app, "GET", "/chain/config_schema")).json()

    [configurable] = schema["$defs"].values()
    assert set(configurable["properties"]) == {"style", "base_url"}


def one_of_two_prompts() -> Runnable[Any, Any]:
    return PromptTemplate.from_template("joke about {topic}").configurable_alternatives(
        ConfigurableField(id="prompt"),
        default_key="joke",
        poem=PromptTemplate.from_template("poem about {subject}"),
    )


@pytest.mark.parametrize("verb", VERBS)
async def test_an_alternative_changes_the_chain_and_its_input_schema(verb: str) -> None:
    app = make_app(one_of_two_prompts())
    poem = with_config({"configurable": {"prompt": "poem"}})

    default = await ask(app, verb, {"topic": "cats"})
    chosen = await ask(app, verb, {"subject": "cats"}, members=poem)
    mismatched = await ask(app, verb, {"topic": "cats"}, members=poem)
    unknown = await ask(
        app, verb, {"topic": "cats"}, members=with_config({"configurable": {"prompt": "essay"}})
    )

    assert output_of(verb, default)["text"] == "joke about cats"
    assert output_of(verb, chosen)["text"] == "poem about cats"
    assert_problem(mismatched, 422, "invalid_input")
    assert_problem(unknown, 422, "invalid_input")


async def test_alternatives_may_differ_within_a_batch() -> None:
    body = {
        "inputs": [{"topic": "cats"}, {"subject": "dogs"}],
        "config": [{}, {"configurable": {"prompt": "poem"}}],
    }

    response = await request(make_app(one_of_two_prompts()), "POST", "/chain/batch", json=body)

    texts = [output["text"] for output in response.json()["output"]]
    assert texts == ["joke about cats", "poem about dogs"]


@pytest.mark.parametrize("verb", VERBS)
async def test_options_of_a_field_are_chosen_by_their_keys(verb: str) -> None:
    runnable = Knobs().configurable_fields(
        style=ConfigurableFieldSingleOption(
            id="style", options={"short": "few words", "long": "many words"}, default="short"
        )
    )
    app = make_app(runnable)
    chosen = with_config({"configurable": {"style": "long"}})
    unknown = with_config({"configurable": {"style": "medium"}})

    assert output_of(verb, await ask(app, verb, members=chosen))["style"] == "many words"
    assert_problem(await ask(app, verb, members=unknown), 422, "invalid_input")


def answering_graph(checkpointer: Any = None) -> Runnable[Any, Any]:
    def count(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{len(state['messages'])} before")]}

    builder = StateGraph(MessagesState)
    builder.add_node("count", count)
    builder.add_edge(START, "count")
    graph: Runnable[Any, Any] = builder.compile(checkpointer=checkpointer)
    return graph


def last_text(output: Any) -> str:
    return str(output["messages"][-1]["content"])


async def test_a_graph_is_mounted_without_a_warning() -> None:
    make_app(answering_graph())


@OF_LANGGRAPH
async def test_a_graph_with_a_memory_gets_its_thread_id() -> None:
    app = chain_app(answering_graph(InMemorySaver()), configurable=["thread_id"])
    value = {"messages": [{"type": "human", "content": "hi"}]}
    texts = []
    for thread in ("one", "one", "two"):
        sent = with_config({"configurable": {"thread_id": thread}})
        texts.append(last_text(output_of("invoke", await ask(app, "invoke", value, members=sent))))

    assert texts == ["1 before", "3 before", "1 before"]


@OF_LANGGRAPH
async def test_a_graph_with_a_memory_gets_its_thread_id_without_being_told() -> None:
    app = make_app(answering_graph(InMemorySaver()))
    sent = with_config({"configurable": {"thread_id": "one"}})

    response = await ask(app, "invoke", {"messages": []}, members=sent)

    assert last_text(output_of("invoke", response)) == "0 before"


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
@pytest.mark.parametrize("two_fields", [False, True])
async def test_a_message_history_gets_its_session_from_the_caller(two_fields: bool) -> None:
    sessions: dict[tuple[str, ...], History] = {}

    def history(session_id: str) -> History:
        return sessions.setdefault((session_id,), History())

    def history_of_two(user_id: str, conversation_id: str) -> History:
        return sessions.setdefault((user_id, conversation_id), History())

    names = ["user_id", "conversation_id"] if two_fields else ["session_id"]
    specs = [ConfigurableFieldSpec(id=name, annotation=str) for name in names]
    runnable = RunnableWithMessageHistory(
        FakeListChatModel(responses=["hello"]),
        history_of_two if two_fields else history,
        history_factory_config=specs if two_fields else None,
    )
    app = make_app(runnable.with_types(input_type=list[AnyMessage]))
    for verb in VERBS:
        sent = with_config({"configurable": dict.fromkeys(names, verb)})
        response = await ask(app, verb, [{"type": "human", "content": "hi"}], members=sent)
        assert response.status == 200, response.text
        assert "error" not in response.text
        kept = sessions[(verb,) * len(names)]
        assert [message.text for message in kept.messages] == ["hi", "hello"]


# What the server adds.


def modified(config: dict[str, Any], request: Request) -> dict[str, Any]:
    metadata = {"user": request.headers.get("x-user", "nobody")}
    return {**config, "metadata": metadata, "tags": ["from the server"]}


async def modified_async(config: dict[str, Any], request: Request) -> dict[str, Any]:
    return modified(config, request)


def modified_awaitably(config: dict[str, Any], request: Request) -> Awaitable[dict[str, Any]]:
    return modified_async(config, request)


class Modifier:
    """An object to be called, asynchronously."""

    async def __call__(self, config: dict[str, Any], request: Request) -> dict[str, Any]:
        return modified(config, request)


def modified_in_place(config: dict[str, Any], request: Request) -> dict[str, Any]:
    config.update(modified(config, request))
    return config


@pytest.mark.parametrize(
    "modifier",
    [
        modified,
        modified_async,
        modified_awaitably,
        Modifier(),
        Modifier().__call__,
        functools.partial(modified),
        functools.partial(modified_async),
        modified_in_place,
    ],
)
async def test_a_modifiers_metadata_and_tags_reach_the_chain(modifier: Any) -> None:
    app = make_app(seen, per_req_config_modifier=modifier)
    for verb in VERBS:
        output = output_of(verb, await ask(app, verb, headers={"x-user": "ann"}))
        assert own_metadata(output) == {"user": "ann"}
        assert output["tags"] == ["from the server"]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_sees_the_callers_config_as_far_as_it_is_allowed(verb: str) -> None:
    given: list[dict[str, Any]] = []

    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        given.append(config)
        return config

    app = make_app(seen, per_req_config_modifier=modify, config_keys=["tags"])
    await ask(app, verb, members=with_config({"tags": ["theirs"], "metadata": {"theirs": 1}}))

    assert given == [{"tags": ["theirs"]}]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_has_the_last_word_on_what_a_caller_set(verb: str) -> None:
    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        return {**config, "configurable": {"style": "the server's"}}

    app = make_app(knobs("style"), per_req_config_modifier=modify)
    sent = with_config({"configurable": {"style": "theirs"}})

    assert output_of(verb, await ask(app, verb, members=sent))["style"] == "the server's"


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_sees_all_fields_where_a_caller_sent_any(verb: str) -> None:
    given: list[Any] = []

    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        given.append(config["configurable"])
        return config

    runnable = knobs("style", "length", "api_key").with_config(configurable={"length": 7})
    app = make_app(runnable, per_req_config_modifier=modify)
    sent = with_config({"configurable": {"style": "ornate"}})

    output = output_of(verb, await ask(app, verb, members=sent))

    assert given == [{"style": "ornate", "length": 7, "api_key": "SERVER-KEY"}]
    assert (output["style"], output["length"]) == ("ornate", 7)


@pytest.mark.parametrize("sent", [{}, {"configurable": {}}, {"configurable": {"length": 1}}])
@pytest.mark.parametrize("verb", VERBS)
async def test_what_a_modifier_sets_to_its_default_holds(verb: str, sent: dict[str, Any]) -> None:
    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        config.setdefault("configurable", {})["style"] = Knobs().style
        return config

    runnable = knobs("style", "length").with_config(configurable={"style": "for who pays"})
    app = make_app(runnable, per_req_config_modifier=modify)

    output = output_of(verb, await ask(app, verb, members=with_config(sent)))

    assert output["style"] == Knobs().style


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_may_set_keys_and_addresses(verb: str) -> None:
    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        return {"configurable": {**config.get("configurable", {}), "api_key": "OF-THE-TENANT"}}

    app = make_app(knobs("style", "api_key"), per_req_config_modifier=modify)
    sent = with_config({"configurable": {"style": "ornate"}})

    output = output_of(verb, await ask(app, verb, members=sent))

    assert (output["style"], output["api_key"]) == ("ornate", "OF-THE-TENANT")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_that_returns_nothing_changes_nothing_and_is_no_error(verb: str) -> None:
    app = make_app(seen, per_req_config_modifier=lambda config, request: None)

    assert own_metadata(output_of(verb, await ask(app, verb))) == {}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_may_read_the_body(verb: str) -> None:
    async def modify(config: dict[str, Any], request: Request) -> dict[str, Any]:
        body = await request.json()
        return {**config, "metadata": {"members": sorted(body)}}

    app = make_app(seen, per_req_config_modifier=modify)
    response = await ask(app, verb)

    members = ["inputs"] if verb == "batch" else ["input"]
    assert own_metadata(output_of(verb, response)) == {"members": members}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_may_refuse_with_an_http_exception(verb: str) -> None:
    chain = CountingChain()

    def refuse(config: dict[str, Any], request: Request) -> dict[str, Any]:
        raise HTTPException(403, "not you", headers={"x-why": "because"})

    response = await ask(make_app(chain, per_req_config_modifier=refuse), verb)

    assert (response.status, response.json()) == (403, {"detail": "not you"})
    assert response.headers["x-why"] == "because"
    assert chain.total == 0


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifier_that_fails_is_a_500_without_its_text_and_nothing_runs(verb: str) -> None:
    chain = CountingChain()

    async def fail(config: dict[str, Any], request: Request) -> dict[str, Any]:
        raise ValueError("the text")

    response = await ask(make_app(chain, per_req_config_modifier=fail), verb)

    assert_problem(response, 500, "internal_error")
    assert "the text" not in response.text
    assert chain.total == 0


@pytest.mark.parametrize("verb", VERBS)
async def test_a_slow_sync_modifier_does_not_hold_up_other_requests(verb: str) -> None:
    entered, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait(config: dict[str, Any], request: Request) -> dict[str, Any]:
        loop.call_soon_threadsafe(entered.set)
        assert release.wait(5)
        return config

    app = make_app(seen, per_req_config_modifier=wait)
    add_routes(app, echo(), path="/other")
    async with asyncio.timeout(20):
        waiting = asyncio.create_task(ask(app, verb))
        await entered.wait()
        other = await ask(app, "invoke", path="/other")
        assert not waiting.done()
        release.set()
        response = await waiting

    assert output_of("invoke", other) == 1
    output_of(verb, response)


async def test_a_modifier_is_asked_once_for_a_batch_config_and_for_each_of_several() -> None:
    asked: list[Any] = []

    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        asked.append(config.get("tags"))
        return config

    app = make_app(seen, per_req_config_modifier=modify, config_keys=["tags"])
    for config in ({"tags": ["all"]}, [{"tags": ["first"]}, {"tags": ["second"]}]):
        body = {"inputs": [1, 2], "config": config}
        await request(app, "POST", "/chain/batch", json=body)

    assert asked == [["all"], ["first"], ["second"]]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_modifiers_callbacks_see_the_run_and_its_name_and_metadata(verb: str) -> None:
    starts: list[dict[str, Any]] = []

    class Recorder(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            starts.append(kwargs)

    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        return {
            "callbacks": [Recorder()],
            "run_name": "mine",
            "metadata": {"__useragent": "forged"},
        }

    app = make_app(seen, per_req_config_modifier=modify)
    response = await ask(app, verb, headers={"user-agent": "test/1"})

    [start] = starts
    assert start["name"] == "/chain"
    assert str(start["run_id"]) == run_id_of(verb, response)
    forced = {
        "__useragent": "test/1",
        "__chainserve_version": __version__,
        "__langserve_endpoint": verb,
    }
    assert start["metadata"].items() >= forced.items()


@pytest.mark.parametrize("verb", VERBS)
async def test_a_caller_cannot_forge_what_is_forced(verb: str) -> None:
    app = make_app(seen, config_keys=["metadata"])
    sent = with_config({"metadata": {"__langserve_endpoint": "forged", "mine": 1}})

    output = output_of(verb, await ask(app, verb, members=sent))

    assert output["metadata"]["__langserve_endpoint"] == verb
    assert output["metadata"]["mine"] == 1


async def test_a_runs_name_has_the_routers_prefix() -> None:
    names: list[str] = []

    class Recorder(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            names.append(kwargs["name"])

    router, app = APIRouter(prefix="/v1"), FastAPI()
    add_routes(router, echo().with_config(callbacks=[Recorder()]), path="/chain")
    app.include_router(router)
    await ask(app, "invoke", path="/v1/chain")

    assert names == ["/v1/chain"]


# Context variables.

USER: ContextVar[str] = ContextVar("test_config_user", default="nobody")


def who(_: Any) -> str:
    return USER.get()


async def who_async(_: Any) -> str:
    return USER.get()


class SetsUser:
    """Pure ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        USER.set("from middleware")
        await self.app(scope, receive, send)


async def set_and_pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    USER.set("from middleware")
    return await call_next(request)


async def set_user() -> None:
    USER.set("from a dependency")


CONTEXTS: dict[str, tuple[Callable[[FastAPI], None], list[Any], str]] = {
    "pure ASGI": (lambda app: app.add_middleware(SetsUser), [], "from middleware"),
    "BaseHTTPMiddleware": (
        lambda app: app.add_middleware(BaseHTTPMiddleware, dispatch=set_and_pass_on),
        [],
        "from middleware",
    ),
    "dependency": (lambda app: None, [Depends(set_user)], "from a dependency"),
    "both": (lambda app: app.add_middleware(SetsUser), [Depends(set_user)], "from a dependency"),
}


@pytest.mark.parametrize("function", [who, who_async])
@pytest.mark.parametrize(("layer", "depends", "user"), CONTEXTS.values(), ids=CONTEXTS.keys())
async def test_context_variables_of_the_request_reach_the_chain(
    layer: Callable[[FastAPI], None],
    depends: list[Any],
    user: str,
    function: Callable[[Any], Any],
) -> None:
    app = make_app(RunnableLambda(function), dependencies=depends)
    layer(app)
    for verb in VERBS:
        assert output_of(verb, await ask(app, verb)) == user
    assert USER.get() == "nobody"


@pytest.mark.parametrize("verb", VERBS)
async def test_context_variables_of_an_async_modifier_reach_the_chain(verb: str) -> None:
    async def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        USER.set("from a modifier")
        return config

    app = make_app(who, per_req_config_modifier=modify)

    assert output_of(verb, await ask(app, verb)) == "from a modifier"


async def test_a_config_of_which_members_are_required_is_refused_where_none_is_sent() -> None:
    class Named(BaseModel):
        name: str

    class Required(RunnableLambda[Any, Any]):
        def config_schema(self, *, include: Sequence[str] | None = None) -> type[BaseModel]:
            return create_model("Config", configurable=(Named, ...))

    app = make_app(Required(lambda value: value))

    refused = await request(app, "POST", "/chain/invoke", json={"input": 1})
    taken = await request(
        app,
        "POST",
        "/chain/invoke",
        json={"input": 1, "config": {"configurable": {"name": "a"}}},
    )

    assert (refused.status, taken.status) == (422, 200)
