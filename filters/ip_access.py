"""ip_access: client addresses that may call a route. Behind trusted proxies too, the address is the client's own."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from envoy.config.core.v3 import address_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb2
from google.protobuf import wrappers_pb2

from filters.language import Mistake, option
from filters.policy import Context, HttpFilter, Policy, RoutePart, Stage
from filters.reasons import Reason, details

FILTER = "xds.ip_access"
DENIED = "ip_denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class IpAccessSettings:
    """Addresses and networks (CIDR). An address that is in both lists is denied."""

    allow: tuple[str, ...] = option(
        "Only these may call. Without `allow`, all may call.", default=(), narrows=True
    )
    deny: tuple[str, ...] = option("These may not call.", default=(), narrows=True)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each entry that is not an address or a network."""
        if not self.allow and not self.deny:
            yield Mistake("neither 'allow' nor 'deny'", "write deny: [192.0.2.0/24]")
        for key, entries in (("allow", self.allow), ("deny", self.deny)):
            for number, entry in enumerate(entries):
                try:
                    ipaddress.ip_network(entry)
                except ValueError as error:
                    remedy = "write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
                    yield Mistake(f"not a network: {error}", remedy, path=(key, number), value=entry)


def _principal(entry: str) -> rbac_pb2.Principal:
    network = ipaddress.ip_network(entry)
    cidr = address_pb2.CidrRange(
        address_prefix=str(network.network_address),
        prefix_len=wrappers_pb2.UInt32Value(value=network.prefixlen),
    )
    return rbac_pb2.Principal(remote_ip=cidr)


def _rules(settings: IpAccessSettings) -> rbac_pb2.RBAC:
    """One RBAC policy that denies, so that Envoy names it in the details of its response."""
    principals = [_principal(entry) for entry in settings.deny]
    if settings.allow:
        allowed = rbac_pb2.Principal.Set(ids=[_principal(entry) for entry in settings.allow])
        principals.append(rbac_pb2.Principal(not_id=rbac_pb2.Principal(or_ids=allowed)))
    policy = rbac_pb2.Policy(permissions=[rbac_pb2.Permission(any=True)], principals=principals)
    return rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY, policies={DENIED: policy})


class IpAccess(Policy[IpAccessSettings]):
    """Compiled into an RBAC filter of its own."""

    key = "ip_access"
    stage = Stage.ACCESS
    settings = IpAccessSettings
    reasons = (
        Reason(
            name=DENIED,
            title="The client's IP address is not allowed",
            status=403,
            when=details(f"rbac_access_denied_matched_policy[{DENIED}]"),
        ),
    )

    def http_filters(self, used: Iterable[IpAccessSettings], context: Context) -> tuple[HttpFilter, ...]:
        return (HttpFilter(name=FILTER, config=filter_pb2.RBAC()),)

    def on_route(self, settings: IpAccessSettings, context: Context) -> RoutePart:
        config = filter_pb2.RBACPerRoute(rbac=filter_pb2.RBAC(rules=_rules(settings)))
        return RoutePart(filter_configs={FILTER: config})
