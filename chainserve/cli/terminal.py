"""What is said on standard output and standard error, and what is erased there again."""

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TextIO

_TICK = 1.0
"""Seconds between two looks at how long has been waited."""

_LONG = 5.0
"""Seconds for which a text may stand still on a terminal, before it is broken to say why."""

_USUAL_COLUMNS = 80

_CONTROLS: Mapping[int, str] = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
} | {ord("\r"): ""}
"""What drives a terminal, as it is shown there."""


def write_anything(*streams: TextIO) -> None:
    """Have characters that an encoding lacks replaced, for no answer is worth a crash."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def open_closed_streams() -> None:
    """Have nothing read, and nothing kept, where a standard stream was closed by the caller."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def drop(stream: TextIO) -> None:
    """Forget what was written and not taken, so that nobody waits for it at the end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _shown(text: str, stream: TextIO) -> str:
    """Return a text as a stream gets it: no server, and no model, drives the user's terminal."""
    return text.translate(_CONTROLS) if stream.isatty() else text


def say(message: str) -> None:
    """Say something on standard output."""
    print(_shown(message, sys.stdout), flush=True)


def tell(message: str) -> None:
    """Say something on standard error."""
    print(_shown(message, sys.stderr), file=sys.stderr, flush=True)


class TextOutput:
    """Writes a text in pieces, each at once, and ends it with exactly one line break.

    Line breaks at the end of a piece are held back until it is known that more follows.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held = ""
        self._is_in_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Ctrl-C may have come because nobody reads; a terminal does.
        if kind is not KeyboardInterrupt or self._stream.isatty():
            self.end()

    def write(self, text: str) -> None:
        """Write the next piece of the text."""
        if not text:
            return
        shown = text.rstrip("\n")
        if shown:
            self._is_in_line = True  # Before it is: Ctrl-C may come as soon as it is seen.
            self._put(self._held + shown)
            self._held = ""
        self._held += text[len(shown) :]

    def write_line(self, line: str) -> None:
        """Write a line of its own."""
        self.end()
        self._put(f"{line}\n")

    def end(self) -> None:
        """End the text, if there is one; what follows begins a line."""
        if self._is_in_line:
            self._put("\n")
        self._held, self._is_in_line = "", False

    def _put(self, text: str) -> None:
        self._stream.write(_shown(text, self._stream))
        self._stream.flush()


@contextmanager
def telling(waiting: "Waiting") -> Iterator[None]:
    """Have what the client logs shown: that it asks again where one waits, and warnings."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say = tell if record.levelno >= logging.WARNING else waiting.notice
            say(record.getMessage())

    logger, handler = logging.getLogger("chainserve.client"), Handler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class Waiting:
    """Says on a terminal how long has been waited, until there is something better to show.

    Args:
        stream: Where it is said; nowhere, if it is no terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._shown = ""
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._stream.isatty():
            threading.Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def erase(self) -> None:
        """Take away what is shown, and count anew from now on."""
        with self._lock:
            self._began = time.monotonic()
            self._show("")

    def stop(self) -> None:
        """Take away what is shown, for good."""
        self._over.set()
        self.erase()

    def notice(self, text: str) -> None:
        """Say what is tried meanwhile; within a text, only if nothing has come for long."""
        if not self._stream.isatty():
            return
        with self._lock:
            if not self._over.is_set():
                self._show(text)
            elif time.monotonic() - self._began >= _LONG:
                tell(f"\n{text}")

    def _count(self) -> None:
        while not self._over.wait(_TICK):
            with self._lock:
                seconds = int(time.monotonic() - self._began)
                if seconds and not self._over.is_set():
                    self._show(f"waiting… {seconds} s")

    def _show(self, text: str) -> None:
        """Write over what is shown; blanks erase it on every terminal."""
        text = _shown(text, self._stream)[: _columns(self._stream) - 1]
        if text or self._shown:
            self._stream.write(f"\r{' ' * len(self._shown)}\r{text}")
            self._stream.flush()
        self._shown = text


def _columns(stream: TextIO) -> int:
    """Return the width of a terminal, within which a line can be erased."""
    with suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    return _USUAL_COLUMNS
