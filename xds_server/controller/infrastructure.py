"""The objects that serve a Gateway: a Deployment of Envoys with its ServiceAccount, ConfigMap and Service. It does no IO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from xds_server.controller import policy_servers
from xds_server.gateway_api.objects import Object
from xds_server.gateway_api.specs import GROUP, GatewaySpec
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.mounted_identity import TOKEN, MountedIdentity
from xds_server.translate.readable import plain

LABEL = f"{GROUP}/gateway-name"
"""The label of these objects (GEP-1762)."""
READY_PORT = 19003
"""The port of the readiness probe. It is not a port of the gateway."""
_IDENTITY = "identity"
_MOUNTED = MountedIdentity(folder=PurePosixPath("/var/run/xds-gateway"))
_TOKEN_SECONDS = 3600
_USER = 65532
_CLASS_LABEL = f"{GROUP}/gateway-class-name"
_LONGEST = 63
_POD_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
_MOUNT = {"name": _IDENTITY, "mountPath": str(_MOUNTED.folder), "readOnly": True}
_SHARED = {"name": "run", "mountPath": policy_servers.FOLDER}
_TMP = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - a volume of the pod
_CONFINED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
Port = tuple[int, str]
"""A port with TCP or UDP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoySettings:
    """The Envoys of all Gateways.

    `xds_address` is where they reach the control plane, whose certificate has that host. Their tokens are for `audience`.
    """

    xds_address: str
    audience: str
    image: str
    replicas: int = 2
    service_type: str = "LoadBalancer"
    own_image: str
    counters: str = "memory"
    """Where policy servers count limits: memory, or the URL of a Redis."""


def name_of(gateway: Object[GatewaySpec]) -> str:
    """Return the name of the objects of a Gateway, which a Service may have (RFC 1035, at most 63 characters)."""
    name = f"{gateway.meta.name}-{gateway.spec.gateway_class_name}"
    if len(name) <= _LONGEST and "." not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name.replace('.', '-')[: _LONGEST - 11].rstrip('-')}-{digest}"


def objects(
    gateway: Object[GatewaySpec],
    ports: Iterable[Port],
    settings: EnvoySettings,
    bundle: bytes,
    *,
    policy_server: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a Gateway, each after those that it needs.

    `bundle` has the authorities to trust, in PEM. With `policy_server`, each pod has one.
    """
    ports = sorted(ports)
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(gateway)}
    files = dict(_MOUNTED.files(bundle))
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(gateway), "data": files}
    yield _deployment(gateway, ports, settings, policy_server=policy_server)
    yield _service(gateway, ports, settings)


def _metadata(gateway: Object[GatewaySpec]) -> dict[str, Any]:
    infrastructure = gateway.spec.infrastructure
    labels = dict(infrastructure.labels) if infrastructure is not None else {}
    annotations = dict(infrastructure.annotations) if infrastructure is not None else {}
    owner = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "name": gateway.meta.name,
        "uid": gateway.meta.uid,
        "controller": True,
    }
    return {
        "name": name_of(gateway),
        "namespace": gateway.meta.namespace,
        "labels": {**labels, **_selector(gateway), _CLASS_LABEL: _label(gateway.spec.gateway_class_name)},
        "annotations": annotations,
        "ownerReferences": [owner],
    }


def _selector(gateway: Object[GatewaySpec]) -> dict[str, str]:
    return {LABEL: _label(gateway.meta.name)}


def _label(name: str) -> str:
    """Return a name as the value of a label, which has at most 63 characters."""
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 11].rstrip('.-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _deployment(
    gateway: Object[GatewaySpec], ports: Iterable[Port], settings: EnvoySettings, *, policy_server: bool
) -> dict[str, Any]:
    metadata = _metadata(gateway)
    containers = [_container(gateway, ports, settings)]
    volumes = [_volume(gateway, settings)]
    if policy_server:
        containers[0]["volumeMounts"].append(_SHARED)
        containers.append(_policy_server(settings))
        volumes += [{"name": one["name"], "emptyDir": {}} for one in (_SHARED, _TMP)]
    pod = {"labels": metadata["labels"], "annotations": metadata["annotations"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": settings.replicas,
            "selector": {"matchLabels": _selector(gateway)},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
            "template": {
                "metadata": pod,
                "spec": {
                    "serviceAccountName": name_of(gateway),
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": _USER,
                        "fsGroup": _USER,  # which may read the token
                        "seccompProfile": {"type": "RuntimeDefault"},
                        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
                    },
                    "containers": containers,
                    "volumes": volumes,
                },
            },
        },
    }


def _policy_server(settings: EnvoySettings) -> dict[str, Any]:
    """Return the container of a policy server. It is ready when it listens, which it does when it has its rules."""
    path = policy_servers.ADDRESS.removeprefix("unix:")
    connects = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
    options = {
        "--xds": settings.xds_address,
        "--ca": str(_MOUNTED.authorities),
        "--token": str(_MOUNTED.token),
        "--listen": policy_servers.ADDRESS,
        "--node-id": "$(POD_NAME)",
        "--workers": "1",
        "--counters": settings.counters,
    }
    return {
        "name": "policy-server",
        "image": settings.own_image,
        "args": ["policy-server", *(part for option in options.items() for part in option)],
        "env": [_POD_NAME],
        "readinessProbe": {"exec": {"command": ["python", "-ISc", connects]}, "periodSeconds": 5},
        "volumeMounts": [_MOUNT, _SHARED, _TMP],
        "securityContext": _CONFINED,
    }


def _container(
    gateway: Object[GatewaySpec], ports: Iterable[Port], settings: EnvoySettings
) -> dict[str, Any]:
    return {
        "name": "envoy",
        "image": settings.image,
        "args": [
            "--config-yaml",
            _bootstrap(gateway, settings),
            "--service-node",
            "$(POD_NAME)",
            "--log-level",
            "warning",
        ],
        "env": [_POD_NAME],
        "volumeMounts": [_MOUNT],
        "ports": [{"containerPort": port, "protocol": transport} for port, transport in ports]
        + [{"name": "ready", "containerPort": READY_PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "ready"}, "periodSeconds": 5},
        "securityContext": _CONFINED,
    }


def _volume(gateway: Object[GatewaySpec], settings: EnvoySettings) -> dict[str, Any]:
    token = {"path": TOKEN, "audience": settings.audience, "expirationSeconds": _TOKEN_SECONDS}
    sources = [{"serviceAccountToken": token}, {"configMap": {"name": name_of(gateway)}}]
    return {"name": _IDENTITY, "projected": {"sources": sources}}


def _bootstrap(gateway: Object[GatewaySpec], settings: EnvoySettings) -> str:
    """Return the bootstrap of an Envoy. Its cluster is the key of the Gateway, and its id comes from a flag."""
    message = bootstrap(
        xds_address=settings.xds_address,
        node_id="",
        cluster="/".join(gateway.meta.key),
        admin_port=19000,
        ready_port=READY_PORT,
        tls=_MOUNTED,
    )
    return json.dumps(plain(message), sort_keys=True)


def _service(gateway: Object[GatewaySpec], ports: Iterable[Port], settings: EnvoySettings) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(gateway),
        "spec": {
            "type": settings.service_type,
            "selector": _selector(gateway),
            "externalTrafficPolicy": "Local",
            "ports": [
                {
                    "name": f"{transport.lower()}-{port}",
                    "port": port,
                    "targetPort": port,
                    "protocol": transport,
                }
                for port, transport in ports
            ],
        },
    }
