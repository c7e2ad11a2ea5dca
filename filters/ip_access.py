"""ip_access: clients that may call a route, by their address, country or autonomous system.

Behind trusted proxies too, the address is the client's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from envoy.config.core.v3 import address_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from google.protobuf import wrappers_pb2

from filters.language import Mistake, Path, option
from filters.language.problems import did_you_mean
from filters.model.geoip import ASN_HEADER, COUNTRIES, COUNTRY_HEADER, GEO_HEADERS, LARGEST_ASN
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason, details

FILTER = "xds.ip_access"
DENIED, COUNTRY_DENIED, ASN_DENIED = "ip_denied", "country_denied", "asn_denied"
_Key = Literal["allow", "deny"]
_KEYS: tuple[_Key, ...] = ("allow", "deny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Clients that are in any of these lists."""

    addresses: tuple[str, ...] = option("Addresses and networks (CIDR).", default=(), narrows=True)
    countries: tuple[str, ...] = option(
        "Countries (ISO 3166-1 alpha-2, such as KR), which need `geoip.countries`.", default=(), narrows=True
    )
    asns: tuple[int, ...] = option(
        "Numbers of autonomous systems, the networks of one operator, which need `geoip.asns`.",
        default=(),
        minimum=1,
        maximum=LARGEST_ASN,
        narrows=True,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each entry that is no network or no country."""
        if not (self.addresses or self.countries or self.asns):
            yield Mistake("no client is named", "write addresses: [192.0.2.0/24], or countries: [KR]")
        yield from _check_networks(self.addresses, ("addresses",))
        for number, code in enumerate(self.countries):
            if code not in COUNTRIES:
                near = "write GB" if code.upper() == "UK" else did_you_mean(code.upper(), COUNTRIES)
                yield Mistake(
                    "not a country",
                    near or "write a code of ISO 3166-1 alpha-2, such as KR",
                    path=("countries", number),
                    value=code,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class IpAccessSettings:
    """Clients that may call, and clients that may not. A client that is in both is denied.

    A list has addresses and networks (CIDR). A mapping has countries and autonomous systems too.
    """

    allow: tuple[str, ...] | Clients = option(
        "Only these may call. Without `allow`, all may call.", default=(), narrows=True
    )
    deny: tuple[str, ...] | Clients = option("These may not call.", default=(), narrows=True)

    def clients(self, key: _Key) -> Clients:
        """Return the clients of a key, as a list of addresses stands for too."""
        value = self.allow if key == "allow" else self.deny
        return value if isinstance(value, Clients) else Clients(addresses=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each entry of a list that is not an address or a network."""
        if not self.allow and not self.deny:
            yield Mistake("neither 'allow' nor 'deny'", "write deny: [192.0.2.0/24]")
        for key, entries in (("allow", self.allow), ("deny", self.deny)):
            if not isinstance(entries, Clients):
                yield from _check_networks(entries, (key,))


def _check_networks(entries: Iterable[str], path: Path) -> Iterator[Mistake]:
    for number, entry in enumerate(entries):
        try:
            ipaddress.ip_network(entry)
        except ValueError as error:
            remedy = "write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
            if entry in COUNTRIES:
                remedy = f"write {{countries: [{entry}]}} instead of the list"
            yield Mistake(f"not a network: {error}", remedy, path=(*path, number), value=entry)


def _address(entry: str) -> rbac_pb2.Principal:
    network = ipaddress.ip_network(entry)
    cidr = address_pb2.CidrRange(
        address_prefix=str(network.network_address),
        prefix_len=wrappers_pb2.UInt32Value(value=network.prefixlen),
    )
    return rbac_pb2.Principal(remote_ip=cidr)


def _header(name: str, value: str) -> rbac_pb2.Principal:
    matcher = route_components_pb2.HeaderMatcher(name=name)
    matcher.string_match.exact = value
    return rbac_pb2.Principal(header=matcher)


def _principals(clients: Clients) -> dict[str, list[rbac_pb2.Principal]]:
    """Return the clients by the reason for which they are denied."""
    found = {
        DENIED: [_address(entry) for entry in clients.addresses],
        COUNTRY_DENIED: [_header(COUNTRY_HEADER, code) for code in clients.countries],
        ASN_DENIED: [_header(ASN_HEADER, str(number)) for number in clients.asns],
    }
    return {reason: some for reason, some in found.items() if some}


def _rules(settings: IpAccessSettings) -> rbac_pb2.RBAC:
    """RBAC policies that deny, so that Envoy names the one that matched in the details of its response.

    Clients that are not allowed are denied because of their address, unless only countries or only autonomous systems
    are allowed. A client whose country is unknown is in none.
    """
    denied = _principals(settings.clients("deny"))
    if allowed := _principals(settings.clients("allow")):
        reason = next(iter(allowed)) if len(allowed) == 1 else DENIED
        some = rbac_pb2.Principal.Set(ids=[one for principals in allowed.values() for one in principals])
        denied.setdefault(reason, []).append(rbac_pb2.Principal(not_id=rbac_pb2.Principal(or_ids=some)))
    any_request = [rbac_pb2.Permission(any=True)]
    policies = {
        reason: rbac_pb2.Policy(permissions=any_request, principals=some) for reason, some in denied.items()
    }
    return rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY, policies=policies)


def _reason(name: str, title: str) -> Reason:
    when = details(f"rbac_access_denied_matched_policy[{name}]")
    return Reason(name=name, title=title, status=403, when=when)


class IpAccess(Policy[IpAccessSettings]):
    """Compiled into an RBAC filter of its own."""

    key = "ip_access"
    stage = Stage.ACCESS
    settings = IpAccessSettings
    reasons = (
        _reason(DENIED, "The client's IP address is not allowed"),
        _reason(COUNTRY_DENIED, "Requests from the client's country are not allowed"),
        _reason(ASN_DENIED, "Requests from the client's network are not allowed"),
    )

    def check(self, settings: IpAccessSettings, context: Context) -> Iterable[Mistake]:
        """Yield a mistake for countries and autonomous systems without a database."""
        databases = (("countries", context.geoip.countries), ("asns", context.geoip.asns))
        for key in _KEYS:
            for kind, database in databases:
                if getattr(settings.clients(key), kind) and database is None:
                    message = f"the gateway has no database for '{kind}'"
                    yield Mistake(message, f"write geoip: {{{kind}: /PATH.mmdb}}", path=(key, kind))

    def own_headers(self, context: Context) -> Iterable[str]:
        return GEO_HEADERS if context.geoip else ()

    def http_filters(self, used: Iterable[IpAccessSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=filter_pb2.RBAC()),)

    def on_route(self, settings: IpAccessSettings, context: Context) -> RoutePart:
        config = filter_pb2.RBACPerRoute(rbac=filter_pb2.RBAC(rules=_rules(settings)))
        return RoutePart(filter_configs={FILTER: config})
