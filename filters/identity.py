"""Who calls: identity providers, consumers with their credentials, and the plans they are on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from filters.language import DataSource, Mistake, option
from filters.limits import Limit, Quota, repeated_windows

NO_CLAIMS: Mapping[str, str] = MappingProxyType({})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An issuer of JSON Web Tokens (RFC 7519)."""

    issuer: str | None = option("The `iss` claim that tokens must have; any when left out.", default=None)
    audiences: tuple[str, ...] = option("One of these must be in the `aud` claim.", default=())
    jwks: Jwks = option("The public keys.")
    claim_headers: Mapping[str, str] = option(
        "Claims that the upstream sees as headers; a dot enters nested claims.", default=NO_CLAIMS
    )
    clock_skew: timedelta = option("Tolerance for `exp` and `nbf`.", default=timedelta(seconds=60), minimum=0)
    from_headers: tuple[str, ...] = option(
        "Headers that hold the token; default: `authorization: Bearer …`.", default=()
    )
    from_query: tuple[str, ...] = option("Query parameters that hold the token.", default=())
    from_cookies: tuple[str, ...] = option("Cookies that hold the token.", default=())
    forward: bool = option("Whether the upstream sees the token.", default=True)
    require_expiration: bool = option("Refuse tokens without `exp`.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key, known only by its hash."""

    sha256: str = option(
        "SHA-256 of the key.", pattern=r"[0-9a-f]{64}", shape="64 hexadecimal digits, lower case"
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
    claim: str = option("The claim that names the consumer; a dot enters nested claims.")
    value: str = option("What the claim must be.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Somebody who calls, however they prove it."""

    plan: str | None = option("The plan whose limits apply.", default=None, refers="plans")
    api_keys: tuple[ApiKey, ...] = option("Keys, several at once for rotation.", default=())
    jwt: ConsumerJwt | None = option("Tokens that stand for this consumer.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Limits that hold for each consumer on the plan, counted across the gateway."""

    rate_limit: Limit | tuple[Limit, ...] | None = option(
        "Requests, in one or several windows.", default=None
    )
    quota: Quota | tuple[Quota, ...] | None = option("Bytes, in one or several windows.", default=None)
    concurrency: int | None = option("Requests at the same time.", default=None, minimum=1, maximum=2**31)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for two limits with the same window."""
        yield from repeated_windows("rate_limit", self.rate_limit)
        yield from repeated_windows("quota", self.quota)
