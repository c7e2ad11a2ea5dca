"""Login with OpenID Connect: the authorization code flow with PKCE (OpenID Connect Core 1.0, section 3.1; RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import urllib3
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from xds_server.gateway.model.portal import PortalLogin
from xds_server.marketplace import names
from xds_server.marketplace.errors import Forbidden

TIMEOUT = 5.0
"""Seconds for an answer of the issuer."""
KEPT = 300.0
"""Seconds for which the configuration of the issuer and its keys are used."""
STARTED = 600
"""Seconds in which a login must be finished."""
_LARGEST = 1 << 20
_SKEW = 60
"""Seconds by which the clocks may differ."""
_ALGORITHMS = ["RS256", "PS256", "ES256", "RS384", "RS512", "PS384", "PS512", "ES384", "ES512", "EdDSA"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A login that has begun. All of it is in a cookie of the browser, which proves that the same browser ends it."""

    state: str
    nonce: str
    verifier: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who has logged in, as the issuer says."""

    issuer: str
    subject: str
    email: str
    verified: bool
    name: str


class OpenId:
    """A client of issuers."""

    def __init__(self) -> None:
        self._http = urllib3.PoolManager(timeout=TIMEOUT, retries=False)
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def begin(self, login: PortalLogin, callback: str, to: str) -> tuple[Started, str]:
        """Begin a login. Returns what the callback needs, and the address at the issuer. Raises Forbidden."""
        started = Started(
            state=names.new_secret(), nonce=names.new_secret(), verifier=names.new_secret(), to=to
        )
        challenge = hashlib.sha256(started.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": login.client_id,
            "redirect_uri": callback,
            "scope": " ".join(login.scopes),
            "state": started.state,
            "nonce": started.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = str(self._configuration(login)["authorization_endpoint"])
        return started, f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def end(self, login: PortalLogin, secret: str, callback: str, started: Started, code: str) -> Identity:
        """Exchange a code for an identity. Raises Forbidden."""
        configuration = self._configuration(login)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": callback,
            "client_id": login.client_id,
            "client_secret": secret,
            "code_verifier": started.verifier,
        }
        answer = self._ask("POST", str(configuration["token_endpoint"]), form)
        claims = self._claims(login, configuration, str(answer.get("id_token", "")))
        if claims.get("nonce") != started.nonce:
            raise Forbidden("the issuer answered another login; log in again")
        email = str(claims.get("email", ""))
        return Identity(
            issuer=login.issuer,
            subject=str(claims.get("sub", "")),
            email=email,
            verified=claims.get("email_verified") is True
            or claims.get("email_verified") == "true",  # Amazon Cognito
            name=names.usable_line(str(claims.get("name") or "")) or email[:255],
        )

    def _claims(self, login: PortalLogin, configuration: Mapping[str, Any], token: str) -> Mapping[str, Any]:
        """Return the claims of an identity token (OpenID Connect Core 1.0, section 3.1.3.7). Raises Forbidden."""
        try:
            decoded = self._decoded(str(configuration["jwks_uri"]), token)
            registry = jwt.JWTClaimsRegistry(
                leeway=_SKEW,
                iss={"essential": True, "value": login.issuer},
                aud={"essential": True, "value": login.client_id},
                exp={"essential": True},
                sub={"essential": True},
            )
            registry.validate(decoded.claims)
        except (JoseError, ValueError, KeyError) as error:
            raise Forbidden(f"the issuer sent an identity that cannot be used: {error}") from None
        audience = decoded.claims["aud"]
        if isinstance(audience, list) and len(audience) > 1 and decoded.claims.get("azp") != login.client_id:
            raise Forbidden("the issuer sent an identity for another client")
        return decoded.claims

    def _decoded(self, url: str, token: str) -> jwt.Token:
        """Return a token that is signed by one of the keys at a URL. They are read again for one that is not among them."""
        begun = time.monotonic()
        for _ in range(2):
            keys = self._remembered(url)
            try:
                return jwt.decode(token, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)  # type: ignore[arg-type] # JSON
            except (InvalidKeyIdError, BadSignatureError) as error:
                missing = error
                if not self._forget(url, begun):
                    break
        raise missing

    def _forget(self, url: str, before: float) -> bool:
        """Forget what was read from a URL before a moment. Returns whether there was something."""
        known = self._kept.get(url)
        if known is None or known[0] - KEPT >= before:
            return False
        del self._kept[url]
        return True

    def _configuration(self, login: PortalLogin) -> Mapping[str, Any]:
        found = self._remembered(f"{login.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != login.issuer:
            raise Forbidden(
                f"the issuer calls itself {found.get('issuer')}; write that in portal.login.issuer"
            )
        for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not isinstance(found.get(key), str):
                raise Forbidden(f"the configuration of the issuer has no {key}")
        return found

    def _remembered(self, url: str) -> dict[str, Any]:
        known = self._kept.get(url)
        if known is None or known[0] < time.monotonic():
            known = self._kept[url] = (time.monotonic() + KEPT, self._ask("GET", url))
        return known[1]

    def _ask(self, method: str, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {} if form is None else {"fields": dict(form), "encode_multipart": False}
        try:
            response = self._http.request(method, url, preload_content=False, redirect=False, **options)
            try:
                content = response.read(_LARGEST + 1)
            finally:
                response.release_conn()
            value = json.loads(content) if len(content) <= _LARGEST and response.status == 200 else None
        except (urllib3.exceptions.HTTPError, ValueError, RecursionError) as error:
            raise Forbidden(f"the issuer cannot be reached: {type(error).__name__}; try again") from None
        if not isinstance(value, dict):
            raise Forbidden(f"the issuer refused the login (status {response.status}); log in again")
        return value
