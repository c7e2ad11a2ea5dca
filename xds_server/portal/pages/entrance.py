"""Pages by which people get in and out: login at the issuer, invitations, logout."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import asdict

from starlette.responses import RedirectResponse, Response

from xds_server.marketplace import logins
from xds_server.marketplace.actor import VISITOR
from xds_server.marketplace.errors import Forbidden, MarketplaceError
from xds_server.marketplace.records import User
from xds_server.portal.attempts import Attempts
from xds_server.portal.pages.openid import STARTED, OpenId, Started
from xds_server.portal.pages.visits import Visit, local_path

SESSION, LOGIN = "xds_portal", "xds_portal_login"
"""Cookies: the session, and a login that has begun."""


class Entrance:
    """Lets people in. `attempts` bounds logins and invitations by the address of the client."""

    def __init__(self, openid: OpenId, attempts: Attempts) -> None:
        self._openid, self._attempts = openid, attempts

    def login(self, visit: Visit) -> Response:
        """Send a person to the issuer, or say how people get in."""
        login = visit.gateway.portal.login
        if login is None:
            return visit.page("login.html")
        self._check(visit)
        started, address = self._openid.begin(login, _callback(visit), local_path(visit.query.get("to", "/")))
        response = RedirectResponse(address, 303)
        value = base64.urlsafe_b64encode(json.dumps(asdict(started)).encode()).decode()
        response.set_cookie(
            _name(visit, LOGIN), value, max_age=STARTED, httponly=True, samesite="lax", secure=_secure(visit)
        )
        return response

    def callback(self, visit: Visit) -> Response:
        """End a login that the issuer has answered. Raises Forbidden."""
        self._check(visit)
        try:
            return self._ended(visit)
        except MarketplaceError:
            self._failed(visit)
            raise

    def _ended(self, visit: Visit) -> Response:
        login = visit.gateway.portal.login
        started = _started(visit.request.cookies.get(_name(visit, LOGIN), ""))
        if login is None or started is None:
            raise Forbidden("this login was not begun in this browser, or too long ago; log in again")
        if not hmac.compare_digest(_bytes(started.state), _bytes(visit.query.get("state", ""))):
            raise Forbidden("this login was not begun in this browser; log in again")
        if "code" not in visit.query:
            raise Forbidden(f"the issuer refused the login: {visit.query.get('error', 'no code')[:100]}")
        secret = visit.gateway.text(login.client_secret).strip()
        who = self._openid.end(login, secret, _callback(visit), started, visit.query["code"])
        with visit.marketplace.begin(VISITOR) as now:
            user = logins.identified(
                now,
                issuer=who.issuer,
                subject=who.subject,
                email=who.email,
                verified=who.verified,
                name=who.name,
                language=visit.language,
            )
        response = self._open(visit, user, local_path(started.to))
        response.delete_cookie(_name(visit, LOGIN))
        return response

    def invitation(self, visit: Visit) -> Response:
        """The page of an invitation."""
        self._check(visit)
        try:
            with visit.marketplace.read(VISITOR) as now:
                found = logins.invitation(now, visit.path["token"])
        except MarketplaceError:
            self._failed(visit)
            raise
        return visit.page("invitation.html", invitation=found)

    def accept(self, visit: Visit) -> Response:
        """Accept an invitation, and log the person in."""
        self.invitation(visit)
        with visit.marketplace.begin(visit.actor) as now:
            user = logins.accept(
                now,
                visit.path["token"],
                name=visit.form.get("name", ""),
                language=visit.language,
                makes_users=visit.gateway.portal.login is None,
            )
        return self._open(visit, user, "/")

    def logout(self, visit: Visit) -> Response:
        """End the session."""
        if visit.login is not None:
            with visit.marketplace.begin(visit.actor) as now:
                logins.close_session(now, visit.login.token)
        response = RedirectResponse("/", 303)
        response.delete_cookie(_name(visit, SESSION), secure=_secure(visit), httponly=True, samesite="lax")
        return response

    def _open(self, visit: Visit, user: User, to: str) -> Response:
        """Open a session with a new token, and end the one that the browser had."""
        with visit.marketplace.begin(VISITOR) as now:
            if visit.login is not None:
                logins.close_session(now, visit.login.token)
            opened = logins.open_session(now, user)
        response = RedirectResponse(to, 303)
        response.set_cookie(
            _name(visit, SESSION),
            opened.token,
            max_age=logins.LONGEST,
            httponly=True,
            samesite="lax",
            secure=_secure(visit),
        )
        return response

    def _check(self, visit: Visit) -> None:
        """Raise TooMany if the client has failed too often."""
        wait = self._attempts.wait(_client(visit))
        if wait:
            raise TooMany(wait)

    def _failed(self, visit: Visit) -> None:
        self._attempts.failed(_client(visit))


def _client(visit: Visit) -> str:
    return visit.request.client.host if visit.request.client is not None else ""


class TooMany(Exception):  # noqa: N818 - a response
    """The client must wait for a number of seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def session_of(visit_secure: bool, cookies: dict[str, str]) -> str:
    """Return the token of the session cookie, empty if there is none."""
    return cookies.get(f"__Host-{SESSION}" if visit_secure else SESSION, "")


def is_secure(url: str | None) -> bool:
    """True if browsers reach the portal over TLS, so that its cookies are bound to TLS and to the host."""
    return (url or "").startswith("https://")


def _secure(visit: Visit) -> bool:
    return is_secure(visit.gateway.portal.url)


def _name(visit: Visit, cookie: str) -> str:
    return f"__Host-{cookie}" if _secure(visit) else cookie


def _callback(visit: Visit) -> str:
    return f"{visit.gateway.portal.url or ''}/login/callback"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _started(cookie: str) -> Started | None:
    try:
        values = json.loads(base64.urlsafe_b64decode(cookie.encode()))
        return Started(**{name: str(values[name]) for name in ("state", "nonce", "verifier", "to")})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
