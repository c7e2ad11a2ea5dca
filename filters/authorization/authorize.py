"""authorize: rules about callers and their requests, compiled into Envoy's RBAC filter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from envoy.type.matcher.v3 import metadata_pb2, number_pb2, regex_pb2, string_pb2, value_pb2

from filters.authorization import cel, principals
from filters.authorization.cel_types import Type
from filters.language import Mistake, option
from filters.model import claims
from filters.model.identity import NAMESPACE
from filters.model.methods import methods
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason, details

FILTER = "xds.authorize"
LARGEST_NUMBER = 2**53
"""Envoy keeps claims as doubles."""
OVERRIDES = ("x-http-method", "x-http-method-override", "x-method-override")
"""Headers by which some frameworks replace the request's method."""
Wanted = bool | float | str
_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule that allows requests. All of its keys must match. A request that no rule allows is denied."""

    scopes: tuple[str, ...] = option(
        "All of these must be words of the `scope` claim, or elements of `scp`.", default=(), narrows=True
    )
    claims: Mapping[str, Wanted | tuple[Wanted, ...]] = option(
        "Each claim equals, or is a list that contains, the value or one of the values. A dot enters nested claims; "
        "`\\.` is a dot within a name.",
        default=_NO_CLAIMS,
        narrows=True,
    )
    consumers: tuple[str, ...] = option(
        "The caller is one of these consumers.", default=(), refers="consumers", narrows=True
    )
    plans: tuple[str, ...] = option(
        "The caller is on one of these plans.", default=(), refers="plans", narrows=True
    )
    clients: tuple[str, ...] = option(
        "The client certificate of the connection has one of these names (DNS or URI, `*.example.com` for subdomains, "
        "`spiffe://example.com/ns/shop/*` for a prefix).",
        default=(),
        narrows=True,
    )
    methods: tuple[str, ...] = option("The request has one of these HTTP methods.", default=(), narrows=True)
    paths: tuple[str, ...] = option(
        "The request is for one of these paths, `/orders/*` for `/orders` and all below, as the client sent it.",
        default=(),
        narrows=True,
    )
    deny: bool = option(
        "Deny requests that match, also those that other rules allow. If every rule denies, all other requests are allowed.",
        default=False,
    )
    when: str | None = option(
        "A CEL condition over request, claims, consumer, plan, user, provider, authenticated_by, source and "
        "connection.",
        default=None,
        multiline=True,
        narrows=True,
    )
    shadow: bool = option(
        "Only count requests that would be denied (`rbac.authorize.shadow_denied`).", default=False
    )

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of one rule."""
        if not (self.needs_identity or self.clients or self.methods or self.paths or self.when):
            remedy = "write scopes, claims, consumers, plans, clients, methods, paths or when"
            yield Mistake("this rule is empty", remedy)
        if self.deny and self.when is not None:
            message = "a rule that denies has no condition"
            yield Mistake(message, "write the opposite into the rules that allow", path=("when",))
        for number, path in enumerate(self.paths):
            try:
                principals.check_path(path)
            except Mistake as mistake:
                yield Mistake(mistake.message, mistake.remedy, path=("paths", number), value=path)
        for number, scope in enumerate(self.scopes):
            if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope):
                yield Mistake("not a scope", "write one word", path=("scopes", number), value=scope)
        for number, method in enumerate(self.methods):
            if not re.fullmatch(r"[A-Z][A-Z0-9_-]*", method):
                yield Mistake("not a method", "write GET", path=("methods", number), value=method)
        for claim, wanted in self.claims.items():
            yield from _check_claim(claim, wanted)
        if self.when is not None:
            try:
                CONDITIONS.parse(self.when)
            except Mistake as mistake:
                yield Mistake(mistake.message, mistake.remedy, path=("when",), value=self.when)

    @property
    def needs_identity(self) -> bool:
        """True if the rule can only allow an authenticated request."""
        return bool(self.scopes or self.claims or self.consumers or self.plans)


def _check_claim(claim: str, wanted: Wanted | tuple[Wanted, ...]) -> Iterator[Mistake]:
    if (fault := claims.check(claim)) is not None:
        yield Mistake(fault.message, fault.remedy, path=("claims", claim), value=claim)
    if wanted == ():
        yield Mistake("no claim could be equal to this", "write a value", path=("claims", claim))
    for one in wanted if isinstance(wanted, tuple) else (wanted,):
        if one == "":
            message, remedy = "an empty text matches no name", "write a value"
            yield Mistake(message, remedy, path=("claims", claim), value=one)
        if isinstance(one, float | int) and abs(one) >= LARGEST_NUMBER:
            message, remedy = (
                "Envoy does not distinguish numbers of this size",
                "have the issuer write it as text",
            )
            yield Mistake(message, remedy, path=("claims", claim), value=one)


Settings = Rule | tuple[Rule, ...]


def _identity(name: str) -> cel.Expr:
    metadata = cel.select(cel.variable("metadata"), "filter_metadata")
    return cel.select(cel.call("_[_]", metadata, cel.literal(NAMESPACE)), name)


def _who(key: str, type_: Type = "string") -> cel.Variable:
    """A value of the metadata of authentication. It may be absent."""
    return cel.Variable(type=type_, expression=partial(_identity, key), absent=True)


def _attribute(name: str, fields: Mapping[str, Type]) -> cel.Variable:
    return cel.Variable(type=fields, expression=partial(cel.variable, name))


_PEER: Mapping[str, Type] = {"address": "string", "port": "int"}
VARIABLES: Mapping[str, cel.Variable] = {
    "claims": _who("claims", "any"),
    "consumer": _who("consumer"),
    "plan": _who("plan"),
    "user": _who("user"),
    "provider": _who("provider"),
    "authenticated_by": _who("method"),
    "request": _attribute(
        "request",
        {
            **dict.fromkeys(
                ("path", "url_path", "host", "scheme", "method", "referer", "useragent"), "string"
            ),
            **dict.fromkeys(("id", "protocol", "query"), "string"),
            "headers": "strings",
            "time": "timestamp",
            "duration": "duration",
            **dict.fromkeys(("size", "total_size", "headers_bytes"), "int"),
        },
    ),
    "source": _attribute("source", _PEER),
    "destination": _attribute("destination", _PEER),
    "connection": _attribute(
        "connection",
        {
            "id": "int",
            "mtls": "bool",
            **dict.fromkeys(("requested_server_name", "tls_version"), "string"),
            **dict.fromkeys(("subject_local_certificate", "subject_peer_certificate"), "string"),
            **dict.fromkeys(("uri_san_local_certificate", "uri_san_peer_certificate"), "string"),
            **dict.fromkeys(("dns_san_local_certificate", "dns_san_peer_certificate"), "string"),
            **dict.fromkeys(("sha256_peer_certificate_digest", "transport_failure_reason"), "string"),
            "termination_details": "string",
        },
    ),
}
"""The variables of `when`. Envoy's attributes are those of
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes."""
CONDITIONS = cel.Conditions(VARIABLES)


def _metadata(path: Iterable[str], value: value_pb2.ValueMatcher) -> pb.Principal:
    segments = [metadata_pb2.MetadataMatcher.PathSegment(key=key) for key in path]
    matcher = metadata_pb2.MetadataMatcher(filter=NAMESPACE, path=segments, value=value)
    return pb.Principal(sourced_metadata=pb.SourcedMetadata(metadata_matcher=matcher))


def _any(principals: list[pb.Principal]) -> pb.Principal:
    if len(principals) == 1:
        return principals[0]
    return pb.Principal(or_ids=pb.Principal.Set(ids=principals))


_PRESENT = value_pb2.ValueMatcher(present_match=True)


def _exact(text: str) -> value_pb2.ValueMatcher:
    return value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(exact=text))


def _element(value: value_pb2.ValueMatcher) -> value_pb2.ValueMatcher:
    return value_pb2.ValueMatcher(list_match=value_pb2.ListMatcher(one_of=value))


def _equal(wanted: Wanted) -> value_pb2.ValueMatcher:
    if isinstance(wanted, bool):
        return value_pb2.ValueMatcher(bool_match=wanted)
    if isinstance(wanted, str):
        return _exact(wanted)
    return value_pb2.ValueMatcher(double_match=number_pb2.DoubleMatcher(exact=wanted))


def _claim(name: str, wanted: Wanted | tuple[Wanted, ...]) -> pb.Principal:
    """A principal for the claim at the first place that contains one."""
    values = [_equal(one) for one in (wanted if isinstance(wanted, tuple) else (wanted,))]
    places, earlier = [], list[pb.Principal]()
    for path in claims.paths(name):
        here = _any([_metadata(("claims", *path), value) for one in values for value in (one, _element(one))])
        places.append(pb.Principal(and_ids=pb.Principal.Set(ids=[*earlier, here])) if earlier else here)
        earlier.append(pb.Principal(not_id=_metadata(("claims", *path), _PRESENT)))
    return _any(places)


def _scope(scope: str) -> pb.Principal:
    """A principal for a scope: a word of a string (RFC 6749 section 3.3), or an element of a list."""
    word = regex_pb2.RegexMatcher(regex=rf"(.* )?{re.escape(scope)}( .*)?")
    words = value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(safe_regex=word))
    return _any(
        [
            _metadata(("claims", claim), value)
            for claim in ("scope", "scp")
            for value in (words, _element(_exact(scope)))
        ]
    )


def _who_of(rule: Rule) -> list[pb.Principal]:
    """Return the principals of a rule, which must all match."""
    found = [_scope(scope) for scope in sorted(rule.scopes)]
    found += [_claim(name, wanted) for name, wanted in sorted(rule.claims.items())]
    for key, names in (("consumer", rule.consumers), ("plan", rule.plans)):
        if names:
            found.append(_any([_metadata((key,), _exact(name)) for name in sorted(names)]))
    if rule.clients:
        found.append(_any([principals.client(name) for name in sorted(rule.clients)]))
    if rule.paths:
        found.append(_any([principals.path(one) for one in sorted(rule.paths)]))
    return found


def _denied(rule: Rule) -> pb.Principal:
    methods = [principals.method(one) for one in sorted(rule.methods)]
    return principals.every([*_who_of(rule), *([principals.some(methods)] if methods else [])])


def rbac_policies(rules: Iterable[Rule]) -> Mapping[str, pb.Policy]:
    """Return rules as policies of Envoy's RBAC, one of which has to match: what one denies, the others leave out."""
    listed = list(enumerate(rules, 1))
    denied = [_denied(rule) for _, rule in listed if rule.deny]
    found = {f"rule-{number}": rbac_policy(rule, denied) for number, rule in listed if not rule.deny}
    if found:
        return found
    others = pb.Policy(permissions=[pb.Permission(any=True)], principals=principals.without(denied))
    return {"others": others}


def rbac_policy(rule: Rule, denied: Sequence[pb.Principal] = ()) -> pb.Policy:
    """A rule as a policy of Envoy's RBAC. Its principals, its permissions and its condition must all match."""
    who = _who_of(rule)
    if denied:
        who = [*who, *principals.without(denied)]
    everybody = pb.Principal(and_ids=pb.Principal.Set(ids=who)) if who else principals.EVERYBODY
    result = pb.Policy(permissions=[_permission(rule)], principals=[everybody])
    if rule.when is not None:
        result.condition.CopyFrom(CONDITIONS.parse(rule.when))
    return result


def _permission(rule: Rule) -> pb.Permission:
    if not rule.methods:
        return pb.Permission(any=True)
    matchers = [
        route_components_pb2.HeaderMatcher(
            name=":method", string_match=string_pb2.StringMatcher(exact=method)
        )
        for method in sorted(rule.methods)
    ]
    return pb.Permission(or_rules=pb.Permission.Set(rules=[pb.Permission(header=one) for one in matchers]))


def rules_of(settings: Settings) -> tuple[Rule, ...]:
    """All rules. One that matches is sufficient."""
    return settings if isinstance(settings, tuple) else (settings,)


class Authorize(Policy[Settings]):
    """Compiled into an RBAC filter that allows only requests that match a rule."""

    key = "authorize"
    stage = Stage.AUTHORIZE
    settings = Settings
    enforced_by = "Envoy (RBAC over the metadata of authentication)"
    reasons = (
        Reason(
            name="not_authorized",
            title="Access is denied",
            status=403,
            when=details("rbac_access_denied_matched_policy[none]"),
        ),
    )

    def check(self, settings: Settings, context: Context) -> Iterator[Mistake]:
        """Yield mistakes between the rules, and a mistake if no request could ever be allowed."""
        rules = rules_of(settings)
        if not rules:
            yield Mistake("there is no rule, so no request would be allowed", "write a rule, or 'off'")
        if len({rule.shadow for rule in rules}) > 1:
            yield Mistake("either all rules are in shadow or none", "write 'shadow' in each")
        if any(rule.needs_identity for rule in rules) and not methods(context.effective):
            remedy = "add jwt, api_key, basic_auth, oidc or mtls to the route"
            yield Mistake("no caller is identified here, so no request would be allowed", remedy)

    def http_filters(self, used: Iterable[Settings], context: Context) -> tuple[HttpFilter, ...]:
        config = filter_pb2.RBAC(rules_stat_prefix="authorize.", shadow_rules_stat_prefix="authorize.")
        return (HttpFilter(name=FILTER, config=config),)

    def on_route(self, settings: Settings, context: Context) -> RoutePart:
        rules = rules_of(settings)
        rbac = pb.RBAC(action=pb.RBAC.ALLOW, policies=rbac_policies(rules))
        config = filter_pb2.RBAC(shadow_rules=rbac) if rules[0].shadow else filter_pb2.RBAC(rules=rbac)
        return RoutePart(
            filter_configs={FILTER: filter_pb2.RBACPerRoute(rbac=config)},
            request_headers_to_remove=OVERRIDES if any(rule.methods for rule in rules) else (),
        )
