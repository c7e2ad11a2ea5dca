"""Annotations of Ingresses that other controllers have made common, as keys of the gateway language.

Annotations of ingress-nginx and Traefik that the language has an equal for are translated. Each other one is a fault. If it may
protect something, the requests of its Ingress must fail.

https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/
https://doc.traefik.io/traefik/reference/routing-configuration/kubernetes/ingress/
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.language import Mistake
from xds_server.gateway.model.regex import check as check_regex
from xds_server.gateway_api.conditions import Fault
from xds_server.gateway_api.ingress_annotation_reader import UNSUPPORTED, Reader, shown
from xds_server.gateway_api.ingress_protections import equal_policy, may_protect
from xds_server.gateway_api.ingress_specs import CLASS_ANNOTATION, HTTP_ANNOTATION

NGINX, TRAEFIK = "nginx.ingress.kubernetes.io/", "traefik.ingress.kubernetes.io/"
HTTP, HTTPS = "http", "https"
"""The listener for requests without TLS, and those with TLS."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_|~-]+")
_HEAVIEST = 1_000_000
"""The largest weight in the language."""
_SIZE = re.compile(r"([0-9]{1,12})([kKmMgG]?)")
_SILENT = 60
"""Seconds without traffic after which a response ends, by default. An Ingress has no other limit, and so nobody expects one."""
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_CORS_HEADERS = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
_PROTOCOLS = {"HTTP": "http1", "AUTO_HTTP": "http1", "HTTPS": "http1", "GRPC": "grpc", "GRPCS": "grpc"}
_ENTRY_POINTS = {"web": HTTP, "http": HTTP, "websecure": HTTPS, "https": HTTPS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """An Ingress that takes a part of the requests of another one: by weight, or by a header."""

    weight: int = 0
    total: int = 100
    header: str = ""
    values: Mapping[str, Any] = field(default_factory=lambda: {"exact": "always"})
    """The condition on the header."""
    never: bool = False
    """Whether the value `never` of the header keeps a request away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicAuth:
    """Users in a Secret of the Ingress's namespace: as one htpasswd file, or with `by_name` a hash for each key."""

    secret: str
    by_name: bool
    realm: str


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """What annotations say. `route` are keys of routes to a Service, and `instead` those in place of the Service."""

    route: dict[str, Any] = field(default_factory=dict)
    policies: dict[str, Any] = field(default_factory=dict)
    instead: dict[str, Any] | None = None
    protocol: str = ""
    encrypted: bool = False
    connect_timeout: str = ""
    redirects: bool = True
    """Whether plain HTTP for hosts with a certificate is redirected to HTTPS."""
    always_redirects: bool = False
    listeners: frozenset[str] = frozenset((HTTP, HTTPS))
    regex: bool = False
    rewrite: str = ""
    """The path that the Service gets, which may have `$1` for a group of a regular expression."""
    path_type: str = ""
    canary: Canary | None = None
    basic_auth: BasicAuth | None = None
    faults: list[Fault] = field(default_factory=list)
    closed: bool = False
    """Whether requests must fail, because what protects them cannot be had."""


def behaviour(annotations: Mapping[str, str]) -> Behaviour:
    """Return what the annotations of an Ingress say."""
    found = Behaviour()
    nginx = Reader(annotations, NGINX, found.faults)
    for part in _PARTS:
        part(nginx, found)
    traefik = Reader(annotations, TRAEFIK, found.faults)
    _traefik(traefik, found)
    if annotations.get(HTTP_ANNOTATION, "").strip().lower() == "false":
        found.listeners &= {HTTPS}
    for key, value in annotations.items():
        if key not in (
            HTTP_ANNOTATION,
            *nginx.known,
            *traefik.known,
            CLASS_ANNOTATION,
        ) and not key.startswith("xds-gateway.dev/"):
            _unknown(key, value, found)
    return found


def _unknown(key: str, value: str, found: Behaviour) -> None:
    """Note an annotation that has no equal."""
    path = ("metadata", "annotations", key)
    prefix, _, name = key.partition("/")
    if may_protect(name, value):
        found.closed = True
        message = "it may protect something and has no equal, so the requests of this Ingress get 500"
        remedy = f"remove it, or use an HTTPRoute with a GatewayPolicy: {equal_policy(name)}"
        reason = "RequestsRejected"
    elif f"{prefix}/" in (NGINX, TRAEFIK):
        message, remedy, reason = (
            "it has no equal and no effect",
            "remove it, or use an HTTPRoute",
            UNSUPPORTED,
        )
    else:
        message, remedy, reason = "it is for another controller and has no effect", "remove it", UNSUPPORTED
    found.faults.append(Fault(path=path, message=message, remedy=remedy, reason=reason))


def _redirects(given: Reader, found: Behaviour) -> None:
    found.redirects = given.flag("ssl-redirect", default=True)
    found.always_redirects = given.flag("force-ssl-redirect", safe=True)
    for name, code, default in (
        ("permanent-redirect", "permanent-redirect-code", 301),
        ("temporal-redirect", "temporal-redirect-code", 302),
    ):
        status = given.number(code, default, least=300)
        if not given.has(name) or found.instead is not None:
            continue
        to = given.text(name)
        whole = re.fullmatch(r"(https?)://([^/$:]+|\[[^/$\]]+\])(?::([0-9]{1,5}))?\$request_uri", to)
        if whole is not None:
            port = {"port": int(whole[3])} if whole[3] else {}
            found.instead = {"redirect": {"scheme": whole[1], "host": whole[2], **port, "status": status}}
        elif "$" in to:
            message = (
                f"this has a port that is none, or variables of nginx, which have no equal: '{shown(to)}'"
            )
            given.fault(name, message, "write a URL without them")
            found.closed = True
        else:
            found.instead = {"redirect": {"to": to, "status": status, "strip_query": True}}


def _forwarding(given: Reader, found: Behaviour) -> None:
    found.regex = given.flag("use-regex")
    found.rewrite = given.text("rewrite-target")
    found.regex = found.regex or "$" in found.rewrite
    if given.has("upstream-vhost"):
        found.route["rewrite"] = {"host": given.text("upstream-vhost")}
    if given.has("x-forwarded-prefix"):
        value = given.text("x-forwarded-prefix").replace("%", "%%")
        found.route["request_headers"] = {"set": {"x-forwarded-prefix": value}}
    protocol = given.text("backend-protocol", "HTTP").upper()
    if protocol not in _PROTOCOLS:
        message = f"the protocol {protocol} is not supported, so the requests of this Ingress get 500"
        given.fault("backend-protocol", message, f"write one of {', '.join(_PROTOCOLS)}", "InvalidAnnotation")
        found.closed = True
        return
    found.encrypted = protocol in ("HTTPS", "GRPCS")
    found.protocol = _PROTOCOLS[protocol] if given.has("backend-protocol") else ""


def _bodies_and_times(given: Reader, found: Behaviour) -> None:
    if given.has("proxy-body-size"):
        size = _SIZE.fullmatch(given.text("proxy-body-size"))
        if size is None:
            message, remedy = f"'{shown(given.text('proxy-body-size'))}' is not a size", "write 8m"
            given.fault("proxy-body-size", message, remedy, "InvalidAnnotation")
        elif int(size[1]):
            found.route["max_body"] = int(size[1]) * _UNITS[size[2].lower()]
    names = ("proxy-read-timeout", "proxy-send-timeout")
    silent = max(given.seconds(name, least=1) for name in names) or _SILENT
    found.route |= {"idle_timeout": f"{silent}s", "timeout": "0s"}
    connect = given.seconds("proxy-connect-timeout", least=1)
    found.connect_timeout = f"{connect}s" if connect else ""


def _cors(given: Reader, found: Behaviour) -> None:
    names = {
        "allow_methods": ("cors-allow-methods", "GET,PUT,POST,DELETE,PATCH,OPTIONS"),
        "allow_headers": ("cors-allow-headers", _CORS_HEADERS),
        "expose_headers": ("cors-expose-headers", ""),
    }
    lists = {key: _listed(given.text(*name)) for key, name in names.items()}
    origins = _listed(given.text("cors-allow-origin", "*"))
    credentials = given.flag("cors-allow-credentials", default=True)
    age = given.seconds("cors-max-age", 1728000)
    if given.flag("enable-cors"):
        # nginx sends both * and the permission for cookies, and browsers then take the latter for none (Fetch, section 3.3.5)
        found.policies["cors"] = {
            "allow_origins": origins,
            "max_age": f"{age}s",
            **{key: value for key, value in lists.items() if value},
            **({"allow_credentials": True} if credentials and "*" not in origins else {}),
        }


def _addresses(given: Reader, found: Behaviour) -> None:
    for key, names in (
        ("allow", ("whitelist-source-range", "allowlist-source-range")),
        ("deny", ("denylist-source-range",)),
    ):
        for name in names:
            if not given.has(name):
                continue
            entries = _listed(given.text(name))
            try:
                networks = [str(ipaddress.ip_network(one, strict=False)) for one in entries]
                if not networks:
                    raise ValueError("there is no network in it")
            except ValueError as error:
                message = f"{error}, so the requests of this Ingress get 500"
                given.fault(name, message, "write networks such as 192.0.2.0/24", "RequestsRejected")
                found.closed = True
                continue
            found.policies.setdefault("ip_access", {}).setdefault(key, []).extend(networks)


def _limits(given: Reader, found: Behaviour) -> None:
    burst = given.number("limit-burst-multiplier", 5, least=1)
    limits = [
        {"requests": count, "per": per, "burst": count * burst, "by": "ip", "scope": "local"}
        for name, per in (("limit-rps", "second"), ("limit-rpm", "minute"))
        if (count := given.number(name))
    ]
    if limits:
        found.policies["rate_limit"] = limits


def _canary(given: Reader, found: Behaviour) -> None:
    before = len(found.faults)
    header = given.checked("canary-by-header", _HEADER.fullmatch, "the name of a header")
    value = given.checked("canary-by-header-value", str.isprintable, "a text without control characters")
    pattern = given.checked("canary-by-header-pattern", _is_regex, "a regular expression of RE2")
    weight = given.number("canary-weight", most=_HEAVIEST)
    total = given.number("canary-weight-total", 100, least=1, most=_HEAVIEST)
    canary = given.flag("canary")
    wrong = len(found.faults) > before
    if not canary:
        return
    found.closed = found.closed or wrong  # it gets no requests until it is clear which ones are meant
    condition = {"exact": value} if value else {"regex": pattern} if pattern else {"exact": "always"}
    if given.has("canary-by-cookie"):
        given.fault(
            "canary-by-cookie", "it has no equal and no effect", "use canary-by-header or canary-weight"
        )
    found.canary = Canary(
        weight=min(weight, total),
        total=total,
        header=header.lower(),
        values=condition,
        never=not value and not pattern,
    )


def _is_regex(text: str) -> bool:
    try:
        check_regex(text)
    except Mistake:
        return False
    return True


def _affinity(given: Reader, found: Behaviour) -> None:
    name, path = given.text("session-cookie-name", "INGRESSCOOKIE"), given.text("session-cookie-path", "/")
    age = given.seconds("session-cookie-max-age")
    if not given.has("affinity"):
        return
    if given.text("affinity") != "cookie":
        given.fault(
            "affinity", f"'{given.text('affinity')}' has no equal", "write cookie", "InvalidAnnotation"
        )
        return
    found.route["session_affinity"] = {"cookie": {"name": name, "path": path, "ttl": f"{age}s"}}


def _traefik(given: Reader, found: Behaviour) -> None:
    if given.has("router.entrypoints"):
        names = _listed(given.text("router.entrypoints"))
        unknown = [one for one in names if one not in _ENTRY_POINTS]
        found.listeners = frozenset(_ENTRY_POINTS[one] for one in names if one in _ENTRY_POINTS)
        if unknown:
            message = f"there is no entry point {', '.join(unknown)}, so the requests of this Ingress get 500"
            given.fault("router.entrypoints", message, "write web, websecure or both", "RequestsRejected")
            found.closed = True
            found.listeners = frozenset((HTTP, HTTPS))
    if given.flag("router.tls", safe=True):
        found.listeners = frozenset((HTTPS,))
    matcher = given.text("router.pathmatcher", "PathPrefix")
    if matcher in ("Path", "PathPrefix"):
        found.path_type = "Exact" if matcher == "Path" else ""
    else:
        given.fault(
            "router.pathmatcher", f"'{matcher}' has no equal and no effect", "write Path or PathPrefix"
        )


def _basic_auth(given: Reader, found: Behaviour) -> None:
    if given.text("auth-type") != "basic":
        given.known.discard(f"{NGINX}auth-type")  # what it protects cannot be protected
        return
    kind = given.text("auth-secret-type", "auth-file")
    found.basic_auth = BasicAuth(
        secret=given.text("auth-secret"), by_name=kind == "auth-map", realm=given.text("auth-realm")
    )


_PARTS = (
    _redirects,
    _forwarding,
    _bodies_and_times,
    _cors,
    _addresses,
    _limits,
    _canary,
    _affinity,
    _basic_auth,
)


def _listed(text: str) -> list[str]:
    return list(_words(text))


def _words(text: str) -> Iterator[str]:
    return (one.strip() for one in text.split(",") if one.strip())
