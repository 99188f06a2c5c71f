"""Where commands find a server: their options for it, and the URL that these mean."""

import argparse
import os
import re
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from chainserve.cli.exits import BAD_USAGE, CommandError

ENVIRONMENT = """\
  CHAINSERVE_URL  the server's URL, without --url
  CHAINSERVE_PORT, PORT
                  its port on this machine, without either (8000)"""
"""The part of a command's help that tells which variables say where the server is."""

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\t]*)")
"""A name as RFC 9110 has it, and a value that every server can read."""

_ADDRESS = re.compile(r"[\w.-]+:\d+(/.*)?")
"""A URL that lacks its scheme, as curl takes one."""


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
    if (found := _HEADER.fullmatch(text)) is None:  # Which is not shown: it may be a secret.
        raise argparse.ArgumentTypeError("write a header as 'Name: value', in ASCII")
    return found[1], found[2].strip()


def is_url(text: str) -> bool:
    """Tell whether a text is a URL, and no path.

    Raises:
        CommandError: It is meant as one, but lacks its scheme.
    """
    if _ADDRESS.fullmatch(text):
        raise CommandError(f"{text!r} is no URL. Did you mean http://{text}?", BAD_USAGE)
    return text.lower().startswith(("http://", "https://"))


def chain_url(options: argparse.Namespace, place: str) -> str:
    """Return the URL of a chain, which is given as such or as its path on the server.

    Raises:
        CommandError: It is no URL.
    """
    if is_url(place):
        return checked_url(place)
    if "://" in place:
        raise CommandError(f"{place!r} is no URL of a chain: it begins with http.", BAD_USAGE)
    path = place.replace("\\", "/").strip("/")
    parts = urlsplit(_server_url(options))
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}"))


def _server_url(options: argparse.Namespace) -> str:
    port = os.environ.get("CHAINSERVE_PORT") or os.environ.get("PORT") or "8000"
    told = options.url or os.environ.get("CHAINSERVE_URL") or f"http://127.0.0.1:{port}"
    return checked_url(told)


def is_loopback(host: str | None) -> bool:
    """Tell whether a host is this machine, and can be nothing else."""
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def checked_url(url: str) -> str:
    """Return a URL of a server as it is.

    Raises:
        CommandError: It is none.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        if is_url(url) and parts.hostname and parts.port != 0:
            return url
    # A password stands before an @.
    shown = url.rpartition("@")[2]
    raise CommandError(
        f"{shown!r} is no URL of a server, such as http://127.0.0.1:8000.", BAD_USAGE
    )
