"""The playground and the front page: what is served, and what is not."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException

import chainserve
from chainserve import Chain, ConfigurationError, add_routes, create_app
from tests._bridge import request
from tests._chains import echo

pytestmark = pytest.mark.anyio

FILES = Path(chainserve.__file__).parent / "playground"
CLIENT = FILES.parent / "js"
PAGE = "/chain/playground/"
SERVED = [PAGE, f"{PAGE}playground.js", f"{PAGE}playground.css", f"{PAGE}chain.json"]
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def echo_app(**declared: Any) -> FastAPI:
    app = FastAPI()
    add_routes(app, Chain(path="/chain", runnable=echo(), **declared))
    return app


@pytest.mark.parametrize(
    ("path", "media_type", "file"),
    [
        (PAGE, "text/html; charset=utf-8", "index.html"),
        (f"{PAGE}index.html", "text/html; charset=utf-8", "index.html"),
        (f"{PAGE}playground.js", "text/javascript; charset=utf-8", "playground.js"),
        (f"{PAGE}playground.css", "text/css; charset=utf-8", "playground.css"),
    ],
)
async def test_the_files_are_the_same_for_every_chain(
    path: str, media_type: str, file: str
) -> None:
    response = await request(echo_app(title="<b>", description="<b>"), "GET", path)

    assert response.status == 200
    assert response.headers["content-type"] == media_type
    assert response.body == (FILES / file).read_bytes()


async def test_the_page_learns_of_its_chain_from_chain_json() -> None:
    declared: dict[str, Any] = {
        "title": "A",
        "description": "B.",
        "model": "m",
        "examples": [{"q": "<b>"}, 1],
    }
    app = echo_app(**declared, disabled_endpoints=["batch"], playground_type="chat")
    response = await request(app, "GET", f"{PAGE}chain.json")

    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        **declared,
        "endpoints": [
            "invoke", "stream", "stream_log", "stream_events", "playground", "input_schema",
            "config_schema", "output_schema", "config_hashes", "token_feedback", "runs",
        ],
        "playground_type": "chat",
    }  # fmt: skip


def test_examples_that_are_not_json_data_are_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="The examples of /chain cannot be shown"):
        echo_app(examples=[object()])


@pytest.mark.parametrize("path", [*SERVED, "/", "/playground.css", "/chainserve.js"])
async def test_pages_are_kept_harmless_and_checked_for_changes(path: str) -> None:
    app = create_app([Chain(path="/chain", runnable=echo())])
    headers = (await request(app, "GET", path)).headers

    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"
    for known in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
        unchanged = await request(app, "GET", path, headers={"if-none-match": known})
        assert (unchanged.status, unchanged.body) == (304, b"")
        assert unchanged.headers["etag"] == headers["etag"]
        assert unchanged.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    changed = await request(app, "GET", path, headers={"if-none-match": '"other"'})
    assert changed.status == 200


@pytest.mark.parametrize(
    "file",
    [
        "index.htm",
        "chain.json/",
        "chain.json/..",
        ".",
        "..",
        "../",
        "../server.py",
        "../../../../etc/passwd",
        "%2e%2e/server.py",
        "%2e%2e%2fserver.py",
        "..%5cserver.py",
        "%00",
        "playground.js%00.css",
        "//etc/passwd",
        "/etc/passwd",
        "assets",
        "assets/",
        "PLAYGROUND.JS",
        "~",
    ],
)
async def test_nothing_but_the_known_files_is_served(file: str) -> None:
    assert (await request(echo_app(), "GET", PAGE + file)).status == 404


@pytest.mark.parametrize("root_path", ["", "/proxied"])
async def test_without_its_slash_the_page_sends_on_to_it_relatively(root_path: str) -> None:
    response = await request(echo_app(), "GET", PAGE.rstrip("/"), root_path=root_path)

    assert response.status == 307
    assert response.headers["location"] == "playground/"
    assert response.body == b""


@pytest.mark.parametrize(
    "lists", [{"disabled_endpoints": ["playground"]}, {"enabled_endpoints": ["invoke"]}]
)
async def test_the_endpoint_lists_hold_for_the_playground(lists: dict[str, Any]) -> None:
    chain = Chain(path="/chain", runnable=echo(), **lists)
    app = create_app([chain])

    for path in (*SERVED, PAGE.rstrip("/")):
        assert (await request(app, "GET", path)).status == 404
    [described] = (await request(app, "GET", "/chains")).json()
    assert "playground" not in described["endpoints"]
    assert "playground/" not in (await request(app, "GET", "/")).text


async def test_the_chains_dependencies_guard_the_playground() -> None:
    def refuse() -> None:
        raise HTTPException(401, "Who are you?")

    app = echo_app(dependencies=[Depends(refuse)])

    for path in (*SERVED, PAGE.rstrip("/"), f"{PAGE}missing"):
        assert (await request(app, "GET", path)).status == 401


async def test_the_playground_is_no_part_of_the_openapi_document() -> None:
    app = create_app([Chain(path="/chain", runnable=echo())])
    paths = (await request(app, "GET", "/openapi.json")).json()["paths"]

    assert "/chain/stream" in paths
    assert not [path for path in paths if "playground" in path or "chainserve" in path]


async def test_the_client_is_served_with_all_that_it_imports() -> None:
    app = create_app([Chain(path="/chain", runnable=echo())])
    modules, unread = dict[str, bytes](), ["chainserve.js"]
    while unread:
        name = unread.pop()
        response = await request(app, "GET", f"/{name}")
        assert (response.status, response.body) == (200, (CLIENT / name).read_bytes())
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        modules[name] = response.body
        unread += {*re.findall(r'from "\./([^"]+)"', response.text)} - modules.keys()

    assert modules.keys() == {path.name for path in CLIENT.glob("*.js")}
    for other in ("package.json", "chainserve.", "chainserve.md", "chainserve.Events.js"):
        assert (await request(app, "GET", f"/{other}")).status == 404


async def test_with_add_routes_alone_the_client_is_not_served() -> None:
    assert (await request(echo_app(), "GET", "/chainserve.js")).status == 404


def test_the_pages_name_only_files_beside_them_and_hold_no_code() -> None:
    html = (FILES / "index.html").read_text()

    urls = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert urls == ["data:,", "playground.css", "playground.js", "../input_schema"]
    assert not re.search(r"<style|style=|\son\w+=", html)
    script = (FILES / "playground.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


async def test_the_front_page_links_to_what_each_chain_serves_by_relative_urls() -> None:
    page = await request(
        create_app(
            [
                Chain(path="", runnable=echo()),
                Chain(path="/a:b", runnable=echo(), disabled_endpoints=["playground"]),
                Chain(path="/c d", runnable=echo(), disabled_endpoints=["input_schema"]),
            ]
        ),
        "GET",
        "/",
    )

    assert re.findall(r'<a href="([^"]*)"', page.text) == [
        "docs",
        "chains",
        "./playground/",
        "./input_schema",
        "./a%3Ab/input_schema",
        "./c%20d/playground/",
    ]
