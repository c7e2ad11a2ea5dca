"""Plugins of Kong as policies: of all routes, of a service, of a route, or of a consumer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xds_server.imports.draft import Draft, duration
from xds_server.imports.kong_caller_names import without_names
from xds_server.imports.kong_plugin_kinds import CHANGING, OBSERVING, PROTECTING
from xds_server.imports.kong_tokens import Tokens
from xds_server.imports.source import Field

_PERIODS = ("second", "minute", "hour", "day", "month")
_SCOPES = ("service", "route", "consumer", "consumer_group")
_DECIDING = frozenset({"ip_access", "authorize", "cors", "api_key", "basic_auth", "jwt"})
"""Policies that decide who may call."""
_METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_BY = {"consumer": "consumer", "credential": "consumer", "ip": "ip", "service": "route", "route": "route"}


@dataclass(slots=True)
class Policies:
    """What the plugins of one object become: policies, keys of routes, and an answer of the gateway itself.

    If a rule of security is lost, the routes are `closed`.
    """

    rules: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    respond: dict[str, Any] | None = None
    closed: bool = False


class Plugins:
    """Imports plugins. `groups` has the consumers of each group of `acl`, `tokens` the issuers of consumers."""

    def __init__(self, draft: Draft, groups: Mapping[str, Sequence[str]], tokens: Tokens) -> None:
        self._draft, self._groups, self._tokens = draft, groups, tokens
        self._of: dict[tuple[str, str], list[Field]] = {}
        self._global: list[Field] = []
        self._restricted: set[str] = set()

    def collect(self, plugins: Iterable[Field]) -> None:
        """Note the plugins that are written at the top, by the object that they are for."""
        for one in plugins:
            owners = [(kind, name) for kind in _SCOPES if (name := _owner(one, kind))]
            if len(owners) > 1:
                one.read()
                scope = " and ".join(f"the {kind} '{name}'" for kind, name in owners)
                self._draft.insecure(
                    one,
                    f"the plugin {one.text('name')} for {scope} together has no equal",
                    "write its policy at a route",
                )
            elif owners:
                self._of.setdefault(owners[0], []).append(one)
            else:
                self._global.append(one)

    def groups_with_plugins(self) -> set[str]:
        """Return the groups of consumers that plugins at the top are for."""
        return {name for kind, name in self._of if kind == "consumer_group"}

    def note_anonymous(self, consumers: Iterable[Field]) -> None:
        """Note the consumers with plugins: where one of them stands for callers without credentials, these decide about it."""
        for one in consumers:
            names = {one.text("username"), one.text("id"), one.text("custom_id")}
            if one.elements("plugins") or any(("consumer", name) in self._of for name in names):
                self._restricted |= names - {""}

    def of(self, owner: Field) -> Policies:
        """Return what the plugins of a service or of a route become."""
        name = owner.text("name") or owner.text("id")
        kind = "route" if "routes" in owner.path[-2:] or owner.get("paths") else "service"
        return self.policies([*owner.elements("plugins"), *self._of.pop((kind, name), ())])

    def of_consumer(self, owner: Field, value: dict[str, Any]) -> None:
        """Give a consumer the plan that its plugins describe."""
        found = self.policies(
            [*owner.elements("plugins"), *self._of.pop(("consumer", owner.text("username")), ())]
        )
        limits = {
            key: rule for key, rule in found.rules.items() if key in ("rate_limit", "quota", "concurrency")
        }
        for limit in limits.get("rate_limit", ()):
            if isinstance(limit, dict):
                for key in ("by", "scope"):
                    limit.pop(key, None)
        if limits:
            value["plan"] = self._draft.add("plans", owner.text("username"), limits)
        if found.closed or found.respond is not None or found.rules.keys() & _DECIDING:
            for key in ("api_keys", "basic_auth", "jwt"):
                value.pop(key, None)
            self._draft.insecure(
                owner,
                "a plugin that decides for this consumer alone has no equal, so the consumer has no credentials",
                "write authorize or ip_access at routes, then the credentials",
            )
        for key in sorted(found.rules.keys() - limits.keys() - _DECIDING | found.keys.keys()):
            self._draft.warn(
                owner, f"'{key}' for one consumer has no equal", "write it at a route for this consumer"
            )

    def to_all(self) -> None:
        """Write the plugins of everything, and report those whose object is not there."""
        found = self.policies(self._global)
        if found.rules:
            self._draft.sections["policies"] = {**found.rules, **self._draft.sections.get("policies", {})}
        for key, rule in found.keys.items():
            for one in self._draft.sections.get("routes", {}).values():
                one.setdefault(key, rule)
        if found.closed or found.respond is not None:
            self._draft.warn(self._global[0], "a plugin for all routes is not imported", "see the errors")
        if found.closed:
            self._draft.sections.setdefault("policies", {})["ip_access"] = {"deny": ["0.0.0.0/0", "::/0"]}
        for (kind, name), plugins in self._of.items():
            for one in plugins:
                one.read()
                self._draft.insecure(
                    one,
                    f"the plugin {one.text('name')} is for the {kind} '{name}', which is not imported",
                    "write its policy, or remove it",
                )

    def policies(self, plugins: Iterable[Field]) -> Policies:
        """Return what some plugins become."""
        into = Policies()
        for one in plugins:
            name = one.text("name")
            for ignored in (
                "id",
                "tags",
                "protocols",
                "instance_name",
                "run_on",
                "created_at",
                "service",
                "route",
                "consumer",
            ):
                one.read(ignored)
            if not one.true("enabled", default=True):
                one.read()
                continue
            config = one.get("config") or one
            if name in _PLUGINS:
                _PLUGINS[name](self, config, into)
            else:
                self._lost(name, one, into)
        into.rules = without_names(into.rules, into.rules)
        return into

    def _lost(self, name: str, plugin: Field, into: Policies) -> None:
        """Report a plugin that is not imported. One that is not known may decide who may call."""
        plugin.read()
        if name in OBSERVING or name in CHANGING:
            remedy = OBSERVING.get(name, "see docs/reference/policies.md for what comes near it")
            self._draft.warn(plugin, f"the plugin {name} is not imported", remedy)
        elif name in PROTECTING:
            self._draft.insecure(
                plugin,
                f"the plugin {name} is not imported, and it protects upstreams",
                "write rate_limit, validate or authorize",
            )
        else:
            into.closed = True
            self._draft.insecure(
                plugin,
                f"the plugin {name} is not imported, so its routes are closed for everybody",
                "write identity and policies (jwt, oidc, mtls or ext_authz), and remove ip_access",
            )

    def key_auth(self, config: Field, into: Policies) -> None:
        """key-auth: the first name of the key."""
        names = config.texts("key_names") or ["apikey"]
        settings: dict[str, Any] = {}
        if config.true("key_in_header", default=True):
            settings["header"] = names[0]
        if config.true("key_in_query", default=True):
            settings["query"] = names[0]
        if not config.true("hide_credentials"):
            settings["forward"] = True
        self._anonymous(config, settings, into)
        for other in config.elements("key_names")[1:]:
            self._draft.warn(other, "only the first name of the key is imported", "let all clients use it")
        config.true("key_in_body"), config.true("run_on_preflight"), config.text("realm")
        into.rules["api_key"] = settings

    def basic_auth(self, config: Field, into: Policies) -> None:
        """basic-auth."""
        settings: dict[str, Any] = {} if config.true("hide_credentials") else {"forward": True}
        if realm := config.text("realm"):
            settings["realm"] = realm
        self._anonymous(config, settings, into)
        into.rules["basic_auth"] = settings or True

    def jwt(self, config: Field, into: Policies) -> None:
        """jwt: tokens of the consumers' issuers."""
        policy = self._tokens.policy(config)
        if policy is None:
            into.closed = True
            config.read()
            self._draft.insecure(
                config,
                "these tokens have no equal, or no consumer has a public key, so the routes are closed for everybody",
                "write identity and the policy jwt, and remove ip_access",
            )
        else:
            into.rules["jwt"] = policy

    def _anonymous(self, config: Field, settings: dict[str, Any], into: Policies) -> None:
        if name := config.text("anonymous"):
            settings["optional"] = True
            if name in self._restricted:
                into.closed = True
                self._draft.insecure(
                    config,
                    f"plugins decide about callers without credentials (the consumer '{name}'), so the routes are closed",
                    "remove optional and ip_access if callers without credentials were rejected",
                )

    def acl(self, config: Field, into: Policies) -> None:
        """acl: the groups are the consumers that belong to them now."""
        rules: list[dict[str, Any]] = []
        for key, denies in (("allow", False), ("whitelist", False), ("deny", True), ("blacklist", True)):
            groups = config.elements(key)
            names = sorted({name for one in groups for name in self._groups.get(one.text(), ())})
            if groups and not names and not denies:
                into.closed = True
                self._draft.insecure(
                    config, "no consumer belongs to these groups", "write authorize: {consumers: […]}"
                )
            elif names:
                rules.append({"consumers": names, **({"deny": True} if denies else {})})
        config.true("hide_groups_header")
        if rules:
            into.rules["authorize"] = rules[0] if len(rules) == 1 else rules

    def rate_limiting(self, config: Field, into: Policies) -> None:
        """rate-limiting: one window for each period."""
        kind = config.text("limit_by", default="consumer")
        by = f"header:{config.text('header_name')}" if kind == "header" else _BY.get(kind)
        if by is None:
            self._draft.warn(config, f"limit_by: {kind} has no equal", "the limit is by consumer or address")
        limits: list[Any] = []
        for period in _PERIODS:
            number = config.number(period)
            if number is None:
                continue
            one: dict[str, Any] = {"requests": int(number), "per": period}
            if by not in (None, "consumer"):
                one["by"] = by
            if config.text("policy") == "local":
                one["scope"] = "local"
            if not config.true("fault_tolerant", default=True):
                one["on_error"] = "deny"
            limits.append(one if len(one) > len(("requests", "per")) else f"{int(number)}/{period}")
        if config.number("year"):
            self._draft.warn(config, "a limit for a year has no equal", "write one for a month")
        for name in ("redis", "path"):
            config.read(name)
        for key, _ in list(config.items()):
            if key.startswith("redis_"):
                config.read(key)
        into.rules["rate_limit"] = limits

    def cors(self, config: Field, into: Policies) -> None:
        """cors."""
        origins = config.texts("origins") or ["*"]
        settings: dict[str, Any] = {"allow_origins": origins}
        methods = [one for one in config.texts("methods") if one in _METHODS]
        if methods:
            settings["allow_methods"] = methods
        for key, ours in (("headers", "allow_headers"), ("exposed_headers", "expose_headers")):
            if values := config.texts(key):
                settings[ours] = values
        if config.true("credentials"):
            if "*" in origins:
                self._draft.warn(
                    config,
                    "cookies of every page are not allowed together with any origin",
                    "write allow_origins, and allow_credentials: true",
                )
            else:
                settings["allow_credentials"] = True
        if seconds := config.number("max_age"):
            settings["max_age"] = duration(seconds * 1000)
        for one in (one for one in origins if any(sign in one for sign in "\\^$(|")):
            self._draft.warn(
                config, f"the origin {one} is a regular expression, which has no equal", "write the origins"
            )
            settings["allow_origins"] = [other for other in settings["allow_origins"] if other != one] or [
                "https://unimportable.invalid"
            ]
        into.rules["cors"] = settings

    def ip_restriction(self, config: Field, into: Policies) -> None:
        """ip-restriction."""
        settings = {}
        for key, ours in (
            ("allow", "allow"),
            ("whitelist", "allow"),
            ("deny", "deny"),
            ("blacklist", "deny"),
        ):
            if values := config.texts(key):
                settings[ours] = values
        if settings:
            into.rules["ip_access"] = settings

    def request_size_limiting(self, config: Field, into: Policies) -> None:
        """request-size-limiting."""
        unit = {"megabytes": "MB", "kilobytes": "KB", "bytes": "B"}[
            config.text("size_unit", default="megabytes")
        ]
        number = int(config.number("allowed_payload_size") or 128)
        into.keys["max_body"] = number if unit == "B" else f"{number}{unit}"

    def request_termination(self, config: Field, into: Policies) -> None:
        """request-termination."""
        respond: dict[str, Any] = {"status": int(config.number("status_code") or 503)}
        body, message = config.text("body"), config.text("message")
        if body:
            respond["body"] = body
            respond["content_type"] = config.text("content_type", default="application/json; charset=utf-8")
        elif message:
            respond["body"] = {"message": message}
        into.respond = respond

    def request_transformer(self, config: Field, into: Policies) -> None:
        """request-transformer: headers."""
        self._headers(config, "request_headers", into)

    def response_transformer(self, config: Field, into: Policies) -> None:
        """response-transformer: headers."""
        self._headers(config, "response_headers", into)

    def _headers(self, config: Field, key: str, into: Policies) -> None:
        mutation: dict[str, Any] = {}
        for name, ours in (("add", "add"), ("append", "add"), ("replace", "set")):
            for one in config.elements(name, "headers") if config.get(name) else []:
                header, _, value = one.text().partition(":")
                mutation.setdefault(ours, {})[header.strip()] = value.strip().replace("%", "%%")
        removed = config.get("remove")
        if removed is not None and (names := removed.texts("headers")):
            mutation["remove"] = names
        if mutation:
            into.rules[key] = mutation

    def correlation_id(self, config: Field, into: Policies) -> None:
        """correlation-id."""
        name = config.text("header_name", default="Kong-Request-ID").lower()
        into.rules["request_id"] = True if name == "x-request-id" else {"response_header": name}
        config.read("generator"), config.read("echo_downstream")

    def proxy_cache(self, config: Field, into: Policies) -> None:
        """proxy-cache."""
        settings: dict[str, Any] = {"ttl": duration((config.number("cache_ttl") or 300) * 1000)}
        if not config.true("cache_control"):
            settings["override"] = True
        if statuses := config.numbers("response_code"):
            settings["statuses"] = statuses
        if headers := config.texts("vary_headers"):
            settings["vary"] = headers
        for name in ("strategy", "memory", "storage_ttl", "request_method", "content_type"):
            config.read(name)
        into.rules["cache"] = settings

    def grpc_web(self, config: Field, into: Policies) -> None:
        """grpc-web."""
        config.read()
        into.rules["grpc_web"] = True


def _owner(plugin: Field, kind: str) -> str:
    return plugin.text(kind, "name") or plugin.text(kind, "username") or plugin.text(kind)


_PLUGINS: Mapping[str, Callable[[Plugins, Field, Policies], None]] = {
    "jwt": Plugins.jwt,
    "key-auth": Plugins.key_auth,
    "basic-auth": Plugins.basic_auth,
    "acl": Plugins.acl,
    "rate-limiting": Plugins.rate_limiting,
    "cors": Plugins.cors,
    "ip-restriction": Plugins.ip_restriction,
    "request-size-limiting": Plugins.request_size_limiting,
    "request-termination": Plugins.request_termination,
    "request-transformer": Plugins.request_transformer,
    "response-transformer": Plugins.response_transformer,
    "correlation-id": Plugins.correlation_id,
    "proxy-cache": Plugins.proxy_cache,
    "grpc-web": Plugins.grpc_web,
}
