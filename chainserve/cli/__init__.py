"""The command `chainserve`; each of its commands has a module here.

A command's module imports what only it needs when it runs, so that `--help` is fast and no command
fails for what another one needs.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from chainserve.cli.exits import CANCELLED, DONE, FAILED, CommandError
from chainserve.cli.terminal import drop, open_closed_streams, tell, write_anything
from chainserve.version import __version__

COMMANDS = {
    "serve": "serve the chains of a folder, or an application of your own",
    "list": "list the chains of a folder or of a server",
    "call": "call a chain on a server and write its answer as it comes",
    "runs": "list the runs of a chain on a server, or show one",
    "new": "write a new chain and its test",
    "migrate": "change an application of LangServe's into one of chainserve's",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    Args:
        arguments: What follows the command's name; those of the process when None.
    """
    given = sys.argv[1:] if arguments is None else arguments
    open_closed_streams()
    write_anything(sys.stdout, sys.stderr)
    options = _parser(given).parse_args(given)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()
        return code
    except CommandError as error:
        tell(f"chainserve {options.name}: {error}")
        return error.code
    except KeyboardInterrupt:
        drop(sys.stdout)  # Who reads it may have stopped to.
        return CANCELLED
    except BrokenPipeError:
        drop(sys.stdout)  # Who read it has seen enough, as `head` has.
        return int(options.when_unread)
    except OSError as error:  # Such as a full disk, or a folder that is gone.
        drop(sys.stdout)
        tell(f"chainserve {options.name}: {error}")
        return int(options.when_failed)


class _CommandParser(argparse.ArgumentParser):
    """Takes options between arguments, too: `call assistant --json "Why?"`."""

    _is_intermixed = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse what there is; argparse does it in two passes, for each of which it comes here.

        What is unknown is refused here, with the usage of this command and not that of all.
        """
        if self._is_intermixed:
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            known, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of the commands that knows the options of the one that is asked for."""
    parser = argparse.ArgumentParser(
        prog="chainserve",
        description="Serve LangChain runnables over HTTP, and call those that are served.",
        epilog="chainserve COMMAND --help tells more of a command.",
    )
    parser.add_argument("--version", action="version", version=f"chainserve {__version__}")
    commands = parser.add_subparsers(
        title="commands",
        metavar="COMMAND",
        dest="name",
        required=True,
        parser_class=_CommandParser,
    )
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(when_unread=DONE, when_failed=FAILED)
        if name in arguments:
            importlib.import_module(f"chainserve.cli.{name}").set_up(command)
    return parser
