"""`chainserve call`: its options, and what they say about the input."""

import argparse
import json
import math
import sys
from typing import Any

from chainserve.cli.connecting import (
    ENVIRONMENT,
    add_header_option,
    add_url_option,
    chain_url,
)
from chainserve.cli.exits import (
    BAD_USAGE,
    CANCELLED,
    DONE,
    FAILED,
    INTERRUPTED,
    UNREACHABLE,
    CommandError,
    exit_codes,
    require,
)

_HELP = """\
Call a chain on a server, and write its answer as it comes.

PATH_OR_URL is the chain's path on the server, such as assistant, or its URL.
INPUT is JSON, or a text: that goes into the one field that the chain's input
must have, becomes a human message where the chain takes messages, and is the
input where that is a text. With - it is read from standard input, also without
INPUT where that is no terminal.

Text, and the text of messages, is written as it is and ends with one line
break; any other chunk is a line of JSON. A stream that is cut is read on where
it was. Ctrl-C cancels the run on the server.

examples:
  chainserve call assistant "Why is the sky blue?"
  chainserve call chat - < messages.json
  chainserve call http://127.0.0.1:8000/assistant "Why?" --json
  chainserve call assistant --run-id 1b4e28ba-2fa1-41d2-883f-0016d3cca427
"""
_EPILOG = f"""\
environment:
{ENVIRONMENT}

{
    exit_codes(
        {
            DONE: "the run succeeded, or the reader of standard output has seen enough",
            FAILED: "the run failed, the server refused it, or the output has no place",
            BAD_USAGE: "bad usage, or the extra client is not installed",
            UNREACHABLE: "the server cannot be reached, or is no such server",
            INTERRUPTED: "the stream was cut, and could not be read on to its end",
            CANCELLED: "Ctrl-C, which cancels the run; one that was joined goes on",
        }
    )
}
"""


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    parser.description, parser.epilog = _HELP, _EPILOG
    parser.add_argument("chain", metavar="PATH_OR_URL", help="the chain's path, or its URL")
    parser.add_argument("input", metavar="INPUT", nargs="?", help="JSON, a text, or -")
    parser.add_argument(
        "--json",
        action="store_true",
        help='write each event as a line {"event", "data", "id"}',
    )
    parser.add_argument("--config", type=_object, metavar="JSON", help="the run's config")
    parser.add_argument("--run-id", metavar="ID", help="read a run that was started before")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="the longest wait for a connection, and for the next sign of life (10 and 60)",
    )
    add_url_option(parser)
    add_header_option(parser)
    parser.set_defaults(command=_call)


def _object(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _call(options: argparse.Namespace) -> int:
    require("client")
    url = chain_url(options, options.chain)
    if options.run_id is not None:
        if options.input is not None or options.config is not None:
            raise CommandError("--run-id takes no INPUT and no --config.", BAD_USAGE)
        text = None
    else:
        text = _text(options.input)
    from chainserve.cli.calling import call

    call(url, text, options)
    return DONE


def _text(given: str | None) -> str:
    """Return the INPUT, or what standard input has.

    Raises:
        CommandError: There is none.
    """
    if given is not None and given != "-":
        # Bytes that the locale could not read are what they are elsewhere.
        return given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if given is None and (sys.stdin is None or sys.stdin.isatty()):
        raise CommandError("There is no INPUT: give JSON, a text, or - for stdin.", BAD_USAGE)
    text = sys.stdin.buffer.read().decode("utf-8-sig", "replace").rstrip("\r\n")
    if not text:
        raise CommandError("There is no INPUT: standard input is empty.", BAD_USAGE)
    return text
