"""The console as an ASGI application: pages, one stream of rates, and the form that tries a URL.

It is read-only. The only thing that it sends is the request that a person tries, and only to a listener of the gateway
on this machine.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from xds_server.console import tried_request, views
from xds_server.console.live import Live
from xds_server.console.source import Source
from xds_server.gateway.model.gateway import Gateway

COOKIE = "xds_console"
_LONGEST_FORM = 64 << 10
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_STATIC = {"console.css": "text/css", "console.js": "text/javascript"}


def application(source: Source, live: Live, hosts: frozenset[str], token: str | None) -> ASGIApp:
    """Return the application. `hosts` are the names by which it may be called; `token` is None if it needs none."""
    pages = _Pages(source, live)
    routes = [
        Route("/", pages.overview),
        Route("/routes/{name:path}", pages.route),
        Route("/try", pages.try_url, methods=["GET", "POST"]),
        Route("/envoys", pages.envoys),
        Route("/changes", pages.changes),
        Route("/limits", pages.limits),
        Route("/firewall", pages.firewall),
        Route("/live", pages.live),
        Route("/static/{name}", _static),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(GZipMiddleware, minimum_size=2048)])
    return _Guard(app, hosts, token)


class _Guard:
    """Rejects requests for other hosts (DNS rebinding), from other pages, and without the token."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refused(request)
        if refused is None:
            await self._app(scope, receive, _with_headers(send))
        else:
            await refused(scope, receive, _with_headers(send))

    def _refused(self, request: Request) -> Response | None:
        given_host, origin = request.headers.get("host", ""), request.headers.get("origin")
        host = _host(given_host)
        if host is None or (self._hosts and host not in self._hosts):
            return PlainTextResponse("the console is not at this host\n", 421)
        own = (f"http://{given_host}", f"https://{given_host}")  # https behind a proxy with TLS
        if request.method not in ("GET", "HEAD") and origin not in own:
            return PlainTextResponse("a form of another page cannot be sent here\n", 403)
        if self._token is None:
            return None
        given = request.query_params.get("token")
        if given is not None and _same(given, self._token):
            response = RedirectResponse("/" + request.url.path.lstrip("/"), 303)
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return response
        header = request.headers.get("authorization", "").removeprefix("Bearer ")
        if _same(request.cookies.get(COOKIE, ""), self._token) or _same(header, self._token):
            return None
        return PlainTextResponse("open the address with ?token=… that xds run has logged\n", 401)


def _host(text: str) -> str | None:
    """Return the name in a Host header, or None if it is malformed."""
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "" if parts.netloc == text and "@" not in text else None
    except ValueError:
        return None


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            kept = [one for one in message["headers"] if one[0] != b"cache-control"]
            message["headers"] = [
                *kept,
                *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
            ]
        await send(message)

    return sending


class _Pages:
    def __init__(self, source: Source, live: Live) -> None:
        self._source, self._live = source, live
        self._templates = Environment(
            loader=PackageLoader("xds_server.console"),
            autoescape=select_autoescape(default=True),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"ago": _ago, "clock": _clock, "duration": _duration}
        self._rows: tuple[Gateway | None, Mapping[str, Any]] = (None, {})

    @property
    def _gateway(self) -> Gateway | None:
        compiled = self._source.gateway.compiled
        return compiled.gateway if compiled is not None else None

    def _page(self, template: str, code: int = 200, **values: Any) -> HTMLResponse:
        state = self._source.gateway
        states = self._source.states()
        shown = {
            "state": state,
            "metrics": self._gateway is not None and self._gateway.sections.telemetry.metrics is not None,
            "problems": views.problems(state),
            "envoy_count": len(states),
            "current_count": states.count("current"),
            "rejecting": states.count("rejecting"),
            "here": template.removesuffix(".html"),
        }
        return HTMLResponse(self._templates.get_template(template).render(**shown, **values), code)

    def _parts(self, gateway: Gateway | None) -> Mapping[str, Any]:
        """Return the parts of the first page that change with the gateway only."""
        routes = views.route_rows(gateway) if gateway is not None else []
        rows = Markup(self._templates.get_template("rows.html").render(routes=routes))  # noqa: S704 - a template has escaped it
        listeners = list(views.listener_rows(gateway)) if gateway is not None else []
        return {"rows": rows, "count": len(routes), "listeners": listeners}

    async def overview(self, _request: Request) -> Response:
        gateway = self._gateway
        if gateway is None:
            return self._page("overview.html", **self._parts(None), upstreams=(), unserved=())
        clusters = await asyncio.to_thread(self._live.page, "/clusters?format=json")
        if self._rows[0] is not gateway:
            self._rows = (gateway, self._parts(gateway))
        unserved = views.not_programmed(await self._source.objects())
        return self._page(
            "overview.html",
            **self._rows[1],
            upstreams=views.upstream_rows(gateway, clusters),
            unserved=unserved,
        )

    async def route(self, request: Request) -> Response:
        gateway, name = self._gateway, request.path_params["name"]
        if gateway is None or name not in gateway.sections.routes:
            return self._page("missing.html", 404, what=f"There is no route '{name}'.")
        return self._page("route.html", route=views.route_page(gateway, name))

    async def try_url(self, request: Request) -> Response:
        # the form is a POST, so that keys in headers are not in the browser's history; a link is a GET, and sends nothing
        given = {key: value for key, value in request.query_params.items() if key != "send"}
        if request.method == "POST":
            body = await _read(request)
            if body is None:
                return self._page(
                    "try.html", 413, form={}, error="the form is too long", found=None, sent=None
                )
            given = body
        gateway = self._gateway
        port = (
            next((one.port for one in gateway.sections.listeners.values()), 80) if gateway is not None else 80
        )
        form = {
            "method": given.get("method", "GET").upper(),
            "url": given.get("url", ""),
            "headers": given.get("headers", ""),
            "body": given.get("body", ""),
            "example": f"http://localhost:{port}/",
        }
        if not form["url"] or gateway is None:
            return self._page(
                "try.html", form=form, error="", found=None, sent=None, sends=self._source.sends
            )
        error, found, sent = "", None, None
        try:
            headers = views.header_lines(form["headers"])
            found = views.tried(gateway, form["method"], form["url"], headers)
            if given.get("send") == "yes" and self._source.sends:
                sent = await asyncio.to_thread(
                    tried_request.send,
                    tried_request.Tried(
                        method=form["method"], url=form["url"], headers=headers, body=form["body"].encode()
                    ),
                    found["port"],
                    tls=found["tls"],
                )
        except (ValueError, OSError) as fault:
            error = str(fault)
        status = 400 if error and found is None else 200
        return self._page(
            "try.html", status, form=form, error=error, found=found, sent=sent, sends=self._source.sends
        )

    async def envoys(self, _request: Request) -> Response:
        status = self._source.status()
        return self._page("envoys.html", status=status, now=time.time())

    async def changes(self, _request: Request) -> Response:
        history = list(self._source.gateway.history)
        return self._page(
            "changes.html", changes=views.changes(history, self._source.states()), now=time.time()
        )

    async def limits(self, _request: Request) -> Response:
        found = await asyncio.to_thread(self._source.limits)
        counters = views.near_exhaustion(found.get("counters", ())) if found is not None else []
        return self._page("limits.html", found=found, counters=counters)

    async def firewall(self, _request: Request) -> Response:
        metrics = await asyncio.to_thread(self._source.policy_metrics)
        return self._page("firewall.html", found=views.firewall(metrics) if metrics is not None else None)

    async def live(self, _request: Request) -> Response:
        async def events() -> Any:
            yield b"retry: 2000\n\n"
            async for message in self._live.follow():
                yield f"data: {message}\n\n".encode()

        return StreamingResponse(events(), media_type="text/event-stream")


async def _read(request: Request) -> dict[str, str] | None:
    """Return the fields of a form, or None if it is too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_FORM:
            return None
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        return PlainTextResponse("not found\n", 404)
    content = resources.files("xds_server.console").joinpath("static", name).read_bytes()
    return Response(content, media_type=_STATIC[name])


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _ago(moment: float | None, now: float) -> str:
    return f"{_duration(max(0.0, now - moment))} ago" if moment else "never"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1000:.0f} ms"
