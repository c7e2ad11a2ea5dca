"""Who calls: identity providers, consumers with their credentials, and the plans they are on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from types import MappingProxyType
from typing import Literal

from filters import framing
from filters.language import DataSource, Mistake, option
from filters.language.datasource import SecretSource
from filters.model import claims
from filters.model.jwks import KeySet, key_set
from filters.model.limits import Limit, Quota, repeated_windows

NO_CLAIMS: Mapping[str, str] = MappingProxyType({})

NAMESPACE = "xds.identity"
"""The namespace of Envoy's dynamic metadata that says who calls, once a request is authenticated.

Its keys: `consumer` and `plan` (names; absent where none was identified), `method` (`oidc`, `mtls`,
`jwt`, `api_key` or `basic_auth`, joined by `+` where all were needed), `claims` (the verified token's, a struct) with
`provider`, and `user` (the name of basic_auth). `failure` is there instead when the request was refused.
"""
CONSUMER_HEADER = "x-consumer"
PLAN_HEADER = "x-consumer-plan"
CLIENTS_OWN = framing.HEADERS | {"authorization", "content-type", "cookie"}
"""A client's own of these must stay, and claim headers of clients are removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwks(DataSource):
    """Where a provider's public keys (RFC 7517) come from."""

    url: str | None = option(
        "Fetched and cached by Envoy.", default=None, pattern=r"https?://\S+", shape="a URL"
    )
    cache_for: timedelta = option("How long fetched keys are used.", default=timedelta(minutes=5), minimum=1)
    timeout: timedelta = option("Time limit of one fetch.", default=timedelta(seconds=5), minimum=0.001)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless exactly one source is named."""
        if sum(source is not None for source in (self.url, self.file, self.env, self.inline)) != 1:
            yield Mistake(
                "exactly one of 'url', 'file' and 'inline' is needed", "write {file: PATH} or {url: URL}"
            )

    @property
    def described(self) -> str:
        """Where the keys are, in words."""
        return self.url or self.file or (f"the variable {self.env}" if self.env else "the inline key set")


URL = r"https?://[^\s/?#]+(/[^\s#]*)?"
PATH = r"/[A-Za-z0-9._~/-]+"


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcClient:
    """The gateway as a client of the issuer, for people who log in with a browser (OpenID Connect Core)."""

    client_id: str = option("The client's name at the issuer; also the audience of its tokens.")
    client_secret: SecretSource = option("The client's secret at the issuer.")
    session_secret: SecretSource = option(
        "At least 32 random bytes, the same on every gateway: they sign and encrypt the session's cookies."
    )
    authorization_endpoint: str = option("Where people log in.", pattern=URL, shape="a URL")
    token_endpoint: str = option("Where Envoy exchanges codes for tokens.", pattern=URL, shape="a URL")
    end_session_endpoint: str | None = option(
        "Where the issuer ends its own session on logout.", default=None, pattern=URL, shape="a URL"
    )
    scopes: tuple[str, ...] = option("What is asked for.", default=("openid",))
    callback_path: str | None = option(
        "Where the issuer sends people back; default `/_oidc/NAME/callback`.",
        default=None, pattern=PATH, shape="a path",
    )  # fmt: skip
    logout_path: str | None = option(
        "Where people log out; default `/_oidc/NAME/logout`.", default=None, pattern=PATH, shape="a path"
    )
    cookie_domain: str | None = option("Share the session with subdomains.", default=None)
    client_authentication: Literal["body", "basic"] = option(
        "How the secret is sent to the token endpoint.", default="body"
    )
    refresh: bool = option("Use refresh tokens, so that people need not log in again.", default=True)
    forward_access_token: bool = option(
        "Whether the upstream sees the access token, as `authorization: Bearer …`.", default=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An issuer of JSON Web Tokens (RFC 7519)."""

    issuer: str | None = option(
        "The `iss` claim that tokens must have; any when left out.", default=None, narrows=True
    )
    audiences: tuple[str, ...] = option("One of these must be in the `aud` claim.", default=(), narrows=True)
    jwks: Jwks = option("The public keys.")
    claim_headers: Mapping[str, str] = option(
        "Claims that the upstream sees as headers; a dot enters nested claims, `\\.` is a dot within a name.",
        default=NO_CLAIMS,
    )
    clock_skew: timedelta = option(
        "Tolerance for `exp` and `nbf`; `0s` is none.", default=timedelta(seconds=60), minimum=0
    )
    from_headers: tuple[str, ...] = option(
        "Headers that hold the token; default: `authorization: Bearer …`.", default=(), narrows=True
    )
    from_query: tuple[str, ...] = option("Query parameters that hold the token.", default=(), narrows=True)
    from_cookies: tuple[str, ...] = option("Cookies that hold the token.", default=(), narrows=True)
    forward: bool = option("Whether the upstream sees the token.", default=True)
    require_expiration: bool = option("Refuse tokens without `exp`.", default=False)
    oidc: OidcClient | None = option(
        "What `oidc` needs: the gateway as a client of the issuer.", default=None
    )

    @property
    def token_headers(self) -> tuple[str, ...]:
        """Headers that hold the token; without `from_headers` it is only elsewhere where another place is named."""
        elsewhere = self.from_query or self.from_cookies
        return self.from_headers or (() if elsewhere else ("authorization",))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each claim header that cannot be one."""
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
    """The keys of a provider; None where Envoy fetches them, and where they could not be read."""
    content = contents.get(provider.jwks)
    return None if provider.jwks.url is not None or content is None else key_set(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key, known only by its hash."""

    sha256: str = option(
        "SHA-256 of the key.", secret=True, pattern=r"[0-9a-f]{64}", shape="64 hexadecimal digits, lower case"
    )
    not_after: str | None = option(
        "The moment after which the key is refused.",
        default=None,
        pattern=r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))?",
        shape="a date such as 2027-01-31, or 2027-01-31T12:00:00Z",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerJwt:
    """Tokens that stand for a consumer."""

    provider: str = option("The identity provider.", refers="identity")
    claim: str = option(
        "The claim that names the consumer; a dot enters nested claims, `\\.` is a dot within a name."
    )
    value: str = option("What the claim must be.")

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for a claim that cannot be one."""
        if (fault := claims.check(self.claim)) is not None:
            yield Mistake(fault.message, fault.remedy, path=("claim",), value=self.claim)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPassword:
    """A name and a password (RFC 7617), the password known only by its hash."""

    username: str = option("The name.", pattern=r"[^:\x00-\x1f]+", shape="a name without a colon")
    sha256: str = option(
        "SHA-256 of the password, which must be a generated one of at least 128 bits.",
        secret=True,
        pattern=r"[0-9a-f]{64}",
        shape="64 hexadecimal digits, lower case",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Somebody who calls, however they prove it."""

    plan: str | None = option("The plan whose limits apply.", default=None, refers="plans")
    api_keys: tuple[ApiKey, ...] = option("Keys, several at once for rotation.", default=())
    jwt: ConsumerJwt | tuple[ConsumerJwt, ...] | None = option(
        "Tokens that stand for this consumer.", default=None
    )
    basic_auth: ConsumerPassword | tuple[ConsumerPassword, ...] | None = option(
        "Names with passwords, several at once for rotation.", default=None
    )
    certificates: tuple[str, ...] = option(
        "Names in client certificates (URI or DNS subject alternative names) that stand for this consumer.",
        default=(),
    )

    @property
    def tokens(self) -> tuple[ConsumerJwt, ...]:
        """All of `jwt`."""
        return self.jwt if isinstance(self.jwt, tuple) else (self.jwt,) if self.jwt else ()

    @property
    def passwords(self) -> tuple[ConsumerPassword, ...]:
        """All of `basic_auth`."""
        return (
            self.basic_auth
            if isinstance(self.basic_auth, tuple)
            else (self.basic_auth,)
            if self.basic_auth
            else ()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Limits that hold for each consumer on the plan, counted across the gateway."""

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
        """Yield a mistake for two limits with the same window, and for what no proxy can count alone."""
        written = self.rate_limit if isinstance(self.rate_limit, tuple) else (self.rate_limit,)
        if any(one is not None and one.scope == "local" for one in written):
            remedy = "use scope: global, or write the limit under policies"
            yield Mistake("a plan counts across all routes and proxies", remedy, path=("rate_limit",))
        yield from repeated_windows("rate_limit", self.rate_limit)
        yield from repeated_windows("quota", self.quota)


def last_second(not_after: str) -> int:
    """Unix time. A date alone lasts to its end, UTC."""
    moment = datetime.fromisoformat(not_after)
    if len(not_after) == 10:
        return int((datetime.combine(moment.date(), time(), UTC) + timedelta(days=1)).timestamp()) - 1
    return int(moment.timestamp())
