"""Ports and certificates of nginx's servers as listeners.

Source: nginx, ngx_http_core_module (listen) and ngx_http_ssl_module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from xds_server.imports.draft import Draft, usable
from xds_server.imports.nginx_directives import Directive, inherited

_VERSIONS = {"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}
_ANY = ("", "*", "0.0.0.0", "::")
_WITHOUT_CLIENTS = ("", "off")
_READ = ("default_server", "ssl", "http2", "proxy_protocol", "reuseport", "deferred", "bind")


@dataclass(frozen=True, slots=True)
class _Port:
    """Where a server listens. An empty address is every one."""

    address: str
    number: int
    tls: bool


class Listeners:
    """The listeners of the draft, one for each address and port."""

    def __init__(self, draft: Draft, http: Directive) -> None:
        self._draft, self._http = draft, http
        self._names: dict[_Port, str] = {}
        self._clients: dict[_Port, set[str]] = {}
        for server in http.all("server"):
            rule = "".join(one.value for one in self._client_rule(server))
            for port in self._ports(server, report=False):
                self._clients.setdefault(port, set()).add(rule)

    def of(self, server: Directive) -> tuple[list[str], bool]:
        """Return the names of the listeners of a server, and False if its routes must be closed."""
        found, sure = set(), True
        for port in self._ports(server, report=True):
            name = self._names.get(port)
            if name is None:
                value: dict[str, Any] = {"port": port.number}
                if port.address:
                    value["address"] = port.address
                kind = "https" if port.tls else "http"
                at = f"{port.address}-" if port.address else ""
                name = self._names[port] = self._draft.add("listeners", f"{kind}-{at}{port.number}", value)
            listener = self._draft.sections["listeners"][name]
            if any("proxy_protocol" in one.arguments for one in server.all("listen")):
                listener["proxy_protocol"] = True
            if port.tls:
                sure &= self._tls(server, listener, port)
            found.add(name)
        return sorted(found), sure

    def _ports(self, server: Directive, *, report: bool) -> list[_Port]:
        """Return where a server listens, without what is no address and port."""
        listens = server.all("listen")
        found = []
        for one in listens:
            text = one.arguments[0] if one.arguments else "80"
            match = re.fullmatch(r"(?:(\[[^\]]*\]|[^:\[\]]+):)?(\d+)|(\[[^\]]*\]|[^:\[\]]+)", text)
            host = (
                ((match[1] or match[3] or "") if match else "").strip("[]").replace("localhost", "127.0.0.1")
            )
            plain = host in _ANY or re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", host)
            if match is None or not plain or "quic" in one.arguments:
                if report:
                    self._draft.warn(
                        one, "the server is not reached there: a listener has an address and a TCP port",
                        "write a listener with address, or http3: true at that of the same port",
                    )  # fmt: skip
                continue
            self._options(one, report=report)
            tls = "ssl" in one.arguments or server.first_argument("ssl") == "on"
            found.append(_Port("" if host in _ANY else host, int(match[2] or 80), tls))
        return found if listens else [_Port("", 80, tls=False)]

    def _options(self, listen: Directive, *, report: bool) -> None:
        for option in listen.arguments[1:]:
            if (
                report
                and option not in _READ
                and not option.startswith(("backlog=", "rcvbuf=", "sndbuf=", "fastopen=", "so_keepalive"))
            ):
                self._draft.warn(
                    listen, f"'{option}' has no equal and is left out", "see whether you need it"
                )
        if report and "default_server" in listen.arguments:
            self._draft.warn(
                listen, "hosts of no server get 404 here, and this server in nginx", "write a route without hosts if you need it"
            )  # fmt: skip

    def _tls(self, server: Directive, listener: dict[str, Any], port: _Port) -> bool:
        levels = (self._http, server)
        certificate, key = (
            found[-1].arguments[0] if (found := inherited(levels, name)) and found[-1].arguments else ""
            for name in ("ssl_certificate", "ssl_certificate_key")
        )
        if not certificate or "$" in certificate + key:
            self._draft.insecure(
                server, "its certificate is no file, so the routes, which would be without TLS, are closed",
                "write a secret and tls at the listener, and remove ip_access",
            )  # fmt: skip
            return False
        settings = listener.setdefault("tls", {"certificates": []})
        secret = self._secret(certificate, key)
        if secret not in settings["certificates"]:
            settings["certificates"].append(secret)
        versions = [
            _VERSIONS[one]
            for each in inherited(levels, "ssl_protocols")
            for one in each.arguments
            if one in _VERSIONS
        ]
        if versions:
            known = settings.get("minimum_version", "1.0")
            settings["minimum_version"] = max(min(versions), known)
        return self._certificates_of_clients(server, settings, port)

    def _secret(self, certificate: str, key: str) -> str:
        value = {"certificate": {"file": certificate}, "private_key": {"file": key}}
        known = [name for name, one in self._draft.sections.get("secrets", {}).items() if one == value]
        wanted = usable(certificate.rpartition("/")[2].rpartition(".")[0])
        return known[0] if known else self._draft.add("secrets", wanted, value)

    def _client_rule(self, server: Directive) -> list[Directive]:
        """Return the directives about certificates of clients, if it asks for any."""
        levels = (self._http, server)
        verify = inherited(levels, "ssl_verify_client")
        if not verify or (verify[-1].arguments or [""])[0] in _WITHOUT_CLIENTS:
            return []
        authorities = inherited(levels, "ssl_client_certificate") or inherited(
            levels, "ssl_trusted_certificate"
        )
        return [verify[-1], *authorities[-1:], *inherited(levels, "ssl_crl")[-1:]]

    def _certificates_of_clients(self, server: Directive, settings: dict[str, Any], port: _Port) -> bool:
        rule = self._client_rule(server)
        inherited((self._http, server), "ssl_verify_depth")
        if not rule:
            return True
        kind = rule[0].arguments[0]
        if len(rule) == 2 and kind in ("on", "optional") and len(self._clients[port]) == 1:
            settings["client_certificate"] = {"ca": {"file": rule[1].arguments[0]}, "required": kind == "on"}
            return True
        self._draft.insecure(
            rule[0], "certificates of clients are not imported, because other servers at the port do not demand them "
            "so, or with a list of revoked ones, so the routes are closed",
            "write tls.client_certificate at a listener with the hosts of the server, and remove ip_access",
        )  # fmt: skip
        return False
