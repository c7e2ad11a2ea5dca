"""Traefik's dynamic configuration (file provider, version 3): routers, services, middlewares and certificates.

Source: Traefik 3, reference of the dynamic configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult

from xds_server.gateway.document import Part
from xds_server.imports import placeholders, several_methods, traefik_rules
from xds_server.imports.draft import CLOSED, RANK, Draft, Rank, network, usable
from xds_server.imports.draft import url as split_url
from xds_server.imports.precedence import never
from xds_server.imports.source import Field
from xds_server.imports.text_prefixes import TEXT
from xds_server.imports.traefik_entry_points import EntryPoints
from xds_server.imports.traefik_middlewares import Middlewares

_ADDRESS = re.compile(r"[0-9.]+|.*:.*")
"""An IP address in the place of a host name."""
_PORTS = {"http": 80, "https": 443, "h2c": 80}


def imported(parts: Sequence[Part], _files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of files, which are read as one."""
    return _Traefik([Field.of(part) for part in parts]).draft


class _Traefik:
    def __init__(self, roots: Sequence[Field]) -> None:
        self.draft = Draft()
        self._services = _named(roots, "services")
        self._transports = _named(roots, "serversTransports")
        self._middlewares = Middlewares(self.draft, _named(roots, "middlewares"))
        self._upstreams: dict[str, dict[str, Any]] = {}
        routers = _named(roots, "routers")
        self._points = EntryPoints(self.draft, roots, routers.values())
        for name, router in routers.items():
            self._router(name, router)
        several_methods.require_all(self.draft)
        placeholders.add(self.draft)
        self.draft.rest(roots)

    def _router(self, name: str, router: Field) -> None:
        rule = router.get("rule")
        value: dict[str, Any] = {}
        policies: dict[str, Any] = {}
        sure = self._middlewares.apply(router, value, policies)
        sure &= self._points.of(router, value)
        router.read("observability")
        service = router.text("service")
        if "redirect" not in value:
            action = self._action(service, router)
            rewrite = {**value.get("rewrite", {}), **action.pop("rewrite", {})}
            value |= {**action, **({"rewrite": rewrite} if rewrite else {})}
        for key in ("listeners",):
            if len(value.get(key, ())) == len(self.draft.sections["listeners"]):
                del value[key]
        conditions = self._conditions(rule, router)
        if not sure or not self._middlewares.hosts_allowed(router, conditions):
            policies |= CLOSED
        if policies:
            value["policies"] = policies
        rank = Rank((router.number("priority") or len(router.text("rule")),), router)
        routes = [{**one, **value, RANK: rank} for one in conditions]
        self.draft.add_routes(name, [self._middlewares.finished(one) for one in routes])

    def _conditions(self, rule: Field | None, router: Field) -> list[dict[str, Any]]:
        if rule is None:
            self.draft.warn(router, "the router has no rule, so it has no route", "write one")
            return []
        syntax = router.text("ruleSyntax")
        try:
            if syntax == "v2" and ("{" in rule.text() or "HostRegexp" in rule.text()):
                raise traefik_rules.RuleError("patterns of version 2 are not read")
            alternatives = traefik_rules.alternatives(rule.text())
            found = [each for one in alternatives for each in traefik_rules.conditions(one)]
        except traefik_rules.RuleError as error:
            self.draft.warn(
                rule,
                f"the rule is not imported, so the route never matches: {error}",
                "write hosts, path and methods",
            )
            return [never(traefik_rules.surely(rule.text()))]
        for text in dict.fromkeys(text for one in alternatives for text in traefik_rules.wider_hosts(one)):
            self.draft.warn(
                rule,
                f"HostRegexp(`{text}`) has hosts with one label more, and here *. stands for any number of labels",
                "write the hosts if others reach the gateway",
            )
        for one in found:
            if prefix := one.get(TEXT, ""):
                path = one["path"]
                self.draft.warn(
                    rule,
                    f"PathPrefix(`{prefix}`) also has {prefix}x, and {path} has only {prefix} and {prefix}/…",
                    f"write another route if clients call {prefix}x",
                )
        return found

    def _action(self, service: str, router: Field) -> dict[str, Any]:
        name, _, provider = service.partition("@")
        found = self._services.get(name)
        if found is None or provider not in ("", "file"):
            self.draft.warn(
                router,
                f"the service '{service}' is not in these files, so the route answers 503",
                "write an upstream",
            )
            return {"respond": {"status": 503}}
        weighted = found.elements("weighted", "services") if found.get("weighted") else []
        if weighted:
            split: dict[str, int] = {}
            for one in weighted:
                upstream = self._upstream(one.text("name"), found)
                if upstream is not None:
                    split[upstream] = split.get(upstream, 0) + _weight(one)
                    if "rewrite" in self._upstreams[one.text("name")]:
                        self.draft.warn(one, "servers of a weighted service get the client's host",
                                        "write split as a list, with rewrite.host at this share")  # fmt: skip
            return {"split": split} if any(split.values()) else {"respond": {"status": 503}}
        mirroring = found.get("mirroring")
        if mirroring is not None:
            action = self._action(mirroring.text("service"), router)
            mirrors = [
                {"upstream": upstream, "percent": f"{one.number('percent') or 0:g}%"}
                for one in mirroring.elements("mirrors")
                if (upstream := self._upstream(one.text("name"), found)) is not None
            ]
            mirroring.read("maxBodySize"), mirroring.read("mirrorBody")
            return {**action, "mirror": mirrors} if mirrors else action
        upstream = self._upstream(name, router)
        if upstream is None:
            return {"respond": {"status": 503}}
        return {"upstream": upstream, **self._upstreams[name]}

    def _upstream(self, name: str, user: Field) -> str | None:
        """Return the upstream of a service with servers, None if it is no such service."""
        service = self._services.get(name)
        balancer = service.get("loadBalancer") if service is not None else None
        if balancer is None:
            self.draft.warn(user, f"the service '{name}' has no servers in these files", "write an upstream")
            if service is not None:
                service.read()
            return None
        if name in self._upstreams:
            return usable(name)
        urls = [split_url(one.text("url")) for one in balancer.elements("servers")]
        weights = [_weight(one) for one in balancer.elements("servers")]
        addresses = [network(url.hostname or "", url.port or _PORTS.get(url.scheme, 80)) for url in urls]
        endpoints: list[Any] = [
            {"address": address, "weight": weight} if weight > 1 else address
            for address, weight in zip(addresses, weights, strict=True)
            if weight  # a server of weight 0 gets no requests
        ]
        value: dict[str, Any] = {"endpoints": endpoints}
        route: dict[str, Any] = {}
        if any(url.path.strip("/") for url in urls):
            self.draft.warn(balancer, "paths of servers are not sent", "write rewrite at the routes")
        if urls and urls[0].scheme == "https":
            value["tls"] = self._tls(balancer)
        elif urls and urls[0].scheme == "h2c":
            value["protocol"] = "http2"
        if health := balancer.get("healthCheck"):
            value["health_check"] = _health(health)
        self._choice(balancer, value, route)
        if not balancer.true("passHostHeader", default=True):
            route["rewrite"] = {"host": self._host(balancer, urls)}
        balancer.read("responseForwarding")
        self._upstreams[name] = route
        return self.draft.add("upstreams", name, value)

    def _choice(self, balancer: Field, value: dict[str, Any], route: dict[str, Any]) -> None:
        """How a server is chosen."""
        if balancer.text("strategy") in ("p2c", "leasttime"):
            value["load_balancing"] = "least_request"
        elif balancer.text("strategy") == "hrw":
            value["load_balancing"] = "maglev"
            route["session_affinity"] = {"client_address": True}
        if cookie := balancer.get("sticky", "cookie"):
            route["session_affinity"] = {"cookie": {"name": cookie.text("name", default="_traefik")}}
            for option in ("secure", "httpOnly", "sameSite", "domain", "partitioned"):
                if (found := cookie.get(option)) is not None and found.text() != "false":
                    self.draft.warn(
                        found, f"the cookie of the session has no {option}", "see session_affinity"
                    )
            cookie.read()

    def _host(self, balancer: Field, urls: Sequence[SplitResult]) -> str:
        """Return the host that servers get, if it is not that of the client: Envoy knows only the names of several."""
        hosts = {url.netloc for url in urls}
        if len(hosts) == 1:
            return hosts.pop()
        if any(_ADDRESS.fullmatch(url.hostname or "") for url in urls):
            self.draft.warn(
                balancer, "servers without names get the client's host", "write rewrite.host at the routes"
            )
        return "auto"

    def _tls(self, balancer: Field) -> dict[str, Any]:
        transport = self._transports.get(balancer.text("serversTransport").partition("@")[0])
        tls: dict[str, Any] = {"verify": True}
        if transport is None:
            return tls
        if sni := transport.text("serverName"):
            tls["sni"] = sni
        if name := transport.text("peerCertURI"):
            tls["subject_alt_names"] = [name]
        if transport.true("insecureSkipVerify"):
            tls["verify"] = False
        authorities = transport.texts("rootCAs")
        if authorities:
            tls["ca"] = {"file": authorities[0]}
        if len(authorities) > 1:
            self.draft.warn(
                transport,
                "only the first file of authorities is trusted",
                "join the files into one, and name it",
            )
        return tls


def _weight(field: Field) -> int:
    """Return the weight of a service or a server: one without any has 1, and one with 0 gets no requests."""
    weight = field.number("weight")
    return 1 if weight is None else max(0, int(weight))


def _health(field: Field) -> dict[str, Any]:
    check: dict[str, Any] = {"path": field.text("path", default="/")}
    for theirs, ours in (("interval", "interval"), ("timeout", "timeout"), ("hostname", "host")):
        if value := field.text(theirs):
            check[ours] = value
    if status := field.number("status"):
        check["expected_statuses"] = [int(status)]
    field.read("followRedirects")
    return check


def _named(roots: Sequence[Field], section: str) -> dict[str, Field]:
    return {
        name: one
        for root in roots
        if (found := root.get("http", section)) is not None
        for name, one in found.items()
    }
