"""jwt: signed tokens of the gateway's identity providers (RFC 7519), verified by Envoy's jwt_authn filter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from math import ceil
from typing import Any, ClassVar

from envoy.config.core.v3 import backoff_pb2, base_pb2, http_uri_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as pb
from google.protobuf import duration_pb2, empty_pb2

from filters.identity.script import keyless
from filters.identity.script_rules import JwtRule
from filters.language import DataSource, Mistake, Problem, Shorthand, option
from filters.language.problems import short_repr
from filters.model.identity import Consumer, Provider, key_set_of
from filters.model.methods import failed, failure, methods
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage, cluster_of_url
from filters.reasons import Reason, details_begin

FILTER = "envoy.filters.http.jwt_authn"
REMEDY = "write what the issuer publishes as its jwks_uri"
MOST_COMBINED = 4
"""The number of providers up to which Envoy has a requirement for every combination."""
LARGEST_TOKEN = 16 * 1024
"""Bytes of the longest token in Envoy's cache of verified tokens. Longer ones are verified every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSettings:
    """The providers whose tokens are accepted: one provider, any of several, or all of several."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str, list),
        "a provider, or a list of providers of which any suffices",
        {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    )
    provider: str | None = option("Tokens of this provider.", default=None, refers="identity", narrows=True)
    any: tuple[str, ...] = option("A token of any of these.", default=(), refers="identity", narrows=True)
    all: tuple[str, ...] = option("A token of each of these.", default=(), refers="identity", narrows=True)
    optional: bool = option(
        "Let requests without a token pass. A bad token is still rejected.", default=False
    )

    @classmethod
    def short(cls, value: str | list[Any]) -> JwtSettings:
        """The settings that a provider or a list of providers stands for. Raises Mistake."""
        if isinstance(value, str):
            return cls(provider=value)
        if not value or not all(isinstance(one, str) for one in value):
            raise Mistake("expected names of providers", "write [corp, partner]")
        return cls(any=tuple(value))

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of keys that do not go together."""
        if sum((self.provider is not None, bool(self.any), bool(self.all))) != 1:
            yield Mistake("exactly one of 'provider', 'any' and 'all' is needed", "write jwt: NAME")
        for key in ("any", "all"):
            names = getattr(self, key)
            if len(set(names)) < len(names):
                yield Mistake("a provider is named twice", "name it once", path=(key,))
        if self.optional and len(self.all) > 1:
            yield Mistake("'optional' does not go with 'all'", "remove one", path=("optional",))

    def rule(self) -> JwtRule:
        """The part of the route's rule for the identity script."""
        return {"providers": sorted(self.providers), "every": bool(self.all)}

    def challenge(self) -> str:
        """The WWW-Authenticate challenge (RFC 6750 section 3)."""
        return 'Bearer realm="gateway"'

    @property
    def providers(self) -> tuple[str, ...]:
        """All providers of these settings."""
        return (self.provider,) if self.provider is not None else self.any or self.all


def requirement_name(settings: JwtSettings, *, judge: bool) -> str:
    """The name by which routes refer to a requirement. It follows from the requirement, so it never changes."""
    joined = (" & " if settings.all else " | ").join(sorted(settings.providers))
    return f"{joined}{' ?' if settings.optional else ''}{'' if judge else ' *'}"


def requirement(settings: JwtSettings, *, judge: bool) -> pb.JwtRequirement:
    """The requirement for Envoy. Without `judge` Envoy only verifies tokens, and the identity script decides."""
    needs = [pb.JwtRequirement(provider_name=name) for name in sorted(settings.providers)]
    if len(needs) > 1 and settings.all:
        needs = [pb.JwtRequirement(requires_all=pb.JwtRequirementAndList(requirements=needs))]
    if not judge:
        return _any([*needs, pb.JwtRequirement(allow_missing_or_failed=empty_pb2.Empty())])
    if settings.optional:
        return _any([*needs, pb.JwtRequirement(allow_missing=empty_pb2.Empty())])
    return needs[0] if len(needs) == 1 else _any(needs)


def _any(requirements: Iterable[pb.JwtRequirement]) -> pb.JwtRequirement:
    return pb.JwtRequirement(requires_any=pb.JwtRequirementOrList(requirements=requirements))


def jwt_provider(name: str, provider: Provider, contents: Mapping[DataSource, bytes]) -> pb.JwtProvider:
    """A provider for Envoy's filter. Its claims go into the filter's metadata under the provider's name."""
    result = pb.JwtProvider(
        issuer=provider.issuer or "",
        audiences=provider.audiences,
        forward=True,  # the identity script reads the token and removes it
        require_expiration=provider.require_expiration,
        # Always set, because Envoy's default would also accept a token in the query.
        from_headers=[header for name in provider.token_headers for header in _token_headers(name)],
        from_params=provider.from_query,
        from_cookies=provider.from_cookies,
        payload_in_metadata=name,
        failed_status_in_metadata=failure_key(name),
        header_in_metadata=header_key(name),
        # Envoy takes 0 for 60. The script verifies the times again if this is more than the configured tolerance.
        clock_skew_seconds=max(1, ceil(provider.clock_skew.total_seconds())),
        jwt_cache_config=pb.JwtCacheConfig(jwt_cache_size=1000, jwt_max_token_size=LARGEST_TOKEN),
    )
    found = key_set_of(provider, contents)
    if found is not None:
        result.local_jwks.inline_bytes = found.document()
    elif provider.jwks.url is not None:
        result.remote_jwks.CopyFrom(_remote(provider.jwks.url, provider))
    return result


def failure_key(provider: str) -> str:
    """The key of the filter's metadata with the status of a provider's rejected token."""
    return f"failure/{provider}"


def header_key(provider: str) -> str:
    """The key of the filter's metadata with the header of a provider's token."""
    return f"header/{provider}"


_BEARER = tuple("".join(letters) + " " for letters in product(*((one.upper(), one) for one in "bearer")))
"""All spellings, because the name of a scheme is case-insensitive (RFC 9110 section 11.1) and Envoy's prefix is not."""


def _token_headers(name: str) -> Iterator[pb.JwtHeader]:
    for prefix in _BEARER if name.lower() == "authorization" else ("",):
        yield pb.JwtHeader(name=name.lower(), value_prefix=prefix)


def _remote(url: str, provider: Provider) -> pb.RemoteJwks:
    timeout, cached = duration_pb2.Duration(), duration_pb2.Duration()
    timeout.FromTimedelta(provider.jwks.timeout)
    cached.FromTimedelta(provider.jwks.cache_for)
    backoff = backoff_pb2.BackoffStrategy(
        base_interval=duration_pb2.Duration(nanos=100_000_000), max_interval=duration_pb2.Duration(seconds=2)
    )
    retry = base_pb2.RetryPolicy(retry_back_off=backoff)
    retry.num_retries.value = 2
    return pb.RemoteJwks(
        http_uri=http_uri_pb2.HttpUri(uri=url, cluster=cluster_of_url(url), timeout=timeout),
        cache_duration=cached,
        # Envoy fetches the keys before the first request, but a listener does not wait for the issuer's server.
        async_fetch=pb.JwksAsyncFetch(
            fast_listener=True, failed_refetch_duration=duration_pb2.Duration(seconds=1)
        ),
        retry_policy=retry,
    )


def _doubts(name: str, provider: Provider, contents: Mapping[DataSource, bytes]) -> Iterator[str]:
    """Warnings of the key set of the provider `name`: keys that are left out, and a set without any."""
    found = key_set_of(provider, contents)
    if found is None:
        return
    where = provider.jwks.described
    for fault in found.faults:
        yield f"the key {short_repr(fault.key)} of {where} is left out: {fault.reason}"
    if not found.keys:
        yield f"{where} has no usable key: {found.fault}; tokens of '{name}' are answered 503"


def _reason(name: str, title: str, *texts: str, status: int = 401) -> Reason:
    when = details_begin(*(f"jwt_authn_access_denied{{{text}" for text in texts)) + f" || {failed(name)}"
    return Reason(name=name, title=title, status=status, when=when)


def _foreseen(names: Collection[str]) -> Iterator[JwtSettings]:
    """Requirements that Envoy gets in advance, because new routes may arrive before a change of this filter.

    Old routes also keep their requirements until they are removed. With many providers, only single providers are
    included, because each provider doubles the number of combinations.
    """
    most = len(names) if len(names) <= MOST_COMBINED else 1
    for count in range(1, most + 1):
        for some in combinations(names, count):
            yield JwtSettings(any=some)
            yield JwtSettings(any=some, optional=True)
            yield JwtSettings(all=some)


def _script_judges(settings: JwtSettings, context: Context) -> bool:
    """True if the identity script rejects tokens, and Envoy's filter only verifies them.

    With other ways to authenticate, a bad token alone does not reject a request. For an issuer without keys, Envoy
    would report an invalid token. A token in the query would be in the access log, because Envoy removes only verified
    tokens.
    """
    return (
        len(methods(context.effective)) > 1
        or bool(keyless(settings.providers, context))
        or any(context.providers[name].from_query for name in settings.providers)
    )


class Jwt(Policy[JwtSettings]):
    """Compiled into Envoy's jwt_authn filter. Routes refer to its requirements by name."""

    key = "jwt"
    stage = Stage.AUTHENTICATE
    settings = JwtSettings
    enforced_by = "Envoy (jwt_authn; generated Lua: claim to consumer)"
    reasons = (
        _reason("jwt_missing", "A token is required", "Jwt_is_missing"),
        _reason("jwt_expired", "The token has expired", "Jwt_is_expired"),
        _reason("jwt_not_yet_valid", "The token is not yet valid", "Jwt_not_yet_valid"),
        _reason("jwt_wrong_issuer", "The token's issuer is not accepted", "Jwt_issuer_is_not_configured"),
        _reason(
            "jwt_wrong_audience", "The token is for another audience", "Audiences_in_Jwt_are_not_allowed"
        ),
        _reason(
            "jwt_invalid_signature", "The token's signature could not be verified", "Jwt_verification_fails"
        ),
        _reason("jwt_unknown_key", "The token's signing key is unknown", "Jwks_doesn"),
        _reason(
            "jwt_unsupported_algorithm",
            "The token's algorithm is not accepted",
            "Jwt_header_[alg]_is_not_supported",
        ),
        failure("jwt_unsupported_extension", "The token requires an extension that is not supported"),
        failure("jwt_keys_unavailable", "The issuer has no usable key", 503),
        _reason("jwks_unavailable", "The issuer's keys could not be fetched", "Jwks", status=503),
        _reason("jwt_malformed", "The token is malformed", ""),
    )

    def cross_checks(self, context: Context) -> Iterator[Problem]:
        """Warnings about keys that cannot be used. Only tokens that need these keys are rejected."""
        for name, provider in context.providers.items():
            for message in _doubts(name, provider, context.contents):
                path = ("identity", name, "jwks")
                yield Problem(path=path, message=message, remedy=REMEDY, severity="warning")

    def identifies(self, consumer: Consumer) -> bool:
        return bool(consumer.jwt)

    def http_filters(self, used: Iterable[JwtSettings], context: Context) -> tuple[HttpFilter, ...]:
        providers = context.providers
        wanted = [one for one in (*_foreseen(providers), *used) if providers.keys() >= set(one.providers)]
        config = pb.JwtAuthentication(stat_prefix="jwt")
        for name, provider in providers.items():
            config.providers[name].CopyFrom(jwt_provider(name, provider, context.contents))
        for settings in wanted:
            for judge in (True, False):
                config.requirement_map[requirement_name(settings, judge=judge)].CopyFrom(
                    requirement(settings, judge=judge)
                )
        urls = sorted({one.jwks.url for one in providers.values() if one.jwks.url is not None})
        return (HttpFilter(name=FILTER, config=config, dynamic=True, calls=tuple(urls)),)

    def on_route(self, settings: JwtSettings, context: Context) -> RoutePart:
        judge = not _script_judges(settings, context)
        config = pb.PerRouteConfig(requirement_name=requirement_name(settings, judge=judge))
        return RoutePart(filter_configs={FILTER: config})
