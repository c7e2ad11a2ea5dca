"""The pods of a Gateway: an Envoy, and beside it a policy server if a policy needs one. It does no IO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from xds_server.controller import policy_servers
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.mounted_identity import TOKEN, MountedIdentity
from xds_server.proxy.probes import DRAIN, READY, TOKEN_HEADER, Drain
from xds_server.translate.readable import plain

MOUNTED = MountedIdentity(folder=PurePosixPath("/var/run/xds-gateway"))
READY_PORT = 19003
"""The port of the readiness probe. It is not a port of the gateway."""
DRAIN_SECONDS = 30
"""How long a pod that ends goes on to serve, by default."""
_ADMIN_PORT = 19000
_TOKEN_SECONDS = 3600
_GRACE = 10
"""Seconds that a pod gets to end after it has drained."""
_USER = 65532
_POD_NAME = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
_MOUNT = {"name": "identity", "mountPath": str(MOUNTED.folder), "readOnly": True}
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
    `own_image` is the image with the command `xds`.
    """

    xds_address: str
    audience: str
    image: str
    replicas: int = 2
    own_image: str
    counters: str = "memory"
    """Where policy servers count limits: memory, or the URL of a Redis."""
    cache: str = "memory"
    """Where policy servers share responses and purges: memory (nowhere), or the URL of a Redis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodShape:
    """What the pods of one Gateway are made of. `group` is the Gateway, and `account` their service account and ConfigMap."""

    group: str
    account: str
    ports: Sequence[Port]
    settings: EnvoySettings
    parameters: GatewayParametersSpec
    drain_token: str
    policy_server: bool


def pod(shape: PodShape) -> dict[str, Any]:
    """Return the spec of the pods."""
    containers, volumes = [_envoy(shape)], [_identity(shape)]
    if shape.policy_server:
        containers[0]["volumeMounts"].append(_SHARED)
        containers.append(_policy_server(shape))
        volumes += [{"name": one["name"], "emptyDir": {}} for one in (_SHARED, _TMP)]
    given = shape.parameters
    placed = {
        "nodeSelector": dict(given.node_selector) if given.node_selector is not None else None,
        "tolerations": [dict(one) for one in given.tolerations] if given.tolerations is not None else None,
        "affinity": dict(given.affinity) if given.affinity is not None else None,
        "topologySpreadConstraints": [dict(one) for one in given.topology_spread_constraints]
        if given.topology_spread_constraints is not None
        else None,
        "priorityClassName": given.priority_class_name,
    }
    return {
        "serviceAccountName": shape.account,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _drain_seconds(shape) + _GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,  # which may read the token
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": containers,
        "volumes": volumes,
        **{key: value for key, value in placed.items() if value is not None},
    }


def _drain_seconds(shape: PodShape) -> int:
    given = shape.parameters.drain_seconds
    return DRAIN_SECONDS if given is None else given


def _envoy(shape: PodShape) -> dict[str, Any]:
    resources = shape.parameters.resources
    hook = {
        "path": DRAIN,
        "port": "ready",
        "httpHeaders": [{"name": TOKEN_HEADER, "value": shape.drain_token}],
    }
    return {
        "name": "envoy",
        "image": shape.parameters.image or shape.settings.image,
        "args": [
            "--config-yaml",
            _bootstrap(shape),
            "--service-node",
            "$(POD_NAME)",
            "--log-level",
            "warning",
        ],
        "env": [_POD_NAME],
        "volumeMounts": [_MOUNT],
        "ports": [{"containerPort": port, "protocol": transport} for port, transport in shape.ports]
        + [{"name": "ready", "containerPort": READY_PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": READY, "port": "ready"}, "periodSeconds": 5},
        "lifecycle": {"preStop": {"httpGet": hook}},
        "securityContext": _CONFINED,
        **({"resources": dict(resources)} if resources is not None else {}),
    }


def _bootstrap(shape: PodShape) -> str:
    """Return the bootstrap of an Envoy, whose id comes from a flag."""
    message = bootstrap(
        xds_address=shape.settings.xds_address,
        node_id="",
        cluster=shape.group,
        admin_port=_ADMIN_PORT,
        ready_port=READY_PORT,
        drain=Drain(token=shape.drain_token, time=timedelta(seconds=_drain_seconds(shape))),
        tls=MOUNTED,
    )
    return json.dumps(plain(message), sort_keys=True)


def _identity(shape: PodShape) -> dict[str, Any]:
    token = {"path": TOKEN, "audience": shape.settings.audience, "expirationSeconds": _TOKEN_SECONDS}
    sources = [{"serviceAccountToken": token}, {"configMap": {"name": shape.account}}]
    return {"name": _MOUNT["name"], "projected": {"sources": sources}}


def _policy_server(shape: PodShape) -> dict[str, Any]:
    """Return the container of a policy server. It is ready when it listens, which it does when it has its rules.

    It serves as long as the Envoy beside it, which drains.
    """
    path = policy_servers.ADDRESS.removeprefix("unix:")
    connects = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
    options = {
        "--xds": shape.settings.xds_address,
        "--ca": str(MOUNTED.authorities),
        "--token": str(MOUNTED.token),
        "--listen": policy_servers.ADDRESS,
        "--admin": policy_servers.ADMIN,
        "--node-id": "$(POD_NAME)",
        "--workers": "1",
        "--counters": shape.settings.counters,
        "--cache": shape.settings.cache,
    }
    wait = ["python", "-ISc", f"import time; time.sleep({_drain_seconds(shape)})"]
    return {
        "name": "policy-server",
        "image": shape.settings.own_image,
        "args": ["policy-server", *(part for option in options.items() for part in option)],
        "env": [_POD_NAME],
        "readinessProbe": {"exec": {"command": ["python", "-ISc", connects]}, "periodSeconds": 5},
        "lifecycle": {"preStop": {"exec": {"command": wait}}},
        "volumeMounts": [_MOUNT, _SHARED, _TMP],
        "securityContext": _CONFINED,
    }
