"""The specs of the Gateway API 1.7 (standard channel) as frozen values, field by field.

The API server has checked an object of a cluster. A manifest of a folder is checked by the same declarations, so a
misspelt field is told with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from filters.language import option

GROUP = "gateway.networking.k8s.io"
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReference:
    """An object of the same namespace."""

    group: str = option("The API group; empty for the core.", default="")
    kind: str = option("The kind.")
    name: str = option("The name.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretReference:
    """A Secret, or another object with a certificate, perhaps of another namespace."""

    group: str = option("The API group; empty for the core.", default="")
    kind: str = option("The kind.", default="Secret")
    name: str = option("The name.")
    namespace: str | None = option("The namespace; default the object's own.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentReference:
    """A Gateway (or another parent) to which a route attaches."""

    group: str = option("The API group.", default=GROUP)
    kind: str = option("The kind.", default="Gateway")
    name: str = option("The name.")
    namespace: str | None = option("The namespace; default the route's own.", default=None)
    section_name: str | None = option("Only this listener.", default=None, key="sectionName")
    port: int | None = option("Only listeners of this port.", default=None, minimum=1, maximum=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParametersReference:
    """An object with parameters of a class."""

    group: str = option("The API group.")
    kind: str = option("The kind.")
    name: str = option("The name.")
    namespace: str | None = option("The namespace, if the kind has one.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayClassSpec:
    """GatewayClass."""

    controller_name: str = option("The controller that serves Gateways of this class.", key="controllerName")
    description: str = option("For people.", default="")
    parameters_ref: ParametersReference | None = option("Parameters.", default=None, key="parametersRef")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequirement:
    """One condition on a label."""

    key: str = option("The label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = option("The condition.")
    values: tuple[str, ...] = option("Values of In and NotIn.", default=())

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the labels fulfil it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
        return self.key not in labels


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """Conditions on labels; all of them must hold."""

    match_labels: Mapping[str, str] = option("Exact values.", default=_EMPTY, key="matchLabels")
    match_expressions: tuple[LabelRequirement, ...] = option(
        "Other conditions.", default=(), key="matchExpressions"
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the labels fulfil all conditions."""
        exact = all(labels.get(key) == value for key, value in self.match_labels.items())
        return exact and all(one.matches(labels) for one in self.match_expressions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteNamespaces:
    """The namespaces whose objects may attach."""

    from_: Literal["All", "Same", "Selector", "None"] = option("Which.", default="Same", key="from")
    selector: LabelSelector = option("Labels of namespaces.", default=LabelSelector())

    def allow(self, namespace: str, own: str, labels: Callable[[str], Mapping[str, str]]) -> bool:
        """True if objects of a namespace may attach to an object of the namespace `own`."""
        match self.from_:
            case "All":
                return True
            case "Same":
                return namespace == own
            case "Selector":
                return self.selector.matches(labels(namespace))
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteKind:
    """A kind of routes."""

    group: str = option("The API group.", default=GROUP)
    kind: str = option("The kind.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedRoutes:
    """The routes that may attach to a listener."""

    namespaces: RouteNamespaces = option("Their namespaces.", default=RouteNamespaces())
    kinds: tuple[RouteKind, ...] = option("Their kinds; default those of the protocol.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """TLS of a listener."""

    mode: Literal["Terminate", "Passthrough"] = option("Who ends TLS.", default="Terminate")
    certificate_refs: tuple[SecretReference, ...] = option("Certificates.", default=(), key="certificateRefs")
    options: Mapping[str, str] = option("Options of implementations.", default=_EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSpec:
    """One listener of a Gateway."""

    name: str = option("Its name.")
    hostname: str | None = option("The host, exact or `*.example.com`.", default=None)
    port: int = option("The port.", minimum=1, maximum=65535)
    protocol: str = option("HTTP, HTTPS, TLS, TCP, UDP, or one of an implementation.")
    tls: ListenerTls | None = option("TLS.", default=None)
    allowed_routes: AllowedRoutes = option(
        "Routes that may attach.", default=AllowedRoutes(), key="allowedRoutes"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSpec:
    """An address that a Gateway wants."""

    type: str = option("IPAddress, Hostname, or one of an implementation.", default="IPAddress")
    value: str = option("The address; empty: the implementation assigns one.", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Infrastructure:
    """What the objects that serve a Gateway get."""

    labels: Mapping[str, str] = option("Labels.", default=_EMPTY)
    annotations: Mapping[str, str] = option("Annotations.", default=_EMPTY)
    parameters_ref: LocalReference | None = option("Parameters.", default=None, key="parametersRef")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReference:
    """An object, perhaps of another namespace."""

    group: str = option("The API group; empty for the core.")
    kind: str = option("The kind.")
    name: str = option("The name.")
    namespace: str | None = option("The namespace; default the object's own.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendValidation:
    """How the certificates of clients are verified."""

    authorities: tuple[ObjectReference, ...] = option("Authorities.", key="caCertificateRefs")
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = option(
        "Whether a connection needs a valid certificate.", default="AllowValidOnly"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendTlsConfig:
    """TLS towards clients of HTTPS listeners."""

    validation: FrontendValidation | None = option("Client certificates.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortTls:
    """TLS towards clients of one port."""

    port: int = option("The port.", minimum=1, maximum=65535)
    tls: FrontendTlsConfig = option("TLS, in place of the default.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendTls:
    """TLS towards clients."""

    default: FrontendTlsConfig = option("Of all HTTPS listeners.")
    per_port: tuple[PortTls, ...] = option("Of single ports.", default=(), key="perPort")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendClientTls:
    """TLS towards backends."""

    client_certificate: SecretReference | None = option(
        "The certificate that the Gateway presents.", default=None, key="clientCertificateRef"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTls:
    """TLS of a Gateway beyond the certificates of its listeners."""

    frontend: FrontendTls | None = option("Towards clients.", default=None)
    backend: BackendClientTls | None = option("Towards backends.", default=None)

    def validation(self, port: int) -> FrontendValidation | None:
        """Return how certificates of clients are verified at a port."""
        if self.frontend is None:
            return None
        own = next((one.tls for one in self.frontend.per_port if one.port == port), None)
        return (own or self.frontend.default).validation


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedListeners:
    """The ListenerSets that may attach to a Gateway."""

    namespaces: RouteNamespaces = option("Their namespaces.", default=RouteNamespaces(from_="None"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySpec:
    """Gateway."""

    gateway_class_name: str = option("The class.", key="gatewayClassName")
    listeners: tuple[ListenerSpec, ...] = option("The listeners.")
    addresses: tuple[AddressSpec, ...] = option("Addresses.", default=())
    infrastructure: Infrastructure | None = option("Labels and annotations.", default=None)
    allowed_listeners: AllowedListeners = option(
        "ListenerSets that may attach.", default=AllowedListeners(), key="allowedListeners"
    )
    tls: GatewayTls = option("TLS towards clients and backends.", default=GatewayTls())


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentGateway:
    """The Gateway of a ListenerSet."""

    group: str = option("The API group.", default=GROUP)
    kind: str = option("The kind.", default="Gateway")
    name: str = option("The name.")
    namespace: str | None = option("The namespace; default the ListenerSet's own.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSetSpec:
    """ListenerSet."""

    parent_ref: ParentGateway = option("The Gateway.", key="parentRef")
    listeners: tuple[ListenerSpec, ...] = option("The listeners.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantFrom:
    """Whose references are allowed."""

    group: str = option("The API group.")
    kind: str = option("The kind.")
    namespace: str = option("The namespace.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTo:
    """What may be referred to."""

    group: str = option("The API group; empty for the core.")
    kind: str = option("The kind.")
    name: str | None = option("Only this object.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceGrantSpec:
    """ReferenceGrant."""

    from_: tuple[GrantFrom, ...] = option("Whose references.", key="from")
    to: tuple[GrantTo, ...] = option("Of which objects.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTarget:
    """What a policy is for."""

    group: str = option("The API group; empty for the core.")
    kind: str = option("The kind.")
    name: str = option("The name.")
    section_name: str | None = option("Only this port of a Service.", default=None, key="sectionName")


@dataclass(frozen=True, slots=True, kw_only=True)
class AltName:
    """A name in a certificate."""

    type: Literal["Hostname", "URI"] = option("The kind.")
    hostname: str | None = option("A DNS name.", default=None)
    uri: str | None = option("A URI, such as a SPIFFE ID.", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How the certificate of a backend is verified."""

    authorities: tuple[LocalReference, ...] = option(
        "ConfigMaps with authorities.", default=(), key="caCertificateRefs"
    )
    well_known: Literal["System"] | None = option(
        "The system's authorities.", default=None, key="wellKnownCACertificates"
    )
    hostname: str = option("The server name (SNI), which the certificate must have.")
    subject_alt_names: tuple[AltName, ...] = option(
        "Names of which the certificate must have one, in place of the server name.",
        default=(),
        key="subjectAltNames",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTlsPolicySpec:
    """BackendTLSPolicy."""

    target_refs: tuple[PolicyTarget, ...] = option("The Services.", key="targetRefs")
    validation: Validation = option("How certificates are verified.")
    options: Mapping[str, str] = option("Options of implementations.", default=_EMPTY)
