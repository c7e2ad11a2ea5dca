"""ip_access: clients that may call a route, by their address, country or autonomous system.

Behind trusted proxies too, the address is the client's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2

from filters.clients import ClientKind, Clients, check_networks, missing_databases, principals
from filters.language import Mistake, option
from filters.model.geoip import GEO_HEADERS
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason, details

FILTER = "xds.ip_access"
DENIED, COUNTRY_DENIED, ASN_DENIED = "ip_denied", "country_denied", "asn_denied"
_REASONS: dict[ClientKind, str] = {"addresses": DENIED, "countries": COUNTRY_DENIED, "asns": ASN_DENIED}
_Key = Literal["allow", "deny"]
_KEYS: tuple[_Key, ...] = ("allow", "deny")


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
                yield from check_networks(entries, (key,))


def _principals(clients: Clients) -> dict[str, list[rbac_pb2.Principal]]:
    """Return the clients by the reason for which they are denied."""
    found = principals(clients)
    return {_REASONS[kind]: some for kind, some in found.items() if some}


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
        for key in _KEYS:
            yield from missing_databases(settings.clients(key), context.geoip, key)

    def own_headers(self, context: Context) -> Iterable[str]:
        return GEO_HEADERS if context.geoip else ()

    def http_filters(self, used: Iterable[IpAccessSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=filter_pb2.RBAC()),)

    def on_route(self, settings: IpAccessSettings, context: Context) -> RoutePart:
        config = filter_pb2.RBACPerRoute(rbac=filter_pb2.RBAC(rules=_rules(settings)))
        return RoutePart(filter_configs={FILTER: config})
