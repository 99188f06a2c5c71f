"""The same request to the same runnable: LangServe 0.3.3 and chainserve answer the same bytes.

`test_langserve_differences.py` has what differs on purpose.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableLambda
from sse_starlette.sse import EventSourceResponse

from chainserve.runtime import runtimes_on
from chainserve.settings import Settings
from tests import _pair_chains as chains, _pair_servers as servers, _pair_values as values
from tests._bridge import open_stream
from tests._chains import GatedChain, answering, echo, failing, streaming
from tests._pairs import (
    CHAINSERVE,
    LANGSERVE,
    Package,
    Pair,
    Pairs,
    ask,
    ask_over_socket,
    batch,
    each_schema,
    each_verb,
    forget_oracle_state,
    get,
    invoke,
    normalised,
    option,
    stream,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
    pytest.mark.filterwarnings("ignore:`config_schema` is deprecated"),  # LangGraph's
    pytest.mark.filterwarnings("ignore::DeprecationWarning:langserve"),
]


@pytest.fixture(autouse=True)
def _oracle() -> None:
    """Give LangServe a fresh start: it keeps state in its modules."""
    forget_oracle_state()


def table(pairs: Mapping[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", pairs.values(), ids=pairs.keys())


# Values: as they go in and come out.

PAIRS: Pairs = {
    "batch: every plain value": batch(echo, [*values.PLAIN_VALUES.values()]),
    "stream: every plain value": stream(partial(streaming, *values.PLAIN_VALUES.values()), 1),
    "batch: every kind of output": batch(values.output_named, [*values.OUTPUTS]),
    "stream: every kind of output": stream(partial(streaming, *values.OUTPUTS.values()), 1),
}
for name, value in values.PLAIN_VALUES.items():
    PAIRS[f"invoke: {name} as input and output"] = invoke(echo, value)
for name in values.OUTPUTS:
    PAIRS[f"invoke: {name} as output"] = invoke(values.output_named, name)

# Outputs of a known type, where nothing has to be changed.

for name, (type_, value) in values.TYPED_OUTPUTS.items():
    chain = chains.typed(type_, value)
    PAIRS |= {
        f"invoke: an output known to be {name}": invoke(chain, 1),
        f"invoke: an output declared to be {name}": invoke(
            partial(answering, value), 1, options=option(output_type=type_)
        ),
        f"output_schema: {name}": get(chain, "output_schema"),
    }
TOOL_MESSAGE = partial(answering, AIMessage("x", tool_calls=[values.CALL]))
PAIRS |= {
    "invoke: usage declared to be BaseMessage": invoke(
        chains.usage_model, "hi", options=option(output_type=BaseMessage)
    ),
    "batch: an output declared to be BaseMessage": batch(
        TOOL_MESSAGE, [1], options=option(output_type=BaseMessage)
    ),
    "stream: an output declared to be BaseMessage": stream(
        TOOL_MESSAGE, 1, options=option(output_type=BaseMessage)
    ),
    "invoke: a declared output type converts": invoke(echo, "5", options=option(output_type=int)),
    "invoke: an output type declared by with_types leaves keys out": invoke(
        chains.typed(chains.Answered, {"text": "x", "more": 1}), 1
    ),
    "batch: an output type declared by with_types leaves keys out": batch(
        chains.typed(chains.Answered, {"text": "x", "more": 1}), [1]
    ),
    "invoke: an output type declared below a config leaves keys out": invoke(
        lambda: chains.typed(chains.Answered, {"text": "x", "more": 1})().with_config(tags=["a"]), 1
    ),
    "invoke: an output type with other names for JSON": invoke(
        chains.typed(chains.Renamed, {"orderNumber": 7}), 1
    ),
    "batch: an output type with other names for JSON": batch(
        chains.typed(chains.Renamed, {"orderNumber": 7}), [1]
    ),
    "invoke: an output type declared by the last step": invoke(
        lambda: echo() | chains.typed(chains.Answered, {"text": "x", "more": 1})(), 1
    ),
    "invoke: an output type declared by what others stand in for": invoke(
        lambda: chains.typed(chains.Answered, {"text": "x", "more": 1})().with_fallbacks([echo()]),
        1,
    ),
    "invoke: an output type declared by with_types converts": invoke(chains.typed(int, "5"), 1),
    "invoke: a datetime declared by with_types": invoke(
        chains.typed(datetime.datetime, chains.MOMENT), 1
    ),
    "invoke: a declared output type leaves keys out": invoke(
        partial(answering, {"text": "x", "more": 1}), 1, options=option(output_type=chains.Answered)
    ),
    "invoke: a model's subclass declared to be the model": invoke(
        partial(answering, chains.Member(name="Ann", number=5)),
        1,
        options=option(output_type=chains.Customer),
    ),
    "invoke: a datetime with a zone, declared": invoke(
        partial(answering, chains.MOMENT), 1, options=option(output_type=datetime.datetime)
    ),
}

# Inputs as the chain sees them.

for name, (type_, value) in values.TYPED_INPUTS.items():
    chain = chains.telling_type(type_)
    PAIRS |= {
        f"invoke: an input that is {name}": invoke(chain, value),
        f"batch: an input that is {name}": batch(chain, [value]),
        f"input_schema: {name}": get(chain, "input_schema"),
    }
for name in ("an int from a str", "a pydantic model", "messages of every kind"):
    type_, value = values.TYPED_INPUTS[name]
    PAIRS |= each_verb(
        f"an input declared to be {name}",
        partial(RunnableLambda, repr),
        value,
        options=option(input_type=type_),
    )


KEPT = {"name": "Ann", "address": {"street": "a"}}
PAIRS |= each_verb(
    "a CustomUserType",
    partial(RunnableLambda, servers.show_kept),
    KEPT,
    options=servers.customer_kept,
)
PAIRS |= each_schema(
    "a CustomUserType", partial(RunnableLambda, str), options=servers.customer_kept
)

# Chains.

for name, (chain, value) in values.CHAINS.items():
    PAIRS |= each_verb(name, chain, value)
    PAIRS[f"input_schema: {name}"] = get(chain, "input_schema")
    PAIRS[f"output_schema: {name}"] = get(chain, "output_schema")
    if "choice" in name or "configurable" in name or "graph" in name:
        PAIRS[f"config_schema: {name}"] = get(chain, "config_schema")
for name, value in values.CHAT_INPUTS.items():
    PAIRS |= {
        f"invoke: a model with {name}": invoke(chains.usage_model, value),
        f"stream: a model with {name}": stream(chains.usage_model, value),
    }

# Streams.

PAIRS |= {
    "invoke: retry": invoke(chains.with_retries, 1),
    "batch: retry": batch(chains.with_retries, [1]),
    "invoke: function that yields": invoke(chains.generator_function, "a b"),
    "stream: nothing": stream(streaming, 1),
    "stream: a chunk of null": stream(partial(streaming, None), 1),
    "stream: chunks of several kinds": stream(
        partial(streaming, "a", 1, None, {"b": []}, Document("x"), AIMessageChunk(content="x")), 1
    ),
    "stream: many chunks": stream(partial(streaming, *map(str, range(500))), 1),
}
BROKEN_STREAMS: Pairs = {
    "a failure before the first chunk": stream(failing, 1),
    "a failure in the middle": stream(partial(failing, after=2), 1),
    "a failure after the last chunk": stream(chains.failing_at_the_end, 1),
    "a function that fails": stream(chains.failing_function, 1),
    "a function that yields": stream(chains.generator_function, "a b"),
    "a chain with retries": stream(chains.with_retries, 1),
    "a generator without an async form": stream(chains.sync_generator, "a b"),
}

# Configs.

TEMPLATE = {"configurable": {"template": "Say no to {topic}"}}
OTHER = {"configurable": {"template": "Say yes to {topic}"}}
UNKNOWN = {
    "unknown": 1,
    "tags": ["a"],
    "metadata": {"a": 1},
    "recursion_limit": 3,
    "run_name": "mine",
    "max_concurrency": 1,
    "callbacks": [],
}
KEYS = ("tags", "metadata", "recursion_limit", "configurable")
PAIRS |= (
    each_verb("a field set by the caller", chains.configurable_prompt, values.TOPIC, TEMPLATE)
    | each_verb(
        "a list set by the caller",
        chains.configurable_model,
        "hi",
        {"configurable": {"responses": ["set"]}},
    )
    | each_verb(
        "one of several fields", chains.configurable_model, "hi", {"configurable": {"first": 1}}
    )
    | each_verb("an alternative", chains.model_choice, "hi", {"configurable": {"llm": "dear"}})
    | each_verb(
        "an alternative with another input",
        chains.input_choice,
        values.CUSTOMER,
        {"configurable": {"kind": "customer"}},
    )
    | each_verb("an unknown field", chains.telling_config, 1, {"configurable": {"a": 1}})
    | each_verb("an empty config", chains.telling_config, 1, {})
    | each_verb("unknown keys", chains.telling_config, 1, UNKNOWN)
    | each_verb(
        "keys that are allowed", chains.telling_config, 1, UNKNOWN, options=option(config_keys=KEYS)
    )
    | each_verb(
        "some keys that are allowed",
        chains.telling_config,
        1,
        {"metadata": {"a": [1]}},
        options=option(config_keys=KEYS),
    )
    | each_verb("the chain's own config", chains.with_own_config, 1, UNKNOWN)
    | each_verb(
        "the chain's own config and the caller's",
        chains.with_own_config,
        1,
        UNKNOWN,
        options=option(config_keys=KEYS),
    )
    | each_schema(
        "keys that are allowed", chains.configurable_model, options=option(config_keys=KEYS)
    )
    | each_schema("no keys", chains.configurable_model, options=option(config_keys=()))
)
RUN_ID = str(chains.FIXED_UUID)
WITH_RUN_ID = option(config_keys=("run_id",))
PAIRS |= {
    "invoke: a run id of the caller's": invoke(
        partial(echo), 1, {"run_id": RUN_ID}, options=WITH_RUN_ID
    ),
    "stream: a run id of the caller's": stream(
        partial(echo), 1, {"run_id": RUN_ID}, options=WITH_RUN_ID
    ),
    "batch: a run id for each input": batch(
        echo, [1, 2], [{"run_id": RUN_ID}, {}], options=WITH_RUN_ID
    ),
    "batch: a config for each input": batch(
        chains.configurable_prompt,
        [values.TOPIC, values.TOPIC, values.TOPIC],
        [TEMPLATE, {}, OTHER],
    ),
    "batch: an alternative for each input": batch(
        chains.input_choice,
        [values.CUSTOMER, "text", 3],
        [{"configurable": {"kind": kind}} for kind in ("customer", "text", "default")],
    ),
    "batch: nothing": batch(echo, []),
    "batch: nothing, with a list of configs": batch(echo, [], []),
    "invoke: a name for the trace": invoke(chains.telling_run_name, 1),
    "batch: a name for the trace": batch(chains.telling_run_name, [1]),
    "stream: a name for the trace": stream(chains.telling_run_name, 1),
}

# A history for each session.

SESSION = {"configurable": {"session_id": "s1"}}
QUESTION = {"question": "why"}
PAIRS |= each_verb("a session's history", chains.history_chain, QUESTION, SESSION)
PAIRS |= each_schema("a history", chains.history_chain)
PAIRS["batch: a session for each input"] = batch(
    chains.history_chain, [QUESTION, QUESTION], [SESSION, {"configurable": {"session_id": "s2"}}]
)


# The server's part of the config.


HEADERS = {"x-template": "From a header: {topic}", "x-user": "ann"}
for name, modifier in {"sync": servers.by_header, "async": servers.by_header_async}.items():
    PAIRS |= each_verb(
        f"a {name} modifier that reads a header",
        chains.configurable_prompt,
        values.TOPIC,
        TEMPLATE,
        headers=HEADERS,
        options=option(per_req_config_modifier=modifier),
    )
for name, config in {"a config": TEMPLATE, "an empty config": {}, "no config": None}.items():
    PAIRS |= each_verb(
        f"a modifier that sets a field beside {name}",
        chains.configurable_prompt,
        values.TOPIC,
        config,
        headers=HEADERS,
        options=option(per_req_config_modifier=servers.set_by_key),
    )
for name, modifier in {
    "sync": servers.setting_the_user,
    "async": servers.setting_the_user_async,
}.items():
    PAIRS |= each_verb(
        f"a context variable set by a {name} modifier",
        servers.who,
        1,
        headers=HEADERS,
        options=option(per_req_config_modifier=modifier),
    )
PAIRS |= each_verb(
    "a context variable set by a dependency",
    servers.who,
    1,
    headers=HEADERS,
    options=option(dependencies=[Depends(servers.user_of)]),
)
PAIRS |= each_verb(
    "a modifier that refuses", echo, 1, options=option(per_req_config_modifier=servers.refusing)
)
PAIRS |= each_schema(
    "a modifier that refuses", echo, options=option(per_req_config_modifier=servers.refusing)
)
for verb in (invoke, stream):
    PAIRS |= {
        f"{verb.__name__}: a modifier that changes the config in place": verb(
            chains.telling_config,
            1,
            {"tags": ["a"]},
            headers=HEADERS,
            options=option(per_req_config_modifier=servers.changed_in_place, config_keys=KEYS),
        ),
        f"{verb.__name__}: what a modifier gets": verb(
            chains.telling_config,
            1,
            UNKNOWN,
            options=option(per_req_config_modifier=servers.showing_what_it_got),
        ),
        f"{verb.__name__}: what a modifier gets with keys that are allowed": verb(
            chains.telling_config,
            1,
            UNKNOWN,
            options=option(per_req_config_modifier=servers.showing_what_it_got, config_keys=KEYS),
        ),
    }

FIELDS_SENT: dict[str, Any] = {"a field": TEMPLATE, "no field": {"configurable": {}}, "nothing": {}}
PAIRS |= {
    f"invoke: what a modifier gets where {name} is set": invoke(
        chains.configurable_telling_config,
        values.TOPIC,
        sent,
        options=option(per_req_config_modifier=servers.showing_what_it_got),
    )
    for name, sent in FIELDS_SENT.items()
}

RUN_ID_BY_SERVER = option(per_req_config_modifier=servers.choosing_the_run_id)
PAIRS |= {
    "invoke: a run id of the server's": invoke(partial(echo), 1, options=RUN_ID_BY_SERVER),
    "stream: a run id of the server's": stream(partial(echo), 1, options=RUN_ID_BY_SERVER),
}

# Mounting.


MOUNTS = {
    "the empty path": (servers.at_root, ""),
    "a router with a prefix": (servers.on_router, "/v1/chain"),
    "a router included with a prefix": (servers.on_included_router, "/api/v2/chain"),
    "a sub-application": (servers.in_sub_application, "/sub/chain"),
    "beside other chains": (servers.beside_others, "/chain"),
    "a middleware": (servers.with_middleware, "/chain"),
}
for name, (mount, base) in MOUNTS.items():
    PAIRS |= each_verb(name, chains.telling_run_name, 1, mount=mount, base=base)
    PAIRS[f"input_schema: {name}"] = get(
        chains.telling_run_name, "input_schema", mount=mount, base=base
    )


GUARDED = option(dependencies=[Depends(servers.no_key)])
PAIRS |= each_verb("a dependency that refuses", echo, 1, options=GUARDED)
PAIRS |= each_schema("a dependency that refuses", echo, options=GUARDED)
PAIRS |= each_verb(
    "a dependency that lets pass", echo, 1, options=GUARDED, headers={"x-key": "right"}
)
ENDPOINT_LISTS: dict[str, dict[str, Sequence[str]]] = {
    "only batch": {"enabled_endpoints": ["batch"]},
    "only the input's schema": {"enabled_endpoints": ("input_schema",)},
    "all but invoke and stream": {"disabled_endpoints": ["invoke", "stream"]},
    "all but the schemas": {
        "disabled_endpoints": ["input_schema", "output_schema", "config_schema"]
    },
}
for name, lists in ENDPOINT_LISTS.items():
    options = option(**lists)
    PAIRS |= each_verb(f"endpoints: {name}", echo, 1, options=options)
    PAIRS |= each_schema(f"endpoints: {name}", echo, options=options)
PAIRS |= {
    "invoke: an endpoint in upper case": invoke(
        echo, 1, options=option(enabled_endpoints=["INVOKE"])
    ),
    "invoke: token_feedback among the endpoints": invoke(
        echo, 1, options=option(disabled_endpoints=["token_feedback"])
    ),
    "invoke: both lists, one of them empty": invoke(
        echo, 1, options=option(enabled_endpoints=["invoke"], disabled_endpoints=[])
    ),
    "GET invoke": get(echo, "invoke"),
    "GET batch": get(echo, "batch"),
    "POST input_schema": Pair(chain=echo, target="input_schema", body={}),
    "POST to no route": Pair(chain=echo, target="nothing", body={}),
}

# Bodies.

PAIRS |= {
    "invoke: kwargs are not used": Pair(
        chain=echo, target="invoke", body={"input": 1, "kwargs": {"a": 1}, "more": 1}
    ),
    "batch: kwargs are a list, as LangChain.js sends them": Pair(
        chain=echo, target="batch", body={"inputs": [1, 2], "config": [{}, {}], "kwargs": [{}, {}]}
    ),
    "stream: a body as LangChain.js sends it": Pair(
        chain=echo,
        target="stream",
        body={
            "input": 1,
            "config": {"tags": [], "metadata": {}, "recursionLimit": 25},
            "kwargs": {},
        },
    ),
    "invoke: a body with white space and escapes": Pair(
        chain=echo, target="invoke", body=b' {\r\n "input" : "\\u00e9\\ud83d\\ude00" } '
    ),
    "invoke: a member twice": Pair(chain=echo, target="invoke", body=b'{"input":1,"input":2}'),
    "invoke: a media type with a charset": invoke(
        echo, "é", headers={"content-type": "application/json; charset=utf-8"}
    ),
    "stream: the Accept of LangServe's client": stream(
        echo, 1, headers={"accept": "text/event-stream", "cache-control": "no-store"}
    ),
    "stream: Accept of anything": stream(echo, 1, headers={"accept": "*/*"}),
    "stream: Accept of JSON": stream(echo, 1, headers={"accept": "application/json"}),
}

# HTTPException of the chain, and handlers of the application.


CALLS: list[Callable[..., Pair]] = [invoke, batch]
for call in CALLS:
    PAIRS |= {
        f"{call.__name__}: HTTPException": call(chains.raising(servers.too_many), [1]),
        f"{call.__name__}: HTTPException with an object": call(
            chains.raising(lambda: HTTPException(402, {"pay": 5})), [1]
        ),
        f"{call.__name__}: HTTPException with no detail": call(
            chains.raising(lambda: HTTPException(404)), [1]
        ),
        f"{call.__name__}: an error that the application handles": call(
            chains.failing_function, [1], mount=servers.with_handlers
        ),
        f"{call.__name__}: HTTPException that the application handles": call(
            chains.raising(servers.too_many), [1], mount=servers.with_handlers
        ),
    }
PAIRS |= {
    "invoke: an error that the application answers with 500": invoke(
        chains.failing_function, 1, mount=servers.with_last_resort
    ),
}

# Serializers.


PAIRS |= each_verb(
    "a serializer of the user's",
    partial(answering, [1j, Document("x")]),
    1,
    options=servers.plain_serializer,
)
PAIRS |= each_verb(
    "a serializer that leaves spaces",
    partial(answering, {"a": ["é", 1]}),
    1,
    options=servers.spacious_serializer,
)
PAIRS["invoke: a serializer and an output type"] = invoke(
    partial(answering, chains.Customer(name="ann")), 1, options=servers.typed_and_serialized
)


@table(PAIRS)
async def test_both_answer_the_same_bytes(pair: Pair) -> None:
    theirs = await ask(LANGSERVE, pair)
    ours = await ask(CHAINSERVE, pair)

    assert ours == theirs


async def test_both_take_a_run_id_again_once_its_run_has_ended() -> None:
    pair = invoke(partial(echo), 1, {"run_id": RUN_ID}, options=WITH_RUN_ID)
    theirs = [await ask(LANGSERVE, pair), await ask(LANGSERVE, pair)]
    ours = [await ask(CHAINSERVE, pair), await ask(CHAINSERVE, pair)]

    assert ours == theirs


@table(BROKEN_STREAMS)
async def test_both_break_a_stream_off_with_the_same_event(pair: Pair) -> None:
    theirs = await ask(LANGSERVE, pair)
    ours = await ask(CHAINSERVE, pair)

    assert ours.body == theirs.body
    assert (ours.status, ours.headers) == (theirs.status, theirs.headers)
    assert b"event: error" in ours.body


ON_THE_WIRE = {
    name: PAIRS[name]
    for name in (
        "invoke: prompt, model and parser",
        "stream: prompt, model and parser",
        "stream: nothing",
        "invoke: HTTPException",
        "input_schema: prompt, model and parser",
    )
}


@table(ON_THE_WIRE)
async def test_both_answer_the_same_bytes_over_a_socket(pair: Pair) -> None:
    theirs = await ask_over_socket(LANGSERVE, pair)
    ours = await ask_over_socket(CHAINSERVE, pair)

    assert ours == theirs


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow")  # in sse-starlette 1.8
@pytest.mark.parametrize("package", [LANGSERVE, CHAINSERVE], ids=repr)
async def test_both_ping_an_idle_stream_alike(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventSourceResponse, "DEFAULT_PING_INTERVAL", 0.01)
    chain = GatedChain(["a"], before=0)
    app = FastAPI()
    runtimes_on(app.router, Settings(heartbeat_interval=0.01))
    package.add_routes(app, chain, path="/chain")
    async with open_stream(app, "POST", "/chain/stream", json={"input": 1}) as response:
        ping = await response.next_event()
        chain.gate.set()
        others = [event.event async for event in response.events() if not event.comments]

    assert ping is not None
    assert normalised(ping.raw) == b": ping - <time>\r\n\r\n"
    assert others == ["metadata", "data", "end"]
