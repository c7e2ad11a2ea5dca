"""Ingresses: all those of an IngressClass are one gateway, in which the older one of two that want the same wins.

https://kubernetes.io/docs/concepts/services-networking/ingress/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xds_server.gateway_api import names, parameters
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import CONTROLLER, Fault, IngressStatus
from xds_server.gateway_api.gateway_files import UPSTREAMS_FILE, GatewayFiles
from xds_server.gateway_api.hostnames import covers
from xds_server.gateway_api.ingress_annotations import HTTP, HTTPS, Canary
from xds_server.gateway_api.ingress_certificates import Certificates
from xds_server.gateway_api.ingress_routes import ALL_PATHS, Claim, Ingress, Translated, translate
from xds_server.gateway_api.ingress_specs import (
    CLASS_ANNOTATION,
    DEFAULT_ANNOTATION,
    Annotated,
    IngressClassSpec,
)
from xds_server.gateway_api.listeners import certificate_contents, secrets
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.translation import Translation, upstreams_file
from xds_server.gateway_api.upstreams import ServiceUpstream

IngressClass = Object[Annotated[IngressClassSpec]]
NAMESPACE = "@ingress"
"""Stands for the namespace in the key of an IngressClass. No Gateway has it, because a name of Kubernetes has no @."""
_PORTS = {HTTP: ("xds-gateway.dev/http-port", 80), HTTPS: ("xds-gateway.dev/https-port", 443)}
"""The annotations of an IngressClass with its ports."""
_PORT = re.compile(r"[0-9]{1,5}")
_ERROR: Mapping[str, Any] = {"respond": {"status": 500}}
_NOT_FOUND: Mapping[str, Any] = {"respond": {"status": 404}}
_FILE = "gateway.yaml"
_ANY_CLASS = "default"


def class_key(name: str) -> Key:
    """Return the key by which the Envoys of an IngressClass are served."""
    return NAMESPACE, name


def with_ingresses(
    translation: Translation,
    cluster: Cluster,
    *,
    controller: str = CONTROLLER,
    of_every_class: bool = False,
    live: bool = False,
) -> Translation:
    """Return a translation with the Ingresses of our classes.

    With `of_every_class`, each class that an Ingress names is ours, also one that does not exist.
    """
    found: dict[str, list[Ingress]] = {
        one.meta.name: []
        for one in cluster.all("IngressClass")
        if of_every_class or one.spec.declared.controller == controller
    }
    default = _default_class(cluster)
    for one in sorted(cluster.all("Ingress"), key=lambda one: (one.meta.created, one.meta.key)):
        name = class_of(one) or default or (_ANY_CLASS if of_every_class else "")
        if name in found or (of_every_class and name):
            found.setdefault(name, []).append(one)
    merged = {name: _Merge(name, some, cluster) for name, some in sorted(found.items())}
    return replace(
        translation,
        ingresses={class_key(name): one.files(live=live) for name, one in merged.items()},
        ingress_statuses=tuple(status for one in merged.values() for status in one.statuses()),
    )


def class_of(ingress: Ingress) -> str:
    """Return the class that an Ingress names; the annotation has precedence, as the specification says."""
    return ingress.spec.annotations.get(CLASS_ANNOTATION) or ingress.spec.declared.ingress_class_name or ""


def _default_class(cluster: Cluster) -> str:
    """Return the IngressClass of Ingresses that name none: the newest of those that are the default one, as in the API server."""
    marked = [
        one for one in cluster.all("IngressClass") if one.spec.annotations.get(DEFAULT_ANNOTATION) == "true"
    ]
    return max(marked, key=lambda one: (one.meta.created, one.meta.name)).meta.name if marked else ""


def _ports(one: IngressClass | None, faults: list[Fault]) -> Mapping[str, int]:
    """Return the ports of a class for requests without TLS and with it."""
    annotations = one.spec.annotations if one is not None else {}
    found: dict[str, int] = {}
    for kind, (key, default) in _PORTS.items():
        text = annotations.get(key, str(default))
        usable = _PORT.fullmatch(text) and 0 < int(text) < 2**16 and int(text) not in found.values()
        found[kind] = int(text) if usable else default
        if not usable:
            message = f"'{text[:100]}' is not a port, or the other one too, so it is {default}"
            place = ("metadata", "annotations", key)
            faults.append(
                Fault(path=place, message=message, remedy="write a number", reason="InvalidAnnotation")
            )
    return found


@dataclass(slots=True)
class _Merge:
    """The Ingresses of one class, the oldest first."""

    name: str
    ingresses: list[Ingress]
    cluster: Cluster
    ports: Mapping[str, int] = field(init=False)
    of_class: list[Fault] = field(init=False)
    """What is wrong with the class itself."""
    found: dict[Key, Translated] = field(init=False)
    faults: dict[Key, dict[Fault, None]] = field(init=False)
    """What is wrong with each Ingress, in order and once."""
    age: dict[Key, int] = field(init=False)
    """The place of each Ingress, the oldest first."""
    certificates: Certificates = field(init=False)
    taken: dict[tuple[str, tuple[str, str]], Key] = field(default_factory=dict)
    """Who has the requests of a listener, by host and path."""
    forgone: dict[tuple[str, tuple[str, str]], tuple[Key, Claim]] = field(default_factory=dict)
    """Who wants no requests of a listener, by host and path. No other namespace gets them instead."""
    namespaces: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """The namespaces with requests of a listener, by host."""
    first: dict[str, Key] = field(default_factory=dict)
    """The oldest Ingress of a host."""
    rest: dict[str, Key] = field(default_factory=dict)
    """The oldest Ingress with a default backend for a host. No younger one of another namespace gets all its paths."""
    canaries: dict[tuple[str, tuple[str, str]], tuple[Key, Claim]] = field(default_factory=dict)
    """The canaries of a namespace, by host and path."""
    routes: dict[Key, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    upstreams: dict[str, ServiceUpstream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Merge them."""
        own: IngressClass | None = self.cluster.objects.get("IngressClass", {}).get(("", self.name))
        self.of_class = []
        self.ports = _ports(own, self.of_class)
        wrong = parameters.of_ingress_class(own, self.cluster)[1] if own is not None else None
        if wrong is not None:
            remedy = "correct it; until then the class is served without them"
            place = ("spec", "parameters")
            self.of_class.append(Fault(path=place, message=wrong.message, remedy=remedy, reason=wrong.reason))
        self.found = {one.meta.key: translate(one, self.cluster) for one in self.ingresses}
        self.age = {key: number for number, key in enumerate(self.found)}
        self.faults = {key: dict.fromkeys(one.faults) for key, one in self.found.items()}
        self.certificates = Certificates(self.ports[HTTPS])
        for key, one in self.found.items():
            for host, secret in one.certificates:
                holder = self.certificates.claim(host, secret, key)
                if holder is not None:
                    self._conflict(key, ("spec", "tls"), f"the certificate of {host or 'all hosts'}", holder)
        self._merge()

    def _merge(self) -> None:
        served = {key: one for key, one in self.found.items() if one.behaviour.canary is None}
        for key, one in self.found.items():
            for claim in one.claims if key not in served else ():
                self.canaries.setdefault((key[0], claim.key), (key, claim))
        for key, one in served.items():
            for claim in (*one.claims, *one.defaults):
                self.first.setdefault(claim.host, key)
            for claim in one.defaults:
                self.rest.setdefault(claim.host, key)
        for key, one in served.items():
            for claim in one.claims:
                self._take(key, one, claim)
        for key, one in served.items():
            for claim in one.defaults:
                self._take(key, one, claim)
        self._refuse_forgone()
        holders = {(holder[0], requests) for (_, requests), holder in self.taken.items()}
        for namespace, (host, path) in self.canaries.keys() - holders:
            key, claim = self.canaries[namespace, (host, path)]
            what = f"the path {path} of {host or 'all hosts'}"
            message = f"it is a canary, and no other Ingress of its namespace has {what}"
            self._fault(key, claim.place, message, "add one", "Conflict")

    def _take(self, key: Key, one: Translated, claim: Claim) -> None:
        """Have the requests of a claim handled on each listener on which nobody has them yet."""
        routes = self.routes.setdefault(key, {})
        first = self.first[claim.host]
        if claim.regex and first[0] != key[0]:
            # it would come before the prefixes of the others
            what = f"{claim.host or 'the rest'}, where only its namespace may have regular expressions,"
            self._conflict(key, claim.place, what, first)
            return
        for kind in sorted(_PORTS.keys() - one.behaviour.listeners):
            self.forgone.setdefault((kind, claim.key), (key, claim))
        for kind in sorted(one.behaviour.listeners):
            holder = self._holder(key, claim, kind)
            if holder is not None:
                self._is_taken(key, one, claim, holder)
                continue
            self.taken[kind, claim.key] = key
            self.namespaces.setdefault((kind, claim.host), set()).add(key[0])
            where = self._where(claim, kind)
            for name, condition, action in self._variants(one, claim, kind) if where["listeners"] else ():
                routes[_named(name, kind)] = {**where, **condition, **action}

    def _holder(self, key: Key, claim: Claim, kind: str) -> Key | None:
        """Return who has the requests of a claim on a listener: also an Ingress of another namespace that keeps them for itself."""
        holder = self.taken.get((kind, claim.key))
        forgoing, _ = self.forgone.get((kind, claim.key), (key, claim))
        if holder is None and forgoing[0] != key[0]:
            return forgoing
        rest = self.rest.get(claim.host, key)
        keeps = rest[0] != key[0] and self.age[rest] < self.age[key]
        return rest if holder is None and keeps and claim.condition["path"] == ALL_PATHS else holder

    def _where(self, claim: Claim, kind: str) -> Mapping[str, Any]:
        listeners = [HTTP] if kind == HTTP else self.certificates.listeners_of(claim.host)
        return {"listeners": listeners, **({"hosts": [claim.host]} if claim.host else {})}

    def _refuse_forgone(self) -> None:
        """Have forgone requests answered with 404 if a shorter path of another namespace would take them."""
        for (kind, requests), (key, claim) in self.forgone.items():
            others = self.namespaces.get((kind, claim.host), set()) - {key[0]}
            where = self._where(claim, kind)
            if others and (kind, requests) not in self.taken and where["listeners"]:
                refused = {**where, **claim.condition, **_NOT_FOUND}
                self.routes[key][_named(claim.name, kind)] = refused

    def _is_taken(self, key: Key, one: Translated, claim: Claim, holder: Key) -> None:
        """Note that somebody else has the requests of a claim. What is left of a host may be nothing."""
        if claim.place:
            what = f"the path {claim.condition['path']} of {claim.host or 'all hosts'}"
            self._conflict(key, claim.place, what, holder)
        elif not one.claims:
            self._conflict(key, ("spec", "defaultBackend"), "what no other rule has", holder)

    def _variants(
        self, one: Translated, claim: Claim, kind: str
    ) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """Yield name, condition and action of the routes of a claim: several if there is a canary with a header."""
        if one.behaviour.closed:
            yield claim.name, claim.condition, _ERROR
            return
        if kind == HTTP and self._redirects(one, claim.host):
            port = {} if self.ports[HTTPS] == _PORTS[HTTPS][1] else {"port": self.ports[HTTPS]}
            yield claim.name, claim.condition, {"redirect": {"scheme": "https", "status": 308, **port}}
            return
        main = self._action(one, claim, claim.upstream)
        found = self._canary(one.key[0], claim) if "upstream" in main else None
        if found is None:
            yield claim.name, claim.condition, main
            return
        canary, upstream = found
        self.upstreams[upstream.name] = upstream
        changed = {**main, "upstream": upstream.name}
        if canary.header:
            yield f"{claim.name}.canary", _with_header(claim, canary.header, canary.values), changed
            if canary.never:
                never = _with_header(claim, canary.header, {"exact": "never"})
                yield f"{claim.name}.never", never, main
        if canary.weight:
            shares = [
                {"upstream": main["upstream"], "weight": canary.total - canary.weight},
                {"upstream": upstream.name, "weight": canary.weight},
            ]
            rest = {name: value for name, value in main.items() if name != "upstream"}
            main = {**rest, "split": shares}
        yield claim.name, claim.condition, main

    def _canary(self, namespace: str, claim: Claim) -> tuple[Canary, ServiceUpstream] | None:
        """Return the canary of a claim of its namespace with its upstream, unless it is wrong or has lost what may protect it."""
        if (namespace, claim.key) not in self.canaries:
            return None
        key, other = self.canaries[namespace, claim.key]
        found = self.found[key].behaviour
        if found.canary is None or found.closed or other.upstream is None:
            return None
        return found.canary, other.upstream

    def _redirects(self, one: Translated, host: str) -> bool:
        """True if plain HTTP for a host goes to HTTPS: by an annotation, or because the Ingress has TLS for it."""
        found = one.behaviour
        secure = found.redirects and any(covers(wide, host) for wide, _ in one.certificates)
        return HTTPS in found.listeners and (found.always_redirects or secure)

    def _action(self, one: Translated, claim: Claim, upstream: ServiceUpstream | None) -> Mapping[str, Any]:
        policies = {"policies": one.behaviour.policies} if one.behaviour.policies else {}
        if one.behaviour.instead is not None:
            return {**one.behaviour.instead, **policies}
        if upstream is None:
            return {**_ERROR, **policies}
        self.upstreams[upstream.name] = upstream
        given = dict(one.behaviour.route)
        if claim.rewrite:
            given["rewrite"] = {**given.get("rewrite", {}), **claim.rewrite}
        websocket = {"websocket": True} if upstream.protocol == "http1" else {}
        return {"upstream": upstream.name, **websocket, **given, **policies}

    def _conflict(self, key: Key, place: tuple[str, ...], what: str, holder: Key) -> None:
        other = f"the {'older ' if self.age[holder] < self.age[key] else ''}Ingress {'/'.join(holder)}"
        belongs = f"belongs to {other}" if holder != key else "is given twice"
        self._fault(key, place, f"{what} {belongs}", "choose another one, or remove one of them", "Conflict")

    def _fault(self, key: Key, place: tuple[str, ...], message: str, remedy: str, reason: str) -> None:
        self.faults[key][Fault(path=place, message=message, remedy=remedy, reason=reason)] = None

    def statuses(self) -> Iterable[IngressStatus]:
        """Yield what is wrong with the class and with each Ingress."""
        yield IngressStatus(
            kind="IngressClass",
            key=("", self.name),
            ingress_class=self.name,
            faults=tuple(self.of_class),
        )
        for key, faults in self.faults.items():
            yield IngressStatus(kind="Ingress", key=key, ingress_class=self.name, faults=tuple(faults))

    def files(self, *, live: bool) -> GatewayFiles:
        """Return the class in the gateway language: a file for its listeners, one for each Ingress, and one for upstreams."""
        certificates = self.certificates.used()
        listeners = {HTTP: {"port": self.ports[HTTP]}, **self.certificates.listeners()}
        first: dict[str, Any] = {"listeners": listeners}
        if certificates:
            first["secrets"] = secrets(certificates)
        files: dict[str, Mapping[str, Any]] = {_FILE: first}
        origins: dict[str, Object[Any]] = {}
        for one in self.ingresses:
            routes = self.routes.get(one.meta.key)
            if routes:
                file = f"Ingress/{'/'.join(one.meta.key)}.yaml"
                files[file], origins[file] = {"routes": routes}, one
        files[UPSTREAMS_FILE] = upstreams_file(self.upstreams, self.cluster, closes=False, live=live)
        return GatewayFiles(
            files=files,
            contents={
                **{path: content for one in self.found.values() for path, content in one.contents.items()},
                **dict(certificate_contents(certificates, self.cluster)),
            },
            origins=origins,
            upstreams=self.upstreams,
            ports=frozenset((port, "TCP") for port in self.ports.values()),
        )


def _named(name: str, kind: str) -> str:
    """Return the name of a route on a listener."""
    return names.of(name, *(() if kind == HTTPS else (kind,)))


def _with_header(claim: Claim, name: str, condition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the condition of a claim with one on a header."""
    return {**claim.condition, "headers": {**claim.condition.get("headers", {}), name: condition}}
