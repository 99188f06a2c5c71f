"""`chainserve runs`: the runs of a chain on a server, or one of them."""

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from chainserve.cli.connecting import (
    ENVIRONMENT,
    add_header_option,
    add_url_option,
    chain_url,
)
from chainserve.cli.exits import (
    BAD_USAGE,
    DONE,
    FAILED,
    UNREACHABLE,
    exit_codes,
    require,
)
from chainserve.cli.terminal import say, tell

_HELP = """\
List the runs of a chain on a server, the newest first, or show one of them
with its output.

URL is that of the chain, or its path. Of each run: its id, its status, its
mode, how long ago it was started, and why it did not succeed.

A server lists runs only where it knows whose they are, or where it was started
with --reload or CHAINSERVE_LIST_ALL_RUNS=true. Who knows a run's id may ask for
that one.

examples:
  chainserve runs http://127.0.0.1:8000/assistant
  chainserve runs assistant 1b4e28ba-2fa1-41d2-883f-0016d3cca427
  chainserve runs assistant --json
"""
_EPILOG = f"""\
environment:
{ENVIRONMENT}

{
    exit_codes(
        {
            DONE: "they are listed, or the run is shown, however it ended",
            FAILED: "the server refused, or knows no such chain or run",
            BAD_USAGE: "bad usage, or the extra client is not installed",
            UNREACHABLE: "the server cannot be reached, or is no chainserve",
        }
    )
}
"""


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    parser.description, parser.epilog = _HELP, _EPILOG
    parser.add_argument("chain", metavar="URL", help="the chain's URL, or its path")
    parser.add_argument("run_id", metavar="RUN_ID", nargs="?", help="the run to show")
    parser.add_argument("--json", action="store_true", help="write what the server answers")
    add_url_option(parser)
    add_header_option(parser)
    parser.set_defaults(command=_runs)


def _runs(options: argparse.Namespace) -> int:
    require("client")
    answer = _answer(chain_url(options, options.chain), options)
    if options.json:
        say(json.dumps(answer, indent=2))
    elif options.run_id is not None:
        _show(answer)
    else:
        _list(answer["runs"])
    return DONE


def _answer(url: str, options: argparse.Namespace) -> Mapping[str, Any]:
    from chainserve.cli.remote import RemoteChain, failures_told, unexpected

    path = "runs" if options.run_id is None else f"runs/{quote(options.run_id, safe='')}"
    with failures_told(url), RemoteChain(url, options.header) as remote:
        answer = remote.get(path)
        if not isinstance(answer, dict) or not {"runs", "run_id"} & answer.keys():
            raise unexpected(url, json.dumps(answer))
        return answer


def _list(runs: list[Mapping[str, Any]]) -> None:
    if not runs:
        tell("This chain has no runs that are kept.")
    for run in runs:
        error = run.get("error") or {}
        why = f"  {error.get('code', '')}: {error.get('message', '')}" if error else ""
        ago = age(run["created_at"])
        say(f"{run['run_id']}  {run['status']:9}  {run['mode']:13}  {ago:>6}{why}")


def _show(run: Mapping[str, Any]) -> None:
    """Write what is known of a run on standard error, and its output on standard output."""
    for name, value in run.items():
        if name not in ("output", "stream_url"):
            tell(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    if "output" in run:
        say(_text(run["output"]))


def _text(output: Any) -> str:
    """Return an output as text, if it is one, or is a message that has one; else as JSON."""
    content = output.get("content") if isinstance(output, dict) else output
    return content if isinstance(content, str) else json.dumps(output, indent=2)


def age(created_at: str) -> str:
    """Return how long ago a time was, in the largest unit that it has."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
