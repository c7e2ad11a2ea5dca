"""A real Envoy gets its gateway over ADS, in both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from envoy.config.cluster.v3 import cluster_pb2

from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.folder import filled, snapshot
from tests.support.ports import free_port
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ROUTE
from xds_server.serving.events import Acked, Connected, Nacked
from xds_server.serving.groups import Groups, Rule

GATEWAY = """
listeners:
  http: {address: 127.0.0.1, port: $port}
upstreams:
  users: {endpoints: ["127.0.0.1:$backend"]}
routes:
  users: {path: "$path", upstream: users}
"""


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
def test_envoy_gets_a_gateway_an_update_and_rejects_what_is_wrong(
    tmp_path: Path, backend: Backend, delta: bool
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def gateway(path: str) -> Snapshot:
        return snapshot(filled(GATEWAY, port=port, backend=backend.port, path=path))

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
        assert set(acked[-1].versions) == {f"127.0.0.1:{port}"}

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


def test_each_envoy_gets_the_gateway_of_its_group(tmp_path: Path, backend: Backend) -> None:
    """An Envoy that rejects holds no other group back."""
    ports = {"edge": free_port(), "core": free_port()}
    nodes = {"edge-1": True, "edge-2": False, "core-1": False}

    def publish(group: str, path: str) -> None:
        text = filled(GATEWAY, port=ports[group], backend=backend.port, path=path)
        xds.publish(snapshot(text), group)

    with ExitStack() as stack:
        groups = Groups(Rule(group="edge", id="edge-*"), Rule(group="core", id="core-*"))
        xds = stack.enter_context(XdsThread(group_of=groups))
        envoys = {
            name: stack.enter_context(Envoy(_strict(xds.port, delta, name), tmp_path))
            for name, delta in nodes.items()
        }
        publish("edge", "/of-edge")
        publish("core", "/of-core")
        for name, envoy in envoys.items():
            _until(envoy, f"/of-{name[:4]}")

        publish("edge", "~^/[0-9]{1,200}/regex$")
        publish("core", "/of-core/next")
        (nacked,) = wait_for(lambda: xds.seen(Nacked), "the rejection")
        assert (nacked.node.id, nacked.group, set(nacked.blamed)) == (
            "edge-2",
            "edge",
            {f"127.0.0.1:{ports['edge']}"},
        )
        _until(envoys["edge-1"], "^/[0-9]{1,200}/regex$")
        _until(envoys["core-1"], "/of-core/next")
        assert _paths(envoys["edge-2"]) == ["/of-edge"]

        publish("edge", "/of-edge/mended")
        for name in ("edge-1", "edge-2"):
            _until(envoys[name], "/of-edge/mended")
        assert len(xds.seen(Nacked)) == 1
        assert {event.node.id: event.protocol == "delta" for event in xds.seen(Connected)} == nodes


def _strict(port: int, delta: bool, node: str) -> dict[str, Any]:
    """The second Envoy's bootstrap takes no large regular expression."""
    runtime = {"re2.max_program_size.error_level": 100 if node.endswith("-2") else 2000}
    layers = {"layers": [{"name": "strict", "static_layer": runtime}]}
    return {**bootstrap(port, delta=delta, node=node), "layered_runtime": layers}


def _until(envoy: Envoy, path: str) -> None:
    wait_for(lambda: _paths(envoy) == [path], f"the route {path}")


def _paths(envoy: Envoy) -> list[str]:
    """What the routes of an Envoy match, each once. They are in lists or in trees."""
    configurations = [
        one["route_config"]
        for part in envoy.config_dump()["configs"]
        for one in part.get("dynamic_route_configs", [])
    ]
    matches = [route["match"] for one in configurations for route in _routes(one) if "route" in route]
    paths = [one.get("path") or one.get("prefix") or one["safe_regex"]["regex"] for one in matches]
    return list(dict.fromkeys(paths))


def _routes(part: Any) -> Iterator[dict[str, Any]]:
    """The members of every list of routes in a part of a dump."""
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    if isinstance(part, dict):
        yield from part.get("routes", ())
    for child in children:
        yield from _routes(child)
