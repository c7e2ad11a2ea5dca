"""The services behind the gateway: their endpoints, and how traffic reaches them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, ClassVar, Literal

from filters.language import DataSource, Mistake, Percent, Raw, Shorthand, Size, option, scalars
from filters.mock.settings import Mock
from xds_server.gateway.model.resilience import (
    AdaptiveConcurrency,
    CircuitBreaker,
    HealthCheck,
    OutlierDetection,
)

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(\.{_OCTET}){{3}}", re.ASCII)
ADDRESS_REMEDY = "write 10.0.0.1:80, '[::1]:80', name.example:80 or unix:/path/to.sock"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed endpoint address: an IP address, a DNS name, or the path of a Unix socket with port 0."""

    host: str
    port: int
    kind: Literal["ip", "name", "unix"]


def _ip_version(host: str) -> int:
    if _IPV4.fullmatch(host):
        return 4
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


@lru_cache(maxsize=65536)
def parse_address(text: str) -> Address:
    """Return a parsed endpoint address. Raises Mistake."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith(("/", "@")) or len(path) > 107:
            raise Mistake(
                "not a path of a Unix socket", "write unix:/path, at most 107 characters", value=text
            )
        return Address(path, 0, "unix")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise Mistake("an endpoint needs a port from 1 to 65535", ADDRESS_REMEDY, value=text)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    version = _ip_version(bare)
    if version == 6 and bare == host:
        raise Mistake("an IPv6 address must be in brackets", f"write '[{host}]:{port}'", value=text)
    if version:
        return Address(bare, int(port), "ip")
    if not _HOST.fullmatch(host) or host.replace(".", "").isdigit():
        raise Mistake("not an address", ADDRESS_REMEDY, value=text)
    return Address(host, int(port), "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server of an upstream."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "an address such as 10.0.0.1:80")
    address: str = option("IPv4, IPv6 in brackets or a host name, with a port; or unix:/path.")
    weight: int = option("Share of the traffic among the endpoints.", default=1, minimum=1, maximum=1000)
    priority: int = option(
        "0 is used first; higher ones when lower ones fail.", default=0, minimum=0, maximum=127
    )
    zone: str = option("Locality, `region` or `region/zone` or `region/zone/sub_zone`.", default="")
    tls: bool = option(
        "With false, this endpoint is reached without TLS, which `tls.optional` of the upstream allows.",
        default=True,
    )

    @classmethod
    def short(cls, value: Any) -> Endpoint:
        """Return an endpoint at an address. Raises Mistake."""
        parse_address(value)
        return cls(address=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if the address is malformed."""
        try:
            parse_address(self.address)
        except Mistake as mistake:
            yield Mistake(mistake.message, mistake.remedy, path=("address",), value=self.address)

    @property
    def parsed(self) -> Address:
        """The parsed address."""
        return parse_address(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancing:
    """The choice of an endpoint."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str,), "round_robin, least_request, random, ring_hash or maglev"
    )
    policy: Literal["round_robin", "least_request", "random", "ring_hash", "maglev"] = option(
        "The algorithm."
    )
    choices: int = option(
        "least_request: endpoints compared for each request.", default=2, minimum=2, maximum=100
    )
    minimum_ring_size: int = option(
        "ring_hash: entries in the ring.", default=1024, minimum=1, maximum=8388608
    )
    table_size: int = option(
        "maglev: size of the table, a prime number.", default=65537, minimum=2, maximum=5000011
    )
    locality_weighted: bool = option("Share traffic among zones by their endpoints' weights.", default=False)

    @classmethod
    def short(cls, value: Any) -> LoadBalancing:
        """Return load balancing by the algorithm's name. Raises Mistake."""
        known = ("round_robin", "least_request", "random", "ring_hash", "maglev")
        if value not in known:
            raise Mistake("unknown load balancing", "write one of " + ", ".join(known))
        return cls(policy=value)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if the table's size is not a prime number."""
        size = self.table_size
        if any(size % divisor == 0 for divisor in range(2, int(size**0.5) + 1)):
            yield Mistake(
                "the table size of maglev must be a prime number",
                "write 65537",
                path=("table_size",),
                value=size,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTls:
    """TLS towards the endpoints."""

    sni: str | None = option(
        "Server name to send (SNI); default the host name of the first endpoint.", default=None
    )
    ca: DataSource | None = option(
        "Authorities that are trusted, PEM; default the system's.", default=None, narrows=True
    )
    subject_alt_names: tuple[str, ...] = option(
        "The certificate must carry one of these names (DNS or URI, `*.example.com` for subdomains, "
        "`spiffe://example.com/ns/shop/*` for a prefix); default the server name.",
        default=(),
        narrows=True,
    )
    client_certificate: str | None = option(
        "A secret to present to the endpoints (mTLS).", default=None, refers="secrets", narrows=True
    )
    verify: bool = option("Whether the certificate is verified; switch off for tests only.", default=True)
    minimum_version: Literal["1.0", "1.1", "1.2", "1.3"] = option(
        "The oldest TLS version used.", default="1.2"
    )
    optional: bool = option("Whether endpoints with `tls: false` are reached without TLS.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStart:
    """A new endpoint gets its share of the traffic step by step."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a duration such as 30s")
    window: timedelta = option("Until the full share is reached.", minimum=0.001)
    minimum_share: Percent = option("The share at the beginning.", default=Percent(10))

    @classmethod
    def short(cls, value: Any) -> SlowStart:
        """Return a slow start of a duration. Raises Mistake."""
        try:
            return cls(window=scalars.duration(value))
        except ValueError as error:
            raise Mistake(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpKeepalive:
    """Probes on idle connections that detect half-open ones."""

    time: timedelta = option("Idle time before the first probe.", default=timedelta(seconds=60), minimum=1)
    interval: timedelta = option("Between probes.", default=timedelta(seconds=10), minimum=1)
    probes: int = option("Unanswered probes before the connection is closed.", default=3, minimum=1)


class _Unwritten(tuple[Endpoint, ...]):
    """No endpoints, because the user wrote none. An empty list is written."""

    __slots__ = ()


_UNWRITTEN = _Unwritten()


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A service behind the gateway: one Envoy cluster."""

    endpoints: tuple[Endpoint, ...] = option(
        "The servers; an empty list answers 503. Needed, unless a `mock` answers all requests.",
        default=_UNWRITTEN,
    )
    mock: Mock | None = option(
        "Answer from the examples and schemas of an OpenAPI document, instead of the endpoints. With `plans`, only for "
        "callers on these plans, which is their test environment.",
        default=None,
    )
    original_destination: bool = option(
        "Connect to the address that the client wanted before iptables or nftables redirected the connection. "
        "Write `endpoints: []` then.",
        default=False,
    )
    source_address: str | tuple[str, ...] | None = option(
        "The IP address to connect from, or a list with one for IPv4 and one for IPv6.", default=None
    )
    protocol: Literal["http1", "http2", "grpc", "auto", "same", "tcp"] = option(
        "The endpoints' protocol: `grpc` is http2; `auto` negotiates by ALPN and needs tls; `same` is that of the client's "
        "connection, without tls; `tcp` is for stream routes only, and TLS then offers no HTTP by ALPN.",
        default="http1",
    )
    load_balancing: LoadBalancing = option(
        "How an endpoint is chosen.", default=LoadBalancing(policy="least_request")
    )
    tls: UpstreamTls | None = option("Use TLS to the endpoints.", default=None)
    health_check: HealthCheck | None = option("Active health checks.", default=None)
    outlier_detection: OutlierDetection | None = option("Eject failing endpoints for a while.", default=None)
    circuit_breaker: CircuitBreaker = option("Limits of concurrent use.", default=CircuitBreaker())
    adaptive_concurrency: AdaptiveConcurrency | None = option(
        "A limit of concurrent requests that follows the latency. Not for streams, whose duration is no latency.",
        default=None,
    )
    slow_start: SlowStart | None = option("round_robin and least_request only.", default=None)
    panic_threshold: Percent = option(
        "With fewer healthy endpoints than this share, all are used.", default=Percent(50)
    )
    connect_timeout: timedelta = option("To open a connection.", default=timedelta(seconds=5), minimum=0.001)
    idle_timeout: timedelta = option("An unused connection is closed.", default=timedelta(minutes=1))
    max_requests_per_connection: int | None = option(
        "A connection is closed after this number of requests.", default=None, minimum=1
    )
    max_connection_duration: timedelta | None = option(
        "A connection is drained at this age.", default=None, minimum=1
    )
    max_concurrent_streams: int | None = option(
        "http2: requests at once on one connection.", default=None, minimum=1, maximum=2**31 - 1
    )
    buffer: Size = option("Bytes buffered for each connection.", default=Size(32 * 1024), minimum=1024)
    tcp_keepalive: TcpKeepalive | None = option("Probe idle connections.", default=TcpKeepalive())
    proxy_protocol: Literal["v1", "v2"] | None = option(
        "Begin each connection with the PROXY protocol, so that the endpoint sees the client's address.",
        default=None,
    )
    dns_refresh: timedelta = option(
        "Host names: how often they are resolved.", default=timedelta(seconds=5), minimum=0.002
    )
    dns_family: Literal["auto", "v4", "v6", "all"] = option(
        "Host names: which addresses are used.", default="auto"
    )
    envoy: Raw | None = option("Raw Envoy fields merged into the generated Cluster.", default=None)

    @property
    def source_addresses(self) -> tuple[str, ...]:
        """The addresses to connect from, at most one of each family."""
        given = self.source_address
        return (given,) if isinstance(given, str) else given or ()

    @property
    def receives_trailers(self) -> bool:
        """True if trailers of requests may reach it. Envoy drops them on HTTP/1, unless raw fields enable them."""
        return self.protocol not in ("http1", "tcp") or self.envoy is not None

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys of one upstream."""
        if isinstance(self.endpoints, _Unwritten) and (self.mock is None or self.mock.plans):
            yield Mistake("'endpoints' is missing", "add 'endpoints'")
        yield from self._mocked()
        if self.protocol == "auto" and self.tls is None:
            yield Mistake(
                "'auto' negotiates during the TLS handshake",
                "add 'tls' or name a protocol",
                path=("protocol",),
            )
        if self.protocol == "same" and self.tls is not None:
            message = "with TLS, the protocol is negotiated"
            yield Mistake(message, "write protocol: auto, or remove 'tls'", path=("protocol",))
        if self.slow_start and self.load_balancing.policy not in ("round_robin", "least_request"):
            remedy = "use round_robin or least_request, or remove it"
            yield Mistake("this load balancing does not support slow_start", remedy, path=("slow_start",))
        yield from self._latency()
        yield from self._health()
        yield from self._addresses()
        if self.tls is None or not self.tls.optional:
            for number, endpoint in enumerate(self.endpoints):
                if not endpoint.tls:
                    message = "the upstream does not allow an endpoint without TLS"
                    remedy = "add tls: {optional: true, …}, or remove it"
                    yield Mistake(message, remedy, path=("endpoints", number, "tls"))
        if (
            self.load_balancing.policy == "random"
            and len({endpoint.weight for endpoint in self.endpoints}) > 1
        ):
            yield Mistake(
                "random load balancing does not support weights", "use round_robin", path=("load_balancing",)
            )
        kinds = {endpoint.parsed.kind for endpoint in self.endpoints}
        if kinds >= {"unix", "name"}:
            yield Mistake("host names and Unix sockets do not mix", "make two upstreams", path=("endpoints",))
        addresses = [(endpoint.address, endpoint.priority) for endpoint in self.endpoints]
        for number, address in enumerate(addresses):
            if address in addresses[:number]:
                yield Mistake(
                    "the endpoint is listed twice",
                    "use 'weight'",
                    path=("endpoints", number),
                    value=address[0],
                )
        yield from self._priorities()

    def _latency(self) -> Iterator[Mistake]:
        if self.adaptive_concurrency is not None and self.protocol == "tcp":
            message = "only HTTP requests have a latency"
            yield Mistake(message, "remove it", path=("adaptive_concurrency",))

    def _addresses(self) -> Iterator[Mistake]:
        if self.original_destination and self.endpoints:
            message = "the client chooses the address, so endpoints have no effect"
            yield Mistake(message, "write endpoints: []", path=("endpoints",))
        if self.original_destination and self.health_check is not None:
            yield Mistake("no endpoint is known that could be checked", "remove it", path=("health_check",))
        versions = [_ip_version(one) for one in self.source_addresses]
        for address, version in zip(self.source_addresses, versions, strict=True):
            if not version:
                remedy = "write one such as 10.0.0.5"
                yield Mistake("not an IP address", remedy, path=("source_address",), value=address)
        if self.source_address == () or len(set(versions)) < len(versions):
            message = "a list has one address of each family"
            yield Mistake(message, "write [10.0.0.5, fd00::5]", path=("source_address",))

    def _mocked(self) -> Iterator[Mistake]:
        if self.mock is None:
            return
        if self.protocol in ("grpc", "tcp"):
            message = f"a mock answers HTTP, and this is for {self.protocol}"
            yield Mistake(message, "remove 'mock', or write another protocol", path=("mock",))
        if not self.mock.plans and self.endpoints:
            message = "the mock answers all requests, so endpoints have no effect"
            yield Mistake(message, "remove 'endpoints', or add mock.plans", path=("endpoints",))

    def _health(self) -> Iterator[Mistake]:
        check = self.health_check
        if check is not None and check.type == "grpc" and self.protocol not in ("http2", "grpc"):
            yield Mistake("gRPC health checks need HTTP/2", "write protocol: grpc", path=("health_check",))

    def _priorities(self) -> Iterator[Mistake]:
        used = {endpoint.priority for endpoint in self.endpoints}
        if used and used != set(range(len(used))):
            missing = min(set(range(len(used))) - used)
            yield Mistake(f"priority {missing} is skipped", "number priorities from 0", path=("endpoints",))
