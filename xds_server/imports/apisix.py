"""APISIX: the standalone configuration (apisix.yaml) and files of ADC: routes, services, upstreams, consumers, certificates and plugins.

Source: the documentation of Apache APISIX 3 (Admin API, standalone mode, plugins) and of ADC.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xds_server.gateway.document import Part
from xds_server.imports import placeholders, several_methods
from xds_server.imports.apisix_plugins import Plugins, Policies
from xds_server.imports.draft import BELOW, CLOSED, COUNTED, RANK, Draft, Rank, duration, network, usable
from xds_server.imports.precedence import never
from xds_server.imports.source import Field

_IGNORED = ("id", "desc", "description", "labels", "create_time", "update_time", "status")
_BALANCING = {
    "roundrobin": "round_robin",
    "least_conn": "least_request",
    "ewma": "least_request",
    "chash": "ring_hash",
}
_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}


def imported(parts: Sequence[Part], _files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of files, which are read as one."""
    return _Apisix([Field.of(part) for part in parts]).draft


class _Apisix:
    def __init__(self, roots: Sequence[Field]) -> None:
        self.draft = Draft()
        self._roots = roots
        self._plugins = Plugins(self.draft)
        self._services = {_id(one): one for one in self._all("services")}
        self._declared = {_id(one): one for one in self._all("upstreams")}
        self._configs = {_id(one): one for one in self._all("plugin_configs")}
        self._upstreams: dict[tuple[str | int, ...], str] = {}
        self._listeners()
        self._consumers()
        for route in self._all("routes"):
            self._route(route, self._services.get(route.text("service_id")))
        for service in self._services.values():  # ADC has the routes in their service
            for route in service.elements("routes"):
                self._route(route, service)
            _ignore(service)
            service.text("name")
        self._global_rules()
        several_methods.require_all(self.draft)
        placeholders.add(self.draft)
        self.draft.rest(roots)

    def _all(self, name: str) -> list[Field]:
        return [one for root in self._roots for one in root.elements(name)]

    def _listeners(self) -> None:
        certificates = []
        for one in self._all("ssls") + self._all("ssl"):
            _ignore(one)
            one.read("type"), one.read("ssl_protocols")
            names = one.texts("snis") or [one.text("sni")]
            pairs = [(one.text("cert"), one.text("key"))] if one.get("cert") else [(pair.text("certificate"), pair.text("key")) for pair in one.elements("certificates")]  # fmt: skip
            for certificate, key in pairs:
                name = self.draft.name("secrets", names[0])
                self.draft.files[f"certificates/{name}.crt"] = certificate.encode()
                self.draft.files[f"certificates/{name}.key"] = key.encode()
                secret = {
                    "certificate": {"file": f"certificates/{name}.crt"},
                    "private_key": {"file": f"certificates/{name}.key"},
                }
                certificates.append(self.draft.add("secrets", name, secret))
            if client := one.get("client"):
                client.read()
                self.draft.insecure(
                    client,
                    "certificates of clients are not imported",
                    "write tls.client_certificate at the listener",
                )
        self.draft.add("listeners", "http", {"port": 9080})
        if certificates:
            self.draft.add("listeners", "https", {"port": 9443, "tls": {"certificates": certificates}})

    def _consumers(self) -> None:
        for one in self._all("consumers"):
            _ignore(one)
            value: dict[str, Any] = {}
            credentials = [(name, settings) for name, settings in _items(one, "plugins")]
            credentials += [
                (each.text("type"), config)
                for each in one.elements("credentials")
                if (config := each.get("config")) is not None
            ]
            for each in one.elements("credentials"):
                each.read("name")
                _ignore(each)
            for name, settings in credentials:
                self._credential(name, settings, value)
            if group := one.get("group_id"):
                group.read()
                self.draft.warn(group, "plugins of groups of consumers are not imported", "write a plan")
            self.draft.add("consumers", one.text("username"), value)

    def _credential(self, name: str, settings: Field, value: dict[str, Any]) -> None:
        if name == "key-auth":
            value.setdefault("api_keys", []).append({"sha256": _sha256(settings.text("key"))})
        elif name == "basic-auth" and len(settings.text("password")) >= _GENERATED:
            found = {"username": settings.text("username"), "sha256": _sha256(settings.text("password"))}
            value.setdefault("basic_auth", []).append(found)
        elif name in ("limit-count", "limit-req", "limit-conn"):
            found_ = self._plugins.policies([(name, settings)])
            value["plan"] = self.draft.add(
                "plans", "-".join(map(str, settings.path[:2])), _of_a_plan(found_.rules)
            )
        else:
            settings.read()
            self.draft.insecure(
                settings,
                f"{name} of a consumer is not imported",
                "write api_keys, jwt, or an htpasswd file under basic_auth",
            )

    def _route(self, route: Field, service: Field | None) -> None:
        if route.text("status") == "0":
            route.read()
            return
        _ignore(route)
        route.read("service_id")
        found = Policies()
        owners = [
            one
            for one in (service, self._configs.get(route.text("plugin_config_id")), route)
            if one is not None
        ]
        for owner in owners:
            found.update(self._plugins.policies(list(_items(owner, "plugins"))))
        value = dict(found.keys)
        if found.respond is not None:
            value["respond"] = found.respond
        elif "redirect" not in value:
            upstream = self._upstream_of(route, service)
            value |= {"upstream": upstream} if upstream else {"respond": {"status": 503}}
            if upstream and (host := self._host(route, service)):
                value["rewrite"] = {**value.get("rewrite", {}), "host": host}
        timeout = route.get("timeout") or (service.get("timeout") if service is not None else None)
        if timeout is not None:
            seconds = max((timeout.number(one) or 0 for one in ("send", "read")), default=0)
            timeout.number("connect")
            if seconds:
                value["timeout"] = duration(seconds * 1000)
        if route.true("enable_websocket") or (service is not None and service.true("enable_websocket")):
            value["websocket"] = True
        policies = {**found.rules, **(CLOSED if found.closed else {})}
        if policies:
            value["policies"] = policies
        name = route.text("name") or _id(route) or "route"
        conditions = list(self._conditions(route, service))
        self.draft.add_routes(name, [self._plugins.finished({**one, **value}) for one in conditions])

    def _conditions(self, route: Field, service: Field | None) -> Iterator[dict[str, Any]]:
        common: dict[str, Any] = {}
        unknown = False
        hosts = (
            route.texts("hosts")
            or route.texts("host")
            or (service.texts("hosts") if service is not None else [])
        )
        if hosts:
            common["hosts"] = hosts
        if methods := route.texts("methods"):
            common["methods"] = methods
        if priority := route.number("priority"):
            common["order"] = -int(priority)
        for name in ("remote_addr", "remote_addrs", "filter_func", "script"):
            if field := route.get(name):
                field.read()
                self.draft.warn(
                    field,
                    f"{name} has no equal, so the route never matches",
                    "write ip_access, or conditions",
                )
                unknown = True
        for one in route.elements("vars"):
            unknown |= not self._variable(one, common)
        if unknown:
            common.pop("order", None)
        for uri in route.elements("uris") or route.elements("uri"):
            path = self._path(uri)
            found = {
                **common,
                "path": path,
                **({BELOW: True} if path.endswith("/*") and path != "/*" else {}),
                RANK: _rank(uri.text(), priority or 0, route),
            }
            yield {RANK: found[RANK], **never(found)} if unknown else found

    def _path(self, uri: Field) -> str:
        """Return a path. What is behind a `*` names the rest of the path, and counts for nothing."""
        text = uri.text()
        literal, star, _ = text.partition("*")
        if "/:" not in literal and (not star or text.endswith("/*")) and text.count("*") < 2:
            return text
        if not star:
            return re.sub(r"/:(\w+)", r"/{\1}", text)
        parts = re.split(r"(?<=/)(:\w+)", literal)
        return "~^" + "".join("[^/]+" if one.startswith(":") else re.escape(one) for one in parts) + ".*$"

    def _variable(self, variable: Field, common: dict[str, Any]) -> bool:
        """A condition on a header, an argument or the method of the kind [variable, operator, value]."""
        value = variable.read()
        name, operator, wanted = value if isinstance(value, list) and len(value) == 3 else ("", "", "")
        section = {"http": "headers", "arg": "query"}.get(str(name).partition("_")[0])
        key = str(name).partition("_")[2]
        match = {
            "==": str(wanted),
            "~=": {"exact": str(wanted), "not": True},
            "~~": {"regex": f".*(?:{wanted}).*"},
        }.get(str(operator))
        if section is None or match is None or not key:
            self.draft.warn(
                variable, "this condition has no equal, so the route never matches", "write headers or query"
            )
            return False
        common.setdefault(section, {})[key.replace("_", "-") if section == "headers" else key] = match
        return True

    def _upstream_of(self, route: Field, service: Field | None) -> str | None:
        for owner in (route, service):
            if owner is None:
                continue
            declared = self._declared.get(owner.text("upstream_id"))
            upstream = declared if declared is not None else owner.get("upstream")
            if upstream is not None:
                return self._upstream(upstream, _id(owner) if declared is None else _id(declared))
        self.draft.warn(route, "the route has no upstream, so it answers 503", "write one")
        return None

    def _upstream(self, upstream: Field, name: str) -> str:
        if upstream.path in self._upstreams:
            return self._upstreams[upstream.path]
        _ignore(upstream)
        scheme = upstream.text("scheme", default="http")
        value: dict[str, Any] = {"endpoints": self._endpoints(upstream, _PORTS.get(scheme, 80))}
        if scheme.startswith("grpc"):
            value["protocol"] = "grpc"
        if scheme in ("https", "grpcs"):
            value["tls"] = {"verify": upstream.true("tls", "verify")}
        balancing = _BALANCING.get(upstream.text("type", default="roundrobin"), "round_robin")
        if balancing != "round_robin":
            value["load_balancing"] = balancing
        if connect := upstream.number("timeout", "connect"):
            value["connect_timeout"] = duration(connect * 1000)
        for unused in ("pass_host", "upstream_host", "name", "timeout"):
            upstream.read(unused)
        for key in ("hash_on", "key"):
            if field := upstream.get(key):
                field.read()
                self.draft.warn(
                    field,
                    "the key of consistent hashing belongs to routes here",
                    "write session_affinity at the routes",
                )
        self._health(upstream, value)
        if retries := upstream.get("retries"):
            self.draft.warn(retries, "retries belong to routes here", "write retry at the routes")
            retries.read()
        found = self.draft.add("upstreams", upstream.text("name") or name or "upstream", value)
        self._upstreams[upstream.path] = found
        return found

    def _endpoints(self, upstream: Field, port: int) -> list[Any]:
        nodes = upstream.get("nodes")
        if nodes is None:
            self.draft.warn(upstream, "nodes of service discovery are not imported", "write endpoints")
            for name in ("service_name", "discovery_type", "discovery_args"):
                upstream.read(name)
            return []
        pairs: list[tuple[str, float]] = []
        if isinstance(nodes.value, list):
            for node in nodes.elements():
                pairs.append(
                    (network(node.text("host"), int(node.number("port") or port)), node.number("weight") or 1)
                )
                node.read("priority")
        else:
            pairs = [
                (name if re.search(r":\d+$", name) else network(name, port), weight.number() or 1)
                for name, weight in nodes.items()
            ]
        if len({weight for _, weight in pairs}) == 1:
            return [address for address, _ in pairs]
        return [{"address": address, "weight": int(weight)} for address, weight in pairs]

    def _health(self, upstream: Field, value: dict[str, Any]) -> None:
        active = upstream.get("checks", "active")
        if active is not None:
            kind = active.text("type", default="http")
            check: dict[str, Any] = (
                {"type": "tcp"} if kind == "tcp" else {"path": active.text("http_path", default="/")}
            )
            if seconds := active.number("healthy", "interval"):
                check["interval"] = duration(seconds * 1000)
            if seconds := active.number("timeout"):
                check["timeout"] = duration(seconds * 1000)
            if host := active.text("host"):
                check["host"] = host
            if number := active.number("healthy", "successes"):
                check["healthy_after"] = int(number)
            if number := active.number("unhealthy", "http_failures"):
                check["unhealthy_after"] = int(number)
            if statuses := active.numbers("healthy", "http_statuses"):
                check["expected_statuses"] = statuses
            value["health_check"] = check
            active.read("unhealthy", "interval")
        passive = upstream.get("checks", "passive")
        if passive is not None:
            if number := passive.number("unhealthy", "http_failures"):
                value["outlier_detection"] = {"consecutive_5xx": int(number)}
            passive.read()

    def _host(self, route: Field, service: Field | None) -> str | None:
        """Return the host that the upstream gets, None for that of the client."""
        for owner in (route, service):
            if owner is None:
                continue
            upstream = self._declared.get(owner.text("upstream_id")) or owner.get("upstream")
            if upstream is not None:
                kind = upstream.text("pass_host", default="pass")
                return {"node": "auto", "rewrite": upstream.text("upstream_host")}.get(kind)
        return None

    def _global_rules(self) -> None:
        rules = [plugins for one in self._all("global_rules") for plugins in _items(one, "plugins")]
        for one in self._all("global_rules"):
            _ignore(one)
        for root in self._roots:  # ADC has one mapping
            found = root.get("global_rules")
            if found is not None and isinstance(found.value, dict):
                rules += found.items()
        policies = self._plugins.policies(rules)
        if policies.rules or policies.closed:
            self.draft.sections["policies"] = {**policies.rules, **(CLOSED if policies.closed else {})}
        for name, route in self.draft.sections.get("routes", {}).items():
            self._both(name, route.get("policies", {}), policies.rules)

    def _both(self, name: str, own: dict[str, Any], of_all: Mapping[str, Any]) -> None:
        """APISIX runs the plugins of a route and those of everything. Here the policy of a route takes the place of that of all routes."""
        both = own.keys() & of_all.keys() - COUNTED
        if "ip_access" in both and not ("allow" in own["ip_access"] and "allow" in of_all["ip_access"]):
            denied = [*of_all["ip_access"].get("deny", ()), *own["ip_access"].get("deny", ())]
            own["ip_access"] = {
                **of_all["ip_access"],
                **own["ip_access"],
                **({"deny": denied} if denied else {}),
            }
            both -= {"ip_access"}
        for key in sorted(both):
            self.draft.insecure(
                self._roots[0], f"the route '{name}' and the global rules both have {key}, and only that of the route counts here",
                "write one policy that is as strict as both",
            )  # fmt: skip


def _of_a_plan(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits without the key of the count, which is the consumer in a plan."""
    found: dict[str, Any] = {}
    for key, value in rules.items():
        if key == "rate_limit":
            found[key] = (
                {name: one for name, one in value.items() if name != "by"}
                if isinstance(value, dict)
                else value
            )
        elif key == "concurrency":
            found[key] = value["requests"]
    return found


def _items(field: Field, name: str) -> Iterator[tuple[str, Field]]:
    found = field.get(name)
    return found.items() if found is not None else iter(())


def _id(field: Field) -> str:
    return usable(field.text("name") or field.text("id") or "unnamed")


def _rank(uri: str, priority: float, route: Field) -> Rank:
    """Return what APISIX (radixtree_host_uri) looks at: a whole path, the longest beginning, then the priority."""
    literal = re.split(r"[*]|(?<=/):", uri)[0]
    return Rank((literal == uri, len(literal), priority), route, by_host=True)


def _ignore(field: Field) -> None:
    for name in _IGNORED:
        field.read(name)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_GENERATED = 22
"""Characters from which on a password can have 128 bits."""
