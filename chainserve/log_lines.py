"""Lines of the log, byte for byte as structlog's processors make them, which take longer."""

import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
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

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_.~/:@!$&'()*+,;=-]*")
"""A path that is quoted as itself."""

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

    def _write(self, level: int, name: str, event: str, fields: dict[str, Any]) -> None:
        """Write a line of the fields that have a value."""
        logger = self._logger
        if not logger.isEnabledFor(level):
            return
        for field in [field for field, value in fields.items() if value is None]:
            del fields[field]
        if "path" in fields:
            # What is in the path of a request may control the terminal that shows the log.
            fields["path"] = _quoted(fields["path"])
        fields["event"], fields["level"] = event, name
        fields["timestamp"] = _timestamp()
        line = self._render(logger, name, fields)
        if not _written(logger, line):
            logger.handle(logger.makeRecord(logger.name, level, __file__, 0, line, (), None))


def _timestamp() -> str:
    """Return the time as structlog writes it, in UTC: without microseconds where there are none."""
    second, microsecond = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(second)}.{microsecond:06}Z" if microsecond else f"{_second(second)}Z"


@lru_cache(1)  # Most lines are of the same second as those before them.
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def _quoted(path: str) -> str:
    return path if _PLAIN_PATH.fullmatch(path) else quote(path, safe="/:@!$&'()*+,;=~")


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes the messages of records to standard error, each as a line."""

    def write(self, line: str) -> None:
        """Write a line that nobody made a record of."""
        assert self.lock is not None
        with self.lock:
            self.stream.write(f"{line}{self.terminator}")
            self.stream.flush()


def _written(logger: logging.Logger, line: str) -> bool:
    """Write a line where nobody but our own handler would look at its record; else return False.

    To make a record takes longer than the line itself, and nothing of it is shown.
    """
    if len(logger.handlers) != 1 or logger.propagate or logger.filters:
        return False
    handler = logger.handlers[0]
    if type(handler) is not LineHandler or handler.level or handler.filters or handler.formatter:
        return False
    try:
        handler.write(line)
    except (OSError, ValueError):  # The standard library tells of these.
        return False
    return True


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
    def shape(level: str, event: str, *names: str) -> tuple[str, Sequence[str]]:
        """Return a line with gaps, and the names of what fills them, in order."""
        marks = {name: f"\0{index}\0" for index, name in enumerate(names)}
        line = in_full(None, level, {**marks, "event": event, "level": level}).replace("%", "%%")
        order = sorted(marks, key=lambda name: line.index(marks[name]))
        for mark in marks.values():
            line = line.replace(mark, "%s")
        return line, order

    def render(logger: Any, level: str, fields: dict[str, Any]) -> str:
        if not _TRACES.isdisjoint(fields):
            return in_full(logger, level, fields)
        event = fields.pop("event")
        del fields["level"]
        line, order = shape(level, event, *fields)
        return line % _shown([fields[name] for name in order])

    return render


_TRACES = frozenset({"exc_info", "exception", "stack"})
"""Fields that are no part of the line, but follow it."""


def _shown(values: Sequence[Any]) -> tuple[str, ...]:
    """Return values as the console shows them."""
    shown = [value if isinstance(value, str) else repr(value) for value in values]
    if _NEEDS_QUOTES.search("".join(shown)) is None:  # One look at all is faster than one at each.
        return tuple(shown)
    return tuple(
        repr(value) if isinstance(value, str) and _NEEDS_QUOTES.search(value) else text
        for value, text in zip(values, shown, strict=True)
    )
