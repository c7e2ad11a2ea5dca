"""Middlewares of Traefik as policies and keys of routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from xds_server.imports.draft import Draft, usable
from xds_server.imports.source import Field

_PERIOD = {
    "": "second",
    "1s": "second",
    "1m": "minute",
    "1h": "hour",
    "1m0s": "minute",
    "1h0m0s": "hour",
    "24h": "day",
}
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

    def apply(self, router: Field, value: dict[str, Any], policies: dict[str, Any]) -> bool:
        """Add the middlewares of a router to a route. Returns False if a rule of security is lost."""
        sure = True
        for one in router.elements("middlewares"):
            name, _, provider = one.text().partition("@")
            found = self._declared.get(name.lower()) if provider in ("", "file") else None
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
            if kind.lower() == "chain":
                sure &= self.apply(settings, value, policies)
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

    def headers(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> None:
        """Headers: those of requests and responses, the fixed ones of security, and CORS."""
        for theirs, ours in (
            ("customRequestHeaders", "request_headers"),
            ("customResponseHeaders", "response_headers"),
        ):
            found = settings.get(theirs)
            for name, one in found.items() if found is not None else ():
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
        policies["basic_auth"] = basic
        return True

    def rate_limit(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> None:
        """RateLimit: a token bucket for each address."""
        period = settings.text("period")
        average, burst = int(settings.number("average") or 0), int(settings.number("burst") or 1)
        if not average:
            return
        if period not in _PERIOD:
            self._draft.warn(settings, f"a period of {period} has no equal", "write requests and per")
        limit: dict[str, Any] = {
            "requests": average,
            "per": _PERIOD.get(period, "minute"),
            "burst": burst,
            "by": "ip",
        }
        if header := settings.text("sourceCriterion", "requestHeaderName"):
            limit["by"] = f"header:{header}"
        settings.read("sourceCriterion"), settings.read("redis")
        policies["rate_limit"] = limit

    def ip_allow_list(self, settings: Field, _value: dict[str, Any], policies: dict[str, Any]) -> None:
        """IPAllowList."""
        if strategy := settings.get("ipStrategy"):
            strategy.read()
            self._draft.warn(
                strategy,
                "proxies in front of the gateway are trusted by the listener",
                "write trusted_proxies at the listener",
            )
        settings.number("rejectStatusCode")
        policies["ip_access"] = {"allow": settings.texts("sourceRange")}

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
        settings.read("sourceCriterion")
        policies["concurrency"] = {"requests": int(settings.number("amount") or 1), "by": "ip"}

    def buffering(self, settings: Field, value: dict[str, Any], _policies: dict[str, Any]) -> None:
        """Buffering: the bound of the body."""
        if size := settings.number("maxRequestBodyBytes"):
            value["max_body"] = int(size)
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
