"""Objects of Kubernetes as far as a gateway needs them: their metadata, and their spec as a frozen value."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from filters.language import INVALID, Path, Place, Problem, Problems, decoder_for
from filters.language.problems import short_repr
from xds_server.gateway_api import policy_specs
from xds_server.gateway_api.capture import SIDECAR
from xds_server.gateway_api.ingress_specs import NETWORKING, read_ingress, read_ingress_class
from xds_server.gateway_api.mesh_specs import MeshPolicySpec, UnreadablePolicy, is_account
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.gateway_api.route_specs import GrpcRouteSpec, HttpRouteSpec, StreamRouteSpec, TlsRouteSpec
from xds_server.gateway_api.specs import (
    GROUP,
    BackendTlsPolicySpec,
    GatewayClassSpec,
    GatewaySpec,
    ListenerSetSpec,
    ReferenceGrantSpec,
)

Spec = TypeVar("Spec")
_EMPTY: Mapping[str, str] = MappingProxyType({})
GATEWAY_LABEL = f"{policy_specs.GROUP}/gateway"
"""The label of a ConfigMap with files of the gateway language: the Gateway of its namespace that they are for."""
_CERTIFICATES = frozenset(("tls.crt", "tls.key", "ca.crt"))
"""The parts that are read of Secrets of any type."""
_WHOLE = frozenset(("Opaque", "kubernetes.io/basic-auth"))
"""The types of Secrets to whose keys policies may refer. Others, such as the releases of Helm, are large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The metadata of an object. `created` is its time in RFC 3339, which sorts as text; "" if it is unknown.

    Only Namespaces have `labels`, and ConfigMaps the one that names a Gateway; and nothing changes with a status, so that
    neither costs a new translation.
    """

    namespace: str
    name: str
    uid: str = ""
    generation: int = 0
    created: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return (self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


Key = tuple[str, str]
"""Namespace and name; the namespace is "" for kinds without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Object(Generic[Spec]):
    """An object. Two states of one are equal if a gateway is the same with both.

    `place` is where a manifest begins, None for an object of a cluster.
    """

    kind: str
    meta: Meta
    spec: Spec
    place: Place | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A port of a Service."""

    name: str
    port: int
    app_protocol: str
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A Service."""

    ports: tuple[ServicePort, ...]
    external: bool
    families: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    """The addresses that a load balancer gave it."""
    cluster_addresses: tuple[str, ...] = ()
    """Its addresses in the cluster. In a manifest they are not known yet."""
    headless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEndpoint:
    """An endpoint of an EndpointSlice. `ready` is true too if nothing says that it is not."""

    address: str
    ready: bool
    serving: bool
    zone: str
    pod: tuple[str, str] = ("", "")
    """Name and UID of its pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """A Pod: only that it exists matters, whether it has a sidecar, its service account, and its addresses."""

    sidecar: bool
    account: str = "default"
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSpec:
    """An EndpointSlice of a Service. `ports` has the port number of each name, None if it has none."""

    service: str
    family: str
    ports: Mapping[str, int | None]
    endpoints: tuple[SliceEndpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSpec:
    """A Secret or a ConfigMap with those of its bytes that a gateway may need. Nothing else stays in memory."""

    type: str
    data: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSpec:
    """A Namespace: only its labels matter."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects: its API group, its name, and the function that reads what is kept of it."""

    group: str
    name: str
    read: Callable[[Mapping[str, Any], Path, Problems], Any]
    namespaced: bool = True


def _spec(declared: type) -> Callable[[Mapping[str, Any], Path, Problems], Any]:
    decode = decoder_for(declared)

    def read(value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
        spec = value.get("spec")
        return decode({} if spec is None else spec, (*path, "spec"), problems)

    return read


def _service(value: Mapping[str, Any], _path: Path, _problems: Problems) -> ServiceSpec:
    spec = value.get("spec") or {}
    ports = tuple(
        ServicePort(
            name=one.get("name") or "",
            port=one["port"],
            app_protocol=one.get("appProtocol") or "",
            protocol=one.get("protocol") or "TCP",
        )
        for one in spec.get("ports") or ()
    )
    families = tuple(spec.get("ipFamilies") or ())
    ingress = ((value.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = tuple(one.get("ip") or one.get("hostname") or "" for one in ingress)
    inside = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return ServiceSpec(
        ports=ports,
        external=spec.get("type") == "ExternalName",
        families=families,
        addresses=addresses,
        cluster_addresses=tuple(one for one in inside if one not in ("", "None")),
        headless="None" in inside,
    )


def _slice(value: Mapping[str, Any], _path: Path, _problems: Problems) -> SliceSpec:
    labels = (value.get("metadata") or {}).get("labels") or {}
    return SliceSpec(
        service=labels.get("kubernetes.io/service-name", ""),
        family=value.get("addressType") or "IPv4",
        ports=MappingProxyType({one.get("name") or "": one.get("port") for one in value.get("ports") or ()}),
        endpoints=tuple(map(_endpoint, value.get("endpoints") or ())),
    )


def _endpoint(value: Mapping[str, Any]) -> SliceEndpoint:
    conditions = value.get("conditions") or {}
    ready = conditions.get("ready") is not False
    target = value.get("targetRef") or {}
    return SliceEndpoint(
        address=value["addresses"][0],
        ready=ready,
        serving=ready if conditions.get("serving") is None else bool(conditions["serving"]),
        zone=value.get("zone") or "",
        pod=(target.get("name") or "", target.get("uid") or ""),
    )


def _pod(value: Mapping[str, Any], _path: Path, _problems: Problems) -> PodSpec:
    return PodSpec(
        sidecar=SIDECAR in ((value.get("metadata") or {}).get("labels") or {}),
        account=(value.get("spec") or {}).get("serviceAccountName") or "default",
        addresses=frozenset(one["ip"] for one in (value.get("status") or {}).get("podIPs") or ()),
    )


def _secret(value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    type_ = value.get("type") or "Opaque"
    kept = None if type_ in _WHOLE else _CERTIFICATES
    data = _decoded(value, "data", kept, path, problems)
    if data is INVALID:
        return INVALID
    plain = (value.get("stringData") or {}).items()
    data |= {key: str(text).encode() for key, text in plain if kept is None or key in kept}
    return SecretSpec(type=type_, data=MappingProxyType(data))


def _config_map(value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    binary = _decoded(value, "binaryData", None, path, problems)
    if binary is INVALID:
        return INVALID
    texts = {key: str(text).encode() for key, text in (value.get("data") or {}).items()}
    return SecretSpec(type="", data=MappingProxyType({**binary, **texts}))


def _decoded(
    value: Mapping[str, Any], part: str, kept: Collection[str] | None, path: Path, problems: Problems
) -> Any:
    """Return the bytes of the keys that are kept, None for all of them, or INVALID."""
    data: dict[str, bytes] = {}
    for key, text in (value.get(part) or {}).items():
        if kept is None or key in kept:
            try:
                data[key] = base64.b64decode(str(text), validate=True)
            except (binascii.Error, ValueError):
                where = (*path, part, key)
                problems.append(
                    Problem(path=where, message="not base64", remedy="encode it, or use stringData")
                )
                return INVALID
    return data


_read_mesh_policy = _spec(MeshPolicySpec)


def _mesh_policy(value: Mapping[str, Any], path: Path, problems: Problems) -> MeshPolicySpec:
    """Return a policy. One with problems is not left out, because then it would open what it protects."""
    found = Problems()
    spec = _read_mesh_policy(value, path, found)
    problems += found
    if spec is not INVALID:
        return cast("MeshPolicySpec", spec)
    written = value.get("spec")
    accounts = written.get("serviceAccounts") if isinstance(written, dict) else None
    readable = isinstance(accounts, list) and all(
        isinstance(one, str) and is_account(one) for one in accounts
    )
    return UnreadablePolicy(
        service_accounts=tuple(accounts or ()) if readable else (),
        faults=tuple(map(policy_specs.told, found)),
    )


KINDS = (
    Kind(GROUP, "GatewayClass", _spec(GatewayClassSpec), namespaced=False),
    Kind(GROUP, "Gateway", _spec(GatewaySpec)),
    Kind(GROUP, "ListenerSet", _spec(ListenerSetSpec)),
    Kind(GROUP, "HTTPRoute", _spec(HttpRouteSpec)),
    Kind(GROUP, "GRPCRoute", _spec(GrpcRouteSpec)),
    Kind(GROUP, "TLSRoute", _spec(TlsRouteSpec)),
    Kind(GROUP, "TCPRoute", _spec(StreamRouteSpec)),
    Kind(GROUP, "UDPRoute", _spec(StreamRouteSpec)),
    Kind(GROUP, "ReferenceGrant", _spec(ReferenceGrantSpec)),
    Kind(GROUP, "BackendTLSPolicy", _spec(BackendTlsPolicySpec)),
    Kind(policy_specs.GROUP, "GatewayParameters", _spec(GatewayParametersSpec)),
    *(Kind(policy_specs.GROUP, name, read) for name, read in policy_specs.READERS.items()),
    Kind("", "Service", _service),
    Kind("", "Secret", _secret),
    Kind("", "ConfigMap", _config_map),
    Kind("", "Namespace", lambda _value, _path, _problems: NamespaceSpec(), namespaced=False),
    Kind("discovery.k8s.io", "EndpointSlice", _slice),
    Kind("", "Pod", _pod),
    Kind(policy_specs.GROUP, "MeshPolicy", _mesh_policy),
    Kind(NETWORKING, "IngressClass", read_ingress_class, namespaced=False),
    Kind(NETWORKING, "Ingress", read_ingress),
)
"""The kinds that a gateway is made of. Others are not read."""
_BY_NAME = {(one.group, one.name): one for one in KINDS}


def _labels(kind: Kind, labels: Mapping[str, str]) -> Mapping[str, str]:
    if kind.name == "ConfigMap" and GATEWAY_LABEL in labels:
        return {GATEWAY_LABEL: str(labels[GATEWAY_LABEL])}
    return labels if kind.name == "Namespace" else _EMPTY


def kind_of(value: Mapping[str, Any]) -> Kind | None:
    """Return the kind of an object, or None if it is not one of those that are read."""
    group, slash, _ = str(value.get("apiVersion", "")).rpartition("/")
    return _BY_NAME.get((group if slash else "", str(value.get("kind", ""))))


def read_object(
    kind: Kind, value: Mapping[str, Any], path: Path, problems: Problems, place: Place | None = None
) -> Object[Any] | None:
    """Return an object, or None if it has problems, which are added to `problems`."""
    found = value.get("metadata")
    metadata = found if isinstance(found, Mapping) else {}
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        where = (*path, "metadata", "name")
        problems.append(
            Problem(path=where, message="an object needs a name", remedy="add metadata: {name: …}")
        )
        return None
    try:
        spec = kind.read(value, path, problems)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        problems.append(
            Problem(
                path=path,
                message=f"this is not a {kind.name}: {type(error).__name__} {error}",
                remedy="compare it with the reference of its kind",
                value=short_repr(value),
            )
        )
        return None
    if spec is INVALID:
        return None
    meta = Meta(
        namespace=str(metadata.get("namespace") or "default") if kind.namespaced else "",
        name=name,
        uid=str(metadata.get("uid") or ""),
        generation=int(metadata.get("generation") or 0),
        created=str(metadata.get("creationTimestamp") or ""),
        labels=_labels(kind, metadata.get("labels") or _EMPTY),
    )
    return Object(kind=kind.name, meta=meta, spec=spec, place=place)
