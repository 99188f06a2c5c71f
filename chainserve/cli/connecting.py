"""How commands reach a server: their options for it, its URL, and what they say when it fails."""

import argparse
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from json import JSONDecodeError
from typing import Any
from urllib.parse import urlsplit

from chainserve.cli.exits import BAD_USAGE, FAILED, UNREACHABLE, CommandError

ENVIRONMENT = """\
  CHAINSERVE_URL  the server's URL, without --url
  CHAINSERVE_PORT, PORT
                  its port on this machine, without either (8000)"""
"""The part of a command's help that tells which variables say where the server is."""

LISTED = "`chainserve list URL` lists the chains of a server."
"""What is said where a server has no such chain."""

_ADDRESS = re.compile(r"[\w.-]+:\d+(/.*)?")
"""A URL that lacks its scheme, as curl takes one."""

_TIMEOUT = 10.0
_MAX_SHOWN = 300
"""How many characters of an answer that nobody expects are shown."""


def add_url_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the server is of which a chain's path is given."""
    parser.add_argument("--url", help="the server's URL (default: http://127.0.0.1:8000)")


def add_header_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what is sent beside a request."""
    parser.add_argument(
        "--header",
        metavar="NAME: VALUE",
        action="append",
        type=_header,
        default=[],
        help='a header to send, such as "Authorization: Bearer …"; may be repeated',
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no header: write it as 'Name: value'")
    return name.strip(), value.strip()


def is_url(text: str) -> bool:
    """Tell whether a text is a URL, and no path.

    Raises:
        CommandError: It is meant as one, but lacks its scheme.
    """
    if _ADDRESS.fullmatch(text):
        raise CommandError(f"{text!r} is no URL. Did you mean http://{text}?", BAD_USAGE)
    return text.lower().startswith(("http://", "https://"))


def server_url(options: argparse.Namespace) -> str:
    """Return the URL of the server, without a slash at its end.

    Raises:
        CommandError: It is none.
    """
    port = os.environ.get("CHAINSERVE_PORT") or os.environ.get("PORT") or "8000"
    told = options.url or os.environ.get("CHAINSERVE_URL") or f"http://127.0.0.1:{port}"
    return checked_url(told).rstrip("/")


def chain_url(options: argparse.Namespace, place: str) -> str:
    """Return the URL of a chain, which is given as such or as its path on the server.

    Raises:
        CommandError: It is no URL.
    """
    if is_url(place):
        return checked_url(place).rstrip("/")
    if "://" in place:
        raise CommandError(f"{place!r} is no URL of a chain: it begins with http.", BAD_USAGE)
    path = place.replace("\\", "/").strip("/")
    return f"{server_url(options)}/{path}".rstrip("/")


def checked_url(url: str) -> str:
    """Return a URL of a server as it is.

    Raises:
        CommandError: It is none.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        if is_url(url) and parts.hostname and parts.port != 0:
            return url
    raise CommandError(f"{url!r} is no URL of a server, such as http://127.0.0.1:8000.", BAD_USAGE)


def get_json(url: str, options: argparse.Namespace, if_not_found: str = LISTED) -> Any:
    """Return what a server answers to a GET.

    Args:
        url: What is asked.
        options: The command's.
        if_not_found: What is said beside a 404 that tells of no run.

    Raises:
        CommandError: It cannot be reached, refuses, or answers something else.
    """
    from chainserve.client_requests import shown_url
    from chainserve.transport import PACKAGES, caught_as_any, errors_named

    try:
        with caught_as_any():
            response = PACKAGES[0].get(url, headers=options.header, timeout=_TIMEOUT)
    except errors_named("RequestError", "InvalidURL") as error:
        raise unreachable(url, error) from None
    try:
        answer = response.json()
    except (JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise CommandError(not_such_a_server(shown_url(url), response.text), UNREACHABLE) from None
    if response.status_code == 200:
        return answer
    # A problem document, or LangServe's JSON; whoever has another form is neither.
    members = answer if isinstance(answer, Mapping) else {}
    if (message := members.get("message") or members.get("detail")) is None:
        raise CommandError(not_such_a_server(shown_url(url), response.text), UNREACHABLE)
    told = f"{response.status_code} for {shown_url(url)}: {message}"
    if response.status_code == 404 and members.get("code") != "run_not_found":
        told = f"{told} {if_not_found}"
    raise CommandError(told, FAILED)


def unreachable(url: str, error: Exception) -> CommandError:
    """Return the error for a server that does not answer."""
    from chainserve.client_requests import shown_url

    reason = str(error) or type(error).__name__
    return CommandError(
        f"{shown_url(url)} cannot be reached: {reason}. Start it with `chainserve serve`, or give "
        "the URL of the one that runs.",
        UNREACHABLE,
    )


def not_such_a_server(url: str, answer: str) -> str:
    """Return what is said of a server that answers something else."""
    shown = " ".join(answer[:_MAX_SHOWN].split())
    return f"{url} answered what no chainserve answers. Is it the right URL? {shown}".rstrip()
