"""Middlewares of Traefik as policies and keys of routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xds_server.imports.both_hold import add_limit, both_addresses
from xds_server.imports.draft import CLOSED, Draft, usable
from xds_server.imports.source import Field
from xds_server.imports.traefik_limits import rate, seconds

_OTHERS = frozenset(
    ("circuitbreaker", "contenttype", "encodedcharacters", "errors", "grpcweb", "redirectregex")
)
"""Middlewares that reject no requests by who calls."""
_STRIPPED = "_strip"
"""Prefixes that are taken off, until the path of the route is known."""


class Middlewares:
    """Imports middlewares. `declared` has them by name."""

    def __init__(self, draft: Draft, declared: Mapping[str, Field]) -> None:
        self._draft = draft
        self._declared = {name.lower(): one for name, one in declared.items()}
        self._chains: list[Field] = []
        """Those that are being read: one that leads to itself has no equal."""

    def apply(self, router: Field, value: dict[str, Any], policies: dict[str, Any]) -> bool:
        """Add the middlewares of a router to a route. Returns False if a rule of security is lost."""
        sure = True
        for one in router.elements("middlewares"):
            found = self._found(one)
            if found is None:
                sure = False
                self._draft.insecure(
                    one,
                    f"the middleware '{one.text()}' is not in these files, so the route is closed",
                    "write its policy, and remove ip_access",
                )
                continue
            sure &= self._one(found, value, policies)
        return sure

    def hosts_allowed(self, router: Field, conditions: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the routes have no host that `allowedHosts` of a middleware rejects. Reports it if they have."""
        sure = True
        for field in self._all(router):
            for kind, settings in field.items():
                allowed = (
                    {one.lower() for one in settings.texts("allowedHosts")}
                    if kind.lower() == "headers"
                    else set()
                )
                if allowed and not all(
                    one.get("hosts") and allowed.issuperset(one["hosts"]) for one in conditions
                ):
                    sure = False
                    self._draft.insecure(
                        settings,
                        "allowedHosts has no equal, so routes for other hosts are closed",
                        "write the hosts of the route, and remove ip_access",
                    )
        return sure

    def _all(self, owner: Field, within: tuple[Field, ...] = ()) -> Iterator[Field]:
        """Yield the middlewares of a router, also those in chains."""
        for one in owner.elements("middlewares"):
            found = self._found(one)
            if found is not None and found not in within:
                yield found
                for kind, settings in found.items():
                    if kind.lower() == "chain":
                        yield from self._all(settings, (*within, found))

    def _found(self, one: Field) -> Field | None:
        name, _, provider = one.text().partition("@")
        return self._declared.get(name.lower()) if provider in ("", "file") else None

    def finished(self, route: dict[str, Any]) -> dict[str, Any]:
        """Return a route whose path is known, with the path that the upstream gets."""
        prefixes, rewrite = route.pop(_STRIPPED, None), dict(route.get("rewrite", {}))
        path: str = route.get("path", "/*")
        added = rewrite.pop("added", "")
        if prefixes is not None or added:
            base = path.removesuffix("/*")
            stripped = next((one for one in prefixes or () if base == one or base.startswith(f"{one}/")), "")
            if path.endswith("/*") and not path.startswith("~"):
                rewrite["path"] = f"{added}{base.removeprefix(stripped)}/*"
            else:
                pattern = f"^(?:{'|'.join(map(re.escape, prefixes))})?/?" if prefixes else "^/"
                rewrite |= {"regex": pattern, "substitution": f"{added}/"}
        if rewrite:
            route["rewrite"] = rewrite
        else:
            route.pop("rewrite", None)
        return route

    def _one(self, middleware: Field, value: dict[str, Any], policies: dict[str, Any]) -> bool:
        sure = True
        for kind, settings in middleware.items():
            if kind.lower() == "chain" and settings not in self._chains:
                self._chains.append(settings)
                sure &= self.apply(settings, value, policies)
                self._chains.pop()
            elif kind.lower() in _KINDS:
                sure &= _KINDS[kind.lower()](self, settings, value, policies) is not False
            elif kind.lower() not in _OTHERS:  # one that is not known may decide who may call
                sure = False
                settings.read()
                self._draft.insecure(
                    settings,
                    f"{kind} has no equal, so its routes are closed",
                    "write another policy, and remove ip_access",
                )
            else:
                settings.read()
                self._draft.warn(
                    settings, f"{kind} has no equal", "see docs/reference/policies.md for what comes near it"
                )
        return sure

    def strip_prefix(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """StripPrefix."""
        settings.true("forceSlash")
        value[_STRIPPED] = [one.rstrip("/") for one in settings.texts("prefixes")]

    def add_prefix(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """AddPrefix."""
        value.setdefault("rewrite", {})["added"] = settings.text("prefix").rstrip("/")

    def replace_path(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """ReplacePath."""
        value.setdefault("rewrite", {}).update(regex="^.*$", substitution=settings.text("path"))

    def replace_path_regex(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """ReplacePathRegex."""
        substitution = re.sub(r"\$\{?(\d+)\}?", r"\\\1", settings.text("replacement"))
        value.setdefault("rewrite", {}).update(regex=settings.text("regex"), substitution=substitution)

    def headers(self, settings: Field, value: dict[str, Any], policies: dict[str, Any]) -> None:
        """Headers: those of requests and responses, the fixed ones of security, and CORS."""
        for theirs, ours in (
            ("customRequestHeaders", "request_headers"),
            ("customResponseHeaders", "response_headers"),
        ):
            found = settings.get(theirs)
            for name, one in found.items() if found is not None else ():
                if name.lower() == "host" and ours == "request_headers":
                    value.setdefault("rewrite", {})["host"] = one.text()
                    continue
                mutation = policies.setdefault(ours, {})
                if text := one.text():
                    mutation.setdefault("set", {})[name.lower()] = text.replace("%", "%%")
                else:
                    mutation.setdefault("remove", []).append(name.lower())
        fixed = _fixed_headers(settings)
        if fixed:
            policies.setdefault("response_headers", {}).setdefault("set", {}).update(fixed)
        if origins := settings.texts("accessControlAllowOriginList"):
            policies["cors"] = _cors(settings, origins)

    def basic_auth(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> bool:
        """BasicAuth: users become an htpasswd file."""
        basic: dict[str, Any] = {}
        users = settings.texts("users")
        if file := settings.text("usersFile"):
            basic["htpasswd"] = {"file": file}
        elif users and all(re.match(r"[^:]+:(\$2[aby]\$|\{SHA\})", one) for one in users):
            name = f"htpasswd/{usable('-'.join(map(str, settings.path[-2:-1])))}"
            self._draft.files[name] = ("\n".join(users) + "\n").encode()
            basic["htpasswd"] = {"file": name}
        else:
            settings.read()
            self._draft.insecure(
                settings,
                "only passwords of bcrypt and {SHA} can be verified, so its routes are closed",
                "write users with htpasswd -B, and remove ip_access",
            )
            return False
        if realm := settings.text("realm"):
            basic["realm"] = realm
        if not settings.true("removeHeader"):
            basic["forward"] = True
        if policies.setdefault("basic_auth", basic) != basic:
            self._draft.insecure(
                settings,
                "two lists of users at one router have no equal, so its routes are closed",
                "write one htpasswd file with the users of both, and remove ip_access",
            )
            return False
        return True

    def rate_limit(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> None:
        """RateLimit: a token bucket for each address."""
        average, burst = settings.number("average") or 0, int(settings.number("burst") or 1)
        period = seconds(settings.text("period", default="1s"))
        if average <= 0:
            settings.read()
            return
        requests, per = rate(average, period)
        limit: dict[str, Any] = {
            "requests": requests,
            "per": per,
            "burst": max(1, burst),
            "by": self._source(settings),
        }
        if redis := settings.get("redis"):
            redis.read()
            self._draft.warn(
                redis, "the counters are not in this Redis", "see --counters in docs/reference/limits.md"
            )
        add_limit(policies, limit)

    def _source(self, settings: Field, default: str = "ip") -> str:
        """Return what requests are counted by."""
        source = settings.get("sourceCriterion")
        if source is None:
            return default
        if header := source.text("requestHeaderName"):
            return f"header:{header}"
        if source.true("requestHost"):
            return "route"  # of all hosts together, which is never more than of each
        self._depth(source)
        return "ip"

    def _depth(self, field: Field) -> bool:
        """Whether the address of a client is that of its connection. Reports it if not."""
        strategy = field.get("ipStrategy")
        if strategy is None or not strategy.value:
            return True
        strategy.read()
        self._draft.warn(
            strategy,
            "proxies in front of the gateway are trusted by the listener",
            "write trusted_proxies at the listener",
        )
        return False

    def ip_allow_list(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> bool:
        """IPAllowList. Of two at one router, both must allow."""
        status = settings.get("rejectStatusCode")
        if status is not None and status.text() != "403":
            self._draft.warn(status, "the gateway rejects with 403", "write errors at the gateway")
        allowed = settings.texts("sourceRange")
        own = {"allow": allowed} if allowed else dict(CLOSED["ip_access"])
        policies["ip_access"] = both_addresses(policies.get("ip_access", own), own)
        if self._depth(settings):
            return True
        self._draft.insecure(
            settings,
            "the addresses that it allows come from x-forwarded-for, so its routes are closed",
            "write trusted_proxies at the listener, and ip_access",
        )
        return False

    def redirect_scheme(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """RedirectScheme."""
        redirect: dict[str, Any] = {
            "scheme": settings.text("scheme", default="https"),
            "status": 301 if settings.true("permanent") else 302,
        }
        if (port := settings.number("port")) and port not in (80, 443):
            redirect["port"] = int(port)
        value["redirect"] = redirect

    def retry(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """Retry: attempts count the first one."""
        retries = max(0, int(settings.number("attempts") or 1) - 1)
        backoff = settings.text("initialInterval")
        value["retry"] = {"attempts": retries, "backoff": backoff} if backoff else retries

    def compress(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> None:
        """Compress."""
        settings.read()
        policies["compression"] = True

    def in_flight(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> None:
        """InFlightReq."""
        amount = max(1, int(settings.number("amount") or 1))
        known = policies.get("concurrency", {}).get("requests", amount)
        by = self._source(settings, default="route")
        policies["concurrency"] = {"requests": min(amount, known), "by": by}

    def buffering(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """Buffering: the bound of the body."""
        if size := settings.number("maxRequestBodyBytes"):
            value["max_body"] = min(int(size), value.get("max_body", int(size)))
        for name in ("memRequestBodyBytes", "memResponseBodyBytes"):
            settings.read(name)

    def forward_auth(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> bool:
        """ForwardAuth has no equal that is sure: Traefik sends GET with X-Forwarded headers, and follows the answer."""
        address = settings.text("address")
        settings.read()
        self._draft.insecure(
            settings,
            f"the requests to {address} would be others, so the routes are closed",
            "write ext_authz: {http: …}, and remove ip_access",
        )
        return False


def _fixed_headers(settings: Field) -> dict[str, str]:
    """Return the response headers that have options of their own."""
    found = {name: text for option, (name, text) in _SWITCHES.items() if settings.true(option)}
    for option, name in _TEXTS.items():
        if text := settings.text(option):
            found[name] = text.replace("%", "%%")
    if seconds := settings.number("stsSeconds"):
        parts = [f"max-age={int(seconds)}"]
        parts += ["includeSubDomains"] if settings.true("stsIncludeSubdomains") else []
        parts += ["preload"] if settings.true("stsPreload") else []
        found["strict-transport-security"] = "; ".join(parts)
        settings.true("forceSTSHeader")
    return found


def _cors(settings: Field, origins: list[str]) -> dict[str, Any]:
    cors: dict[str, Any] = {"allow_origins": origins}
    for theirs, ours in (
        ("accessControlAllowMethods", "allow_methods"),
        ("accessControlAllowHeaders", "allow_headers"),
        ("accessControlExposeHeaders", "expose_headers"),
    ):
        if values := [one for one in settings.texts(theirs) if one != "*"]:
            cors[ours] = values
    if settings.true("accessControlAllowCredentials") and "*" not in origins:
        cors["allow_credentials"] = True
    if seconds := settings.number("accessControlMaxAge"):
        cors["max_age"] = f"{int(seconds)}s"
    settings.true("addVaryHeader")
    return cors


_SWITCHES = {
    "frameDeny": ("x-frame-options", "DENY"),
    "contentTypeNosniff": ("x-content-type-options", "nosniff"),
    "browserXssFilter": ("x-xss-protection", "1; mode=block"),
}
_TEXTS = {
    "contentSecurityPolicy": "content-security-policy",
    "referrerPolicy": "referrer-policy",
    "permissionsPolicy": "permissions-policy",
    "customFrameOptionsValue": "x-frame-options",
}
_KINDS: Mapping[str, Callable[[Middlewares, Field, dict[str, Any], dict[str, Any]], bool | None]] = {
    "stripprefix": Middlewares.strip_prefix,
    "addprefix": Middlewares.add_prefix,
    "replacepath": Middlewares.replace_path,
    "replacepathregex": Middlewares.replace_path_regex,
    "headers": Middlewares.headers,
    "basicauth": Middlewares.basic_auth,
    "ratelimit": Middlewares.rate_limit,
    "ipallowlist": Middlewares.ip_allow_list,
    "ipwhitelist": Middlewares.ip_allow_list,
    "redirectscheme": Middlewares.redirect_scheme,
    "retry": Middlewares.retry,
    "compress": Middlewares.compress,
    "inflightreq": Middlewares.in_flight,
    "buffering": Middlewares.buffering,
    "forwardauth": Middlewares.forward_auth,
}
