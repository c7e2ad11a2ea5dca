"""Directives of nginx that change or reject requests, as policies and keys of routes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xds_server.imports.draft import Draft, usable
from xds_server.imports.nginx_directives import Directive, inherited

_VARIABLES = {
    "$host": "%REQ(:AUTHORITY)%",
    "$http_host": "%REQ(:AUTHORITY)%",
    "$remote_addr": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "$scheme": "%REQ(X-FORWARDED-PROTO)%",
    "$request_id": "%REQ(X-REQUEST-ID)%",
    "$request_uri": "%REQ(:PATH)%",
    "$request_method": "%REQ(:METHOD)%",
}
_FORWARDED: Mapping[str, tuple[str, ...]] = {
    "x-forwarded-for": ("$proxy_add_x_forwarded_for", "$remote_addr"),
    "x-forwarded-proto": ("$scheme", "$http_x_forwarded_proto"),
    "x-forwarded-host": ("$host", "$http_host"),
    "connection": ("", "upgrade", "$connection_upgrade", "close", "keep-alive"),
    "upgrade": ("$http_upgrade",),
}
"""Headers that Envoy writes itself, and the values that say no more than that."""
_REJECTING = re.compile(
    r"auth_(?!basic|delay|request_set).*|satisfy|secure_link.*|access_by_lua.*|rewrite_by_lua.*|js_access|modsecurity.*|naxsi.*|SecRules.*"
)
"""Directives that may reject requests, and that are not imported. Locations inherit them."""
_REJECTING_HERE = ("if", "rewrite", "limit_except", "valid_referers")
"""Such directives of one level."""
_HARMLESS = frozenset({"off", "all"})
"""Arguments with which they reject nothing: `auth_request off`, `satisfy all`."""
LIMITS = "_limits"
"""The key by which a route notes the names of its limits, until `share_limits` takes it away."""
_BODY = 1 << 20
"""The bytes of a body that nginx accepts unless it is told otherwise."""
_PLAIN = re.compile(r"[^$]*")


class Policies:
    """Imports what a location has, with what it inherits."""

    def __init__(self, draft: Draft, http: Directive) -> None:
        self._draft = draft
        self._zones = dict(self._rates(http))
        self._counted: dict[str, dict[str, Any]] = {}
        self._connections = {}
        for one in http.all("limit_conn_zone"):
            zone = next(
                (text[5:].partition(":")[0] for text in one.arguments if text.startswith("zone=")), ""
            )
            self._connections[zone] = self._key(one)

    def of(self, levels: Sequence[Directive]) -> tuple[dict[str, Any], dict[str, Any], bool]:
        """Return the keys of the innermost level's routes, their policies, and False if a rule of security is lost."""
        value: dict[str, Any] = {}
        policies: dict[str, Any] = {}
        self._times(levels, value)
        self._headers(levels, policies)
        if any(one.arguments == ["on"] for one in inherited(levels, "gzip")):
            policies["compression"] = True
            inherited(levels, "gzip_types", "gzip_min_length")
        self._body(levels, value)
        sure = self._access(levels, policies)
        sure &= self._basic(levels, policies)
        sure &= self._addresses(levels, policies)
        rejecting = [*levels[-1].all(*_REJECTING_HERE), *self._inherited_rejecting(levels)]
        for one in rejecting:
            one.skip()
            self._draft.insecure(
                one,
                f"{one.name} is not imported, so the route is closed for everybody",
                "write its rule, and remove ip_access",
            )
        return value, policies, sure and not rejecting

    @staticmethod
    def _inherited_rejecting(levels: Sequence[Directive]) -> list[Directive]:
        """Return the directives that may reject requests, of the innermost level that has one with this name."""
        names = dict.fromkeys(
            one.name for level in levels for one in level.block if _REJECTING.fullmatch(one.name)
        )
        found = [one for name in names for one in inherited(levels, name)]
        return [one for one in found if not _HARMLESS.issuperset(one.arguments or ["?"])]

    def _addresses(self, levels: Sequence[Directive], policies: dict[str, Any]) -> bool:
        """Whether rules about addresses are about those of clients, not of proxies. Reports it if not."""
        trusted = inherited(levels, "set_real_ip_from")
        header = inherited(levels, "real_ip_header")
        inherited(levels, "real_ip_recursive")
        if not trusted or any(one.arguments == ["proxy_protocol"] for one in header):
            return True
        if "ip_access" not in policies:
            self._draft.warn(
                trusted[0], "the address of a client is that of its connection", "write trusted_proxies at the listener"
            )  # fmt: skip
            return True
        self._draft.insecure(
            trusted[0], "the addresses of allow and deny come from a header, so the route is closed",
            "write trusted_proxies at the listener, and ip_access",
        )  # fmt: skip
        return False

    def _body(self, levels: Sequence[Directive], value: dict[str, Any]) -> None:
        """The bound of a body. gRPC has none unless one is written, because a bound would keep streams back."""
        size = inherited(levels, "client_max_body_size")
        bytes_ = 0 if levels[-1].all("grpc_pass") else _BODY
        if size:
            text = size[-1].arguments[0].lower()
            number = int(re.sub(r"\D", "", text) or 0)
            bytes_ = number * {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:], 1)
        if 0 < bytes_ < 1 << 32:
            value["max_body"] = bytes_

    def host(self, levels: Sequence[Directive]) -> str | None:
        """Return the Host that the upstream gets: None for that of the client, an empty text for that of `proxy_pass`."""
        for one in inherited(levels, "proxy_set_header"):
            name, text = (*one.arguments, "", "")[:2]
            if name.lower() != "host" or text in ("$proxy_host", ""):
                continue
            if text in ("$host", "$http_host"):
                return None
            if "$" not in text:
                return text
            self._draft.warn(
                one, "the variable has no equal, so the host is that of proxy_pass", "write rewrite.host"
            )
        return ""

    def _times(self, levels: Sequence[Directive], value: dict[str, Any]) -> None:
        """nginx bounds the time between two reads, Envoy the whole response, so only a longer one than ours is kept."""
        found = [one.arguments[0] for one in inherited(levels, "proxy_read_timeout") if one.arguments]
        inherited(levels, "proxy_send_timeout", "proxy_connect_timeout")
        value["timeout"] = _duration(found[-1]) if found else "1m"
        attempts = inherited(levels, "proxy_next_upstream")
        inherited(levels, "proxy_next_upstream_tries", "proxy_next_upstream_timeout")
        if not any(one.arguments == ["off"] for one in attempts):
            value["retry"] = 1
        upgrades = [
            one
            for one in inherited(levels, "proxy_set_header")
            if one.arguments[:1] and one.arguments[0].lower() == "upgrade"
        ]
        if upgrades:
            value["websocket"] = True

    def _headers(self, levels: Sequence[Directive], policies: dict[str, Any]) -> None:
        for name, key in (("proxy_set_header", "request_headers"), ("add_header", "response_headers")):
            mutation: dict[str, Any] = {}
            for one in inherited(levels, name):
                header, text = (*one.arguments, "", "")[:2]
                if name == "proxy_set_header" and self._is_ours(one, header.lower(), text):
                    continue
                if not text:
                    mutation.setdefault("remove", []).append(header.lower())
                elif (value := self._value(one, text)) is not None:
                    self._change(one, mutation, header.lower(), value)
            if (
                hidden := [one.arguments[0].lower() for one in inherited(levels, "proxy_hide_header")]
                if key == "response_headers"
                else []
            ):
                mutation.setdefault("remove", []).extend(hidden)
            if mutation:
                policies[key] = mutation

    def _is_ours(self, one: Directive, header: str, text: str) -> bool:
        """Whether Envoy writes a request header. Reports it if its value would be another."""
        if header in _FORWARDED and text not in _FORWARDED[header]:
            self._draft.warn(
                one, f"Envoy writes {header} itself, and this value is left out", "see trusted_proxies"
            )
        return header in _FORWARDED or header == "host"

    def _change(self, one: Directive, mutation: dict[str, Any], header: str, value: str) -> None:
        """Set a header. A second value of the same name is added."""
        known = mutation.setdefault("set", {})
        if header not in known:
            known[header] = value
        elif header not in mutation.setdefault("add", {}):
            mutation["add"][header] = value
        else:
            self._draft.warn(
                one, f"the third value of {header} has no equal", "write it beside the second, after a comma"
            )

    def _value(self, one: Directive, text: str) -> str | None:
        """Return a value with Envoy's operators in the place of variables."""
        if _PLAIN.fullmatch(text):
            return text.replace("%", "%%")
        if text in _VARIABLES:
            return _VARIABLES[text]
        if found := re.fullmatch(r"\$http_(\w+)", text):
            return f"%REQ({found[1].replace('_', '-')})%"
        self._draft.warn(
            one, f"the variable in '{text}' has no equal", "write Envoy's command operators, such as %REQ(x)%"
        )
        return None

    def _rates(self, http: Directive) -> Iterator[tuple[str, dict[str, Any]]]:
        for one in http.all("limit_req_zone"):
            options = dict(text.partition("=")[::2] for text in one.arguments[1:])
            found = re.fullmatch(r"(\d+)r/([sm])", options.get("rate", ""))
            zone = options.get("zone", "").partition(":")[0]
            if found:
                key, per = self._key(one), {"s": "second", "m": "minute"}[found[2]]
                yield zone, {"requests": int(found[1]), "per": per, "by": key}

    def _key(self, zone: Directive) -> str:
        """Return what a zone counts by."""
        text = zone.arguments[0] if zone.arguments else ""
        if text in ("$binary_remote_addr", "$remote_addr"):
            return "ip"
        if text in ("$server_name", "$host", "$http_host"):
            return "route"
        if header := re.fullmatch(r"\$http_(\w+)", text):
            return f"header:{header[1].replace('_', '-')}"
        self._draft.warn(zone, f"the key {text} has no equal, so the limit is by address", "write by")
        return "ip"

    def limits(self, levels: Sequence[Directive]) -> list[str]:
        """Return the names of the limits of the innermost level. Locations with the same name are counted together."""
        names = []
        for one in inherited(levels, "limit_req"):
            options = dict(text.partition("=")[::2] for text in one.arguments)
            zone = self._zones.get(options.get("zone", ""))
            if zone is None:
                self._draft.insecure(
                    one,
                    "the rate of its zone is not imported, so its routes have no such limit",
                    "write rate_limit",
                )
                continue
            burst = int(burst) if (burst := options.get("burst", "")).isdigit() else 0
            names.append(f"limit-{usable(options['zone'])}" + (f"-{burst}" if burst else ""))
            limit = {**zone, "burst": zone["requests"] + burst} if burst else dict(zone)
            self._counted[names[-1]] = {"rate_limit": limit}
        for one in inherited(levels, "limit_conn"):
            zone_name, number = (*one.arguments, "", "")[:2]
            if zone_name in self._connections and number.isdigit():
                names.append(f"connections-{usable(zone_name)}-{number}")
                limit = {"requests": max(1, int(number)), "by": self._connections[zone_name]}
                self._counted[names[-1]] = {"concurrency": limit}
            else:
                self._draft.insecure(one, "its zone is not declared, so it is left out", "write concurrency")
        inherited(
            levels, "limit_req_status", "limit_conn_status", "limit_req_log_level", "limit_conn_log_level"
        )
        return names

    def share_limits(self) -> None:
        """Write the limits of all routes: as policy sets, if several routes have one, because a zone counts them together."""
        routes = list(self._draft.sections.get("routes", {}).values())
        noted = [(one, one.pop(LIMITS, [])) for one in routes]
        users = Counter(name for _, names in noted for name in names)
        sets = {
            name: self._draft.add("policy_sets", name, self._counted[name])
            for name, count in users.items()
            if count > 1
        }
        for route, names in noted:
            for name in names:
                if name in sets:
                    route.setdefault("use", []).append(sets[name])
                    continue
                for key, limit in self._counted[name].items():
                    _add(route.setdefault("policies", {}), key, limit)

    def _access(self, levels: Sequence[Directive], policies: dict[str, Any]) -> bool:
        rules = inherited(levels, "allow", "deny")
        if not rules:
            return True
        rules = [
            one for one in rules if one.arguments and one.arguments[0] != "unix:"
        ]  # no client comes by a socket
        allowed = [one.arguments[0] for one in rules if one.name == "allow"]
        denied = [one.arguments[0] for one in rules if one.name == "deny"]
        if not denied:
            return True
        kinds = [one.name for one in rules]
        if denied == ["all"] and kinds == ["allow"] * len(allowed) + ["deny"]:
            policies["ip_access"] = {"allow": allowed} if allowed else {"deny": ["0.0.0.0/0", "::/0"]}
        elif (
            "all" not in denied
            and kinds == ["deny"] * len(denied) + ["allow"] * len(allowed)
            and allowed in ([], ["all"])
        ):
            policies["ip_access"] = {"deny": denied}
        else:
            self._draft.insecure(
                rules[0],
                "the order of these rules has no equal, so the route is closed",
                "write ip_access: {allow, deny}",
            )
            return False
        return True

    def _basic(self, levels: Sequence[Directive], policies: dict[str, Any]) -> bool:
        realm = inherited(levels, "auth_basic")
        file = inherited(levels, "auth_basic_user_file")
        if not realm or realm[-1].arguments == ["off"]:
            return True
        if not file:
            self._draft.insecure(
                realm[-1], "no file has its users, so the route is closed", "write basic_auth"
            )
            return False
        policies["basic_auth"] = {
            "htpasswd": {"file": file[-1].arguments[0]},
            **({"realm": realm[-1].arguments[0]} if realm[-1].arguments[0] else {}),
            "forward": True,
        }
        return True


def _add(policies: dict[str, Any], key: str, limit: dict[str, Any]) -> None:
    """Add a limit to those of a route. Of two that count the same, the smaller holds."""
    known = policies.get(key)
    if known is None:
        policies[key] = dict(limit)
        return
    limits = known if isinstance(known, list) else [known]
    for one in limits:
        if (one.get("per"), one["by"]) == (limit.get("per"), limit["by"]) or key == "concurrency":
            one["requests"] = min(one["requests"], limit["requests"])
            return
    policies[key] = [*limits, dict(limit)]


def _duration(text: str) -> str:
    return text if re.fullmatch(r"\d+(ms|s|m|h)", text) else f"{re.sub(r'[^0-9].*', '', text) or 60}s"
