"""What serves a Gateway stays as the controller wants it, whoever deletes or changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_controller import Cluster
from tests.support.kubernetes.shared import SharedServer
from tests.support.wait import wait_for

GONE = (httpx.HTTPStatusError,)
GROUPS = {
    "deployments": "apis/apps/v1",
    "services": "api/v1",
    "configmaps": "api/v1",
    "serviceaccounts": "api/v1",
}


@pytest.fixture
def cluster(kubernetes: SharedServer, tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        found = Cluster(kubernetes, tmp_path, stack)
        stack.enter_context(found.controller)
        found.deployment()
        yield found


def path(cluster: Cluster, kind: str) -> str:
    return cluster.path(kind, f"web-{cluster.name}", GROUPS[kind])


def there(cluster: Cluster, kind: str) -> dict[str, Any]:
    """Return an object of the Gateway when there is one."""
    return wait_for(lambda: cluster.objects.request("GET", path(cluster, kind)), kind, also=GONE)


@pytest.mark.parametrize("kind", list(GROUPS))
def test_a_deleted_object_is_made_again(cluster: Cluster, kind: str) -> None:
    before = there(cluster, kind)["metadata"]["uid"]
    cluster.objects.request("DELETE", path(cluster, kind))
    wait_for(
        lambda: there(cluster, kind)["metadata"]["uid"] != before, lambda: cluster.controller.log[-2000:]
    )


def test_what_others_change_is_changed_back(cluster: Cluster) -> None:
    there(cluster, "services")
    deployment, config = there(cluster, "deployments"), there(cluster, "configmaps")
    (name, trusted), *_ = config["data"].items()
    cluster.objects.request("PATCH", path(cluster, "configmaps"), {"data": {name: "mine"}})
    cluster.objects.request("PATCH", path(cluster, "deployments"), {"spec": {"replicas": 9}})
    wait_for(lambda: there(cluster, "configmaps")["data"][name] == trusted, "the authorities")
    wanted = deployment["spec"]["replicas"]
    wait_for(lambda: there(cluster, "deployments")["spec"]["replicas"] == wanted, "the number of pods")
    assert there(cluster, "deployments")["metadata"]["uid"] == deployment["metadata"]["uid"]


def test_the_objects_of_an_earlier_class_go(cluster: Cluster) -> None:
    for kind in GROUPS:
        there(cluster, kind)
    other = f"{cluster.name}-other"
    cluster.objects.apply(
        [
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "GatewayClass",
                "metadata": {"name": other},
                "spec": {"controllerName": f"example.com/{cluster.name}"},
            }
        ]
    )
    change = {"spec": {"gatewayClassName": other}}
    cluster.objects.request("PATCH", cluster.path("gateways", "web"), change)
    for kind, group in GROUPS.items():
        old, new = (cluster.path(kind, f"web-{name}", group) for name in (cluster.name, other))
        wait_for(lambda new=new: cluster.objects.request("GET", new), f"the new {kind}", also=GONE)
        wait_for(lambda old=old: _is_gone(cluster, old), f"the old {kind} to go")
    change = {"spec": {"gatewayClassName": "of-somebody-else"}}
    cluster.objects.request("PATCH", cluster.path("gateways", "web"), change)
    for kind, group in GROUPS.items():
        wait_for(
            lambda kind=kind, group=group: _is_gone(cluster, cluster.path(kind, f"web-{other}", group)),
            f"the {kind} of a Gateway of another controller to go",
        )


def test_a_class_in_use_outlives_its_deletion(cluster: Cluster) -> None:
    found = f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{cluster.name}"
    wait_for(lambda: cluster.objects.request("GET", found)["metadata"].get("finalizers"), "the finalizer")
    cluster.objects.request("DELETE", found)
    assert cluster.objects.request("GET", found)["metadata"]["deletionTimestamp"]
    before = there(cluster, "deployments")["metadata"]["uid"]
    cluster.objects.request("DELETE", path(cluster, "deployments"))
    wait_for(lambda: there(cluster, "deployments")["metadata"]["uid"] != before, "it to be served still")
    cluster.objects.request("DELETE", cluster.path("gateways", "web"))
    wait_for(lambda: _is_gone(cluster, found), "the class to go")


def _is_gone(cluster: Cluster, found: str) -> bool:
    try:
        cluster.objects.request("GET", found)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise
        return True
    return False
