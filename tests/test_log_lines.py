"""The lines of the log are structlog's own, byte for byte."""

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings, strategies as st

from chainserve.log_lines import Log, renderer
from chainserve.settings import Settings

_QUOTED_PATH = "/a%20b%1B%E2%80%A8'(c)"


def own_lines(log_format: Any, logger: logging.Logger) -> Log:
    return Log(logger, renderer(Settings(log_format=log_format)))


def structlogs_lines(log_format: str, logger: logging.Logger, *, colors: bool) -> Any:
    """The same lines as structlog's processors make them, one after another."""
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    if log_format == "json":
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            )
        )
    return structlog.wrap_logger(
        logger, processors=processors, wrapper_class=structlog.stdlib.BoundLogger
    )


class Kept(logging.Handler):
    """Keeps the lines that it is given, without the times that are in them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", record.getMessage())
        assert line.count("TIME") >= 1
        self.lines.append((record.levelno, line))


def a_logger() -> tuple[logging.Logger, Kept]:
    kept = Kept()
    logger = logging.Logger("of-a-test")
    logger.addHandler(kept)
    return logger, kept


def raised() -> ValueError:
    try:
        raise ValueError("on purpose: 100 %")
    except ValueError as error:
        return error


LINES: list[tuple[str, str, dict[str, Any]]] = [
    ("info", "serving", {"chains": ["/a", "/b c"]}),
    (
        "info",
        "request",
        {"request_id": "a" * 32, "method": "POST", "path": "/chain/invoke", "status": 200},
    ),
    ("info", "run", {"run_id": "1", "duration_ms": 0.1, "status": "a b", "code": ""}),
    ("info", "run", {"run_id": 'say "x"', "duration_ms": 7, "status": "tab\t", "code": "it's"}),
    ("warning", "100 % <0> {x} %(run_id)s", {"reason": "%s %(run_id)s \\ \0 é\u2028\x1b", "n": -1}),
    ("warning", "flags", {"yes": True, "no": False, "nested": {"a": [1, None]}, "type": int}),
    ("error", "run failed", {"run_id": "1", "exc_info": raised()}),
    ("error", "run failed", {"exc_info": ("no", "such", "thing")}),
    ("info", "alone", {}),
]


@pytest.mark.parametrize("colors", [False, True], ids=["plain", "colors"])
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_lines_are_those_of_structlog(
    log_format: str, colors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: colors)
    logger, kept = a_logger()
    theirs = structlogs_lines(log_format, logger, colors=colors)
    ours = own_lines(log_format, logger)
    for level, event, fields in [*LINES, *LINES]:
        for log in (theirs, ours):
            getattr(log, level)(event, **fields)
        expected, written = kept.lines[-2:]
        assert written == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=st.text(max_size=10) | st.integers() | st.floats())
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_whatever_the_values_are(log_format: str, value: object) -> None:
    logger, kept = a_logger()
    structlogs_lines(log_format, logger, colors=False).info("run", status=value, run_id=value)
    own_lines(log_format, logger).info("run", status=value, run_id=value)

    [expected, written] = kept.lines
    assert written == expected


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_fields_without_a_value_are_left_out_and_paths_are_quoted(log_format: Any) -> None:
    logger, kept = a_logger()
    ours = own_lines(log_format, logger)
    ours.info("request", path="/a b\x1b\u2028'(c)", exit=None)
    ours.info("request", path=_QUOTED_PATH.replace("%", ""))

    assert "exit" not in kept.lines[0][1]
    assert _QUOTED_PATH in kept.lines[0][1]


@pytest.mark.parametrize("nanoseconds", [0, 999, 1_000, 10**18 + 10, 10**18 + 50_000, 2**60])
def test_times_are_written_as_structlog_writes_them(
    nanoseconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def render(logger: Any, level: str, fields: dict[str, Any]) -> str:
        made.append(fields["timestamp"])
        return f"at {made[-1]}"

    log = Log(a_logger()[0], render)
    monkeypatch.setattr("time.time_ns", lambda: nanoseconds)
    log.info("run")
    log.info("run")

    time = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // 1000)
    assert made == [time.isoformat().replace("+00:00", "Z")] * 2


def test_what_the_logger_does_not_take_is_not_made() -> None:
    logger, kept = a_logger()
    logger.setLevel(logging.ERROR)
    made: list[str] = []

    def render(logger: Any, level: str, fields: dict[str, Any]) -> str:
        made.append(level)
        return f"at {fields['timestamp']}"

    log = Log(logger, render)
    log.info("run")
    log.warning("run")
    log.error("run failed")

    assert made == ["error"]
    assert len(kept.lines) == 1
