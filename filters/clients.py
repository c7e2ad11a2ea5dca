"""Lists of clients by address, country or autonomous system, and Envoy's principals for them.

Behind trusted proxies too, the address is the client's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from envoy.config.core.v3 import address_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from google.protobuf import wrappers_pb2

from filters.language import Mistake, Path, option
from filters.language.problems import did_you_mean
from filters.model.geoip import ASN_HEADER, COUNTRIES, COUNTRY_HEADER, LARGEST_ASN, Geoip

ClientKind = Literal["addresses", "countries", "asns"]


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
        yield from check_networks(self.addresses, ("addresses",))
        for number, code in enumerate(self.countries):
            if code not in COUNTRIES:
                near = "write GB" if code.upper() == "UK" else did_you_mean(code.upper(), COUNTRIES)
                yield Mistake(
                    "not a country",
                    near or "write a code of ISO 3166-1 alpha-2, such as KR",
                    path=("countries", number),
                    value=code,
                )


def check_networks(entries: Iterable[str], path: Path) -> Iterator[Mistake]:
    """Yield a mistake for each entry that is not an address or a network."""
    for number, entry in enumerate(entries):
        try:
            ipaddress.ip_network(entry)
        except ValueError as error:
            remedy = "write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
            if entry in COUNTRIES:
                remedy = f"write {{countries: [{entry}]}} instead of the list"
            yield Mistake(f"not a network: {error}", remedy, path=(*path, number), value=entry)


def missing_databases(clients: Clients, geoip: Geoip, *path: str) -> Iterator[Mistake]:
    """Yield a mistake for countries and autonomous systems without a database. `path` leads to the clients."""
    for kind, database in (("countries", geoip.countries), ("asns", geoip.asns)):
        if getattr(clients, kind) and database is None:
            message = f"the gateway has no database for '{kind}'"
            yield Mistake(message, f"write geoip: {{{kind}: /PATH.mmdb}}", path=(*path, kind))


def principals(clients: Clients) -> Mapping[ClientKind, list[rbac_pb2.Principal]]:
    """Return Envoy's principals of all kinds. A client whose country is unknown is in none."""
    return {
        "addresses": [one for entry in clients.addresses for one in _addresses(entry)],
        "countries": [_header(COUNTRY_HEADER, code) for code in clients.countries],
        "asns": [_header(ASN_HEADER, str(number)) for number in clients.asns],
    }


def _addresses(entry: str) -> Iterator[rbac_pb2.Principal]:
    """Yield the principal of a network, and for IPv4 that of its addresses as proxies with IPv6 sockets may write them.

    ::ffff:192.0.2.7 is 192.0.2.7 (RFC 4291 section 2.5.5.2), and Envoy compares both as they are written.
    """
    network = ipaddress.ip_network(entry)
    yield _network(str(network.network_address), network.prefixlen)
    if network.version == 4:
        yield _network(f"::ffff:{network.network_address}", 96 + network.prefixlen)


def _network(address: str, length: int) -> rbac_pb2.Principal:
    cidr = address_pb2.CidrRange(address_prefix=address, prefix_len=wrappers_pb2.UInt32Value(value=length))
    return rbac_pb2.Principal(remote_ip=cidr)


def _header(name: str, value: str) -> rbac_pb2.Principal:
    matcher = route_components_pb2.HeaderMatcher(name=name)
    matcher.string_match.exact = value
    return rbac_pb2.Principal(header=matcher)
