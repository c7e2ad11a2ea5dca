"""The portal as an ASGI application: the API, the pages, and what holds for both: hosts, headers, errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from xds_server.marketplace.store import Marketplace
from xds_server.portal.api import application as api
from xds_server.portal.attempts import Attempts
from xds_server.portal.gateway_view import GatewayView
from xds_server.usage.store import Store

log = logging.getLogger(__name__)

API = "/api/v1"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def application(
    marketplace: Marketplace,
    gateway: Callable[[], GatewayView],
    attempts: Attempts,
    pages: Iterable[BaseRoute] = (),
    usage: Store | None = None,
) -> ASGIApp:
    """Return the application. `gateway` returns the newest view of the gateway."""

    def server() -> str:
        return f"{gateway().portal.url or ''}{API}"

    routes = [
        Route("/healthz", lambda _request: JSONResponse({"status": "ok"})),
        Mount(API, routes=api.routes(marketplace, gateway, attempts, server, usage)),
        *pages,
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(GZipMiddleware, minimum_size=2048)],
        exception_handlers={404: _missing, 405: _wrong_method, Exception: _failed},
    )
    return _Guard(app, gateway)


class _Guard:
    """Rejects requests for other hosts (DNS rebinding), and adds headers to every response."""

    def __init__(self, app: ASGIApp, gateway: Callable[[], GatewayView]) -> None:
        self._app, self._gateway = app, gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app: ASGIApp = self._app
        if self._gateway().portal.url is None and scope["path"] != "/healthz":
            app = PlainTextResponse("the gateway has no portal yet; see the log of xds portal run\n", 503)
        elif not self._here(Request(scope)):
            app = PlainTextResponse("the portal is not at this host; open the address in portal.url\n", 421)
        elif not scope["path"].startswith(API) and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            app = PlainTextResponse("an address has no NUL\n", 400)
        await app(scope, receive, _with_headers(send))

    def _here(self, request: Request) -> bool:
        """True if the request is for the host of `portal.url`. Probes and programs on this machine name another one."""
        url = self._gateway().portal.url
        host = _host(request.headers.get("host", ""))
        return url is None or host in (_host(urlsplit(url).netloc), "localhost", "127.0.0.1", "::1")


def _host(text: str) -> str | None:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname if parts.netloc == text and "@" not in text else None
    except ValueError:
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_HEADERS]
        await send(message)

    return sending


def _missing(request: Request, _error: Exception) -> Response:
    return _error_page(request, 404, "Not found", "there is nothing at this address")


def _wrong_method(request: Request, error: Exception) -> Response:
    headers = getattr(error, "headers", None)
    found = _error_page(request, 405, "Method not allowed", "see Allow for the methods of this address")
    found.headers.update(headers or {})
    return found


def _failed(request: Request, error: Exception) -> Response:
    log.error(
        "a request failed: this is a fault of xds, please report it path=%s", request.url.path, exc_info=error
    )
    return _error_page(
        request, 500, "Fault of the portal", "the request failed; the log of the portal says why"
    )


def _error_page(request: Request, status: int, title: str, detail: str) -> Response:
    if request.url.path.startswith(API):
        return api.problem(status, title, detail)
    return PlainTextResponse(f"{title}: {detail}\n", status)
