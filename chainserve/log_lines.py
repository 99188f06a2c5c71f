"""Lines of the log, byte for byte as structlog's processors make them, which take longer."""

import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO, TypeAlias
from urllib.parse import quote

import structlog

from chainserve.settings import Settings

_Render: TypeAlias = Callable[[Any, str, dict[str, Any]], Any]
"""The last of structlog's processors: it makes a line of a level and the fields."""

_SHAPES_KEPT = 256
"""How many kinds of lines are remembered; a server writes some dozen."""

_NEEDS_QUOTES = re.compile("[ \t=\r\n\"']")
"""What makes the console show a text as Python writes it."""


class Log:
    """Writes lines to a standard logger, each of an event and its fields.

    Their records do not say which line of code wrote them, which takes as long to find as a line
    takes to make.

    Args:
        logger: The logger, which decides what is written and where.
        render: Makes a line of the fields, among them `event`, `level` and `timestamp`.
    """

    def __init__(self, logger: logging.Logger, render: _Render) -> None:
        self._logger = logger
        self._render = render

    def info(self, event: str, **fields: Any) -> None:
        """Write a line."""
        self._write(logging.INFO, "info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a line that asks for attention."""
        self._write(logging.WARNING, "warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write a line about a failure."""
        self._write(logging.ERROR, "error", event, fields)

    def _write(self, level: int, name: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line of the fields that have a value."""
        if not self._logger.isEnabledFor(level):
            return
        told = {name: value for name, value in fields.items() if value is not None}
        if "path" in told:
            # What is in the path of a request may control the terminal that shows the log.
            told["path"] = quote(told["path"], safe="/:@!$&'()*+,;=~")
        told["event"], told["level"] = event, name
        told["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = self._render(self._logger, name, told)
        if not _written(self._logger, line):
            self._logger.handle(
                self._logger.makeRecord(self._logger.name, level, __file__, 0, line, (), None)
            )


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes the messages of records to standard error, each as a line."""

    def write(self, line: str) -> None:
        """Write a line that nobody made a record of."""
        assert self.lock is not None
        with self.lock:
            self.stream.write(f"{line}{self.terminator}")
            self.flush()


def _written(logger: logging.Logger, line: str) -> bool:
    """Write a line where nobody but our own handler would look at its record; else return False.

    To make a record takes longer than the line itself, and nothing of it is shown.
    """
    match logger.handlers:
        case [LineHandler(level=logging.NOTSET, filters=[], formatter=None) as handler] if not (
            logger.propagate or logger.filters
        ):
            with suppress(OSError, ValueError):  # The standard library tells of these.
                handler.write(line)
                return True
    return False


def renderer(settings: Settings) -> _Render:
    """Return what makes the lines of a server."""
    return _json() if settings.log_format == "json" else _console(colors=sys.stderr.isatty())


def _json() -> _Render:
    """Return what makes a line of JSON, an exception's trace in it."""
    with_trace = structlog.processors.format_exc_info
    to_json = structlog.processors.JSONRenderer()
    return lambda logger, level, fields: to_json(logger, level, with_trace(logger, level, fields))


def _console(*, colors: bool) -> _Render:
    """Return what makes a line for people.

    structlog makes each part of a line by itself. Lines are the same again and again but for their
    values: so it makes one line of each kind, with marks, which are replaced from then on.
    """
    in_full = structlog.dev.ConsoleRenderer(
        colors=colors,
        pad_event_to=0,
        # The default shows local variables, inputs and keys among them, where rich is.
        exception_formatter=structlog.dev.plain_traceback,
    )

    @lru_cache(_SHAPES_KEPT)
    def shape(level: str, event: str, *names: str) -> str:
        marks = {name: f"\0{index}\0" for index, name in enumerate(names)}
        line = in_full(None, level, {**marks, "event": event, "level": level}).replace("%", "%%")
        for name, mark in marks.items():
            line = line.replace(mark, f"%({name})s")
        return line

    def render(logger: Any, level: str, fields: dict[str, Any]) -> str:
        if not fields.keys().isdisjoint(_TRACES):
            return in_full(logger, level, fields)
        event = fields.pop("event")
        del fields["level"]
        return shape(level, event, *fields) % {name: _shown(fields[name]) for name in fields}

    return render


_TRACES = ("exc_info", "exception", "stack")
"""Fields that are no part of the line, but follow it."""


def _shown(value: Any) -> str:
    """Return a value as the console shows it."""
    if isinstance(value, str) and _NEEDS_QUOTES.search(value) is None:
        return value
    return repr(value)
