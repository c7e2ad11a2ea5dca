"""A real Envoy gets its gateway over ADS, in both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from envoy.config.cluster.v3 import cluster_pb2

from tests.support import gateways
from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ROUTE
from xds_server.serving.events import Acked, Nacked

GATEWAY = """
listeners:
  http: {{address: 127.0.0.1, port: {port}}}
upstreams:
  users: {{endpoints: ["127.0.0.1:{backend}"]}}
routes:
  users: {{path: "{path}", upstream: users}}
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend("users") as one:
        yield one


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
def test_envoy_gets_a_gateway_an_update_and_rejects_what_is_wrong(
    tmp_path: Path, backend: Backend, delta: bool
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def gateway(path: str) -> Snapshot:
        return gateways.snapshot(GATEWAY.format(port=port, backend=backend.port, path=path))

    with XdsThread() as xds, Envoy(bootstrap(xds.port, delta=delta), tmp_path) as envoy:
        xds.publish(gateway("/users"))
        envoy.ready()
        wait_for(lambda: httpx.get(f"{url}/users").status_code == 200, "the gateway to answer")
        assert httpx.get(f"{url}/people").status_code == 404

        xds.publish(gateway("/people"))
        wait_for(lambda: httpx.get(f"{url}/people").status_code == 200, "the new route")
        assert httpx.get(f"{url}/users").status_code == 404
        acked = [event for event in xds.seen(Acked) if event.type == ROUTE]
        assert acked[-1].node.id == "envoy-1"
        assert set(acked[-1].versions) == {"http"}

        good = gateway("/people")
        bad = Resource.of(cluster_pb2.Cluster(name="broken", type=cluster_pb2.Cluster.EDS))
        xds.publish(
            Snapshot.of(
                {**{one: good[one].values() for one in good}, CLUSTER: [*good[CLUSTER].values(), bad]}
            )
        )
        nacked = wait_for(lambda: xds.seen(Nacked), "the rejection")[0]
        assert nacked.type == CLUSTER
        assert nacked.blamed == {"broken": bad.version}
        assert "broken" in nacked.message
        assert httpx.get(f"{url}/people").status_code == 200
        assert len(xds.seen(Nacked)) == 1
