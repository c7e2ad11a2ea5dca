"""One request for a page: who asks, in which language, with which form."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from xds_server.marketplace.actor import Actor
from xds_server.marketplace.errors import Forbidden, Invalid, MarketplaceError
from xds_server.marketplace.logins import Login
from xds_server.marketplace.pages import Wanted
from xds_server.marketplace.store import Marketplace
from xds_server.portal.gateway_view import GatewayView
from xds_server.portal.pages.texts import translator

LONGEST_FORM = 512 << 10
MOST_FIELDS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request. `form` has the fields of a POST, and `login` the session, None for a visitor.

    `rejected` says why the form was rejected that the page shows again, and is None for other pages.
    """

    request: Request
    marketplace: Marketplace
    gateway: GatewayView
    actor: Actor
    login: Login | None
    language: str
    render: Callable[..., Response]
    form: Mapping[str, str] = field(default_factory=dict)
    rejected: MarketplaceError | None = None

    def text(self, english: str) -> str:
        """Return a text in the language of the visit."""
        return translator(self.language)(english)

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters of the path."""
        return self.request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query."""
        return self.request.query_params

    @property
    def wanted(self) -> Wanted:
        """The page of a list that is asked for."""
        return Wanted(self.query.get("after") or None)

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        return self.render(self, template, status, **values)


def see(path: str) -> Response:
    """Return a redirect to a page of the portal after a form."""
    return RedirectResponse(path, 303)


def end_of_day(text: str, field: str) -> int | None:
    """Return the end of a day such as ``2027-01-31`` (UTC) in Unix seconds, None for an empty text. Raises Invalid."""
    if not text:
        return None
    try:
        begin = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Invalid("write a day such as 2027-01-31", field) from None
    return int(begin.timestamp()) + 86_400


def local_path(text: str) -> str:
    """Return a path of this portal, which is the first page if the text leads anywhere else (open redirects)."""
    parts = urlsplit(text)
    fine = text.startswith("/") and not text.startswith("//") and not parts.scheme and not parts.netloc
    return text if fine and "\\" not in text and text.isprintable() else "/"


async def form_of(request: Request) -> Mapping[str, str] | None:
    """Return the fields of a form, None if it is too long or no form. A field that is given twice is joined by commas."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        return None
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LONGEST_FORM:
            return None
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            content.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS
        )
    except ValueError:
        return None
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return {name: value.replace("\0", "\N{REPLACEMENT CHARACTER}") for name, value in found.items()}


def require_own_page(request: Request, own: str, login: Login | None, form: Mapping[str, str]) -> None:
    """Raise Forbidden unless a form was sent by a page of this portal (cross-site request forgery).

    `own` is the origin of the portal. A session's forms have its token; those of visitors are checked by Origin.
    """
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    if origin is not None and origin not in (own, f"http://{host}", f"https://{host}"):
        raise Forbidden("a page of another site cannot do this; open the portal and try again")
    if origin is None and request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("a page of another site cannot do this; open the portal and try again")
    if login is not None and not hmac.compare_digest(
        form.get("csrf", "").encode(), login.session.csrf.encode()
    ):
        raise Forbidden("the page is too old; go back, reload it and try again")
