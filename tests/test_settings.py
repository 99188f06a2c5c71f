"""The environment: read when a server is set up, with mistakes told by the variable's name."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from chainserve import Chain, ConfigurationError, add_routes, add_stream_route, create_app
from chainserve.settings import Settings, read_settings, unknown_variables
from tests._bridge import lifespan
from tests._chains import echo
from tests._processes import undone

pytestmark = pytest.mark.anyio

MOUNTS: dict[str, Callable[[], Any]] = {
    "add_routes": lambda: add_routes(FastAPI(), echo(), path="/chain"),
    "add_routes on a router": lambda: add_routes(APIRouter(), echo(), path="/chain"),
    "add_stream_route": lambda: add_stream_route(FastAPI(), echo()),
    "create_app": lambda: create_app([]),
    "read_settings": read_settings,
}


@pytest.mark.parametrize("mount", MOUNTS.values(), ids=MOUNTS.keys())
@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CHAINSERVE_RUN_TIMEOUT", "soon", "CHAINSERVE_RUN_TIMEOUT is 'soon': Input should be a"),
        ("CHAINSERVE_MAX_BODY_BYTES", "0", "Input should be greater than 0."),
        ("CHAINSERVE_ON_DISCONNECT", "stop", "Input should be 'cancel' or 'continue'."),
        ("CHAINSERVE_CORS_ORIGINS", "null", "CHAINSERVE_CORS_ORIGINS is 'null': 'null' is every"),
    ],
)
def test_a_wrong_value_is_refused_when_the_server_is_set_up(
    mount: Callable[[], Any],
    variable: str,
    value: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refused:
        mount()

    assert str(refused.value).startswith(f"The settings cannot be used. {variable} is ")
    assert says in str(refused.value)
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PORT", "http", "PORT is 'http': Input should be a valid integer"),
        ("CHAINSERVE_PORT", "70000", "CHAINSERVE_PORT is '70000': Input should be less than"),
    ],
)
def test_a_wrong_port_is_refused_where_it_is_ours_to_listen_on(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    add_routes(FastAPI(), echo(), path="/chain")
    with pytest.raises(ConfigurationError) as refused:
        create_app([])

    assert says in str(refused.value)


def test_a_service_of_our_name_in_kubernetes_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "CHAINSERVE_SERVICE_HOST": "10.0.0.5",
        "CHAINSERVE_SERVICE_PORT": "80",
        "CHAINSERVE_SERVICE_PORT_HTTP": "80",
        "CHAINSERVE_PORT": "tcp://10.0.0.5:80",
        "CHAINSERVE_PORT_80_TCP": "tcp://10.0.0.5:80",
        "CHAINSERVE_PORT_80_TCP_ADDR": "10.0.0.5",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)

    assert read_settings().port == 8000
    assert [*unknown_variables(told)] == []


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINSERVE_RUN_TIMEOUT", "")
    monkeypatch.setenv("PORT", "")

    assert read_settings() == Settings(port=8000, run_timeout=3600)


def test_a_router_with_settings_of_its_own_reads_no_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = create_app([], Settings())
    monkeypatch.setenv("CHAINSERVE_RUN_TIMEOUT", "soon")

    add_routes(app, echo(), path="/chain")


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINSERVE_RUN_TIMEOUT", "soon")
    monkeypatch.setenv("CHAINSERVE_MAX_RUNS", "many")
    with pytest.raises(ConfigurationError, match=r"RUN_TIMEOUT is .*; .*MAX_RUNS is "):
        read_settings()


def test_settings_that_contradict_each_other_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINSERVE_CORS_ORIGINS", "*")
    monkeypatch.setenv("CHAINSERVE_CORS_CREDENTIALS", "true")
    with pytest.raises(ConfigurationError, match="List the origins of those pages"):
        read_settings()


def test_a_router_is_left_as_it_was_where_a_setting_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHAINSERVE_RUN_TIMEOUT", "soon")
    app = FastAPI()
    routes = len(app.routes)
    with pytest.raises(ConfigurationError):
        add_routes(app, echo(), path="/chain")

    assert len(app.routes) == routes


@pytest.mark.parametrize(
    ("variable", "mend"),
    [
        ("CHAINSERVE_RUN_TIMOUT", "Did you mean CHAINSERVE_RUN_TIMEOUT?"),
        ("chainserve_run_timout", "Did you mean CHAINSERVE_RUN_TIMEOUT?"),
        ("CHAINSERVE_CORS_ORIGIN", "Did you mean CHAINSERVE_CORS_ORIGINS?"),
        ("CHAINSERVE_X", "It has no effect: take it away."),
    ],
)
def test_a_variable_that_is_no_setting_is_told_with_what_is_near(variable: str, mend: str) -> None:
    assert [*unknown_variables({variable: "1"})] == [(variable, mend)]


def test_every_setting_and_what_is_not_ours_is_known() -> None:
    names = [f"CHAINSERVE_{name.upper()}" for name in Settings.model_fields]
    names += [
        "chainserve_port",
        "CHAINSERVE_DEMO_PAUSE",
        "PORT",
        "OPENAI_API_KEY",
        "MY_CHAINSERVE_X",
    ]

    assert [*unknown_variables(dict.fromkeys(names, ""))] == []


async def test_an_unknown_variable_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CHAINSERVE_RUN_TIMOUT", "5")
    app = FastAPI()
    add_routes(app, echo(), path="/one")
    add_routes(app, echo(), path="/two")
    add_stream_route(app, echo())
    [of_mounting] = [record.message for record in caplog.records]
    caplog.clear()

    served = create_app([Chain(path="/chain", runnable=echo())], Settings(log_format="json"))
    assert not caplog.records
    with undone():
        async with lifespan(served):
            pass
    [of_server] = [record for record in caplog.records if record.levelname == "WARNING"]

    assert "Did you mean CHAINSERVE_RUN_TIMEOUT?" in of_mounting
    assert json.loads(of_server.message)["variable"] == "CHAINSERVE_RUN_TIMOUT"


def test_a_setting_that_is_none_is_no_setting() -> None:
    with pytest.raises(ValueError, match="max_batch"):
        Settings(max_batch=1)  # type: ignore[call-arg]
