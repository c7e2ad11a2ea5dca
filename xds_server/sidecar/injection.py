"""Injection: whether a pod gets a sidecar, and the changes that add it (JSON Patch, RFC 6902)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from xds_server.gateway_api.capture import INJECT
from xds_server.gateway_api.capture import SIDECAR as SIDECAR_LABEL
from xds_server.gateway_api.mesh import mesh_key
from xds_server.gateway_api.specs import GROUP
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.probes import Drain, Probe
from xds_server.sidecar import draining, grpc_bootstrap
from xds_server.sidecar.identity import MOUNTED, VOLUME, SidecarSettings, volume
from xds_server.sidecar.probes import rewritten
from xds_server.translate.readable import plain

REDIRECT, SIDECAR = "xds-redirect", "xds-sidecar"
"""The names of the containers."""
USER = 1337
"""The user of a sidecar, whose connections are not redirected. No other container of the pod may have it."""
READY_PORT, ADMIN_PORT = 15021, 15000
EXCLUDE_INBOUND, EXCLUDE_OUTBOUND = (
    "xds-gateway.dev/exclude-inbound-ports",
    "xds-gateway.dev/exclude-outbound-ports",
)
"""Annotations with ports, separated by commas, whose connections pass the sidecar by."""
DRAIN_SECONDS = "xds-gateway.dev/drain-seconds"
"""The annotation that says how long the application goes on to serve when its pod ends."""
_GATEWAY_LABEL = f"{GROUP}/gateway-name"
_LAST_PORT = 65535
_LINGER = 20
"""Seconds for which connections stay whose listener has changed."""
_HEAP = 256 << 20
"""Bytes of memory of a sidecar above which it rejects requests."""


class RejectedPod(Exception):  # noqa: N818 - the answer to the API server, never an error of this program
    """A pod that cannot have a sidecar although it should. The message says why, and what to do."""


def patch(
    pod: Mapping[str, Any], namespace: str, settings: SidecarSettings, drain_token: str
) -> list[dict[str, Any]]:
    """Return the changes that give a pod its sidecar; none if it has one or does not want one. Raises RejectedPod.

    Whoever tells the sidecar to drain must know the token.
    """
    spec: Mapping[str, Any] = pod.get("spec") or {}
    metadata: Mapping[str, Any] = pod.get("metadata") or {}
    if not _wants(metadata, spec):
        return []
    if _mode(metadata) == grpc_bootstrap.MODE:
        return _for_grpc(spec, namespace, settings)
    _check(spec)
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    excluded = {key: _ports(annotations, key) for key in (EXCLUDE_INBOUND, EXCLUDE_OUTBOUND)}
    first, probes_of_first = rewritten(spec.get("initContainers") or (), READY_PORT)
    containers, probes = rewritten(spec.get("containers") or (), READY_PORT)
    drain = _drain(annotations, spec, drain_token)
    if drain is not None:
        containers = draining.waiting(containers, READY_PORT, drain_token)
    added = [
        _redirect(settings, excluded[EXCLUDE_INBOUND], excluded[EXCLUDE_OUTBOUND]),
        _sidecar(namespace, settings, {**probes_of_first, **probes}, drain),
    ]
    return [
        _written("initContainers", [*added, *first], spec),
        _written("containers", containers, spec),
        _written("volumes", [*(spec.get("volumes") or ()), volume(settings)], spec),
        {
            "op": "add",
            "path": "/metadata/labels",
            "value": {**(metadata.get("labels") or {}), SIDECAR_LABEL: "true"},
        },
    ]


def _for_grpc(spec: Mapping[str, Any], namespace: str, settings: SidecarSettings) -> list[dict[str, Any]]:
    """Return the changes with which the containers of a pod speak xDS themselves, without a sidecar."""
    if any(one.get("name") == VOLUME for one in spec.get("volumes") or ()):
        return []
    return [
        *(
            _written(key, [grpc_bootstrap.container(one, namespace, settings) for one in spec[key]], spec)
            for key in ("initContainers", "containers")
            if spec.get(key)
        ),
        _written("volumes", [*(spec.get("volumes") or ()), volume(settings)], spec),
    ]


def _mode(metadata: Mapping[str, Any]) -> str:
    """Return what a pod wants; empty for a sidecar."""
    return str(
        (metadata.get("labels") or {}).get(INJECT) or (metadata.get("annotations") or {}).get(INJECT) or ""
    )


def _written(key: str, value: Any, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the change that writes a whole list. The sidecar is first, so that the other init containers can use it."""
    op = "add" if spec.get(key) is None else "replace"
    return {"op": op, "path": f"/spec/{key}", "value": value}


def _wants(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    labels: Mapping[str, str] = metadata.get("labels") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    if "disabled" in (labels.get(INJECT), annotations.get(INJECT)):
        return False
    if spec.get("hostNetwork") or _GATEWAY_LABEL in labels:
        return False  # its connections are those of the node, or it is an Envoy of a Gateway
    return all(one.get("name") != SIDECAR for one in spec.get("initContainers") or ())


def _check(spec: Mapping[str, Any]) -> None:
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    users = [one.get("securityContext") or {} for one in every]
    if any(one.get("runAsUser") == USER for one in (*users, spec.get("securityContext") or {})):
        raise RejectedPod(
            f"a container runs as the user {USER}, which is that of the sidecar, so its connections would not be captured: "
            f"choose another runAsUser, or opt out with the label {INJECT}: disabled"
        )


def _ports(annotations: Mapping[str, str], key: str) -> tuple[int, ...]:
    words = [one.strip() for one in annotations.get(key, "").split(",") if one.strip()]
    if not all(one.isascii() and one.isdigit() and 0 < int(one) <= _LAST_PORT for one in words):
        raise RejectedPod(
            f"the annotation {key} is {annotations[key]!r}: write ports separated by commas, such as 9090,9091"
        )
    return tuple(map(int, words))


def _drain(annotations: Mapping[str, str], spec: Mapping[str, Any], token: str) -> Drain | None:
    """Return how the sidecar drains, None if the application ends at once."""
    text = annotations.get(DRAIN_SECONDS, str(draining.SECONDS))
    if not (text.isascii() and text.isdigit()):
        raise RejectedPod(
            f"the annotation {DRAIN_SECONDS} is {text!r}: write a number of seconds, 0 for none"
        )
    seconds = draining.seconds(int(text), spec)
    return Drain(token=token, time=timedelta(seconds=seconds)) if seconds else None


def _redirect(settings: SidecarSettings, inbound: Sequence[int], outbound: Sequence[int]) -> dict[str, Any]:
    words = ["redirect", "--uid", str(USER)]
    for port in (READY_PORT, *inbound):
        words += ["--exclude-inbound", str(port)]
    for port in outbound:
        words += ["--exclude-outbound", str(port)]
    return {
        "name": REDIRECT,
        "image": settings.redirect_image,
        "args": words,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "readOnlyRootFilesystem": True,
        },
    }


def _sidecar(
    namespace: str, settings: SidecarSettings, probes: Mapping[str, Probe], drain: Drain | None
) -> dict[str, Any]:
    """Return the sidecar as an init container that stays: it starts before the application and ends after it."""
    probe = {"httpGet": {"path": "/ready", "port": READY_PORT}}
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    return {
        "name": SIDECAR,
        "image": settings.image,
        "restartPolicy": "Always",
        "args": [
            "--config-yaml",
            _bootstrap(namespace, settings, probes, drain),
            "--service-node",
            "$(POD_NAMESPACE)/$(POD_NAME)",
            "--log-level",
            "warning",
            "--concurrency",
            "2",
            "--drain-time-s",  # so long do connections stay that a new policy forbids
            str(_LINGER),
        ],
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
        ],
        "volumeMounts": [{"name": VOLUME, "mountPath": str(MOUNTED.folder), "readOnly": True}],
        "ports": [{"name": "xds-ready", "containerPort": READY_PORT, "protocol": "TCP"}],
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": {
            "runAsUser": USER,
            "runAsGroup": USER,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def _bootstrap(
    namespace: str, settings: SidecarSettings, probes: Mapping[str, Probe], drain: Drain | None
) -> str:
    message = bootstrap(
        xds_address=settings.xds_address,
        node_id="",
        cluster="/".join(mesh_key(namespace)),
        admin_port=ADMIN_PORT,
        ready_port=READY_PORT,
        drain=drain,
        forwarded=probes,
        tls=MOUNTED,
        max_heap=_HEAP,
    )
    return json.dumps(plain(message), sort_keys=True)
