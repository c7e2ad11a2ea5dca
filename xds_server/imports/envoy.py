"""Envoy's static configuration: listeners, their routes and filters, clusters and secrets of a bootstrap, in YAML or JSON.

Source: Envoy's v3 API (envoy.config.bootstrap.v3.Bootstrap), with the names of the proto files (`static_resources`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xds_server.gateway.document import Part
from xds_server.imports import placeholders, several_methods
from xds_server.imports.draft import Draft
from xds_server.imports.envoy_clusters import Clusters
from xds_server.imports.envoy_filters import Filters
from xds_server.imports.envoy_routes import Routes
from xds_server.imports.envoy_values import address_of, milliseconds, type_of, typed
from xds_server.imports.envoy_values import secret as secret_of
from xds_server.imports.source import Field

_CAMEL_CASE = re.compile(r"[a-z]+([A-Z][a-z0-9]*)+")
_VERSIONS = {
    "tls_minimum_protocol_version": "minimum_version",
    "tls_maximum_protocol_version": "maximum_version",
}
_UNDERSCORES = {"ALLOW": "allow", "REJECT_REQUEST": "reject", "DROP_HEADER": "drop"}
_OTHER_VALIDATIONS = ("combined_validation_context", "validation_context_sds_secret_config")
_OURS = ("admin", "node", "layered_runtime", "overload_manager", "stats_config", "dynamic_resources")
"""What `xds bootstrap` writes, or what makes sense only with another control plane."""
_DEFAULTS = ("stat_prefix", "codec_type", "normalize_path", "generate_request_id", "path_with_escaped_slashes_action",
             "use_remote_address", "strip_any_host_port", "http_protocol_options", "server_header_transformation")  # fmt: skip
"""Settings of the connection manager that have no effect here, because the gateway always has a safe one."""


def imported(parts: Sequence[Part], _files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of bootstraps, which are read as one."""
    return _Envoy([Field.of(part) for part in parts]).draft


class _Envoy:
    def __init__(self, roots: Sequence[Field]) -> None:
        self.draft = Draft()
        self._secrets = {
            one.text("name"): one for root in roots for one in root.elements("static_resources", "secrets")
        }
        self._clusters = Clusters(
            self.draft,
            [one for root in roots for one in root.elements("static_resources", "clusters")],
        )
        for root in roots:
            self._bootstrap(root)
            for one in root.elements("static_resources", "listeners"):
                self._listener(one)
        self._clusters.report_unused()
        several_methods.require_all(self.draft)
        placeholders.add(self.draft)
        for root in roots:
            self._camel_case(root)
        self.draft.rest(roots)

    def _camel_case(self, root: Field) -> None:
        """Report names in the other form that Envoy reads, which may have rules of security."""
        for one in root.unread():
            names = [one.path[-1]] if one.path else list(one.value)
            for name in names:
                if _CAMEL_CASE.fullmatch(str(name)):
                    self.draft.insecure(
                        one, f"'{name}' is not read", "write names with underscores, such as static_resources"
                    )

    def _bootstrap(self, root: Field) -> None:
        for name in _OURS:
            found = root.get(name)
            if found is not None:
                found.read()
                self.draft.warn(
                    found,
                    f"{name} is not part of a gateway",
                    "xds run and xds bootstrap write what Envoy needs",
                )

    def _listener(self, field: Field) -> None:
        host, port = address_of(field.get("address"))
        if port is None:
            self.draft.warn(field, "a listener without a TCP address and port is left out", "write its port")
            return
        base: dict[str, Any] = {"port": port}
        if host not in ("0.0.0.0", "::", ""):
            base["address"] = host
        if any(type_of(one) == "ProxyProtocol" for one in field.elements("listener_filters")):
            base["proxy_protocol"] = True
        field.read("listener_filters")
        chains = field.elements("filter_chains")
        if default := field.get("default_filter_chain"):
            chains.append(default)
        for chain in chains:
            self._chain(chain, field.text("name") or f"port-{port}", base)

    def _chain(self, chain: Field, wanted: str, base: Mapping[str, Any]) -> None:
        """A filter chain becomes a listener: that of its server names, if there are several at a port."""
        listener, closed = dict(base), False
        names = chain.texts("filter_chain_match", "server_names")
        if names:
            listener["hosts"] = names
        chain.read("name"), chain.read("filter_chain_match", "transport_protocol")
        for name, one in match.items() if (match := chain.get("filter_chain_match")) else ():
            if name not in ("server_names", "transport_protocol"):
                one.read()
                closed = True
                self.draft.insecure(
                    one,
                    f"chains are not chosen by {name}, so its routes are closed",
                    "remove ip_access, or name the upstream of the stream route",
                )
        closed |= not self._tls(chain, listener)
        manager: Field | None = None
        for one in chain.elements("filters"):
            kind = type_of(one)
            if kind == "TcpProxy":
                name = self.draft.add("listeners", wanted, {**listener, "protocol": "tcp"})
                self._stream(one, name, names, closed=closed)
            elif kind == "HttpConnectionManager":
                manager = one
            else:
                one.read()
                closed = True
                self.draft.insecure(
                    one,
                    f"the network filter '{one.text('name')}' has no equal, so its routes are closed",
                    "write another policy, and remove ip_access, or name the upstream of the stream route",
                )
        settings = typed(manager)
        if settings is not None:
            self._settings(settings, listener)
            name = self.draft.add("listeners", wanted, listener)
            filters = Filters(self.draft, self._clusters, settings, closed=closed)
            Routes(self.draft, self._clusters, filters, name).add(settings)

    def _tls(self, chain: Field, listener: dict[str, Any]) -> bool:
        """Add TLS to a listener. Returns False if it cannot have the rules of this chain."""
        socket = chain.get("transport_socket")
        context = typed(socket)
        if context is None:
            return True
        common = context.get("common_tls_context")
        if common is None or type_of(socket) != "DownstreamTlsContext":
            context.read()
            self.draft.insecure(context, "only TLS over TCP is imported", "write the listener's tls")
            return False
        certificates = [*common.elements("tls_certificates"), *self._named(common)]
        tls: dict[str, Any] = {"certificates": [self._certificate(one) for one in certificates]}
        common.read("alpn_protocols")
        for theirs, ours in _VERSIONS.items():
            if version := common.text("tls_params", theirs):
                tls[ours] = version.removeprefix("TLSv").replace("_", ".")
        if suites := common.texts("tls_params", "cipher_suites"):
            tls["cipher_suites"] = suites
        listener["tls"] = tls
        return self._clients(context, common, tls)

    def _named(self, common: Field) -> list[Field]:
        """Return the certificates that are secrets of the same files."""
        found = []
        for one in common.elements("tls_certificate_sds_secret_configs"):
            secret = self._secrets.get(one.text("name"))
            if secret is not None and secret.get("tls_certificate") is not None:
                found.append(secret)
            else:
                self.draft.warn(one, "the secret is not in these files", "write it under secrets")
            one.read("sds_config")
        return found

    def _certificate(self, field: Field) -> str:
        """Return the name of a secret, which is new if no other has the same certificate."""
        inner = field.get("tls_certificate") or field
        chain = secret_of(inner.get("certificate_chain"), self.draft, ".crt")
        key = secret_of(inner.get("private_key"), self.draft, ".key")
        wanted = field.text("name") or chain.get("file", "certificate").rpartition("/")[2].rpartition(".")[0]
        value = {"certificate": chain, "private_key": key}
        known = [name for name, one in self.draft.sections.get("secrets", {}).items() if one == value]
        return known[0] if known else self.draft.add("secrets", wanted, value)

    def _clients(self, context: Field, common: Field, tls: dict[str, Any]) -> bool:
        """Add the rule for certificates of clients. Returns False if it has no equal."""
        validation = common.get("validation_context")
        required = context.true("require_client_certificate")
        if validation is None and not required and not _other_validation(common):
            return True
        authority = validation.get("trusted_ca") if validation is not None else None
        if validation is None or authority is None or len([*validation.items()]) > 1:
            common.read()
            self.draft.insecure(
                validation or context,
                "the rule for certificates of clients has no equal, so its routes are closed",
                "write client_certificate of the listener, and remove ip_access",
            )
            return False
        tls["client_certificate"] = {"ca": secret_of(authority, self.draft, ".crt"), "required": required}
        return True

    def _stream(self, field: Field, listener: str, names: Sequence[str], *, closed: bool) -> None:
        """TcpProxy: a stream route. A closed one has an upstream without endpoints, so its connections end at once."""
        proxy = typed(field)
        assert proxy is not None
        proxy.read("stat_prefix")
        value: dict[str, Any] = {"listeners": [listener]}
        if names:
            value["server_names"] = list(names)
        weighted = proxy.elements("weighted_clusters", "clusters")
        if closed:
            proxy.read()
            value["upstream"] = self.draft.add("upstreams", f"{listener}-closed", {"endpoints": []})
        elif weighted:
            value["split"] = {
                self._clusters.tcp(one.text("name"), one): int(one.number("weight") or 1) for one in weighted
            }
        else:
            value["upstream"] = self._clusters.tcp(proxy.text("cluster"), proxy)
        if idle := milliseconds(proxy.get("idle_timeout")):
            value["idle_timeout"] = idle
        self.draft.add("stream_routes", proxy.text("cluster") or listener, value)

    def _settings(self, manager: Field, listener: dict[str, Any]) -> None:
        """Settings of a connection manager that a listener has."""
        for name in _DEFAULTS:
            manager.read(name)
        for path, key in (
            (("request_timeout",), "request"),
            (("request_headers_timeout",), "headers"),
            (("stream_idle_timeout",), "stream_idle"),
            (("common_http_protocol_options", "idle_timeout"), "idle"),
            (("common_http_protocol_options", "max_connection_duration"), "connection"),
        ):
            if time := milliseconds(manager.get(*path)):
                listener.setdefault("timeouts", {})[key] = time
        if size := manager.number("max_request_headers_kb"):
            listener.setdefault("limits", {})["max_headers"] = int(size) * 1024
        if count := manager.number("common_http_protocol_options", "max_headers_count"):
            listener.setdefault("limits", {})["max_header_count"] = int(count)
        if count := manager.number("http2_protocol_options", "max_concurrent_streams"):
            listener.setdefault("limits", {})["max_concurrent_streams"] = int(count)
        self._handling(manager, listener)

    @staticmethod
    def _handling(manager: Field, listener: dict[str, Any]) -> None:
        """Settings of how requests are read."""
        if hops := manager.number("xff_num_trusted_hops"):
            listener["trusted_proxies"] = int(hops)
        if name := manager.text("server_name"):
            listener["server_name"] = name
        underscores = manager.text("common_http_protocol_options", "headers_with_underscores_action")
        if underscores in _UNDERSCORES:
            listener["underscores_in_headers"] = _UNDERSCORES[underscores]
        if manager.get("merge_slashes") is not None and not manager.true("merge_slashes"):
            listener["merge_slashes"] = False
        if manager.true("preserve_external_request_id"):
            listener["trust_request_id"] = True
        if manager.elements("access_log"):
            manager.read("access_log")
            listener["access_log"] = True


def _other_validation(common: Field) -> bool:
    """Whether a rule for certificates of clients stands in another place."""
    return any(common.get(one) is not None for one in _OTHER_VALIDATIONS)
