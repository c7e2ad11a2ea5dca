"""Stands in for the controllers of Deployments and ReplicaSets: pods by a template, and their number in the status."""

from __future__ import annotations

import hashlib
import json

from tests.support.kubernetes.standin.node import DEPLOYMENTS, NAME, PODS, Node, deleting
from xds_server.kubernetes.api_errors import Conflict, Forbidden, NotFound
from xds_server.kubernetes.resources import Key, Object


async def reconcile(node: Node) -> None:
    """Make the pods that are missing, and delete those that no Deployment wants."""
    pods = dict(node.items(PODS))
    wanted: dict[Key, str] = {}
    for key, deployment in node.items(DEPLOYMENTS):
        if deleting(deployment):
            continue
        digest = _digest(deployment["spec"]["template"])
        names = [
            f"{key.name[:200]}-{digest}-{index}" for index in range(deployment["spec"].get("replicas", 1))
        ]
        mine = [Key(key.namespace, name) for name in names]
        wanted |= dict.fromkeys(mine, deployment["metadata"]["uid"])
        for one in mine:
            if one not in pods:
                await _create(node, one, deployment, digest)
        ready = sum(_ready(pods[one]) for one in mine if one in pods)
        status = _status(deployment, len(mine), ready)
        await node.status(DEPLOYMENTS, key, deployment["metadata"]["uid"], status)
    for key, pod in pods.items():
        owner = _owner(pod)
        if owner and not deleting(pod) and wanted.get(key) != owner:
            try:
                await node.client.delete(PODS, key)
            except NotFound:
                continue


async def _create(node: Node, key: Key, deployment: Object, digest: str) -> None:
    template = deployment["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
    owner |= {name: deployment["metadata"][name] for name in ("name", "uid")}
    metadata = {
        "name": key.name,
        "namespace": key.namespace,
        "labels": {**template["metadata"].get("labels", {}), "pod-template-hash": digest},
        "annotations": template["metadata"].get("annotations", {}),
        "ownerReferences": [owner],
    }
    spec = {
        "serviceAccountName": "default",
        **template["spec"],
        "nodeName": NAME,
        "automountServiceAccountToken": False,
    }
    try:
        await node.client.create(PODS, {"metadata": metadata, "spec": spec})
    except (Conflict, Forbidden):
        return  # it was made a moment ago, or its namespace is being deleted


def _digest(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _owner(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or []
    return next((one["uid"] for one in owners if one["kind"] == "Deployment"), "")


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _status(deployment: Object, count: int, ready: int) -> Object:
    created = deployment["metadata"]["creationTimestamp"]
    times = {"message": "", "lastTransitionTime": created, "lastUpdateTime": created}
    available = "True" if ready == count else "False"
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": count,
        "updatedReplicas": count,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": count - ready,
        "conditions": [
            {"type": "Available", "status": available, "reason": "StandIn", **times},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", **times},
        ],
    }
