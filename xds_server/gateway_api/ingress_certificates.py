"""The certificates of the Ingresses of one class, and the listeners that have them.

Each listener with TLS is a filter chain of Envoy with all that a listener has, some 700 KB, and a changed chain drains its
connections. So certificates are spread over a few chains: a new one drains a part of the connections, and thousands are
possible. Within a chain, Envoy chooses by the names in the certificates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from xds_server.gateway.model.hosts import wildcards
from xds_server.gateway_api import names
from xds_server.gateway_api.hostnames import covers
from xds_server.gateway_api.objects import Key

CHAINS = 8
"""The listeners among which certificates are spread, beside the one of hosts that have none of their own."""


class Certificates:
    """Hosts with their certificates. A host is exact, `*.example.com`, or "" for all others."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._by_host: dict[str, tuple[Key, Key]] = {}
        """The Secret of a host, and the Ingress that has given it."""

    def claim(self, host: str, secret: Key | None, ingress: Key) -> Key | None:
        """Have a certificate for a host. Returns the older Ingress that has given another one, or else None."""
        if secret is None:
            return None
        held, holder = self._by_host.setdefault(host, (secret, ingress))
        return holder if held != secret else None

    def used(self) -> list[Key]:
        """Return the Secrets whose certificates are used."""
        return list(dict.fromkeys(secret for secret, _ in self._by_host.values()))

    def listeners(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the listeners in the gateway language."""
        found: dict[str, dict[str, Any]] = {}
        for host, (secret, _) in self._by_host.items():
            listener = found.setdefault(
                self._listener(host), {"port": self._port, "tls": {"certificates": []}}
            )
            name, listed = names.of(*secret), listener["tls"]["certificates"]
            if name not in listed:
                listed.append(name)
            if host:
                listener.setdefault("hosts", []).append(host)
        return found

    def listeners_of(self, host: str) -> list[str]:
        """Return the listeners that get requests for a host."""
        covering = next((one for one in _wider(host) if one in self._by_host), None)
        found = [] if covering is None else [covering]
        if not host or host.startswith("*."):
            found += (one for one in self._by_host if covers(host, one))
        return list(dict.fromkeys(map(self._listener, found)))

    def _listener(self, host: str) -> str:
        if not host:
            return "https.default"
        return chain_of(self._by_host[host][0])


def chain_of(secret: Key) -> str:
    """Return the listener that has the certificate of a Secret."""
    return f"https.{hashlib.sha256('/'.join(secret).encode()).digest()[0] % CHAINS}"


def _wider(host: str) -> list[str]:
    """Return a host and what covers it, the narrowest first."""
    return (
        list(dict.fromkeys([host, *("" if one == "*" else one for one in wildcards(host))])) if host else [""]
    )
