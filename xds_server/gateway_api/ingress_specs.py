"""Ingress and IngressClass (networking.k8s.io/v1) as frozen values, with the annotations that concern a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

from filters.language import INVALID, Path, Problems, decoder_for, option
from xds_server.gateway_api.specs import LocalReference, ParametersReference

NETWORKING = "networking.k8s.io"
"""The API group."""
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
"""The annotation that named the class before `ingressClassName`, and still has precedence."""
HTTP_ANNOTATION = "kubernetes.io/ingress.allow-http"
"""The annotation with which an Ingress forgoes plain HTTP, if it is `false`."""
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
"""The annotation of the IngressClass of Ingresses that name none."""
Declared = TypeVar("Declared")
_EMPTY: Mapping[str, str] = MappingProxyType({})
_OTHERS = frozenset(
    ("nginx.org", "konghq.com", "haproxy.org", "haproxy-ingress.github.io", "projectcontour.io")
)
"""Prefixes of annotations of other controllers that do not say `ingress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePortReference:
    """A port of a Service, by its name or its number."""

    name: str | None = option("Its name.", default=None)
    number: int | None = option("Its number.", default=None, minimum=1, maximum=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressService:
    """A Service of the Ingress's own namespace."""

    name: str = option("Its name.")
    port: ServicePortReference = option("The port.", default=ServicePortReference())


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressBackend:
    """Where requests go: a Service."""

    service: IngressService | None = option("A Service.", default=None)
    resource: LocalReference | None = option("Another object.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressPath:
    """Some paths of a host."""

    path: str = option("The path.", default="/")
    path_type: Literal["Exact", "Prefix", "ImplementationSpecific"] = option(
        "How it is compared.", key="pathType"
    )
    backend: IngressBackend = option("Where the requests go.")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressPaths:
    """The paths of a rule."""

    paths: tuple[IngressPath, ...] = option("The paths.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressRule:
    """The paths of a host."""

    host: str = option("The host, exact or `*.example.com`; empty for all.", default="")
    http: IngressPaths | None = option(
        "The paths; without them, all requests go to the default backend.", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressTls:
    """A certificate."""

    hosts: tuple[str, ...] = option("The hosts; all if there are none.", default=())
    secret_name: str = option("The Secret with the certificate.", default="", key="secretName")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressSpec:
    """Ingress."""

    ingress_class_name: str | None = option("The class.", default=None, key="ingressClassName")
    default_backend: IngressBackend | None = option(
        "Where requests go that match no rule.", default=None, key="defaultBackend"
    )
    tls: tuple[IngressTls, ...] = option("Certificates.", default=())
    rules: tuple[IngressRule, ...] = option("Hosts and paths.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressClassParameters(ParametersReference):
    """The parameters of an IngressClass."""

    group: str = option("The API group.", default="", key="apiGroup")
    scope: Literal["Cluster", "Namespace"] = option("Whether they have a namespace.", default="Cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressClassSpec:
    """IngressClass."""

    controller: str = option("The controller that serves Ingresses of this class.")
    parameters: IngressClassParameters | None = option("Parameters.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated(Generic[Declared]):
    """The spec of an object with those of its annotations that concern a gateway."""

    declared: Declared
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY)


_read_ingress, _read_class = decoder_for(IngressSpec), decoder_for(IngressClassSpec)


def read_ingress(value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    """Return an Ingress, or INVALID."""
    return _annotated(_read_ingress, value, path, problems)


def read_ingress_class(value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    """Return an IngressClass, or INVALID."""
    return _annotated(_read_class, value, path, problems)


def _annotated(decode: Any, value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    declared = decode(value.get("spec") or {}, (*path, "spec"), problems)
    if declared is INVALID:
        return INVALID
    given = (value.get("metadata") or {}).get("annotations") or {}
    kept = {key: str(text) for key, text in sorted(given.items()) if _concerns(key)}
    return Annotated(declared=declared, annotations=MappingProxyType(kept))


def _concerns(annotation: str) -> bool:
    """True if an annotation is for a gateway. Tools write others, which are large and change often."""
    prefix = annotation.partition("/")[0]
    own = prefix == "xds-gateway.dev"
    return (
        own or "ingress" in prefix or prefix in _OTHERS or annotation in (CLASS_ANNOTATION, HTTP_ANNOTATION)
    )
