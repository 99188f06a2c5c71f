"""`chainserve serve`: its options, and what they mean for the settings."""

import argparse
import os

from chainserve.cli.connecting import is_loopback
from chainserve.cli.exits import BAD_USAGE, DONE, FAILED, CommandError, exit_codes, require

_HELP = """\
Serve the chains of a folder, or an application of your own, until Ctrl-C.

TARGET is a folder with a module for each chain (the default is chains), or
module:app or file.py:app for an application that you make yourself.

examples:
  chainserve serve
  chainserve serve my/chains --host 0.0.0.0 --port 9000
  chainserve serve server:app --reload
  chainserve serve --reload --reload-include "prompts/*.md"
  chainserve serve --workers 4 --stateless
"""
_EPILOG = f"""\
with --workers:
  Each worker is a process with a memory of its own, and any may get any
  request. So several are refused without --stateless, with which nothing is
  known beyond the request that started it, as on a LangServe: there are no run
  routes, no stream can be resumed, and an Idempotency-Key is ignored.

with --reload:
  The server starts again when a Python file below this folder, or below that
  of TARGET, changes. Streams that are open are ended at once. What cannot be
  imported is told, requests are answered 503, and the next change is waited
  for. On a loopback address GET runs lists the runs of everybody, unless
  CHAINSERVE_LIST_ALL_RUNS says otherwise.

environment:
  CHAINSERVE_HOST, CHAINSERVE_PORT or PORT    where to listen, without options
  CHAINSERVE_...                              every other setting, see
                                              docs/reference.md
  OPENAI_API_KEY, OPENAI_BASE_URL             the model of chains that use
                                              chainserve.demo.chat_model()

{
    exit_codes(
        {
            DONE: "it was stopped; where SIGTERM ends it, shells say 143",
            FAILED: "it cannot start: the address is in use, or a chain cannot be served",
            BAD_USAGE: "bad usage, or the extra server is not installed",
        }
    )
}
"""

_MAX_WORKERS = 1000


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    parser.description, parser.epilog = _HELP, _EPILOG
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        default="chains",
        help="a folder of chains, module:app or file.py:app (default: chains)",
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, help="port to listen on; 0 takes a free one (default: 8000)"
    )
    parser.add_argument(
        "--workers", type=_workers, help="how many processes serve (default: 1)", metavar="N"
    )
    parser.add_argument(
        "--stateless", action="store_true", help="keep nothing beyond a request, for --workers"
    )
    parser.add_argument("--reload", action="store_true", help="start again when a file changes")
    parser.add_argument(
        "--reload-include",
        metavar="PATTERN",
        action="append",
        default=[],
        help="with --reload: files to watch beside *.py; may be repeated",
    )
    parser.set_defaults(command=_serve)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MAX_WORKERS}")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    require("server")
    from chainserve.cli.serving import listen, serve_here, settings_of_the_environment
    from chainserve.cli.target import parse_target
    from chainserve.errors import ConfigurationError
    from chainserve.workers import SEVERAL_WORKERS

    if options.reload_include and not options.reload:
        raise CommandError("--reload-include has no effect without --reload.", BAD_USAGE)
    if options.reload and options.workers:
        raise CommandError("--reload has one worker: leave out --workers.", BAD_USAGE)
    _put_into_environment(options)
    settings, workers = settings_of_the_environment(), options.workers or 1
    if workers > 1 and not settings.stateless:
        raise CommandError(SEVERAL_WORKERS)
    target = parse_target(options.target)
    try:
        target.check()
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    if workers > 1:
        from chainserve.cli.supervisor import serve_with_workers

        return serve_with_workers(target, settings, workers)
    if not options.reload:
        return serve_here(target, settings)
    from chainserve.cli.reload import Reloader

    if is_loopback(settings.host):
        _set_unless_set("CHAINSERVE_LIST_ALL_RUNS", "true")
    Reloader(target, listen(settings.host, settings.port), options.reload_include).run()
    return DONE


def _put_into_environment(options: argparse.Namespace) -> None:
    """Have the options hold wherever settings are read, in an application's own module too."""
    for option in ("host", "port"):
        if (value := getattr(options, option)) is not None:
            os.environ[f"CHAINSERVE_{option.upper()}"] = str(value)
    if options.stateless:
        os.environ["CHAINSERVE_STATELESS"] = "true"


def _set_unless_set(variable: str, value: str) -> None:
    if not os.environ.get(variable):
        os.environ[variable] = value
