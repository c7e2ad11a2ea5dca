"""Stream routes: connections and datagrams that are forwarded without being read as HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from filters.language import Mistake, option
from xds_server.gateway.model import hosts

_MOST_WEIGHT = 2**32 - 1
"""The largest sum of weights in Envoy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRule:
    """A rule about the clients of connections, by their certificates."""

    clients: tuple[str, ...] = option(
        "The client certificate has one of these names (DNS or URI, `*.example.com` for subdomains, "
        "`spiffe://example.com/ns/shop/*` for a prefix).",
        minimum_items=1,
    )
    deny: bool = option("Deny instead of allow; it wins over rules that allow.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRoute:
    """The connections of listeners with `protocol: tcp` or `udp` that go to an upstream."""

    listeners: tuple[str, ...] = option(
        "Listeners with `protocol: tcp` or `udp`; all of them if left out.",
        default=(),
        refers="listeners",
        narrows=True,
    )
    server_names: tuple[str, ...] = option(
        "Only TLS connections to these server names (SNI), exact or `*.example.com`. Without `tls` of the listener, TLS "
        "goes on to the upstream as it is.",
        default=(),
        narrows=True,
    )
    upstream: str | None = option("Forward to this upstream.", default=None, refers="upstreams")
    split: Mapping[str, int] | None = option(
        "Forward by weight: {broker: 90, broker-next: 10}.", default=None, refers="upstreams"
    )
    authorize: tuple[ConnectionRule, ...] = option(
        "Which connections are kept, for TCP only: those that a rule allows, or all if none allows, without those that a "
        "rule denies. The others are closed with the first bytes of the client.",
        default=(),
        narrows=True,
    )
    idle_timeout: timedelta | None = option(
        "A connection without bytes in either direction is closed. Default 1h, 1m for UDP. `0`: no limit, for TCP only.",
        default=None,
    )
    max_connect_attempts: int | None = option(
        "How many endpoints are tried before the connection is closed, for TCP only. Default 1.",
        default=None,
        minimum=1,
        maximum=100,
    )

    @property
    def weights(self) -> Mapping[str, int]:
        """The upstreams that get connections, with their weights."""
        if self.upstream is not None:
            return {self.upstream: 1}
        return {name: weight for name, weight in (self.split or {}).items() if weight}

    @property
    def targets(self) -> tuple[str, ...]:
        """All upstreams."""
        return (self.upstream,) if self.upstream is not None else tuple(self.split or ())

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys of one stream route."""
        yield from hosts.check(self.server_names, "server_names")
        given = [key for key in ("upstream", "split") if getattr(self, key) is not None]
        if len(given) != 1:
            found = "several: upstream, split" if given else "none"
            remedy = "keep one" if given else "add one"
            yield Mistake("a stream route has one of upstream and split", remedy, value=found)
        if self.split is not None:
            if not self.split or sum(self.split.values()) < 1 or min(self.split.values()) < 0:
                message = "weights must be whole numbers from 0, and not all 0"
                yield Mistake(message, "write {a: 90, b: 10}", path=("split",))
            elif sum(self.split.values()) > _MOST_WEIGHT:
                message = f"the weights add up to more than {_MOST_WEIGHT}"
                yield Mistake(message, "write smaller ones", path=("split",))
