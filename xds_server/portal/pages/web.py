"""The pages as routes: sessions, languages, forms and errors around the functions that make pages."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from xds_server.database import DatabaseFailed
from xds_server.marketplace import logins, people
from xds_server.marketplace.actor import VISITOR
from xds_server.marketplace.errors import Conflict, Forbidden, Invalid, MarketplaceError, NotFound, Stale
from xds_server.marketplace.store import Marketplace
from xds_server.portal.api.schemas import as_json
from xds_server.portal.attempts import Attempts
from xds_server.portal.gateway_view import GatewayView
from xds_server.portal.generated_clients import ClientsBusy, GeneratedClients
from xds_server.portal.pages import billing, developer, entrance, error_texts, money, public, publisher, texts
from xds_server.portal.pages.markdown import html
from xds_server.portal.pages.openid import OpenId
from xds_server.portal.pages.refilled_forms import refilled
from xds_server.portal.pages.visits import Visit, form_of, local_path, require_own_page, see
from xds_server.usage.store import Store

log = logging.getLogger(__name__)

Page = Callable[[Visit], Response]
Row = tuple[str, Page | None, Page | None] | tuple[str, Page | None, Page, Page]
"""A path, what GET and POST do there, and the page with the form for this POST if it is not that of GET."""
_STATUSES: Mapping[type[MarketplaceError], int] = {
    NotFound: 404,
    Forbidden: 403,
    Conflict: 409,
    Stale: 412,
    Invalid: 422,
}
_STATIC = {"portal.css": "text/css", "portal.js": "text/javascript"}
_TOUCHED = 60
"""Seconds between two notes that a session is in use."""


def routes(
    marketplace: Marketplace,
    gateway: Callable[[], GatewayView],
    attempts: Attempts,
    usage: Store | None,
    clients: GeneratedClients,
) -> list[Route]:
    """Return the routes of all pages. `attempts` bounds logins, and a bound of its own the making of keys. `usage` is the
    usage store, None if there is none. `clients` makes those that the pages of APIs offer.
    """
    web = _Web(marketplace, gateway)
    door = entrance.Entrance(OpenId(), attempts)
    used = billing.BillingPages(usage)
    keys = developer.Keys(Attempts(most=30, per_minute=10))
    found = [web.route(*row) for row in _for_everybody(door, public.ApiPages(clients))]
    found += [web.route(*row, users=True) for row in _for_users(keys, used)]
    return [
        *found,
        Route("/static/theme.css", web.theme),
        Route("/static/logo", web.logo),
        Route("/static/{name}", _static),
        web.route("/{path:path}", public.missing, None),
    ]


def _for_everybody(door: entrance.Entrance, apis: public.ApiPages) -> tuple[Row, ...]:
    return (
        ("/", public.catalogue, None),
        ("/apis/{api}", apis.page, None),
        ("/apis/{api}/docs/{page}", public.guide, None),
        ("/apis/{api}/document", public.document, None),
        ("/apis/{api}/client/{language}.zip", apis.client, None),
        ("/docs", public.docs, None),
        ("/docs/{page}", public.docs, None),
        ("/products", public.all_products, None),
        ("/products/{product}", public.product, None),
        ("/language", developer.language, None),
        ("/login", door.login, None),
        ("/login/callback", door.callback, None),
        ("/invitations/{token}", door.invitation, door.accept),
        ("/logout", None, door.logout),
    )


def _for_users(keys: developer.Keys, used: billing.BillingPages) -> tuple[Row, ...]:
    return (
        ("/products/{product}/subscribe", None, public.subscribe, public.product),
        ("/applications", developer.applications, developer.add_application),
        ("/applications/{application}", developer.application, developer.change_application),
        (
            "/subscriptions/{subscription}",
            None,
            developer.change_subscription,
            developer.application_of_subscription,
        ),
        ("/subscriptions/{subscription}/keys", None, keys.make, developer.application_of_subscription),
        ("/organisations", developer.organisations, developer.add_organisation),
        ("/organisations/{organisation}", developer.organisation, developer.change_organisation),
        ("/usage", used.usage, None),
        ("/usage.csv", used.table, None),
        ("/invoices", billing.invoices, None),
        ("/invoices/{statement}", billing.invoice, None),
        ("/account", developer.account, developer.change_account),
        ("/manage", publisher.queue, None),
        ("/manage/subscriptions/{subscription}", None, publisher.decide, publisher.queue_of_subscription),
        (
            "/manage/products",
            publisher.all_products,
            publisher.change_product,
            publisher.rejected_product,
        ),
        ("/manage/products/{product}", publisher.product_form, None),
        ("/manage/users", publisher.users, publisher.change_user),
        ("/manage/revenue", billing.revenue, None),
        ("/manage/notices", publisher.announcements, publisher.change_announcements),
        ("/manage/audit", publisher.log, None),
    )


class _Web:
    def __init__(self, marketplace: Marketplace, gateway: Callable[[], GatewayView]) -> None:
        self._marketplace, self._gateway = marketplace, gateway
        self._templates = Environment(
            loader=PackageLoader("xds_server.portal"),
            autoescape=select_autoescape(default=True),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._templates.filters |= {
            "markdown": html,
            "day": _day,
            "last_day": _last_day,
            "moment": _moment,
            "money": money.formatted,
            "json": _json,
        }

    def route(
        self,
        path: str,
        get: Page | None,
        post: Page | None,
        again: Page | None = None,
        *,
        users: bool = False,
    ) -> Route:
        """Return the route of a path. `again` shows a form that was rejected, by default the page of GET.

        With `users`, visitors are sent to the login.
        """
        methods = [*(["GET"] if get is not None else []), *(["POST"] if post is not None else [])]
        return Route(path, self._endpoint(get, post, again or get, users=users), methods=methods)

    def _endpoint(
        self, get: Page | None, post: Page | None, again: Page | None, *, users: bool
    ) -> Callable[[Request], Any]:

        async def handle(request: Request) -> Response:
            if request.method == "POST":
                form = await form_of(request)
                if form is None:
                    return PlainTextResponse("send a form of at most 512 KiB\n", 413)
                return await run_in_threadpool(self._answer, request, post, form, users, again)
            return await run_in_threadpool(self._answer, request, get, {}, users, None)

        return handle

    def _answer(
        self, request: Request, page: Page | None, form: Mapping[str, str], users: bool, again: Page | None
    ) -> Response:
        assert page is not None
        language = texts.chosen(
            request.cookies.get("language", ""), request.headers.get("accept-language", "")
        )
        gateway = self._gateway()
        visit = Visit(
            request=request,
            marketplace=self._marketplace,
            gateway=gateway,
            actor=VISITOR,
            login=None,
            language=language,
            render=self._render,
            form=form,
        )
        try:
            visit = self._with_login(visit)
            if request.method == "POST":
                require_own_page(request, gateway.portal.origin or "", visit.login, form)
            if users and visit.login is None:
                return see(f"/login?{urlencode({'to': request.url.path})}")
            return page(visit)
        except MarketplaceError as error:
            return _rejected(visit, error, again)
        except entrance.TooMany as bound:
            response = visit.page(
                "error.html", 429, message=f"too many attempts; try again in {bound.seconds} s"
            )
            response.headers["retry-after"] = str(bound.seconds)
            return response
        except ClientsBusy as busy:
            response = visit.page(
                "error.html", 503, message="the client is being made; try again in a moment"
            )
            response.headers["retry-after"] = str(busy.seconds)
            return response
        except DatabaseFailed as failure:
            log.error("the marketplace store failed; the request is rejected error=%s", failure)
            response = visit.page("error.html", 503, message="the store cannot be reached; try again")
            response.headers["retry-after"] = "1"
            return response

    def _with_login(self, visit: Visit) -> Visit:
        secure = entrance.is_secure(visit.gateway.portal.url)
        token = entrance.session_of(secure, visit.request.cookies)
        if not token:
            return visit
        with self._marketplace.read(VISITOR) as now:
            login = logins.login(now, token)
            actor = people.actor_of(now, login.user) if login is not None else VISITOR
        if login is None:
            return visit
        if now.now - login.session.seen >= _TOUCHED:
            try:
                with self._marketplace.begin(actor) as later:
                    logins.touch(later, token)
            except DatabaseFailed as failure:  # the page itself can still be read
                log.warning("the use of a session could not be noted error=%s", failure)
        cookie = visit.request.cookies.get("language")
        language = cookie if cookie is not None and cookie in texts.LANGUAGES else login.user.language
        return replace(visit, login=login, actor=actor, language=language)

    def _render(self, visit: Visit, template: str, status: int, **values: Any) -> Response:
        portal = visit.gateway.portal
        shown = {
            "_": visit.text,
            "language": visit.language,
            "languages": texts.LANGUAGES,
            "portal": portal,
            "user": visit.login.user if visit.login is not None else None,
            "csrf": visit.login.session.csrf if visit.login is not None else "",
            "publishes": visit.actor.publishes,
            "administers": visit.actor.administers,
            "path": visit.request.url.path,
            "rejected": "",
            "back": _back(visit.request),
            **values,
        }
        if visit.rejected is not None:
            shown["rejected"] = error_texts.of_form(visit.language, visit.rejected)
            status = _STATUSES[type(visit.rejected)]
        if "message" in shown:
            shown["message"] = error_texts.error(visit.language, str(shown["message"]))
        content = self._templates.get_template(template).render(**shown)
        if visit.rejected is not None:
            field = error_texts.name_in_form(visit.rejected.field)
            content = refilled(content, visit.request.url.path, visit.form, field, "rejected")
        headers = {
            "content-security-policy": _policy(portal.gateway),
            "cache-control": "no-store",
            "content-language": visit.language,
            "vary": "cookie, accept-language",
        }
        return HTMLResponse(content, status, headers)

    def theme(self, _request: Request) -> Response:
        """The colors of the portal."""
        accent = self._gateway().portal.accent
        content = f":root {{ --accent: {accent}; --on-accent: #fff; }}\n"
        content += f"@media (prefers-color-scheme: dark) {{ :root {{ --accent: {_lighter(accent)}; --on-accent: #11161c; }} }}\n"
        return Response(content, media_type="text/css", headers={"cache-control": "max-age=60"})

    def logo(self, _request: Request) -> Response:
        """The logo, which may be an SVG: it is shown as an image, and opened by itself it may do nothing."""
        gateway = self._gateway()
        logo = gateway.portal.logo
        if logo is None or logo not in gateway.contents:
            return PlainTextResponse("not found\n", 404)
        ending = (logo.file or "").lower().rpartition(".")[2]
        type_ = {"svg": "image/svg+xml", "png": "image/png", "webp": "image/webp"}[ending]
        headers = {"cache-control": "max-age=60", "content-security-policy": "default-src 'none'; sandbox"}
        return Response(gateway.contents[logo], media_type=type_, headers=headers)


def _rejected(visit: Visit, error: MarketplaceError, again: Page | None) -> Response:
    """Return the page of a form with what was typed if that can be mended there, and else a page with the error."""
    if again is not None and isinstance(error, Invalid | Conflict):
        try:
            return again(replace(visit, rejected=error))
        except MarketplaceError:
            pass  # the person may not see this page, or no longer
    message = error_texts.of_form(visit.language, error)
    return visit.page("error.html", _STATUSES[type(error)], message=message)


def _back(request: Request) -> str:
    """Return the page of the portal that led here, and the first page if there is none."""
    parts = urlsplit(request.headers.get("referer", ""))
    if parts.netloc != request.headers.get("host", ""):
        return "/"
    return local_path(f"{parts.path}?{parts.query}" if parts.query else parts.path)


@lru_cache(maxsize=8)
def _policy(gateway: str | None) -> str:
    """Return the content security policy. Pages call the gateway, and nothing else."""
    parts = urlsplit(gateway or "")
    calls = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return (
        f"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'{calls}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


@lru_cache(maxsize=8)
def _lighter(color: str) -> str:
    """Return the darkest mixture of a color with white, in steps of 5 percent, that is readable on the dark background."""
    shares = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    for percent in range(0, 101, 5):
        mixed = [one + (255 - one) * percent // 100 for one in shares]
        if _luminance(mixed) + 0.05 >= 5.5 * (_luminance([0x18, 0x20, 0x29]) + 0.05):
            return "#" + "".join(f"{one:02x}" for one in mixed)
    return "#ffffff"


def _luminance(color: list[int]) -> float:
    """Return the relative luminance of a color (WCAG 2.2)."""
    parts = [one / 255 for one in color]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        return PlainTextResponse("not found\n", 404)
    content = resources.files("xds_server.portal").joinpath("static", name).read_bytes()
    return Response(content, media_type=_STATIC[name], headers={"cache-control": "max-age=300"})


def _json(value: Any) -> str:
    return json.dumps(as_json(value), ensure_ascii=False)


def _day(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _last_day(seconds: int) -> str:
    """Return the last day of something that ends at a moment, which may be the end of that day."""
    return _day(seconds - 1)


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
