"""CORS: which pages of other origins may read what this server answers.

The layer belongs around the whole application: then an answer 500 has its headers too, and it sees
what every other layer has said of CORS, also one that is added later.
"""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chainserve.settings import Settings

ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
ALLOWED_HEADERS = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
    "X-API-Key",
    "X-Request-ID",
)
EXPOSED_HEADERS = ("Location", "Preference-Applied", "Retry-After", "X-Request-ID")


def with_cors(app: ASGIApp, middleware: Iterable[Middleware], settings: Settings) -> ASGIApp:
    """Return the application with CORS around it as the settings say.

    It comes back as it is where no origin is listed, and where a `CORSMiddleware` is among its own
    middleware: that one answers alone.
    """
    if not settings.cors_origins or any(map(_answers_cors, middleware)):
        return app
    return CORSLayer(app, settings)


def _answers_cors(middleware: Middleware) -> bool:
    """Tell whether this is Starlette's middleware for CORS, or made from it."""
    return isinstance(middleware.cls, type) and issubclass(middleware.cls, CORSMiddleware)


class CORSLayer(CORSMiddleware):
    """Lets the pages of the listed origins read answers, without a second header beside another's.

    A preflight that it allows ends here. One that it does not allow goes on to the application, as
    does all else; an answer that already names an origin is passed on as it is.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=ALLOWED_METHODS,
            allow_headers=ALLOWED_HEADERS,
            allow_credentials=settings.cors_credentials,
            # An origin that is listed may call this server on whatever network it is.
            allow_private_network=True,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass the request on and complete its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not _is_preflight(scope, headers):
            await self.simple_response(scope, receive, send, request_headers=headers)
            return
        answer = self.preflight_response(request_headers=headers)
        respond = answer if answer.status_code < 400 else self.app
        await respond(scope, receive, send)

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        """Send a message on, the start of a response with the headers that it lacks."""
        if message["type"] != "http.response.start":
            await send(message)
            return
        message.setdefault("headers", [])
        headers = MutableHeaders(scope=message)
        origin = request_headers.get("Origin")
        if "Access-Control-Allow-Origin" in headers:
            await send(message)
        elif origin is None or not self.is_allowed_origin(origin):
            headers.append("Vary", "Origin")
            await send(message)
        else:
            self._complete(headers)
            await super().send(message, send, request_headers)

    def _complete(self, headers: MutableHeaders) -> None:
        """Expose our headers beside a route's own, and let no route allow cookies by itself."""
        exposed = [*headers.getlist("Access-Control-Expose-Headers"), *EXPOSED_HEADERS]
        headers["Access-Control-Expose-Headers"] = ", ".join(exposed)
        if not self.allow_credentials:
            del headers["Access-Control-Allow-Credentials"]


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    """Tell whether a browser asks for leave to send a request (Fetch, section 4.8)."""
    names = ("origin", "access-control-request-method")
    return scope["method"] == "OPTIONS" and all(name in headers for name in names)
