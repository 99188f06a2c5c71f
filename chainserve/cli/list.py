"""`chainserve list`: the chains of a folder or of a server."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chainserve.cli.connecting import add_header_option, checked_url, is_url
from chainserve.cli.exits import (
    BAD_USAGE,
    DONE,
    FAILED,
    UNREACHABLE,
    CommandError,
    exit_codes,
    require,
)
from chainserve.cli.terminal import say

_HELP = """\
List the chains of a folder, or of a server that runs.

Of each: its path, its title, the model that answers, whether its answer streams
or comes as a whole, and the endpoints that run it. --json has all there is.

examples:
  chainserve list
  chainserve list my/chains --json
  chainserve list http://127.0.0.1:8000
"""
_EPILOG = exit_codes(
    {
        DONE: "they are listed",
        FAILED: "a chain cannot be served, or the server refused",
        BAD_USAGE: "bad usage, or the extra server (for a URL: client) is not installed",
        UNREACHABLE: "the server cannot be reached, or is no chainserve",
    }
)

_UNLISTED = "A server that create_app made lists its chains; /docs names the routes of any other."

_VERBS = ("invoke", "batch", "stream", "stream_log", "stream_events", "runs")
"""The endpoints that are listed: those that run the chain."""


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    parser.description, parser.epilog = _HELP, _EPILOG
    parser.add_argument(
        "target",
        metavar="TARGET | URL",
        nargs="?",
        default="chains",
        help="a folder of chains, or the URL of a server (default: chains)",
    )
    parser.add_argument("--json", action="store_true", help="write what GET /chains answers")
    add_header_option(parser)
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    if is_url(options.target):
        require("client")
        chains = _served(checked_url(options.target), options)
    else:
        require("server")
        chains = _declared(options.target)
    if options.json:
        say(json.dumps(chains, indent=2))
        return DONE
    for line in _lines(chains):
        say(line)
    return DONE


def _served(url: str, options: argparse.Namespace) -> Sequence[Mapping[str, Any]]:
    from chainserve.cli.remote import RemoteChain, failures_told, unexpected

    with failures_told(url, _UNLISTED), RemoteChain(url, options.header) as server:
        chains = server.get("chains")
        if not isinstance(chains, list) or not all(_is_described(chain) for chain in chains):
            raise unexpected(url, json.dumps(chains))
        return chains


def _is_described(chain: Any) -> bool:
    return isinstance(chain, dict) and {"path", "title", "model", "endpoints"} <= chain.keys()


def _declared(folder: str) -> Sequence[Mapping[str, Any]]:
    from chainserve.cli.target import Folder
    from chainserve.errors import ConfigurationError
    from chainserve.registry import discover
    from chainserve.routes.index import describe

    try:
        Folder(Path(folder)).check()
        return [describe(chain).model_dump(mode="json") for chain in discover(folder)]
    except ConfigurationError as error:
        raise CommandError(str(error)) from None


def _lines(chains: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the chains as a table, each column as wide as it must be."""
    rows = [
        (
            chain["path"] or "/",
            chain["title"],
            chain["model"] or "-",
            "streams" if chain.get("streams") else "whole",
            " ".join(name for name in _VERBS if name in chain["endpoints"]),
        )
        for chain in chains
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
