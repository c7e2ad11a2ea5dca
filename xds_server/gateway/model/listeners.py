"""The ports at which the gateway listens, and their certificates."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from filters.language import DataSource, Mistake, Raw, Size, option
from filters.language.datasource import SecretSource
from xds_server.gateway.model import hosts

TlsVersion = Literal["1.0", "1.1", "1.2", "1.3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A certificate with its private key, which Envoy gets by SDS."""

    certificate: DataSource = option("The certificate chain, PEM, the server's own first.")
    private_key: SecretSource = option("The private key, PEM.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Mutual TLS: the client certificates that are accepted."""

    ca: DataSource | tuple[DataSource, ...] = option(
        "The authorities that sign client certificates, PEM; a list joins several files."
    )
    verify: bool = option(
        "With false, clients with any other certificate are accepted too, and no policy takes it for theirs.",
        default=True,
    )
    required: bool = option("Whether a client without a certificate is rejected.", default=True)
    subject_alt_names: tuple[str, ...] = option(
        "Only these names (DNS or URI, `*.example.com` for subdomains, `spiffe://example.com/ns/shop/*` for a prefix); "
        "all if left out.",
        default=(),
        narrows=True,
    )

    @property
    def authorities(self) -> tuple[DataSource, ...]:
        """The sources of all authorities."""
        return self.ca if isinstance(self.ca, tuple) else (self.ca,)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if no authority is given."""
        if not self.authorities:
            yield Mistake("no authority is given", "write ca: {file: clients.crt}", path=("ca",))


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamTls:
    """TLS towards clients."""

    certificates: tuple[str, ...] = option(
        "Names of secrets; Envoy picks one by the server name (SNI) that the client asks for.",
        minimum_items=1,
        refers="secrets",
    )
    minimum_version: TlsVersion = option("The oldest TLS version accepted.", default="1.2")
    maximum_version: TlsVersion = option("The newest TLS version accepted.", default="1.3")
    client_certificate: ClientCertificate | None = option(
        "Request a certificate from clients.", default=None, narrows=True
    )
    cipher_suites: tuple[str, ...] = option(
        "Cipher suites for TLS 1.2, in BoringSSL's names.", default=(), narrows=True
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if no version is left."""
        if self.minimum_version > self.maximum_version:
            remedy = "lower one or raise the other"
            yield Mistake("minimum_version is above maximum_version", remedy, path=("minimum_version",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Timeouts towards clients; `0s` disables a timeout."""

    request: timedelta = option("To receive a whole request; 408 after it.", default=timedelta(minutes=5))
    headers: timedelta = option(
        "To receive a request's headers; 408 after it.", default=timedelta(seconds=10)
    )
    idle: timedelta = option("A connection without requests is closed.", default=timedelta(minutes=5))
    stream_idle: timedelta = option("A request without traffic is ended.", default=timedelta(minutes=5))
    connection: timedelta = option("A connection is drained at this age.", default=timedelta(0))
    tls_handshake: timedelta = option("To finish the TLS handshake.", default=timedelta(seconds=10))
    drain: timedelta = option(
        "Between GOAWAY and the end of a draining connection.", default=timedelta(seconds=5)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes that a client may use."""

    max_headers: Size = option(
        "All request headers together; 431 above it.",
        default=Size(60 * 1024),
        minimum=1024,
        maximum=8192 * 1024,
    )
    max_header_count: int = option(
        "Number of request headers; 431 above it.", default=100, minimum=1, maximum=10000
    )
    max_body: Size | None = option(
        "The request body; 413 above it. The body is then buffered before it is forwarded.",
        default=None,
        minimum=1,
        narrows=True,
    )
    max_connections: int | None = option(
        "Open connections of this listener.", default=None, minimum=1, narrows=True
    )
    max_requests_per_connection: int | None = option(
        "A connection is drained after this number of requests.", default=None, minimum=1
    )
    max_concurrent_streams: int = option(
        "Requests at once on one HTTP/2 or HTTP/3 connection.", default=100, minimum=1, maximum=2**31 - 1
    )
    connection_buffer: Size = option(
        "Bytes buffered for each connection.", default=Size(32 * 1024), minimum=1024
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port of the gateway, or the part of it for some hosts."""

    port: int = option(
        "The port. Several listeners may share it if their `hosts` differ, and all or none use TLS.",
        minimum=1,
        maximum=65535,
    )
    address: str = option(
        "The IP address to bind to; `::` binds to IPv6 and IPv4.",
        default="0.0.0.0",
    )
    bind: bool = option(
        "With false, the port is not opened. The listener then has the connections to its `address` that a listener with "
        "`original_destination` hands over.",
        default=True,
    )
    original_destination: bool = option(
        "For connections that iptables or nftables has redirected to this port: each goes to the listener with "
        "`bind: false` at the address that the client wanted, and stays here if there is none.",
        default=False,
    )
    destination_port: int | None = option(
        "Only connections that the client wanted to this port, of those that a listener with `original_destination` at "
        "the same port has.",
        default=None,
        minimum=1,
        maximum=65535,
        narrows=True,
    )
    protocol: Literal["http", "tcp", "udp"] = option(
        "`tcp` and `udp` forward bytes by `stream_routes`, and no routes are on such a listener.",
        default="http",
    )
    hosts: tuple[str, ...] = option(
        "Only requests for these hosts, exact or `*.example.com`; all if left out. With TLS, the server name (SNI) "
        "of a connection chooses among the listeners of a port.",
        default=(),
        narrows=True,
    )
    any_host: bool = option(
        "With TLS: `hosts` are for the server name (SNI) only, and requests inside may be for any host.",
        default=False,
    )
    tls: DownstreamTls | None = option(
        "Use TLS; plain HTTP if left out. With `protocol: tcp`, the gateway ends TLS and forwards the bytes inside.",
        default=None,
        narrows=True,
    )
    http3: bool = option(
        "Also offer HTTP/3 (QUIC) on the same UDP port, and announce it with Alt-Svc.", default=False
    )
    http10: bool = option(
        "Also answer HTTP/1.0, whose requests without a Host header are for `localhost`; 426 otherwise.",
        default=False,
    )
    proxy_protocol: bool = option(
        "Expect the PROXY protocol (v1 or v2) before each connection.", default=False
    )
    trusted_proxies: int = option(
        "How many proxies in front of the gateway are trusted to append to x-forwarded-for.",
        default=0,
        minimum=0,
        maximum=100,
    )
    escaped_slashes: Literal["redirect", "reject", "unescape", "keep"] = option(
        "How %2F and %5C in a path are handled: a redirect to the plain form, 400, unescaped silently, or kept.",
        default="redirect",
    )
    merge_slashes: bool = option("Whether `//` in a path counts as `/`.", default=True)
    underscores_in_headers: Literal["reject", "drop", "allow"] = option(
        "How header names with an underscore are handled; some upstreams take the underscore for a hyphen.",
        default="reject",
    )
    redirect_to_https: bool | int = option(
        "Redirect every request to https, at port 443 or at the given port.", default=False
    )
    trust_request_id: bool = option(
        "Whether an x-request-id that the client sent is kept; otherwise every request gets a new one.",
        default=False,
    )
    trust_identity: bool = option(
        "Whether headers are kept by which another gateway says who the caller is, such as x-consumer.",
        default=False,
    )
    request_id_format: Literal["uuid4", "uuid7"] = option(
        "The form of the ids that the gateway makes: random, or beginning with the time, so that they sort by it "
        "(RFC 9562).",
        default="uuid4",
    )
    server_name: str = option("The `server` response header.", default="envoy")
    access_log: bool | None = option(
        "Write the access logs of `telemetry`, or without those one JSON line for each request to standard output. "
        "Default: true if `telemetry` has access logs.",
        default=None,
    )
    timeouts: Timeouts = option("Timeouts towards clients.", default=Timeouts())
    limits: Limits = option("Sizes that a client may use.", default=Limits())
    envoy: Raw | None = option("Raw Envoy fields merged into the generated Listener.", default=None)

    @property
    def accepts_any_certificate(self) -> bool:
        """True if clients may present a certificate that is not verified."""
        client = None if self.tls is None else self.tls.client_certificate
        return client is not None and not client.verify

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys of one listener."""
        try:
            ipaddress.ip_address(self.address)
        except ValueError:
            remedy = "write an IP address such as 127.0.0.1 or ::1"
            yield Mistake("not an IP address", remedy, path=("address",), value=self.address)
        if self.protocol != "http":
            yield from self._check_layer_4()
        yield from self._check_destinations()
        if self.http3 and not self.bind:
            message = "HTTP/3 is UDP, and datagrams are not handed over"
            yield Mistake(message, "remove one", path=("http3",))
        if self.any_host and self.tls is None:
            yield Mistake("without TLS, hosts are those of requests", "remove it", path=("any_host",))
        yield from hosts.check(self.hosts)
        if hosts.ANY_HOST in self.hosts and len(self.hosts) > 1:
            remedy = "leave out 'hosts', or remove the *"
            yield Mistake("* is every host, so the other hosts have no effect", remedy, path=("hosts",))
        if self.http3 and self.tls is None and self.protocol == "http":
            yield Mistake("HTTP/3 is always encrypted", "add 'tls' or remove 'http3'", path=("http3",))
        if self.http3 and self.proxy_protocol:
            yield Mistake(
                "the PROXY protocol does not exist for HTTP/3", "remove one", path=("proxy_protocol",)
            )
        if not self.merge_slashes and self.escaped_slashes == "redirect":
            message = "/%2Fother.example would be redirected to //other.example, which is another host"
            yield Mistake(message, "add escaped_slashes: reject, unescape or keep", path=("merge_slashes",))
        if self.redirect_to_https and self.tls is not None:
            yield Mistake(
                "a listener with TLS cannot redirect to https", "remove one", path=("redirect_to_https",)
            )

    def _check_destinations(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys about the destinations of connections."""
        if self.original_destination and not self.bind:
            message = "no connection is redirected to a port that is not opened"
            yield Mistake(message, "remove one", path=("original_destination",))
        if self.destination_port is None:
            return
        if not self.original_destination:
            message = "only a connection that was redirected has another port than the listener's"
            yield Mistake(message, "add original_destination: true", path=("destination_port",))
        for key in ("http3", "envoy"):
            if getattr(self, key):
                remedy = "write it at the listener of this port that has no destination_port"
                yield Mistake("this is for all of the port", remedy, path=(key,))

    def _check_layer_4(self) -> Iterator[Mistake]:
        """Yield a mistake for each key that has no meaning without HTTP."""
        kept = _OF_TCP if self.protocol == "tcp" else _OF_UDP
        for path in sorted(_given(self)):
            if path not in kept and path[0] not in _OF_ANY:
                message = f"a listener with protocol: {self.protocol} has no '{'.'.join(path)}'"
                yield Mistake(message, "remove it", path=path)


_OF_ANY = ("port", "address", "protocol", "access_log", "envoy")
"""The keys of every listener."""
_OF_UDP: frozenset[tuple[str, ...]] = frozenset()
_OF_TCP = frozenset(
    (
        *(("hosts",), ("tls",), ("proxy_protocol",), ("bind",), ("original_destination",)),
        ("destination_port",),
        *(("timeouts", "connection"), ("timeouts", "tls_handshake")),
        *(("limits", "max_connections"), ("limits", "connection_buffer")),
    )
)
"""The keys of a listener for TCP."""


def _given(settings: Any) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all keys of a listener that have another value than their default."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("timeouts", "limits"):
            yield from ((field.name, *path) for path in _given(value))
        elif value != field.default:
            yield (field.name,)
