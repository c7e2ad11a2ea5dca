"""HTTP filters of Envoy as policies of routes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from xds_server.imports.both_hold import add_limit, both_addresses
from xds_server.imports.draft import Draft
from xds_server.imports.envoy_clusters import Clusters
from xds_server.imports.envoy_jwt import Tokens
from xds_server.imports.envoy_matches import Match, Unsupported
from xds_server.imports.envoy_values import milliseconds, type_of, typed
from xds_server.imports.source import Field

_OPEN = frozenset(
    ("AdaptiveConcurrency", "BandwidthLimit", "CacheConfig", "Decompressor", "FilterConfig", "Geoip", "GrpcJsonTranscoder",
     "HealthCheck", "IPTagging", "OnDemand", "StatefulSession", "Tap")
)  # fmt: skip
"""Filters that decide not who may call. All that are not known may."""
_ABUSE = frozenset(("RateLimit", "RateLimitQuotaFilterConfig", "AdmissionControl"))
"""Filters that protect upstreams from too much."""
_UNITS = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86_400.0: "day"}


class _Route(NamedTuple):
    """The route that a filter becomes a policy of."""

    match: Match
    before: Sequence[Match]
    value: dict[str, Any]
    policies: dict[str, Any]
    own: Field | None
    """The configuration of the filter for this route alone."""


class Filters:
    """The filters of one connection manager. With `closed`, its routes are closed in any case."""

    def __init__(self, draft: Draft, clusters: Clusters, manager: Field, *, closed: bool) -> None:
        self._draft, self._clusters, self._closed = draft, clusters, closed
        self._filters = manager.elements("http_filters")
        self._tokens = Tokens(draft)
        for one in self._filters:
            one.read("is_optional")
            one.text("disabled")

    def apply(
        self,
        levels: Sequence[Field],
        match: Match,
        before: Sequence[Match],
        value: dict[str, Any],
        policies: dict[str, Any],
    ) -> bool:
        """Add the filters to a route. `levels` are the route and what it is in, `before` the conditions of earlier routes.

        Returns False if a rule of security is lost.
        """
        sure = not self._closed
        for one in self._filters:
            own = next(
                (
                    found
                    for level in levels
                    if (found := level.get("typed_per_filter_config", one.text("name")))
                ),
                None,
            )
            if own is not None and own.true("disabled"):
                own.text("@type")
                continue
            if own is not None and _kind(own) == "FilterConfig":
                own.text("@type"), own.read("is_optional")
                own = own.get("config") or own
            if own is None and one.true("disabled"):
                continue
            sure &= self._one(one, _Route(match, before, value, policies, own))
        return sure

    def _one(self, field: Field, route: _Route) -> bool:
        kind, settings = type_of(field), typed(field) or field
        handler = _KINDS.get(kind)
        if handler is not None:
            own = route._replace(policies={})
            sure = handler(self, settings, own) is not False
            return self._both(settings, route.policies, own.policies) and sure
        settings.read()
        if route.own is not None:
            route.own.read()
        if kind in _OPEN:
            self._draft.warn(
                settings, f"{kind} has no equal", "see docs/reference/policies.md for what comes near it"
            )
            return True
        if kind in _ABUSE:
            self._draft.insecure(
                settings, f"{kind} has no equal, and its routes stay open", "write rate_limit or concurrency"
            )
            return True
        self._draft.insecure(
            settings,
            f"{kind or 'a filter without a type'} has no equal, so its routes are closed",
            "write another policy, and remove ip_access",
        )
        return False

    def _both(self, settings: Field, policies: dict[str, Any], more: Mapping[str, Any]) -> bool:
        """Add policies of a filter. With one of the same kind before, both hold. Returns False, and reports it, if they cannot."""
        sure = True
        for key, value in more.items():
            if key == "ip_access":
                policies[key] = both_addresses(policies.get(key, value), value)
            elif key == "rate_limit":
                add_limit(policies, value)
            elif policies.setdefault(key, value) != value:
                sure = False
                self._draft.insecure(
                    settings,
                    f"two filters that become {key} have no equal, so the route is closed",
                    "write what both demand, and remove ip_access",
                )
        return sure

    def nothing(self, settings: Field, _route: _Route) -> None:
        """A filter that needs no policy."""
        settings.read()

    def cors(self, _settings: Field, route: _Route) -> None:
        """Cors, which has its settings at the routes."""
        if route.own is None:
            return
        origins = []
        for one in route.own.elements("allow_origin_string_match"):
            if text := one.text("exact"):
                origins.append(text)
            elif one.text("prefix") or one.text("safe_regex", "regex"):
                one.read()
                self._draft.warn(
                    one, "origins are exact or https://*.example.com, so this one is left out", "write it"
                )
        if not origins:
            return
        cors: dict[str, Any] = {"allow_origins": origins}
        for name in ("allow_methods", "allow_headers", "expose_headers"):
            if values := [
                one.strip() for one in route.own.text(name).split(",") if one.strip() not in ("", "*")
            ]:
                cors[name] = values
        if seconds := route.own.number("max_age"):
            cors["max_age"] = f"{int(seconds)}s"
        if route.own.true("allow_credentials") and "*" not in origins:
            cors["allow_credentials"] = True
        route.policies["cors"] = cors

    def local_rate_limit(self, settings: Field, route: _Route) -> None:
        """LocalRateLimit: a bucket for each Envoy."""
        found = route.own or settings
        bucket = found.get("token_bucket")
        settings.text("stat_prefix"), found.text("stat_prefix")
        if bucket is None:
            return
        shares = [
            found.number(name, "default_value", "numerator") or 0
            for name in ("filter_enabled", "filter_enforced")
        ]
        found.read("filter_enabled"), found.read("filter_enforced")
        if not all(shares):
            self._draft.warn(bucket, "the limit is not enforced, so it is left out", "write rate_limit")
            bucket.read()
            return
        fill, size = bucket.number("tokens_per_fill") or 1, bucket.number("max_tokens") or 1
        text = bucket.text("fill_interval").removesuffix("s")
        seconds = float(text) if text.replace(".", "", 1).isdigit() and float(text) > 0 else 1.0
        if seconds in _UNITS:
            requests, per = fill, _UNITS[seconds]
        else:
            requests, per = max(1, round(fill * 3600 / seconds)), "hour"
        limit = {"requests": int(requests), "per": per, "burst": int(size), "by": "route", "scope": "local"}
        route.policies["rate_limit"] = limit

    def jwt(self, settings: Field, route: _Route) -> bool:
        """JwtAuthentication."""
        try:
            found = self._tokens.policy(settings, route.own, route.match, route.before)
        except Unsupported as error:
            self._draft.insecure(
                settings, f"{error}, so the route is closed", "write jwt, and remove ip_access"
            )
            return False
        if found is not None:
            route.policies["jwt"] = found
        return True

    def access(self, settings: Field, route: _Route) -> bool:
        """RBAC: rules about addresses are `ip_access`."""
        if route.own is not None and _kind(route.own) == "RBACPerRoute":
            settings.read()
            settings = route.own.get("rbac") or route.own  # without rules, it is off for this route
        elif route.own is not None:
            settings = route.own
        rules = settings.get("rules") or settings.get("matcher")
        if rules is None:
            return True
        networks = _networks(rules)
        if networks is None:
            rules.read()
            self._draft.insecure(
                rules, "rules about anything but addresses have no equal, so the route is closed",
                "write authorize, and remove ip_access",
            )  # fmt: skip
            return False
        rules.read()
        route.policies["ip_access"] = {"deny" if rules.text("action") == "DENY" else "allow": networks}
        return True

    def basic_auth(self, settings: Field, route: _Route) -> bool:
        """BasicAuth: its users become an htpasswd file."""
        users = (route.own or settings).get("users")
        inline = (users.text("inline_string") or users.text("inline_bytes")) if users is not None else ""
        file = users.text("filename") if users is not None else ""
        if inline:
            file = f"htpasswd/{hashlib.sha256(inline.encode()).hexdigest()[:12]}"
            self._draft.files[file] = inline.encode()
        if not file:
            self._draft.insecure(settings, "it has no users, so the route is closed", "write basic_auth")
            return False
        route.policies["basic_auth"] = {"htpasswd": {"file": file}, "forward": True}
        return True

    def api_key(self, settings: Field, route: _Route) -> bool:
        """ApiKeyAuth: its credentials are consumers."""
        own = route.own
        sources = (own.elements("key_sources") if own is not None else []) or settings.elements("key_sources")
        credentials = [
            *settings.elements("credentials"),
            *(own.elements("credentials") if own is not None else []),
        ]
        if len(sources) != 1 or (own is not None and own.get("allowed_clients") is not None):
            settings.read()
            self._draft.insecure(
                settings, "keys at several places, or of some clients only, have no equal, so the route is closed",
                "write api_key and authorize, and remove ip_access",
            )  # fmt: skip
            return False
        for one in credentials:
            key = hashlib.sha256(one.text("key").encode()).hexdigest()
            known = self._draft.sections.setdefault("consumers", {}).setdefault(
                one.text("client") or "client", {"api_keys": []}
            )
            if {"sha256": key} not in known["api_keys"]:
                known["api_keys"].append({"sha256": key})
        place = {name: text for name in ("header", "query", "cookie") if (text := sources[0].text(name))}
        route.policies["api_key"] = {**place, "forward": not settings.true("forwarding", "hide_credentials")}
        return True

    def csrf(self, settings: Field, route: _Route) -> None:
        """CsrfPolicy."""
        found = route.own or settings
        hosts = [text for one in found.elements("additional_origins") if (text := one.text("exact"))]
        found.read("filter_enabled"), settings.read("filter_enabled")
        route.policies["csrf"] = {"hosts": hosts} if hosts else True

    def buffer(self, settings: Field, route: _Route) -> None:
        """Buffer: the bound of the body."""
        size = route.own.number("buffer", "max_request_bytes") if route.own is not None else None
        if bound := size or settings.number("max_request_bytes"):
            route.value["max_body"] = min(int(bound), route.value.get("max_body", int(bound)))

    def compressor(self, settings: Field, route: _Route) -> None:
        """Compressor."""
        settings.read()
        route.policies["compression"] = True

    def grpc_web(self, settings: Field, route: _Route) -> None:
        """GrpcWeb."""
        settings.read()
        route.policies["grpc_web"] = True

    def fault(self, settings: Field, route: _Route) -> None:
        """HTTPFault: a test, which is not carried over."""
        found = route.own or settings
        if found.get("abort") is None and found.get("delay") is None:
            return
        found.read()
        time = milliseconds(settings.get("delay", "fixed_delay")) or "a time"
        self._draft.warn(found, f"faults are not imported (a delay of {time}, or an abort)", "write fault")


def _kind(field: Field) -> str:
    """Return the name of the message that a configuration has, without its package, and note that it was read."""
    return field.text("@type").rpartition(".")[2]


def _networks(rules: Field) -> list[str] | None:
    """Return the networks of rules that are about nothing else, None if they are."""
    if rules.text("action", default="ALLOW") not in ("ALLOW", "DENY"):
        return None
    found: list[str] = []
    policies = rules.get("policies")
    for _, policy in policies.items() if policies is not None else ():
        if any(one.text("any") != "true" for one in policy.elements("permissions")) or policy.get(
            "condition"
        ):
            return None
        for principal in policy.elements("principals"):
            inner = (
                principal.get("remote_ip") or principal.get("direct_remote_ip") or principal.get("source_ip")
            )
            if inner is None:
                return None
            found.append(f"{inner.text('address_prefix')}/{inner.text('prefix_len', default='32')}")
    return found or None


_KINDS: Mapping[str, Callable[[Filters, Field, _Route], bool | None]] = {
    "ApiKeyAuth": Filters.api_key,
    "BasicAuth": Filters.basic_auth,
    "Buffer": Filters.buffer,
    "Compressor": Filters.compressor,
    "Cors": Filters.cors,
    "CsrfPolicy": Filters.csrf,
    "GrpcWeb": Filters.grpc_web,
    "HTTPFault": Filters.fault,
    "JwtAuthentication": Filters.jwt,
    "LocalRateLimit": Filters.local_rate_limit,
    "RBAC": Filters.access,
    "Router": Filters.nothing,
}
