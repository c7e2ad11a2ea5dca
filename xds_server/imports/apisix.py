"""APISIX: the standalone configuration (apisix.yaml) and files of ADC: routes, services, upstreams, consumers, certificates and plugins.

Source: the documentation of Apache APISIX 3 (Admin API, standalone mode, plugins) and of ADC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xds_server.gateway.document import Part
from xds_server.imports import placeholders, several_methods
from xds_server.imports.apisix_plugins import Plugins, Policies
from xds_server.imports.apisix_upstreams import Upstreams, ignore, name_of
from xds_server.imports.credentials import hashed
from xds_server.imports.draft import (
    BELOW,
    CLOSED,
    COUNTED,
    RANK,
    UNKNOWN,
    Draft,
    Rank,
    duration,
    usable,
)
from xds_server.imports.precedence import never
from xds_server.imports.source import Field

_CREDENTIALS = ("key-auth", "basic-auth", "jwt-auth", "hmac-auth", "ldap-auth", "wolf-rbac")
_LIMITS = ("limit-count", "limit-req", "limit-conn")


def imported(parts: Sequence[Part], _files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of files, which are read as one."""
    return _Apisix([Field.of(part) for part in parts]).draft


class _Apisix:
    def __init__(self, roots: Sequence[Field]) -> None:
        self.draft = Draft()
        self._roots = roots
        self._plugins = Plugins(self.draft)
        self._services = {name_of(one): one for one in self._all("services")}
        self._declared = {name_of(one): one for one in self._all("upstreams")}
        self._configs = {name_of(one): one for one in self._all("plugin_configs")}
        self._upstreams = Upstreams(self.draft, self._declared)
        self._mutual: list[str] = []
        self._listeners()
        self._consumers()
        for route in self._all("routes"):
            self._route(route, self._services.get(route.text("service_id")))
        for service in self._services.values():  # ADC has the routes in their service
            for route in service.elements("routes"):
                self._route(route, service)
            ignore(service)
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
            ignore(one)
            one.read("ssl_protocols")
            if one.text("type", default="server") == "client":
                one.read()
                self.draft.warn(
                    one,
                    "a certificate for upstreams is not imported",
                    "write tls.certificate at the upstream",
                )
                continue
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
                self._mutual += names
                self.draft.insecure(
                    client,
                    "certificates of clients are not imported, so the routes of these hosts are closed",
                    "write tls.client_certificate at the listener and mtls, and remove ip_access",
                )
        self.draft.add("listeners", "http", {"port": 9080})
        if certificates:
            self.draft.add("listeners", "https", {"port": 9443, "tls": {"certificates": certificates}})

    def _consumers(self) -> None:
        for one in self._all("consumers"):
            ignore(one)
            value: dict[str, Any] = {}
            credentials = [(name, settings) for name, settings in _items(one, "plugins")]
            credentials += [
                (each.text("type"), config)
                for each in one.elements("credentials")
                if (config := each.get("config")) is not None
            ]
            for each in one.elements("credentials"):
                each.read("name")
                ignore(each)
            for name, settings in credentials:
                self._credential(name, settings, value)
            if group := one.get("group_id"):
                group.read()
                value.clear()
                self.draft.insecure(
                    group,
                    "plugins of groups of consumers are not imported, so the consumer has no credentials",
                    "write a plan, authorize or ip_access, then the credentials",
                )
            elif any(name not in _CREDENTIALS and name not in _LIMITS for name, _ in credentials):
                value.clear()
            self.draft.add("consumers", one.text("username"), value)

    def _credential(self, name: str, settings: Field, value: dict[str, Any]) -> None:
        if name == "key-auth":
            if (hash_ := hashed(self.draft, settings, settings.text("key"))) is not None:
                value.setdefault("api_keys", []).append({"sha256": hash_})
        elif name == "basic-auth" and len(settings.text("password")) >= _GENERATED:
            if (hash_ := hashed(self.draft, settings, settings.text("password"))) is not None:
                found = {"username": settings.text("username"), "sha256": hash_}
                value.setdefault("basic_auth", []).append(found)
        elif name in _LIMITS:
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
        ignore(route)
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
        elif "redirect" not in value or _to_https(value):
            upstream = self._upstreams.of(route, service)
            value |= {"upstream": upstream} if upstream else {"respond": {"status": 503}}
            if upstream and (host := self._upstreams.host(route, service)):
                value["rewrite"] = {**value.get("rewrite", {}), "host": host}
        timeout = route.get("timeout") or (service.get("timeout") if service is not None else None)
        if timeout is not None:
            seconds = max((timeout.number(one) or 0 for one in ("send", "read")), default=0)
            timeout.number("connect")
            if seconds:
                value["timeout"] = duration(seconds * 1000)
        if route.true("enable_websocket") or (service is not None and service.true("enable_websocket")):
            value["websocket"] = True
        for key, known in (
            ("plugin_config_id", self._configs),
            ("service_id", self._services),
            ("upstream_id", self._declared),
        ):
            if route.text(key) and usable(route.text(key)) not in known:
                found.closed = True
                self.draft.insecure(
                    route,
                    f"there is no object for its {key}, so the route is closed",
                    "write its policies and upstream, and remove ip_access",
                )
        policies = {**found.rules, **(CLOSED if found.closed else {})}
        name = route.text("name") or name_of(route) or "route"
        routes = []
        for one in self._conditions(route, service):
            hosts = one.get(UNKNOWN, one).get("hosts", self._mutual)
            closed = {**policies, **CLOSED} if set(hosts) & set(self._mutual) else policies
            made = {**one, **value, **({"policies": closed} if closed else {})}
            routes += [self._plugins.finished(each) for each in _by_listener(made, self.draft)]
        self.draft.add_routes(name, routes)

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
            common["methods"] = [one.upper() for one in methods]
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
        if "/:" in literal:
            self.draft.warn(
                uri,
                "a parameter in a path is one only with the router radixtree_uri_with_parameter",
                "remove the route if APISIX has another router",
            )
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

    def _global_rules(self) -> None:
        rules = [plugins for one in self._all("global_rules") for plugins in _items(one, "plugins")]
        for one in self._all("global_rules"):
            ignore(one)
        for root in self._roots:  # ADC has one mapping
            found = root.get("global_rules")
            if found is not None and isinstance(found.value, dict):
                rules += found.items()
        policies = self._plugins.policies(rules)
        if policies.rules or policies.closed:
            self.draft.sections["policies"] = {**policies.rules, **(CLOSED if policies.closed else {})}
        for name, route in self.draft.sections.get("routes", {}).items():
            if rules:
                self._both(rules[0][1], name, route.get("policies", {}), policies.rules)

    def _both(self, rule: Field, name: str, own: dict[str, Any], of_all: Mapping[str, Any]) -> None:
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
        for key in sorted(key for key in both if own[key] != of_all[key]):
            self.draft.insecure(
                rule, f"the route '{name}' and the global rules both have {key}, and only that of the route counts here",
                "write one policy that is as strict as both",
            )  # fmt: skip


def _of_a_plan(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits without the key of the count, which is the consumer in a plan."""
    found: dict[str, Any] = {}
    for key, value in rules.items():
        if key == "rate_limit":
            found[key] = (
                {name: one for name, one in value.items() if name not in ("by", "scope")}
                if isinstance(value, dict)
                else value
            )
        elif key == "concurrency":
            found[key] = value["requests"]
    return found


def _items(field: Field, name: str) -> Iterator[tuple[str, Field]]:
    found = field.get(name)
    return found.items() if found is not None else iter(())


def _to_https(route: Mapping[str, Any]) -> bool:
    return bool(route.get("redirect", {}).get("scheme") == "https")


def _by_listener(route: dict[str, Any], draft: Draft) -> Iterator[dict[str, Any]]:
    """Yield a route. One that redirects to HTTPS is two: requests that come by TLS are forwarded."""
    if "redirect" not in route:
        yield route
        return
    local = ("upstream", "respond", "rewrite", "timeout", "websocket")
    redirect = {key: one for key, one in route.items() if key not in local}
    if not _to_https(route):
        yield redirect
        return
    yield {**redirect, "listeners": ["http"]}
    if "https" in draft.sections["listeners"]:
        yield {**{key: one for key, one in route.items() if key != "redirect"}, "listeners": ["https"]}


def _rank(uri: str, priority: float, route: Field) -> Rank:
    """Return what APISIX (radixtree_host_uri) looks at: a whole path, the longest beginning, then the priority."""
    literal = re.split(r"[*]|(?<=/):", uri)[0]
    return Rank((literal == uri, len(literal), priority), route, by_host=True)


_GENERATED = 22
"""Characters from which on a password can have 128 bits."""
