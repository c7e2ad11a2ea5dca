"""The rules of nftables that redirect the connections of a pod to its sidecar.

The application's own connections go to the outbound port and connections to the pod to the inbound port, for IPv4 and
IPv6 alike. What the sidecar sends is not redirected, with one exception: if it connects to its own pod as a client of a
Service, the connection passes the inbound port as any other one would. The sidecar's connections to its application come
from an address of their own and are so told apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xds_server.gateway_api.capture import (
    APPLICATION_SOURCE,
    APPLICATION_SOURCE_IPV6,
    INBOUND_PORT,
    OUTBOUND_PORT,
)

TABLE = "xds_sidecar"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """A family of addresses in the words of nftables, with its loopback and the address of the sidecar there."""

    name: str
    loopback: str
    source: str


_IPV4 = _Family(name="ip", loopback="127.0.0.0/8", source=APPLICATION_SOURCE)
_IPV6 = _Family(name="ip6", loopback="::1", source=APPLICATION_SOURCE_IPV6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """What is redirected. `uid` is the user of the sidecar; the excluded ports are reached directly.

    Without `ipv6`, the machine has only IPv4.
    """

    uid: int
    exclude_inbound: tuple[int, ...] = ()
    exclude_outbound: tuple[int, ...] = ()
    ipv6: bool = True

    def rules(self) -> str:
        """Return the rules as a file for ``nft -f``, which replaces the rules of an earlier run.

        A connection to one of the two ports that was not redirected is rejected: the sidecar would connect to itself.
        """
        return "".join(map(self._table, (_IPV4, _IPV6) if self.ipv6 else (_IPV4,)))

    def _table(self, family: _Family) -> str:
        name = f"table {family.name} {TABLE}"
        own = f"{family.name} saddr != {family.source} {family.name} daddr != {family.loopback}"
        return f"""\
{name}
delete {name}
{name} {{
  chain outbound {{
    type nat hook output priority -100;
    meta skuid {self.uid} oifname "lo" {own} meta l4proto tcp redirect to :{INBOUND_PORT}
    meta skuid {self.uid} return
    oifname "lo" return
    {_excluded(self.exclude_outbound)}meta l4proto tcp redirect to :{OUTBOUND_PORT}
  }}
  chain inbound {{
    type nat hook prerouting priority -100;
    iifname "lo" return
    {_excluded(self.exclude_inbound)}meta l4proto tcp redirect to :{INBOUND_PORT}
  }}
  chain direct {{
    type filter hook input priority 0;
    tcp dport {{ {OUTBOUND_PORT}, {INBOUND_PORT} }} ct status & dnat == 0 reject with tcp reset
  }}
}}
"""


def _excluded(ports: Iterable[int]) -> str:
    listed = ", ".join(map(str, sorted(set(ports))))
    return f"tcp dport {{ {listed} }} return\n    " if listed else ""
