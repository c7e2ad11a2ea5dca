"""Clusters of Envoy as upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xds_server.imports.draft import Draft, network
from xds_server.imports.envoy_values import address_of, milliseconds, secret, type_of, typed
from xds_server.imports.source import Field

_POLICIES = {
    "LEAST_REQUEST": "least_request",
    "RANDOM": "random",
    "RING_HASH": "ring_hash",
    "MAGLEV": "maglev",
}
_KNOWN = ("STATIC", "STRICT_DNS", "LOGICAL_DNS", "ORIGINAL_DST")
_HTTP2 = ("http2_protocol_options", "explicit_http_config")
_THRESHOLDS = {
    "max_connections": "max_connections",
    "max_pending_requests": "max_pending",
    "max_requests": "max_requests",
    "max_retries": "max_retries",
}
_OUTLIERS = {
    "consecutive_5xx": "consecutive_5xx",
    "consecutive_gateway_failure": "consecutive_gateway_failures",
    "consecutive_local_origin_failure": "consecutive_connect_failures",
}


class Clusters:
    """Upstreams by the name of their cluster. A cluster becomes one when something uses it."""

    def __init__(self, draft: Draft, declared: Sequence[Field]) -> None:
        self._draft = draft
        self._declared = {one.text("name"): one for one in declared}
        self._upstreams: dict[str, str] = {}

    def http(self, name: str, user: Field) -> str | None:
        """Return the upstream of a cluster, None if it is not in these files."""
        if name not in self._declared:
            self._draft.warn(
                user,
                f"the cluster '{name}' is not in these files, so the route answers 503",
                "write an upstream",
            )
            return None
        return self._upstream(name, {})

    def tcp(self, name: str, user: Field) -> str:
        """Return the upstream of a cluster for connections, without endpoints if it is not in these files."""
        if name not in self._declared:
            self._draft.warn(user, f"the cluster '{name}' is not in these files", "write its endpoints")
            return self._draft.add("upstreams", name, {"endpoints": [], "protocol": "tcp"})
        return self._upstream(name, {"protocol": "tcp"})

    def report_unused(self) -> None:
        """Report the clusters that nothing uses."""
        for name, cluster in self._declared.items():
            if name not in self._upstreams and not cluster.whole:
                cluster.read()
                self._draft.warn(cluster, "no imported route uses this cluster, so it is left out")

    def _upstream(self, name: str, protocol: dict[str, Any]) -> str:
        if name not in self._upstreams:
            self._upstreams[name] = self._draft.add(
                "upstreams", name, {**self._value(self._declared[name]), **protocol}
            )
        return self._upstreams[name]

    def _value(self, cluster: Field) -> dict[str, Any]:
        value: dict[str, Any] = {"endpoints": self._endpoints(cluster)}
        for name in ("load_assignment", "alt_stat_name", "respect_dns_ttl", "dns_lookup_family"):
            if name != "load_assignment":
                cluster.read(name)
        cluster.read("load_assignment", "cluster_name")
        if cluster.text("type") == "ORIGINAL_DST":
            value["original_destination"] = True
        if time := milliseconds(cluster.get("connect_timeout")):
            value["connect_timeout"] = time
        policy = cluster.text("lb_policy", default="ROUND_ROBIN")
        if policy in _POLICIES:
            value["load_balancing"] = _POLICIES[policy]
        elif policy not in ("ROUND_ROBIN", "CLUSTER_PROVIDED"):
            self._draft.warn(cluster, f"the policy {policy} has no equal", "round_robin is used")
        self._protocol(cluster, value)
        self._tls(cluster, value)
        if checks := cluster.elements("health_checks"):
            value["health_check"] = _health(checks[0])
        if outliers := cluster.get("outlier_detection"):
            value["outlier_detection"] = _outliers(outliers)
        for one in cluster.elements("circuit_breakers", "thresholds"):
            if one.text("priority", default="DEFAULT") == "DEFAULT":
                found = {ours: one.number(theirs) for theirs, ours in _THRESHOLDS.items()}
                value["circuit_breaker"] = {
                    key: int(found[key] or 0) for key in found if found[key] is not None
                }
        return value

    def _endpoints(self, cluster: Field) -> list[Any]:
        kind = cluster.text("type", default="STATIC")
        if kind not in _KNOWN or cluster.get("cluster_type") is not None:
            cluster.read("cluster_type"), cluster.read("eds_cluster_config")
            self._draft.warn(cluster, "its endpoints are not in these files", "write them")
        return [
            endpoint
            for group in cluster.elements("load_assignment", "endpoints")
            for one in group.elements("lb_endpoints")
            if (endpoint := self._endpoint(one, group)) is not None
        ]

    def _endpoint(self, field: Field, group: Field) -> Any:
        address = field.get("endpoint", "address")
        pipe = field.text("endpoint", "address", "pipe", "path")
        host, port = address_of(address)
        if not pipe and port is None:
            self._draft.warn(field, "an endpoint without a TCP address and port is left out", "write it")
            return None
        found: dict[str, Any] = {"address": f"unix:{pipe}" if pipe else network(host, port or 0)}
        if weight := field.number("load_balancing_weight"):
            found["weight"] = int(weight)
        if priority := group.number("priority"):
            found["priority"] = int(priority)
        zone = "/".join(
            one for name in ("region", "zone", "sub_zone") if (one := group.text("locality", name))
        )
        if zone:
            found["zone"] = zone
        return found if len(found) > 1 else found["address"]

    def _protocol(self, cluster: Field, value: dict[str, Any]) -> None:
        found = cluster.get("typed_extension_protocol_options")
        options = [one for _, one in found.items()] if found is not None else []
        for one in options:
            one.text("@type")
            if one.get("explicit_http_config", "http2_protocol_options") is not None:
                value["protocol"] = "http2"
            if one.get("auto_config") is not None:
                value["protocol"] = "auto"
            elif one.get("use_downstream_protocol_config") is not None:
                value["protocol"] = "same"
            (
                one.read("explicit_http_config"),
                one.read("auto_config"),
                one.read("use_downstream_protocol_config"),
            )
            if time := milliseconds(one.get("common_http_protocol_options", "idle_timeout")):
                value["idle_timeout"] = time
        if cluster.read("http2_protocol_options") is not None:
            value["protocol"] = "http2"

    def _tls(self, cluster: Field, value: dict[str, Any]) -> None:
        socket = cluster.get("transport_socket")
        context = typed(socket)
        if context is None:
            return
        if type_of(socket) != "UpstreamTlsContext":
            context.read()
            self._draft.warn(
                context, f"the transport socket {type_of(socket)} has no equal", "see the upstream"
            )
            return
        tls: dict[str, Any] = {}
        if sni := context.text("sni"):
            tls["sni"] = sni
        common = context.get("common_tls_context")
        validation = common.get("validation_context") if common is not None else None
        authority = validation.get("trusted_ca") if validation is not None else None
        if authority is None:
            tls["verify"] = False
            self._draft.warn(
                context,
                "the certificate of this cluster is not verified, so this is the same here",
                "write ca, and take verify away",
            )
        elif validation is not None:
            tls["ca"] = secret(authority, self._draft, ".crt")
            names = validation.elements("match_typed_subject_alt_names")
            if exact := [text for one in names if (text := one.text("matcher", "exact"))]:
                tls["subject_alt_names"] = exact
            for one in names:
                one.read("san_type")
        value["tls"] = tls


def _health(field: Field) -> dict[str, Any]:
    check: dict[str, Any] = {}
    if http := field.get("http_health_check"):
        check["path"] = http.text("path", default="/")
        if host := http.text("host"):
            check["host"] = host
        ranges = [(one.number("start"), one.number("end")) for one in http.elements("expected_statuses")]
        if ranges:
            check["expected_statuses"] = [
                status for begin, end in ranges for status in range(int(begin or 0), min(int(end or 0), 600))
            ]
    elif grpc := field.get("grpc_health_check"):
        check["type"] = "grpc"
        if service := grpc.text("service_name"):
            check["service"] = service
    else:
        field.read("tcp_health_check")
        check["type"] = "tcp"
    for name in ("interval", "timeout"):
        if time := milliseconds(field.get(name)):
            check[name] = time
    for theirs, ours in (("unhealthy_threshold", "unhealthy_after"), ("healthy_threshold", "healthy_after")):
        if count := field.number(theirs):
            check[ours] = int(count)
    return check


def _outliers(field: Field) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for theirs, ours in _OUTLIERS.items():
        if count := field.number(theirs):
            found[ours] = int(count)
    for theirs, ours in (("interval", "interval"), ("base_ejection_time", "eject_for")):
        if time := milliseconds(field.get(theirs)):
            found[ours] = time
    if share := field.number("max_ejection_percent"):
        found["max_ejected"] = f"{int(share)}%"
    return found
