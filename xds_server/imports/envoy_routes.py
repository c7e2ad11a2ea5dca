"""Route configurations of Envoy as routes: the first match wins there, the most specific one here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from xds_server.imports.draft import BELOW, CLOSED, NEVER, RANK, Draft, Rank
from xds_server.imports.envoy_clusters import Clusters
from xds_server.imports.envoy_filters import Filters
from xds_server.imports.envoy_matches import Match, Unsupported
from xds_server.imports.envoy_values import milliseconds
from xds_server.imports.precedence import never
from xds_server.imports.source import Field
from xds_server.imports.text_prefixes import TEXT

_STATUSES = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}


class Routes:
    """The routes of one connection manager, which belong to a listener of the gateway."""

    def __init__(self, draft: Draft, clusters: Clusters, filters: Filters, listener: str) -> None:
        self._draft, self._clusters, self._filters, self._listener = draft, clusters, filters, listener

    def add(self, manager: Field) -> None:
        """Add the routes of a connection manager."""
        if found := manager.get("rds") or manager.get("scoped_routes"):
            found.read()
            self._draft.warn(found, "its routes are not in these files", "import those of the control plane")
        config = manager.get("route_config")
        if config is None:
            return
        config.read("name"), config.read("validate_clusters")
        websocket = any(
            one.text("upgrade_type").lower() == "websocket" for one in manager.elements("upgrade_configs")
        )
        hosts = config.elements("virtual_hosts")
        is_wide = {id(one): "*" in one.texts("domains") for one in hosts}
        for host in hosts:
            self._host(config, host, websocket)
            if not is_wide[id(host)] and any(is_wide.values()):
                self._nothing_else(host)

    def _host(self, config: Field, host: Field, websocket: bool) -> None:
        names = self._hosts(host)
        if self._needs_tls(host, names):
            return
        earlier: list[Match] = []
        for number, route in enumerate(host.elements("routes")):
            rank = Rank((-number,), route, str(host.place))
            try:
                match = Match.of(route.get("match"), names)
            except Unsupported as error:
                report = self._draft.insecure if route.get("direct_response") else self._draft.warn
                report(route, f"{error}, so the route never matches", "write its conditions")
                known = Match.known(route.get("match"), names)
                name = self._draft.name("routes", self._name(route, host))
                value = self._route((route, host, config), known, tuple(earlier), websocket)
                noted = {
                    **value,
                    **never(
                        {
                            **known.conditions,
                            "listeners": [self._listener],
                            TEXT: route.text("match", "prefix"),
                        }
                    ),
                    "path": f"/{name}",
                    RANK: rank,
                }
                route.read()
                self._draft.add("routes", name, noted)
                continue
            before = tuple(earlier)
            if any(one.covers(match) for one in before):
                route.read()
                self._draft.warn(route, "a route before it has all its requests, so it is left out")
                continue
            value = self._route((route, host, config), match, before, websocket)
            noted = {**value, **self._other_paths(route, match), RANK: rank}
            self._draft.add("routes", self._name(route, host, match), noted)
            earlier.append(match)
        host.read("name"), host.read("domains")

    def _needs_tls(self, host: Field, names: Sequence[str]) -> bool:
        """Add a redirect if a virtual host demands TLS and the listener has none. Returns True if it is its only route."""
        need = host.text("require_tls", default="NONE")
        if need == "NONE" or "tls" in self._draft.sections["listeners"][self._listener]:
            return False
        if need != "ALL":
            self._draft.warn(
                host, f"require_tls: {need} is ALL here", "write routes for requests that need no TLS"
            )
        value = {"listeners": [self._listener], "path": "/*", "redirect": {"scheme": "https", "status": 301}}
        self._draft.add("routes", host.text("name"), {**({"hosts": list(names)} if names else {}), **value})
        host.read()
        return True

    def _hosts(self, host: Field) -> list[str]:
        """Return the hosts of a virtual host, without ports, none for all."""
        found: list[str] = []
        for one in host.elements("domains"):
            domain = re.sub(r":(\d+|\*)$", "", one.text())
            if domain == "*":
                return []
            if "*" in domain and not domain.startswith("*."):
                self._draft.insecure(
                    one,
                    "hosts have a wildcard only as *.example.com, so its requests get other routes",
                    "write its hosts",
                )
            elif domain not in found:
                found.append(domain)
        return found or list(NEVER["hosts"])

    def _nothing_else(self, host: Field) -> None:
        """Envoy looks for a route only in the virtual host that it has chosen; here a route for all hosts would be next."""
        value = {"hosts": self._hosts(host), "listeners": [self._listener], "respond": {"status": 404}}
        known = self._draft.sections.get("routes", {}).values()
        if not any(one.get("hosts") == value["hosts"] and one.get("path", "/*") == "/*"
                   and not one.keys() & {"methods", "headers", "query"} for one in known):  # fmt: skip
            self._draft.add("routes", f"{host.text('name')}-not-found", value)

    def _other_paths(self, route: Field, match: Match) -> dict[str, Any]:
        """Report that a prefix of Envoy is one of text, and here one of segments. Returns the note for text_prefixes."""
        field = route.get("match", "prefix")
        text = field.text() if field is not None else ""
        if field is None or not match.is_prefix or not text.strip("/"):
            return {}
        end = f"{match.path} too" if text.endswith("/") else f"not {text}x, which has another route or none"
        self._draft.warn(field, f"{match.path}/* has {end}", "see whether clients call it")
        return {BELOW: True} if text.endswith("/") else {TEXT: text}

    @staticmethod
    def _name(route: Field, host: Field, match: Match | None = None) -> str:
        """Return the name of a route, or that of its virtual host with the beginning of its path."""
        path = match.beginning().strip("/") if match is not None else ""
        return route.text("name") or "-".join(one for one in (host.text("name"), path) if one)

    def _route(
        self, levels: tuple[Field, Field, Field], match: Match, before: Sequence[Match], websocket: bool
    ) -> dict[str, Any]:
        """Return a route of the language. `levels` are the route, its virtual host and all, `before` the earlier routes."""
        route, host, _ = levels
        value: dict[str, Any] = {**match.conditions, "listeners": [self._listener]}
        if match.is_regex:
            value["order"] = int(str(route.path[-1])) + 1
        policies: dict[str, Any] = {}
        if not self._filters.apply(levels, match, before, value, policies):
            policies |= CLOSED
        value |= self._action(route, host, match, websocket)
        for kind in ("request_headers", "response_headers"):
            if mutation := self._headers(levels, kind):
                value[kind] = mutation
        if policies:
            value["policies"] = policies
        return value

    def _action(self, route: Field, host: Field, match: Match, websocket: bool) -> dict[str, Any]:
        if response := route.get("direct_response"):
            body = response.text("body", "inline_string")
            status = int(response.number("status") or 200)
            return {"respond": {"status": status, **({"body": body} if body else {})}}
        if redirect := route.get("redirect"):
            return {"redirect": _redirect(redirect, match)}
        action = route.get("route")
        if action is None:
            self._draft.warn(route, "its action is not imported, so the route answers 503", "write one")
            return {"respond": {"status": 503}}
        return self._forward(action, host, match, websocket)

    def _forward(self, action: Field, host: Field, match: Match, websocket: bool) -> dict[str, Any]:
        value = self._target(action)
        if "respond" in value:
            action.read()
            return value
        if rewrite := _rewrite(action, match):
            value["rewrite"] = rewrite
        for theirs, ours in (("timeout", "timeout"), ("idle_timeout", "idle_timeout")):
            if time := milliseconds(action.get(theirs)):
                value[ours] = time
        if retry := action.get("retry_policy") or host.get("retry_policy"):
            value["retry"] = _retry(retry)
        mirrors = [
            mirror
            for one in action.elements("request_mirror_policies")
            if (mirror := self._mirror(one)) is not None
        ]
        if mirrors:
            value["mirror"] = mirrors
        for one in action.elements("hash_policy"):
            if affinity := _affinity(one):
                value["session_affinity"] = affinity
        upgrades = [one.text("upgrade_type").lower() for one in action.elements("upgrade_configs")]
        if websocket or "websocket" in upgrades:
            value["websocket"] = True
        return value

    def _target(self, action: Field) -> dict[str, Any]:
        unavailable = {"respond": {"status": 503}}
        weighted = action.elements("weighted_clusters", "clusters")
        if weighted:
            action.read("weighted_clusters", "total_weight")
            split = {
                upstream: int(one.number("weight") or 0)
                for one in weighted
                if (upstream := self._clusters.http(one.text("name"), one)) is not None
            }
            return {"split": split} if split else unavailable
        if "cluster" not in (action.value if isinstance(action.value, dict) else {}):
            self._draft.warn(
                action, "the upstream is chosen by a request, so the route answers 503", "write upstream"
            )
            return unavailable
        upstream = self._clusters.http(action.text("cluster"), action)
        return {"upstream": upstream} if upstream is not None else unavailable

    def _mirror(self, field: Field) -> dict[str, Any] | None:
        upstream = self._clusters.http(field.text("cluster"), field)
        share = _percent(field.get("runtime_fraction", "default_value"))
        return {"upstream": upstream, **({"percent": share} if share else {})} if upstream else None

    def _headers(self, levels: Sequence[Field], kind: str) -> dict[str, Any]:
        """Return the changes of headers of all levels. The widest level comes last, as in Envoy."""
        mutation: dict[str, Any] = {}
        for level in levels:
            for one in level.elements(f"{kind}_to_add"):
                name, value = one.text("header", "key").lower(), one.text("header", "value")
                action = one.text("append_action", default="APPEND_IF_EXISTS_OR_ADD")
                overwrites = action == "OVERWRITE_IF_EXISTS_OR_ADD" or one.text("append") == "false"
                if not overwrites and action != "APPEND_IF_EXISTS_OR_ADD":
                    self._draft.warn(one, f"{action} has no equal, so the header is set", "")
                    overwrites = True
                mutation.setdefault("set" if overwrites else "add", {})[name] = value
            if removed := [one.lower() for one in level.texts(f"{kind}_to_remove")]:
                mutation.setdefault("remove", []).extend(removed)
        return mutation


def _redirect(field: Field, match: Match) -> dict[str, Any]:
    found: dict[str, Any] = {"status": _STATUSES.get(field.text("response_code"), 301)}
    if field.true("https_redirect"):
        found["scheme"] = "https"
    elif scheme := field.text("scheme_redirect"):
        found["scheme"] = scheme
    if host := field.text("host_redirect"):
        found["host"] = host
    if port := field.number("port_redirect"):
        found["port"] = int(port)
    if path := field.text("path_redirect"):
        found["path"] = path
    elif prefix := field.text("prefix_rewrite"):
        found["path"] = f"{prefix.rstrip('/')}/*" if match.is_prefix else prefix
    if field.true("strip_query"):
        found["strip_query"] = True
    return found


def _rewrite(action: Field, match: Match) -> dict[str, Any]:
    rewrite: dict[str, Any] = {}
    if prefix := action.text("prefix_rewrite"):
        rewrite["path"] = f"{prefix.rstrip('/')}/*" if match.is_prefix else prefix
    if pattern := action.text("regex_rewrite", "pattern", "regex"):
        rewrite |= {"regex": pattern, "substitution": action.text("regex_rewrite", "substitution")}
        action.read("regex_rewrite")
    if host := action.text("host_rewrite_literal"):
        rewrite["host"] = host
    if action.true("auto_host_rewrite"):
        rewrite["host"] = "auto"
    return rewrite


def _retry(field: Field) -> dict[str, Any]:
    conditions = [one.strip() for one in field.text("retry_on").split(",") if one.strip()]
    statuses = [str(int(one)) for one in field.numbers("retriable_status_codes")]
    found: dict[str, Any] = {"attempts": int(field.number("num_retries") or 1)}
    if on := [*(one for one in conditions if one != "retriable-status-codes"), *statuses]:
        found["on"] = on
    if time := milliseconds(field.get("per_try_timeout")):
        found["per_try_timeout"] = time
    for theirs, ours in (("base_interval", "backoff"), ("max_interval", "max_backoff")):
        if time := milliseconds(field.get("retry_back_off", theirs)):
            found[ours] = time
    return found


def _affinity(field: Field) -> dict[str, Any] | None:
    if cookie := field.get("cookie"):
        ttl, path = milliseconds(cookie.get("ttl")), cookie.text("path")
        named = {
            "name": cookie.text("name"),
            **({"ttl": ttl} if ttl else {}),
            **({"path": path} if path else {}),
        }
        return {"cookie": named}
    if header := field.text("header", "header_name"):
        return {"header": header}
    if parameter := field.text("query_parameter", "name"):
        return {"query": parameter}
    return {"client_address": True} if field.true("connection_properties", "source_ip") else None


def _percent(field: Field | None) -> str | None:
    """Return a fraction of Envoy as a percentage."""
    if field is None:
        return None
    per = {"TEN_THOUSAND": 100, "MILLION": 10_000}.get(field.text("denominator"), 1)
    return f"{(field.number('numerator') or 0) / per:g}%"
