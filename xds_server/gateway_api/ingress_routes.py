"""One Ingress as it is on its own: which requests of which hosts it wants, what happens to them, and its certificates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from filters.identity import htpasswd
from filters.language import Mistake
from xds_server.gateway.certificates import is_for
from xds_server.gateway.model import hosts
from xds_server.gateway_api import names
from xds_server.gateway_api.backend_tls import BackendTls
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition, Fault
from xds_server.gateway_api.ingress_annotation_reader import shown
from xds_server.gateway_api.ingress_annotations import NGINX, Behaviour, behaviour
from xds_server.gateway_api.ingress_specs import (
    NETWORKING,
    Annotated,
    IngressBackend,
    IngressPath,
    IngressSpec,
)
from xds_server.gateway_api.listeners import certificate_fault
from xds_server.gateway_api.memory import remembered
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.route_specs import BackendObject, PathMatch
from xds_server.gateway_api.rules import path_text
from xds_server.gateway_api.specs import SecretReference
from xds_server.gateway_api.upstreams import ServiceUpstream, resolve

Ingress = Object[Annotated[IngressSpec]]
ALL_PATHS = "/*"
"""The path that stands for all of a host."""
_UNVERIFIED = BackendTls(hostname="", authorities="", names=(), verify=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Requests that an Ingress wants: a host ("" for all) and the condition on their path, with where they go.

    `upstream` is None if there is none. `name` is that of the route. `place` is where it is written, empty for the default backend.
    """

    host: str
    condition: Mapping[str, Any]
    upstream: ServiceUpstream | None
    rewrite: Mapping[str, Any]
    name: str
    place: tuple[str, ...]
    regex: bool = False
    """Whether the path is a regular expression, which comes before longer prefixes."""

    @property
    def key(self) -> tuple[str, str]:
        """Equal for claims that no request tells apart."""
        return self.host, str(self.condition["path"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Translated:
    """An Ingress in the gateway language, before it is merged with others.

    `defaults` want what no other claim for the host has. `certificates` has hosts ("" for all) with their Secret, None if
    it cannot be used.
    """

    key: Key
    claims: tuple[Claim, ...]
    defaults: tuple[Claim, ...]
    certificates: tuple[tuple[str, Key | None], ...]
    behaviour: Behaviour
    contents: Mapping[str, bytes]
    """Files to which policies refer."""
    faults: tuple[Fault, ...]


@remembered
def translate(ingress: Ingress, cluster: Cluster) -> Translated:
    """Return an Ingress in the gateway language."""
    found = behaviour(ingress.spec.annotations)
    faults = list(found.faults)
    contents = dict(_users(ingress, found, cluster, faults))
    claims = tuple(_claims(ingress, found, cluster, faults))
    defaults = tuple(_defaults(ingress, found, cluster, faults))
    return Translated(
        key=ingress.meta.key,
        claims=claims,
        defaults=defaults,
        certificates=tuple(_certificates(ingress, cluster, faults)),
        behaviour=found,
        contents=contents,
        faults=tuple(faults),
    )


def _claims(ingress: Ingress, found: Behaviour, cluster: Cluster, faults: list[Fault]) -> Iterator[Claim]:
    for number, rule in enumerate(ingress.spec.declared.rules):
        for position, one in enumerate(rule.http.paths if rule.http is not None else ()):
            place = ("spec", f"rules[{number}]", "http", f"paths[{position}]")
            path, order = _path(one, found)
            yield Claim(
                host=rule.host.lower(),
                condition={"path": path, **order, **_one_label(rule.host)},
                upstream=_upstream(one.backend, ingress, found, cluster, (*place, "backend"), faults),
                rewrite=_rewrite(one, path, found),
                name=names.of(*ingress.meta.key, "Ingress", f"{number:03}", f"{position:03}"),
                place=place,
                regex=path.startswith("~^(?i:"),
            )


def _defaults(ingress: Ingress, found: Behaviour, cluster: Cluster, faults: list[Fault]) -> Iterator[Claim]:
    """Yield a claim on what is left of each host of the Ingress, and of all hosts."""
    backend = ingress.spec.declared.default_backend
    if backend is None:
        return
    upstream = _upstream(backend, ingress, found, cluster, ("spec", "defaultBackend"), faults)
    every_host = dict.fromkeys([*(one.host.lower() for one in ingress.spec.declared.rules), ""])
    for number, host in enumerate(every_host):
        yield Claim(
            host=host,
            condition={"path": ALL_PATHS, **_one_label(host)},
            upstream=upstream,
            rewrite={},
            name=names.of(*ingress.meta.key, "Ingress", "default", f"{number:03}"),
            place=(),
        )


def _path(path: IngressPath, found: Behaviour) -> tuple[str, Mapping[str, int]]:
    """Return a path in the gateway language, and its order among regular expressions, of which the longest one wins."""
    kind: str = path.path_type
    value = path.path or "/"
    if kind == "ImplementationSpecific":
        kind = found.path_type or "Prefix"
        value = re.sub(r"/\*$", "/", value) if not found.regex else value
    if kind == "Exact":
        return path_text(PathMatch(type="Exact", value=value)), {}
    if found.regex:
        return f"~^(?i:{value})", {"order": -len(value)}
    return path_text(PathMatch(type="PathPrefix", value=value)), {}


def _rewrite(path: IngressPath, text: str, found: Behaviour) -> Mapping[str, Any]:
    """Return the change of the path, which nginx replaces as a whole."""
    if not found.rewrite:
        return {}
    if text.startswith("~"):
        substitution = re.sub(r"\$(\d)", r"\\\1", found.rewrite.replace("\\", r"\\"))
        return {"regex": f"^(?i:{path.path or '/'}).*$", "substitution": substitution}
    return {"path": found.rewrite}


def _one_label(host: str) -> Mapping[str, Any]:
    """Return the condition that a wildcard stands for one label only, as the specification of Ingress says."""
    if not host.startswith("*."):
        return {}
    return {"headers": {":authority": {"regex": rf"(?i)[^.]+{re.escape(host[1:])}\.?(:[0-9]+)?"}}}


def _upstream(
    backend: IngressBackend,
    ingress: Ingress,
    found: Behaviour,
    cluster: Cluster,
    place: tuple[str, ...],
    faults: list[Fault],
) -> ServiceUpstream | None:
    """Return the upstream of a backend, or None, which is noted as a fault."""
    resolved = _resolved(backend, ingress, cluster)
    if isinstance(resolved, Condition):
        remedy = "correct it; its requests get 500"
        faults.append(Fault(path=place, message=resolved.message, remedy=remedy, reason=resolved.reason))
        return None
    if not resolved.usable:
        message = f"the BackendTLSPolicy {'/'.join(resolved.policy or ())} cannot be used"
        faults.append(Fault(path=place, message=message, remedy="see its status", reason="InvalidBackend"))
        return None
    encrypted = _UNVERIFIED if found.encrypted and resolved.tls is None else resolved.tls
    protocol = found.protocol or resolved.protocol
    return replace(resolved, protocol=protocol, tls=encrypted, connect_timeout=found.connect_timeout)


def _resolved(backend: IngressBackend, ingress: Ingress, cluster: Cluster) -> ServiceUpstream | Condition:
    if backend.service is None:
        kind = backend.resource.kind if backend.resource is not None else "backend without a Service"
        return Condition("ResolvedRefs", False, "InvalidKind", f"a {kind} is not a Service")
    port, name = backend.service.port, backend.service.name
    number = port.number
    if port.name is not None:
        service = cluster.service((ingress.meta.namespace, name))
        ports = service.spec.ports if service is not None else ()
        number = next((one.port for one in ports if one.name == port.name), None)
        if service is not None and number is None:
            message = f"the Service {ingress.meta.namespace}/{name} has no port {port.name}"
            return Condition("ResolvedRefs", False, "BackendNotFound", message)
    reference = BackendObject(name=name, port=number)
    return resolve(reference, "Ingress", ingress.meta.namespace, cluster, group=NETWORKING)


def _users(
    ingress: Ingress, found: Behaviour, cluster: Cluster, faults: list[Fault]
) -> Iterator[tuple[str, bytes]]:
    """Yield the file of users for basic authentication. If it cannot be used, the requests must fail."""
    given = found.basic_auth
    if given is None:
        return
    try:
        namespace, _, name = given.secret.rpartition("/")
        if namespace not in ("", ingress.meta.namespace):
            raise Mistake("the Secret is in another namespace", "copy it into that of the Ingress")
        content = _htpasswd((ingress.meta.namespace, name), by_name=given.by_name, cluster=cluster)
        htpasswd.users(content)
    except Mistake as mistake:
        place = ("metadata", "annotations", f"{NGINX}auth-secret")
        message = f"{mistake.message}, so the requests of this Ingress get 500"
        faults.append(Fault(path=place, message=message, remedy=mistake.remedy, reason="RequestsRejected"))
        found.closed = True
        return
    path = f"{ingress.meta.namespace}/{name}/auth"
    realm = {"realm": given.realm} if given.realm else {}
    found.policies["basic_auth"] = {"htpasswd": {"file": path}, **realm}
    yield path, content


def _htpasswd(key: Key, *, by_name: bool, cluster: Cluster) -> bytes:
    """Return the users of a Secret as an htpasswd file. Raises Mistake."""
    secret = cluster.secret(key)
    if secret is None:
        raise Mistake(f"there is no Secret {'/'.join(key)}", "add it, or correct the name")
    data = secret.spec.data
    if by_name:
        return b"".join(name.encode() + b":" + value + b"\n" for name, value in sorted(data.items()))
    if "auth" not in data:
        raise Mistake(f"the Secret {'/'.join(key)} has no key auth", "add what htpasswd -B writes")
    return data["auth"]


def _certificates(
    ingress: Ingress, cluster: Cluster, faults: list[Fault]
) -> Iterator[tuple[str, Key | None]]:
    for number, one in enumerate(ingress.spec.declared.tls):
        place = ("spec", f"tls[{number}]", "secretName")
        key: Key | None = (ingress.meta.namespace, one.secret_name)
        if not one.secret_name:
            message, remedy = "there is no Secret, so its hosts have no TLS", "name one"
            faults.append(Fault(path=place, message=message, remedy=remedy, reason="InvalidCertificate"))
            key = None
        elif (wrong := _certificate_fault(ingress, one.secret_name, cluster)) is not None:
            remedy = "correct it; until then its hosts have no TLS"
            faults.append(Fault(path=place, message=wrong, remedy=remedy, reason="InvalidCertificate"))
            key = None
        for host in map(str.lower, one.hosts or ("",)):
            if host and (host == hosts.ANY_HOST or any(hosts.check([host]))):
                message, remedy = f"'{shown(host)}' is not a host", "write api.example.com or *.example.com"
                wrong_host = ("spec", f"tls[{number}]", "hosts")
                faults.append(
                    Fault(path=wrong_host, message=message, remedy=remedy, reason="InvalidCertificate")
                )
                continue
            if key is not None and host and not _is_for(key, host, cluster):
                message = f"the certificate of the Secret {'/'.join(key)} is not for {host}"
                remedy = "add the name to the certificate; until then clients reject it"
                faults.append(Fault(path=place, message=message, remedy=remedy, reason="InvalidCertificate"))
            yield host, key


def _is_for(key: Key, host: str, cluster: Cluster) -> bool:
    secret = cluster.secret(key)
    assert secret is not None, "checked before"
    return is_for(secret.spec.data["tls.crt"], host)


def _certificate_fault(ingress: Ingress, name: str, cluster: Cluster) -> str | None:
    reference = SecretReference(name=name)
    wrong = certificate_fault(ingress, reference, (ingress.meta.namespace, name), cluster)
    return wrong.message if wrong is not None else None
