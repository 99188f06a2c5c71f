"""Where streams are sent: outside of the application that has made them.

A response is sent inside of its route, of FastAPI's stacks for dependencies and of what handles
exceptions. While a stream waits, all of them wait, and take as much memory as the stream itself.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import wraps
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chainserve.responses import EventStreamResponse
from chainserve.routes.requests import BODY

_HANDED_OVER = "chainserve.handed_over"
"""Where a scope has the streams that routes have handed over."""

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class HandoverLayer:
    """Sends the streams that routes hand over, when the application inside has returned.

    It is for an application without layers of its user's inside: they would neither see the
    messages of such a stream nor its end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and send what was handed over."""
        handed_over: list[Response] = []
        scope[_HANDED_OVER] = handed_over
        await self.app(scope, receive, send)
        if handed_over:
            _let_go(scope)
        for response in handed_over:
            await response(scope, receive, send)


def handing_over(handler: Handler) -> Handler:
    """Make a handler hand its streams over, where there is somebody who sends them.

    It is for a route without dependencies: those that end with the response would end too early.
    """

    @wraps(handler)
    async def answer(request: Request) -> Response:
        response = await handler(request)
        handed_over: list[Response] | None = request.scope.get(_HANDED_OVER)
        if handed_over is None or not isinstance(response, EventStreamResponse):
            return response
        handed_over.append(response)
        return _SentElsewhere(status_code=response.status_code)

    return answer


def _let_go(scope: Scope) -> None:
    """Take what nobody needs any more out of a scope, which has it to the end of the response."""
    for key in [key for key, value in scope.items() if type(value) is AsyncExitStack]:
        del scope[key]
    scope.pop(BODY, None)


class _SentElsewhere(Response):
    """Stands for a response that was handed over, and sends nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do nothing."""
