"""Plugins of APISIX as policies and keys of routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xds_server.imports.draft import Draft, duration, url
from xds_server.imports.source import Field

_WINDOWS = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}
_KEYS = {
    "remote_addr": "ip",
    "consumer_name": "consumer",
    "server_addr": "route",
    "route_id": "route",
    "service_id": "route",
}
_OTHERS = re.compile(
    r".*-(logger|logging)|prometheus|zipkin|skywalking|opentelemetry|datadog|node-status|server-info|log-rotate|syslog|inspect|echo|batch-requests|public-api"
    r"|proxy-mirror|api-breaker|traffic-split|grpc-transcode|body-transformer|proxy-control|degraphql|dubbo-proxy|http-dubbo|kafka-proxy|mqtt-proxy|ai|gm"
    r"|ext-plugin-post-(req|resp)|serverless-post-function|lago|aws-lambda|azure-functions|openwhisk|openfunction|example-plugin"
)
"""Plugins that observe or change requests, and reject none."""


@dataclass(slots=True)
class Policies:
    """What some plugins become. If a rule of security is lost, the routes are `closed`."""

    rules: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    respond: dict[str, Any] | None = None
    closed: bool = False

    def update(self, other: Policies) -> None:
        """Take what other plugins become, which win."""
        self.rules |= other.rules
        self.keys |= other.keys
        self.respond = other.respond or self.respond
        self.closed |= other.closed


class Plugins:
    """Imports plugins."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def policies(self, plugins: Iterable[tuple[str, Field]]) -> Policies:
        """Return what some plugins become."""
        into = Policies()
        for name, settings in plugins:
            if settings.true("_meta", "disable") or settings.true("disable"):
                settings.read()
                continue
            settings.read("_meta", "disable")
            if name in _PLUGINS:
                _PLUGINS[name](self, settings, into)
            elif not _OTHERS.fullmatch(name):  # one that is not known may decide who may call
                into.closed = True
                settings.read()
                self._draft.insecure(
                    settings,
                    f"the plugin {name} is not imported, so its routes are closed for everybody",
                    "write its policy, and remove ip_access",
                )
            else:
                settings.read()
                self._draft.warn(
                    settings,
                    f"the plugin {name} is not imported",
                    "see docs/reference/policies.md for what comes near it",
                )
        return into

    def finished(self, route: dict[str, Any]) -> dict[str, Any]:
        """Return a route whose path is known: a fixed path replaces all of it."""
        rewrite = dict(route.get("rewrite", {}))
        fixed = rewrite.pop("fixed", None)
        if fixed is not None:
            rewrite |= {"regex": "^.*$", "substitution": fixed}
            route["rewrite"] = rewrite
        return route

    def key_auth(self, settings: Field, into: Policies) -> None:
        """key-auth."""
        policy: dict[str, Any] = {
            "header": settings.text("header", default="apikey"),
            "query": settings.text("query", default="apikey"),
        }
        if not settings.true("hide_credentials"):
            policy["forward"] = True
        into.rules["api_key"] = policy

    def basic_auth(self, settings: Field, into: Policies) -> None:
        """basic-auth."""
        into.rules["basic_auth"] = True if settings.true("hide_credentials") else {"forward": True}

    def limit_count(self, settings: Field, into: Policies) -> None:
        """limit-count: a fixed window."""
        seconds = max(1, int(settings.number("time_window") or 60))
        per = _WINDOWS.get(seconds)
        if per is None:
            self._draft.warn(
                settings,
                f"a window of {seconds} s has no equal",
                "the limit is for a minute; write another one",
            )
        limit: dict[str, Any] = {"requests": self._bounded(settings, "count"), "per": per or "minute"}
        if per is None:
            limit["requests"] = max(1, limit["requests"] * 60 // seconds)
        self._by(settings, limit)
        if settings.text("policy", default="local") == "local":
            limit["scope"] = "local"
        if not settings.true("allow_degradation"):
            limit["on_error"] = "deny"
        if limit.get("scope") == "local":
            limit.pop("on_error", None)
        settings.read("show_limit_quota_header")
        for name, _ in list(settings.items()):
            if name.startswith("redis"):
                settings.read(name)
        into.rules["rate_limit"] = limit

    def limit_req(self, settings: Field, into: Policies) -> None:
        """limit-req: a leaky bucket, which delays; here a token bucket, which rejects."""
        rate, burst = settings.number("rate") or 1, settings.number("burst") or 0
        per, seconds = next(
            ((one, size) for size, one in _WINDOWS.items() if rate * size >= 1), ("day", 86_400)
        )
        limit: dict[str, Any] = {
            "requests": max(1, int(rate * seconds)),
            "per": per,
            "burst": max(1, int(rate + burst)),
        }
        self._by(settings, limit)
        for name in ("nodelay", "allow_degradation", "policy"):
            settings.read(name)
        into.rules["rate_limit"] = limit

    def limit_conn(self, settings: Field, into: Policies) -> None:
        """limit-conn."""
        limit: dict[str, Any] = {
            "requests": self._bounded(settings, "conn") + int(settings.number("burst") or 0)
        }
        self._by(settings, limit)
        for name in (
            "default_conn_delay",
            "allow_degradation",
            "only_use_default_delay",
            "policy",
        ):
            settings.read(name)
        into.rules["concurrency"] = limit

    def _bounded(self, settings: Field, name: str) -> int:
        return min(max(1, int(settings.number(name) or 1)), 2**31)

    def _by(self, settings: Field, limit: dict[str, Any]) -> None:
        key, kind = settings.text("key", default="remote_addr"), settings.text("key_type", default="var")
        if key.startswith("http_"):
            limit["by"] = f"header:{key.removeprefix('http_').replace('_', '-')}"
        elif kind == "constant":
            limit["by"] = "route"
        elif key in _KEYS:
            limit["by"] = _KEYS[key]
        else:
            limit["by"] = "ip"
            self._draft.warn(
                settings, f"the key '{key}' has no equal, so the limit is by address", "write by"
            )

    def cors(self, settings: Field, into: Policies) -> None:
        """cors."""
        origins = [one for one in settings.text("allow_origins", default="*").split(",") if one]
        policy: dict[str, Any] = {"allow_origins": ["*" if one in ("*", "**") else one for one in origins]}
        for theirs, ours in (
            ("allow_methods", "allow_methods"),
            ("allow_headers", "allow_headers"),
            ("expose_headers", "expose_headers"),
        ):
            if values := [
                one.strip() for one in settings.text(theirs).split(",") if one.strip() not in ("", "*", "**")
            ]:
                policy[ours] = values
        if settings.true("allow_credential"):
            if "*" in policy["allow_origins"]:
                self._draft.warn(
                    settings,
                    "cookies of every page are not allowed together with any origin",
                    "write allow_origins, and allow_credentials: true",
                )
            else:
                policy["allow_credentials"] = True
        if (seconds := settings.number("max_age")) and seconds > 0:
            policy["max_age"] = duration(seconds * 1000)
        into.rules["cors"] = policy

    def ip_restriction(self, settings: Field, into: Policies) -> None:
        """ip-restriction."""
        policy = {
            ours: values
            for theirs, ours in (("whitelist", "allow"), ("blacklist", "deny"))
            if (values := settings.texts(theirs))
        }
        if policy:
            into.rules["ip_access"] = policy

    def consumer_restriction(self, settings: Field, into: Policies) -> None:
        """consumer-restriction: by names of consumers."""
        if settings.text("type", default="consumer_name") != "consumer_name" or settings.get(
            "allowed_by_methods"
        ):
            into.closed = True
            settings.read()
            self._draft.insecure(
                settings,
                "a restriction by groups or methods is not imported, so its routes are closed",
                "write authorize, and remove ip_access",
            )
            return
        rules: list[dict[str, Any]] = []
        if names := settings.texts("whitelist"):
            rules.append({"consumers": names})
        if names := settings.texts("blacklist"):
            rules.append({"consumers": names, "deny": True})
        if rules:
            into.rules["authorize"] = rules[0] if len(rules) == 1 else rules

    def proxy_rewrite(self, settings: Field, into: Policies) -> None:
        """proxy-rewrite."""
        rewrite: dict[str, Any] = {}
        if text := settings.text("uri"):
            rewrite["fixed"] = text
            if "$" in text:
                self._draft.warn(settings, f"variables in {text} have no equal", "write rewrite")
        if pair := settings.texts("regex_uri"):
            rewrite |= {
                "regex": pair[0],
                "substitution": re.sub(r"\$(\d+)", r"\\\1", pair[1] if len(pair) > 1 else ""),
            }
            if len(pair) > 2:
                self._draft.warn(
                    settings, "only the first pair of regex_uri is imported", "write another route"
                )
        if host := settings.text("host"):
            rewrite["host"] = host
        if rewrite:
            into.keys["rewrite"] = rewrite
        if headers := settings.get("headers"):
            self._mutation(headers, "request_headers", into)

    def response_rewrite(self, settings: Field, into: Policies) -> None:
        """response-rewrite: headers."""
        if headers := settings.get("headers"):
            self._mutation(headers, "response_headers", into)

    def _mutation(self, headers: Field, key: str, into: Policies) -> None:
        forms = {"set", "add", "remove"}
        mutation: dict[str, Any] = {}
        if not forms & set(headers.value if isinstance(headers.value, dict) else ()):
            mutation["set"] = {name: one.text().replace("%", "%%") for name, one in headers.items()}
        else:
            found = headers.get("set")
            if found is not None:
                mutation["set"] = {name: one.text().replace("%", "%%") for name, one in found.items()}
            added = headers.get("add")
            if added is not None and isinstance(added.value, dict):
                mutation["add"] = {name: one.text().replace("%", "%%") for name, one in added.items()}
            elif added is not None:
                pairs = (one.text().partition(":") for one in added.elements())
                mutation["add"] = {name.strip(): value.strip().replace("%", "%%") for name, _, value in pairs}
            if removed := headers.texts("remove"):
                mutation["remove"] = removed
        if any("$" in str(one) for one in mutation.values()):
            self._draft.warn(
                headers,
                "variables in headers are sent as they are written",
                "write Envoy's command operators, such as %REQ(x)%",
            )
        into.rules[key] = mutation

    def redirect(self, settings: Field, into: Policies) -> None:
        """redirect."""
        if settings.true("http_to_https"):
            into.keys["redirect"] = {"scheme": "https", "status": 301}
        elif target := settings.text("uri"):
            parts = url(target)
            status = int(settings.number("ret_code") or 302)
            redirect: dict[str, Any] = {"to": target} if parts.scheme else {"path": target}
            into.keys["redirect"] = {
                **redirect,
                "status": status if status in (301, 302, 303, 307, 308) else 302,
            }
            if "$" in target:
                self._draft.warn(settings, f"variables in {target} have no equal", "write redirect")

    def request_id(self, settings: Field, into: Policies) -> None:
        """request-id."""
        name = settings.text("header_name", default="X-Request-Id").lower()
        into.rules["request_id"] = True if name == "x-request-id" else {"response_header": name}
        settings.read("include_in_response"), settings.read("algorithm")

    def client_control(self, settings: Field, into: Policies) -> None:
        """client-control: the size of bodies."""
        if size := settings.number("max_body_size"):
            into.keys["max_body"] = int(size)

    def fault_injection(self, settings: Field, into: Policies) -> None:
        """fault-injection."""
        fault: dict[str, Any] = {}
        if abort := settings.get("abort"):
            fault["abort"] = {
                "status": int(abort.number("http_status") or 503),
                "percent": _percent(abort),
            }
            abort.read("body")
        if delay := settings.get("delay"):
            fault["delay"] = {
                "duration": duration((delay.number("duration") or 1) * 1000),
                "percent": _percent(delay),
            }
        into.rules["fault"] = fault

    def mocking(self, settings: Field, into: Policies) -> None:
        """mocking: an example as the response."""
        into.respond = {
            "status": int(settings.number("response_status") or 200),
            "body": settings.text("response_example"),
        }
        if kind := settings.text("content_type"):
            into.respond["content_type"] = kind

    def compression(self, settings: Field, into: Policies) -> None:
        """gzip and brotli."""
        settings.read()
        into.rules["compression"] = True

    def grpc_web(self, settings: Field, into: Policies) -> None:
        """grpc-web."""
        settings.read()
        into.rules["grpc_web"] = True

    def proxy_cache(self, settings: Field, into: Policies) -> None:
        """proxy-cache."""
        into.rules["cache"] = {"ttl": duration((settings.number("cache_ttl") or 300) * 1000)}
        settings.read()


def _percent(field: Field) -> str:
    number = field.number("percentage")
    return f"{100 if number is None else number:g}%"


_PLUGINS: Mapping[str, Callable[[Plugins, Field, Policies], None]] = {
    "key-auth": Plugins.key_auth,
    "basic-auth": Plugins.basic_auth,
    "limit-count": Plugins.limit_count,
    "limit-req": Plugins.limit_req,
    "limit-conn": Plugins.limit_conn,
    "cors": Plugins.cors,
    "ip-restriction": Plugins.ip_restriction,
    "consumer-restriction": Plugins.consumer_restriction,
    "proxy-rewrite": Plugins.proxy_rewrite,
    "response-rewrite": Plugins.response_rewrite,
    "redirect": Plugins.redirect,
    "request-id": Plugins.request_id,
    "client-control": Plugins.client_control,
    "fault-injection": Plugins.fault_injection,
    "mocking": Plugins.mocking,
    "gzip": Plugins.compression,
    "brotli": Plugins.compression,
    "grpc-web": Plugins.grpc_web,
    "proxy-cache": Plugins.proxy_cache,
}
