"""The config in a URL: decoded within a bound, held to the body's rules, and merged below it."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableSerializable,
)
from langserve import add_routes
from starlette.requests import Request

from chainserve import config as config_module
from chainserve.chain import Chain
from chainserve.config import MAX_HASHED_CONFIG_BYTES, ConfigPipeline
from chainserve.errors import InvalidConfigError, InvalidConfigHashError, InvalidInputError
from chainserve.lzstring import compress
from tests._apps import assert_problem, make_app
from tests._bridge import request
from tests._chains import echo

pytestmark = pytest.mark.anyio

ALL_KEYS = ["tags", "metadata", "configurable", "recursion_limit", "max_concurrency", "run_id"]
RUN_ID = "0d0f0000-1111-4222-8333-444455556666"


class Knobs(RunnableSerializable[Any, dict[str, Any]]):
    """Returns how it is set, and what else of its config a chain can see."""

    style: str = "plain"
    length: int = 10
    api_key: str = "SERVER-KEY"

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        config = config or {}
        metadata = config.get("metadata", {})
        return {
            "style": self.style,
            "length": self.length,
            "tags": config.get("tags"),
            "metadata": {name: metadata[name] for name in metadata if not name.startswith("__")},
            "recursion_limit": config.get("recursion_limit"),
        }


def knobs(*names: str) -> Runnable[Any, dict[str, Any]]:
    fields: dict[str, Any] = {name: ConfigurableField(id=name) for name in names}
    return Knobs().configurable_fields(**fields)


def hashed(config: Any) -> str:
    return compress(json.dumps(config))


def pipeline(runnable: Runnable[Any, Any] | None = None, **options: Any) -> ConfigPipeline:
    options.setdefault("config_keys", ALL_KEYS)
    runnable = runnable or knobs("style", "length")
    return ConfigPipeline(Chain(path="/chain", runnable=runnable, **options), runnable, "/chain")


async def build(
    configs: ConfigPipeline, config_hash: str, body: dict[str, Any] | None = None
) -> RunnableConfig:
    asked = Request({"type": "http", "headers": [(b"user-agent", b"test/1")]})
    return await configs.build(body, asked, endpoint="invoke", config_hash=config_hash)


def own_metadata(config: RunnableConfig) -> dict[str, Any]:
    return {key: value for key, value in config["metadata"].items() if not key.startswith("__")}


# What it does.


async def test_a_config_in_the_url_is_used_as_one_in_the_body_is() -> None:
    sent = {
        "tags": ["a"],
        "metadata": {"a": 1},
        "recursion_limit": 7,
        "max_concurrency": 2,
        "run_id": RUN_ID,
        "configurable": {"style": "ornate", "length": 3},
    }
    in_url, in_body = await build(pipeline(), hashed(sent)), await build(pipeline(), "", sent)

    assert in_url == in_body
    assert in_url["configurable"] == {"style": "ornate", "length": 3}


@pytest.mark.parametrize("body", [None, {}, {"tags": None, "configurable": None}])
async def test_a_body_without_a_config_leaves_that_of_the_url(body: dict[str, Any] | None) -> None:
    config = await build(
        pipeline(), hashed({"tags": ["a"], "configurable": {"style": "ornate"}}), body
    )

    assert config["tags"] == ["a"]
    assert config["configurable"] == {"style": "ornate"}


@pytest.mark.parametrize("config_hash", ["", hashed({}), hashed({"tags": None})])
async def test_a_url_without_a_config_leaves_that_of_the_body(config_hash: str) -> None:
    body = {"tags": ["a"], "configurable": {"style": "ornate"}}

    assert await build(pipeline(), config_hash, body) == await build(pipeline(), "", body)


async def test_the_body_has_the_last_word_and_tags_are_united() -> None:
    below = {
        "tags": ["a", "b"],
        "metadata": {"url": 1, "both": {"url": 1}},
        "configurable": {"style": "of the url", "length": 3},
        "recursion_limit": 7,
        "max_concurrency": 2,
    }
    body = {
        "tags": ["b", "c"],
        "metadata": {"body": 2, "both": {"body": 2}},
        "configurable": {"style": "of the body"},
        "recursion_limit": 8,
    }
    config = await build(pipeline(), hashed(below), body)

    assert config["tags"] == ["a", "b", "c"]
    assert own_metadata(config) == {"url": 1, "body": 2, "both": {"body": 2}}
    assert config["configurable"] == {"style": "of the body", "length": 3}
    assert config["recursion_limit"] == 8
    assert config["max_concurrency"] == 2


async def test_langchains_default_in_the_body_is_a_word_too() -> None:
    config = await build(pipeline(), hashed({"recursion_limit": 7}), {"recursion_limit": 25})

    assert config.get("recursion_limit", 25) == 25


async def test_characters_beyond_16_bits_come_through() -> None:
    sent = {"metadata": {"😀": "😀"}}
    config_hash = compress(json.dumps(sent, ensure_ascii=False))

    assert own_metadata(await build(pipeline(), config_hash)) == sent["metadata"]


async def test_a_modifier_sees_both_as_one_and_comes_after_them() -> None:
    given: list[Any] = []

    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        given.append(config)
        return {**config, "configurable": {"style": "of the server"}}

    configs = pipeline(per_req_config_modifier=modify, config_keys=["configurable", "metadata"])
    config = await build(
        configs,
        hashed({"metadata": {"a": 1}, "configurable": {"style": "of the url"}}),
        {"metadata": {"b": 2}},
    )

    fields = {"style": "of the url", "length": 10}
    assert given == [{"metadata": {"a": 1, "b": 2}, "configurable": fields}]
    assert config["configurable"] == {"style": "of the server"}


@pytest.mark.parametrize(
    ("bound", "key"), [({}, "SERVER-KEY"), ({"configurable": {"api_key": "BOUND"}}, "BOUND")]
)
async def test_a_secret_that_a_modifier_sees_is_in_no_config_unless_it_is_changed(
    bound: Any, key: str
) -> None:
    keys: list[Any] = []

    def modify(config: dict[str, Any], _: Request) -> dict[str, Any]:
        keys.append(config["configurable"].pop("api_key"))
        return {**config, "configurable": {**config["configurable"], "api_key": next(answers)}}

    answers = iter([key, "OF-THE-TENANT"])
    options = {"per_req_config_modifier": modify, "config_keys": ["configurable"]}
    configs = pipeline(knobs("style", "api_key").with_config(bound), **options)
    left = await build(configs, "", {"configurable": {"style": "ornate"}})
    changed = await build(configs, "", {"configurable": {"style": "ornate"}})

    assert keys == [key] * 2
    assert "api_key" not in left["configurable"]
    assert changed["configurable"]["api_key"] == "OF-THE-TENANT"


async def test_what_is_forced_cannot_be_forged_in_a_url() -> None:
    sent = {"metadata": {"__langserve_endpoint": "forged", "mine": 1}, "run_name": "forged"}

    config = await build(pipeline(), hashed(sent))

    assert config["metadata"]["__langserve_endpoint"] == "invoke"
    assert config["metadata"]["mine"] == 1
    assert config["run_name"] == "/chain"


async def test_what_one_request_does_to_its_config_is_not_seen_by_the_next() -> None:
    def spoil(config: dict[str, Any], _: Request) -> dict[str, Any]:
        config["tags"].append("spoilt")
        config["metadata"]["deep"]["spoilt"] = True
        config["configurable"]["style"] = "spoilt"
        return config

    sent = {"tags": ["a"], "metadata": {"deep": {}}, "configurable": {"style": "ornate"}}
    configs, config_hash = pipeline(per_req_config_modifier=spoil), hashed(sent)
    await build(configs, config_hash)

    again = configs.schema_config(config_hash)

    assert again["tags"] == ["a"]
    assert again["metadata"] == {"deep": {}}
    assert again["configurable"] == {"style": "ornate"}


# What a caller may set.


async def test_keys_that_are_not_accepted_are_dropped_or_refused_by_name() -> None:
    config_hash = hashed({"tags": ["a"], "metadata": {"a": 1}, "unheard of": 1})

    dropped = await build(pipeline(config_keys=["tags"]), config_hash)
    assert dropped["tags"] == ["a"]
    assert own_metadata(dropped) == {}
    with pytest.raises(InvalidConfigError, match="not accepted: metadata, unheard of"):
        await build(pipeline(config_keys=["tags"], strict_config=True), config_hash)


async def test_a_field_for_a_key_is_refused_in_a_url_too() -> None:
    config_hash = hashed({"configurable": {"api_key": "THEIRS"}})

    with pytest.raises(InvalidConfigError, match="may not set api_key"):
        await build(pipeline(knobs("api_key")), config_hash, {"configurable": {}})
    allowed = await build(pipeline(knobs("api_key"), configurable=["api_key"]), config_hash)
    assert allowed["configurable"] == {"api_key": "THEIRS"}


async def test_fields_are_refused_where_none_may_be_set() -> None:
    config_hash = hashed({"configurable": {"style": "ornate"}})

    with pytest.raises(InvalidConfigError, match="does not let a caller"):
        await build(pipeline(config_keys=["tags"]), config_hash)


async def test_fields_that_no_runnable_declares_pass_from_both_where_they_may() -> None:
    configs = pipeline(RunnableLambda(str), configurable=["user"])
    below = {"configurable": {"user": "ann", "thread_id": "1", "nonsense": 1}}

    config = await build(configs, hashed(below), {"configurable": {"thread_id": "2"}})

    assert config["configurable"] == {"user": "ann", "thread_id": "2"}


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"tags": "one"}, ["tags"]),
        ({"recursion_limit": 0}, ["recursion_limit"]),
        ({"configurable": {"length": "long"}}, ["configurable", "length"]),
        ({"run_id": "no uuid"}, ["run_id"]),
    ],
)
async def test_a_member_of_the_wrong_type_is_named(sent: dict[str, Any], place: list[str]) -> None:
    with pytest.raises(InvalidInputError) as raised:
        await build(pipeline(), hashed(sent), {"tags": [], "recursion_limit": 5})

    assert raised.value.errors[0]["loc"][: len(place)] == place


# What is no config.

TOO_LARGE = {"metadata": {"text": "x" * MAX_HASHED_CONFIG_BYTES}}

UNDECODABLE = {
    "other characters": "***",
    "a space alone": " ",
    "characters at random": "abcdefgh",
    "nothing compressed": compress(""),
    "no JSON": compress("hello"),
    "an unfinished object": compress('{"tags": ['),
    "two values": compress("{} {}"),
    "a hash that is cut off": hashed({"tags": ["a", "b", "c"]})[:-4],
    "a JSON text as it is": "{}",
    "null": hashed(None),
    "a list": hashed([{"tags": []}]),
    "a text": hashed("tags"),
    "a number": hashed(1),
    "NaN": compress('{"metadata": {"a": NaN}}'),
    "a lone surrogate": compress('{"metadata": {"a": "\\ud800"}}'),
    "deep lists": compress('{"metadata": ' + "[" * 300 + "]" * 300 + "}"),
    "a large config": hashed(TOO_LARGE),
    "a bomb": compress("[" * 500_000),
    "a long tail": hashed({}) + "A" * 500_000,
    "a lone surrogate as a unit": "N4IgLghg5gziBcBtEheDZAXQL5A",
}


@pytest.mark.parametrize("config_hash", UNDECODABLE.values(), ids=UNDECODABLE.keys())
async def test_what_is_no_config_is_refused_as_langserve_refuses_it(config_hash: str) -> None:
    configs = pipeline()

    with pytest.raises(InvalidConfigHashError) as raised:
        await build(configs, config_hash)
    with pytest.raises(InvalidConfigHashError):
        configs.schema_config(config_hash)

    assert raised.value.status_code == 400
    assert raised.value.detail == "Invalid config hash"


async def test_a_config_may_be_as_large_as_the_bound() -> None:
    room = MAX_HASHED_CONFIG_BYTES - len(json.dumps({"metadata": {"text": ""}}))
    fits, exceeds = ({"metadata": {"text": "x" * size}} for size in (room, room + 1))

    assert own_metadata(await build(pipeline(), hashed(fits))) == fits["metadata"]
    with pytest.raises(InvalidConfigHashError):
        await build(pipeline(), hashed(exceeds))


async def test_the_bound_is_for_the_config_alone_however_badly_it_compresses() -> None:
    text = "".join(chr(0x4E00 + index) for index in range(20_900))
    sent = compress(json.dumps({"metadata": {"text": text}}, ensure_ascii=False))
    assert len(sent) > MAX_HASHED_CONFIG_BYTES

    assert own_metadata(await build(pipeline(), sent)) == {"text": text}


async def test_a_config_is_decompressed_once_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def decompress(text: str, *, max_bytes: int) -> str:
        asked.append(text)
        return '{"tags": ["a"]}'

    monkeypatch.setattr(config_module, "decompress", decompress)
    configs = pipeline()
    for index in range(3):
        config = await build(configs, "any", {"tags": [str(index)]})
        assert config["tags"] == [str(index), "a"]

    assert asked == ["any"]


# What schemas depend on.


def test_a_schemas_config_is_that_of_the_url_alone() -> None:
    def never(config: dict[str, Any], _: Request) -> dict[str, Any]:
        raise AssertionError

    configs = pipeline(per_req_config_modifier=never, config_keys=["configurable"])

    assert configs.schema_config("") == {"configurable": {}}
    assert configs.schema_config(hashed({"configurable": {"style": "a"}, "tags": ["x"]})) == {
        "configurable": {"style": "a"}
    }


def test_a_schemas_config_chooses_the_input() -> None:
    prompt = PromptTemplate.from_template("joke about {topic}").configurable_alternatives(
        ConfigurableField(id="prompt"),
        default_key="joke",
        poem=PromptTemplate.from_template("poem about {subject}"),
    )
    config = pipeline(prompt).schema_config(hashed({"configurable": {"prompt": "poem"}}))

    schema: Any = prompt.with_config(config).get_input_schema()

    assert set(schema.model_fields) == {"subject"}


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ({"configurable": {"api_key": "THEIRS"}}, InvalidConfigError),
        ({"configurable": {"length": "long"}}, InvalidInputError),
    ],
)
def test_a_schemas_config_is_held_to_the_same_rules(
    sent: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        pipeline(knobs("length", "api_key")).schema_config(hashed(sent))


# As LangServe does it.


async def ask_langserve(config_hash: str, body: dict[str, Any]) -> Any:
    """Return what a chain of LangServe's is given for a hash and a body's config."""
    app = FastAPI()
    add_routes(
        app,
        knobs("style", "length"),
        path="/chain",
        config_keys=ALL_KEYS,
        enabled_endpoints=("invoke", "config_hashes"),
    )
    target = f"/chain/c/{config_hash}/invoke"
    response = await request(app, "POST", target, json={"input": 1, "config": body})
    return response.json()["output"] if response.status == 200 else response.json()


@pytest.mark.parametrize(
    ("below", "body"),
    [
        ({"configurable": {"style": "a", "length": 3}}, {}),
        ({}, {"configurable": {"style": "b"}}),
        ({"configurable": {"style": "a"}}, {"configurable": {"style": "b"}}),
        ({"configurable": {"style": "a"}}, {"configurable": {"style": "b", "length": 4}}),
        ({"tags": ["b", "a"]}, {"tags": ["c", "b"]}),
        ({"tags": ["a"]}, {"metadata": {"a": 1}}),
        ({"metadata": {"a": 1, "b": {"x": 1}}}, {"metadata": {"b": {"y": 2}, "c": "😀"}}),
        ({"metadata": {"a": "\u2028 é 世 +/="}}, {}),
        ({"recursion_limit": 7}, {"recursion_limit": 8}),
        ({"recursion_limit": 7}, {}),
        ({"unheard of": 1, "callbacks": []}, {"unheard of": 2}),
    ],
)
async def test_a_chain_is_given_what_langserve_gives_it(
    below: dict[str, Any], body: dict[str, Any]
) -> None:
    for config_hash in (hashed(below), compress(json.dumps(below, ensure_ascii=False))):
        config = await build(pipeline(), config_hash, body)
        output = await knobs("style", "length").ainvoke(1, config)
        assert output == await ask_langserve(config_hash, body)


async def test_langserve_says_the_same_of_a_hash_it_cannot_decode() -> None:
    assert await ask_langserve("abcdefgh", {}) == {"detail": InvalidConfigHashError().detail}


async def test_a_field_that_the_body_leaves_stays_unlike_in_langserve() -> None:
    config_hash = hashed({"configurable": {"style": "a", "length": 3}})
    body = {"configurable": {"style": "b"}}

    output = await knobs("style", "length").ainvoke(1, await build(pipeline(), config_hash, body))

    assert output["length"] == 3
    assert (await ask_langserve(config_hash, body))["length"] == 10


@pytest.mark.parametrize(
    ("method", "below"),
    [
        ("GET", "runs"),
        ("POST", "runs"),
        ("GET", "runs/0c6b3a0e-8d1a-4a57-9a86-4a2f6f0f3f11"),
        ("DELETE", "runs/0c6b3a0e-8d1a-4a57-9a86-4a2f6f0f3f11"),
        ("GET", "runs/0c6b3a0e-8d1a-4a57-9a86-4a2f6f0f3f11/stream"),
        ("POST", "runs/0c6b3a0e-8d1a-4a57-9a86-4a2f6f0f3f11/cancel"),
        ("GET", "stream?input=1"),
        ("GET", "stream?last_event_id=x"),
        ("GET", "input_schema"),
        ("GET", "output_schema"),
        ("GET", "config_schema"),
    ],
)
async def test_every_route_refuses_a_config_in_the_url_that_is_none(
    method: str, below: str
) -> None:
    response = await request(make_app(echo()), method, f"/chain/c/zzz/{below}", json={"input": 1})

    assert_problem(response, 400, "invalid_config_hash")


async def test_a_cursor_is_not_looked_at_below_a_config_that_is_none() -> None:
    response = await request(
        make_app(echo()),
        "POST",
        "/chain/c/zzz/stream",
        json={"input": 1},
        headers={"last-event-id": "x"},
    )

    assert_problem(response, 400, "invalid_config_hash")
