"""Structured logs: one line for each request and run, without inputs and outputs."""

import logging
import re
import time
from secrets import token_hex
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chainserve.errors import RunFailedError
from chainserve.log_lines import LineHandler, Log, renderer
from chainserve.problems import handles, problem_response
from chainserve.settings import Settings

LOGGER_NAME = "chainserve"
REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


def make_logger(settings: Settings) -> Log:
    """Return the log of a server, which writes to the standard logger `chainserve`.

    An application that handles that logger gets the lines; `configure_logging` is for one that does
    not.
    """
    return Log(logging.getLogger(LOGGER_NAME), renderer(settings))


def configure_logging(settings: Settings) -> None:
    """Write the logger's lines to standard error, unless the application handles them."""
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(settings.log_level.upper())
    if not logger.hasHandlers():
        logger.addHandler(LineHandler())
        logger.propagate = False


class RequestLogLayer:
    """Gives each request an id, its own well-formed `X-Request-ID` if it has one.

    The id is in the scope as `chainserve.request_id` and in the response's `X-Request-ID`.
    """

    def __init__(self, app: ASGIApp, log: Any) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and write its line when it is over."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope["chainserve.request_id"] = request_id_of(scope) or token_hex(16)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        began = time.perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if status is not None or handles(scope["app"], error):
                raise
            self.log.error("request failed", request_id=request_id, exc_info=error)
            await problem_response(RunFailedError())(scope, receive, send_with_id)
        finally:
            self.log.info(
                "request",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                exit=scope.get("chainserve.exit"),
                duration_ms=round((time.perf_counter() - began) * 1000, 1),
            )


def request_id_of(scope: Scope) -> str | None:
    """Return the id that this server or the caller gave the request, if it is well formed."""
    given = scope.get("chainserve.request_id") or Headers(scope=scope).get(REQUEST_ID_HEADER)
    return given if given and _REQUEST_ID.fullmatch(given) else None
