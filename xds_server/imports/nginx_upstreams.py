"""Upstreams of nginx, and the TLS with which locations reach them: it belongs to the location, and here to the upstream.

Source: nginx, ngx_http_upstream_module and ngx_http_proxy_module (proxy_ssl_*).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from xds_server.imports.draft import Draft, usable
from xds_server.imports.draft import url as split_url
from xds_server.imports.nginx_directives import Directive, inherited

_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}
_TLS = ("https", "grpcs")


class Upstreams:
    """The upstreams of the draft. Each is written if a location forwards to it, once for each way in which it does."""

    def __init__(self, draft: Draft, http: Directive) -> None:
        self._draft = draft
        self._declared = {
            one.arguments[0]: self._upstream(one) for one in http.all("upstream") if one.arguments
        }
        self._known: dict[str, str] = {}

    def of(self, levels: Sequence[Directive], passed: Directive) -> dict[str, Any]:
        """Return the name of the upstream of a `proxy_pass`, its `host` and the `path` that takes the place of the location."""
        socket = re.fullmatch(r"(https?|grpcs?)://(unix:[^:]+)(?::(.*))?", passed.arguments[0])
        parts = split_url(f"{socket[1]}://localhost{socket[3] or ''}" if socket else passed.arguments[0])
        host = parts.netloc
        value = self._declared.get(host) if not socket else None
        if value is None:
            address = f"{host}:{_PORTS.get(parts.scheme, 80)}" if parts.port is None else host
            value = {"endpoints": [socket[2] if socket else address]}
        value = dict(value)
        grpc = passed.name == "grpc_pass"
        if grpc:
            value["protocol"] = "grpc"
        if parts.scheme in _TLS:
            value["tls"] = self._tls(levels, parts.hostname or "", "grpc" if grpc else "proxy")
        key = repr((host, value))
        if key not in self._known:
            self._known[key] = self._draft.add("upstreams", parts.hostname or host or "upstream", value)
        found = {"upstream": self._known[key], "host": host}
        if parts.port is not None and parts.port == _PORTS.get(parts.scheme):
            found["host"] = host.rpartition(":")[0]
        if parts.path:
            found["path"] = parts.path
        return found

    def _tls(self, levels: Sequence[Directive], name: str, module: str) -> dict[str, Any]:
        """Return the TLS of a location. nginx verifies no certificate unless it is told to."""

        def last(directive: str) -> str:
            found = inherited(levels, f"{module}_ssl_{directive}")
            return found[-1].arguments[0] if found and found[-1].arguments else ""

        tls: dict[str, Any] = {"verify": last("verify") == "on"}
        sni = last("name")
        last("server_name"), last("verify_depth"), last("session_reuse")
        if "$" in sni:
            self._draft.warn(
                inherited(levels, f"{module}_ssl_name")[-1],
                "the variable has no equal, so the name of proxy_pass is verified",
                "write tls.sni at the upstream",
            )
            sni = ""
        if not tls["verify"] or re.fullmatch(r"[0-9.]+|.*:.*", name):
            name = ""
        if sni or name:
            tls["sni"] = sni or name
        if (authority := last("trusted_certificate")) and tls["verify"]:
            tls["ca"] = {"file": authority}
        certificate, key = last("certificate"), last("certificate_key")
        if certificate and key:
            value = {"certificate": {"file": certificate}, "private_key": {"file": key}}
            known = [one for one, other in self._draft.sections.get("secrets", {}).items() if other == value]
            wanted = usable(certificate.rpartition("/")[2].rpartition(".")[0])
            tls["client_certificate"] = known[0] if known else self._draft.add("secrets", wanted, value)
        return tls

    def _upstream(self, upstream: Directive) -> dict[str, Any]:
        endpoints = [one for server in upstream.all("server") for one in self._endpoints(server)]
        value: dict[str, Any] = {"endpoints": endpoints}
        if upstream.all("least_conn"):
            value["load_balancing"] = "least_request"
        elif upstream.all("random"):
            value["load_balancing"] = "random"
        for one in upstream.all("ip_hash", "hash"):
            value["load_balancing"] = "ring_hash"
            self._draft.warn(
                one,
                "the key of consistent hashing belongs to routes here",
                "write session_affinity at the routes",
            )
        upstream.all("keepalive", "keepalive_timeout", "keepalive_requests", "zone")
        return value

    def _endpoints(self, server: Directive) -> list[Any]:
        """Return the endpoint of a server, none if it is down."""
        address = server.arguments[0].removeprefix("http://")
        known = re.search(r":\d+$", address) or address.startswith("unix:")
        endpoint: dict[str, Any] = {"address": address if known else f"{address}:80"}
        for option in server.arguments[1:]:
            key, _, number = option.partition("=")
            if key == "weight" and number.isdigit():
                endpoint["weight"] = max(1, int(number))
            elif key == "backup":
                endpoint["priority"] = 1
            elif key not in ("max_fails", "fail_timeout", "down"):
                self._draft.warn(
                    server, f"{key} of a server has no equal", "see circuit_breaker of the upstream"
                )
        if "down" in server.arguments:
            return []
        return [endpoint if len(endpoint) > 1 else endpoint["address"]]
