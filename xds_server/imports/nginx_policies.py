"""Directives of nginx that change or reject requests, as policies and keys of routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from xds_server.imports.draft import Draft
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
_FORWARDED = frozenset(
    ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "connection", "upgrade", "host")
)
"""Headers that Envoy writes itself."""
_REJECTING = ("auth_request", "auth_jwt", "if", "rewrite", "satisfy", "secure_link", "valid_referers", "limit_except", "access_by_lua_block", "access_by_lua_file",
              "js_access", "modsecurity", "set_real_ip_from")  # fmt: skip
"""Directives that may reject requests or say who calls, and that are not imported."""
_PLAIN = re.compile(r"[^$]*")


class Policies:
    """Imports what a location has, with what it inherits."""

    def __init__(self, draft: Draft, http: Directive) -> None:
        self._draft = draft
        self._zones = dict(self._rates(http))
        http.all("limit_conn_zone")

    def of(
        self, levels: Sequence[Directive], place: Directive
    ) -> tuple[dict[str, Any], dict[str, Any], bool]:
        """Return the keys of the route, its policies, and False if a rule of security is lost."""
        value: dict[str, Any] = {}
        policies: dict[str, Any] = {}
        self._times(levels, value)
        self._headers(levels, policies)
        self._limits(levels, policies)
        if any(one.arguments == ["on"] for one in inherited(levels, "gzip")):
            policies["compression"] = True
            inherited(levels, "gzip_types", "gzip_min_length")
        if size := inherited(levels, "client_max_body_size"):
            text = size[-1].arguments[0].lower()
            bytes_ = int(re.sub(r"\D", "", text) or 0) * {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(
                text[-1:], 1
            )
            if 0 < bytes_ < 1 << 32:
                value["max_body"] = bytes_
        sure = self._access(levels, policies) and self._basic(levels, policies)
        for one in place.all(*_REJECTING):
            sure = False
            one.skip()
            self._draft.insecure(
                one,
                f"{one.name} is not imported, so the route is closed for everybody",
                "write its rule, and remove ip_access",
            )
        return value, policies, sure

    def keeps_host(self, levels: Sequence[Directive]) -> bool:
        """True if the upstream gets the client's Host."""
        return any(
            one.arguments[0].lower() == "host" and one.arguments[1] in ("$host", "$http_host")
            for one in inherited(levels, "proxy_set_header")
            if len(one.arguments) > 1
        )

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
                if name == "proxy_set_header" and header.lower() in _FORWARDED:
                    continue
                if not text:
                    mutation.setdefault("remove", []).append(header.lower())
                elif (value := self._value(one, text)) is not None:
                    mutation.setdefault("set", {})[header.lower()] = value
            if (
                hidden := [one.arguments[0].lower() for one in inherited(levels, "proxy_hide_header")]
                if key == "response_headers"
                else []
            ):
                mutation.setdefault("remove", []).extend(hidden)
            if mutation:
                policies[key] = mutation

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

    def _rates(self, http: Directive) -> Any:
        for one in http.all("limit_req_zone"):
            options = dict(text.partition("=")[::2] for text in one.arguments[1:])
            found = re.fullmatch(r"(\d+)r/([sm])", options.get("rate", ""))
            zone = options.get("zone", "").partition(":")[0]
            if found:
                key = "ip" if one.arguments[0] in ("$binary_remote_addr", "$remote_addr") else None
                if header := re.fullmatch(r"\$http_(\w+)", one.arguments[0]):
                    key = f"header:{header[1].replace('_', '-')}"
                if key is None:
                    self._draft.warn(
                        one,
                        f"the key {one.arguments[0]} has no equal, so the limit is by address",
                        "write by",
                    )
                yield (
                    zone,
                    {
                        "requests": int(found[1]),
                        "per": {"s": "second", "m": "minute"}[found[2]],
                        "by": key or "ip",
                    },
                )

    def _limits(self, levels: Sequence[Directive], policies: dict[str, Any]) -> None:
        limits = []
        for one in inherited(levels, "limit_req"):
            options = dict(text.partition("=")[::2] for text in one.arguments)
            zone = self._zones.get(options.get("zone", ""))
            if zone is None:
                self._draft.warn(one, "its zone is not declared", "write rate_limit")
                continue
            burst = int(options.get("burst") or 0)
            limits.append({**zone, "burst": zone["requests"] + burst} if burst else dict(zone))
        if limits:
            policies["rate_limit"] = limits[0] if len(limits) == 1 else limits
        for one in inherited(levels, "limit_conn"):
            if len(one.arguments) > 1 and one.arguments[1].isdigit():
                policies["concurrency"] = {"requests": int(one.arguments[1]), "by": "ip"}
        inherited(
            levels, "limit_req_status", "limit_conn_status", "limit_req_log_level", "limit_conn_log_level"
        )

    def _access(self, levels: Sequence[Directive], policies: dict[str, Any]) -> bool:
        rules = inherited(levels, "allow", "deny")
        if not rules:
            return True
        allowed = [one.arguments[0] for one in rules if one.name == "allow"]
        denied = [one.arguments[0] for one in rules if one.name == "deny"]
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
            "realm": realm[-1].arguments[0],
            "forward": True,
        }
        return True


def _duration(text: str) -> str:
    return text if re.fullmatch(r"\d+(ms|s|m|h)", text) else f"{re.sub(r'[^0-9].*', '', text) or 60}s"
