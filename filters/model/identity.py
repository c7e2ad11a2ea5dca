"""Callers: identity providers, consumers with their credentials, and the plans of consumers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import product
from types import MappingProxyType
from typing import Literal

from filters import framing
from filters.language import DataSource, Mistake, option
from filters.language.datasource import SecretSource
from filters.model import claims
from filters.model.jwks import KeySet, key_set
from filters.model.limits import Limit, Quota, repeated_windows


def variants(name: str) -> Iterator[str]:
    """A header's name with every combination of hyphens and underscores, because some servers read both as hyphens."""
    parts = name.split("-")
    for signs in product("-_", repeat=len(parts) - 1):
        yield "".join(part + sign for part, sign in zip(parts, (*signs, ""), strict=True))


NO_CLAIMS: Mapping[str, str] = MappingProxyType({})

NAMESPACE = "xds.identity"
"""The namespace of Envoy's dynamic metadata that identifies the caller of an authenticated request.

Its keys: `consumer` and `plan` (names; absent if no consumer was identified), `method` (`oidc`, `mtls`, `jwt`,
`api_key` or `basic_auth`, joined by `+` if all were required), `claims` (of the verified token, a struct) with
`provider`, and `user` (the name of basic_auth). If the request was rejected, the only key is `failure`.
"""
SERIES = f"%DYNAMIC_METADATA({NAMESPACE}:series)%"
"""The consumer as a label of metrics: its name, `other` beyond the bound of the gateway, `-` if nobody is identified."""
CONSUMER_HEADER = "x-consumer"
PLAN_HEADER = "x-consumer-plan"
IDENTITY_HEADERS = tuple(sorted((*variants(CONSUMER_HEADER), *variants(PLAN_HEADER))))
"""The headers that every listener removes from requests. Claim headers are not among them."""
CLIENTS_OWN = framing.HEADERS | {"authorization", "content-type", "cookie"}
"""Headers that clients send themselves. They cannot be claim headers, because claim headers of clients are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwks(DataSource):
    """The source of a provider's public keys (RFC 7517)."""

    url: str | None = option(
        "A URL from which Envoy fetches the keys and caches them.",
        default=None,
        pattern=r"https?://\S+",
        shape="a URL",
    )
    cache_for: timedelta = option(
        "The time for which Envoy uses fetched keys.", default=timedelta(minutes=5), minimum=1
    )
    timeout: timedelta = option("Time limit of one fetch.", default=timedelta(seconds=5), minimum=0.001)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless exactly one source is named."""
        if sum(source is not None for source in (self.url, self.file, self.env, self.inline)) != 1:
            yield Mistake(
                "exactly one of 'url', 'file' and 'inline' is needed", "write {file: PATH} or {url: URL}"
            )

    @property
    def described(self) -> str:
        """The source of the keys, in words."""
        return self.url or self.file or (f"the variable {self.env}" if self.env else "the inline key set")


URL = r"https?://[^\s/?#]+(/[^\s#]*)?"
PATH = r"/[A-Za-z0-9._~/-]+"


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcClient:
    """The gateway as a client of the issuer, for users who log in with a browser (OpenID Connect Core)."""

    client_id: str = option(
        "The client's name at the issuer. It is also the audience of the identity tokens."
    )
    client_secret: SecretSource = option("The client's secret at the issuer.")
    session_secret: SecretSource = option(
        "At least 32 random bytes, the same on every gateway. They sign and encrypt the session's cookies."
    )
    authorization_endpoint: str = option("The issuer's page for the login.", pattern=URL, shape="a URL")
    token_endpoint: str = option(
        "The URL at which Envoy exchanges codes for tokens.", pattern=URL, shape="a URL"
    )
    end_session_endpoint: str | None = option(
        "The URL at which the issuer ends its own session on logout.",
        default=None,
        pattern=URL,
        shape="a URL",
    )
    scopes: tuple[str, ...] = option("The scopes to request.", default=("openid",))
    callback_path: str | None = option(
        "The path to which the issuer sends users back; default `/_oidc/NAME/callback`.",
        default=None, pattern=PATH, shape="a path",
    )  # fmt: skip
    logout_path: str | None = option(
        "The path at which users log out; default `/_oidc/NAME/logout`.",
        default=None,
        pattern=PATH,
        shape="a path",
    )
    cookie_domain: str | None = option("Share the session with subdomains.", default=None)
    client_authentication: Literal["body", "basic"] = option(
        "The place of the secret in a request to the token endpoint.", default="body"
    )
    refresh: bool = option("Use refresh tokens, so that users need not log in again.", default=True)
    forward_access_token: bool = option(
        "True if the upstream gets the access token, as `authorization: Bearer …`.", default=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An issuer of JSON Web Tokens (RFC 7519)."""

    issuer: str | None = option(
        "The `iss` claim that tokens must have. Without it, any issuer is accepted.",
        default=None,
        narrows=True,
    )
    audiences: tuple[str, ...] = option("One of these must be in the `aud` claim.", default=(), narrows=True)
    jwks: Jwks = option("The public keys.")
    claim_headers: Mapping[str, str] = option(
        "Claims that the upstream gets as headers. A dot enters nested claims; `\\.` is a dot within a name.",
        default=NO_CLAIMS,
    )
    clock_skew: timedelta = option(
        "Tolerance for `exp` and `nbf`; `0s` is none.", default=timedelta(seconds=60), minimum=0
    )
    from_headers: tuple[str, ...] = option(
        "Headers that contain the token; default: `authorization: Bearer …`.", default=(), narrows=True
    )
    from_query: tuple[str, ...] = option("Query parameters that contain the token.", default=(), narrows=True)
    from_cookies: tuple[str, ...] = option("Cookies that contain the token.", default=(), narrows=True)
    forward: bool = option("True if the upstream gets the token.", default=True)
    require_expiration: bool = option("Reject tokens without `exp`.", default=False)
    oidc: OidcClient | None = option(
        "The gateway as a client of the issuer, for the policy `oidc`.", default=None
    )

    @property
    def token_headers(self) -> tuple[str, ...]:
        """Headers that contain the token. The default header counts only if no other place is configured."""
        elsewhere = self.from_query or self.from_cookies
        return self.from_headers or (() if elsewhere else ("authorization",))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each invalid claim header."""
        for claim, header in self.claim_headers.items():
            if (fault := claims.check(claim)) is not None:
                yield Mistake(fault.message, fault.remedy, path=("claim_headers", claim), value=claim)
            name = header.lower()
            if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+){0,5}", name):
                remedy = "write a name such as x-user-id, of at most six parts"
                yield Mistake("not a header's name", remedy, path=("claim_headers", claim), value=header)
            elif (framed := framing.check(name, ("claim_headers", claim))) is not None:
                yield framed
            elif name in CLIENTS_OWN or name in (CONSUMER_HEADER, PLAN_HEADER):
                yield Mistake("this header has a meaning of its own", "write another name",
                    path=("claim_headers", claim), value=header)  # fmt: skip
        for number, name in enumerate(self.from_headers):
            if (framed := framing.check(name, ("from_headers", number))) is not None:
                yield Mistake(framed.message, "write another header", path=framed.path, value=name)


def key_set_of(provider: Provider, contents: Mapping[DataSource, bytes]) -> KeySet | None:
    """The keys of a provider. None if Envoy fetches them, or if the file could not be read."""
    content = contents.get(provider.jwks)
    return None if provider.jwks.url is not None or content is None else key_set(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key. The gateway knows only its hash."""

    sha256: str = option(
        "SHA-256 of the key.", secret=True, pattern=r"[0-9a-f]{64}", shape="64 hexadecimal digits, lower case"
    )
    not_after: str | None = option(
        "The moment after which the key is rejected.",
        default=None,
        pattern=r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))?",
        shape="a date such as 2027-01-31, or 2027-01-31T12:00:00Z",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerJwt:
    """Tokens that identify a consumer."""

    provider: str = option("The identity provider.", refers="identity")
    claim: str = option(
        "The claim that names the consumer. A dot enters nested claims; `\\.` is a dot within a name."
    )
    value: str = option("The value that the claim must have.")

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for an invalid name of a claim."""
        if (fault := claims.check(self.claim)) is not None:
            yield Mistake(fault.message, fault.remedy, path=("claim",), value=self.claim)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPassword:
    """A name and a password (RFC 7617). The gateway knows only the password's hash."""

    username: str = option("The name.", pattern=r"[^:\x00-\x1f]+", shape="a name without a colon")
    sha256: str = option(
        "SHA-256 of the password, which must be a generated one of at least 128 bits.",
        secret=True,
        pattern=r"[0-9a-f]{64}",
        shape="64 hexadecimal digits, lower case",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A caller of the gateway, with any of its credentials."""

    plan: str | None = option("The plan whose limits apply.", default=None, refers="plans")
    api_keys: tuple[ApiKey, ...] = option("Keys, several at once for rotation.", default=())
    jwt: ConsumerJwt | tuple[ConsumerJwt, ...] | None = option(
        "Tokens that identify this consumer.", default=None
    )
    basic_auth: ConsumerPassword | tuple[ConsumerPassword, ...] | None = option(
        "Names with passwords, several at once for rotation.", default=None
    )
    certificates: tuple[str, ...] = option(
        "Names in client certificates (URI or DNS subject alternative names) that identify this consumer.",
        default=(),
    )

    @property
    def tokens(self) -> tuple[ConsumerJwt, ...]:
        """`jwt` as a tuple."""
        return self.jwt if isinstance(self.jwt, tuple) else (self.jwt,) if self.jwt else ()

    @property
    def passwords(self) -> tuple[ConsumerPassword, ...]:
        """`basic_auth` as a tuple."""
        return (
            self.basic_auth
            if isinstance(self.basic_auth, tuple)
            else (self.basic_auth,)
            if self.basic_auth
            else ()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Limits of each consumer on the plan, counted across the gateway."""

    rate_limit: Limit | tuple[Limit, ...] | None = option(
        "Requests, in one or several windows.", default=None, narrows=True
    )
    quota: Quota | tuple[Quota, ...] | None = option(
        "Bytes, in one or several windows.", default=None, narrows=True
    )
    concurrency: int | None = option(
        "Requests at the same time.", default=None, minimum=1, maximum=2**31, narrows=True
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for two limits with the same window, and for limits of `scope: local`."""
        written = self.rate_limit if isinstance(self.rate_limit, tuple) else (self.rate_limit,)
        if any(limit is not None and limit.scope == "local" for limit in written):
            remedy = "use scope: global, or write the limit under policies"
            yield Mistake("a plan counts across all routes and proxies", remedy, path=("rate_limit",))
        yield from repeated_windows("rate_limit", self.rate_limit)
        yield from repeated_windows("quota", self.quota)


def last_second(not_after: str) -> int:
    """Unix time in seconds of `not_after`. A date without a time means the end of that day in UTC."""
    moment = datetime.fromisoformat(not_after)
    if len(not_after) == 10:
        return int((datetime.combine(moment.date(), time(), UTC) + timedelta(days=1)).timestamp()) - 1
    return int(moment.timestamp())
