"""A client that rejects what the proving Envoy or another client takes is reported, and keeps nobody from anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from tests.support.envoy import OLDEST_BINARY, Envoy
from tests.support.folder import write
from tests.support.running import ROOT, Served
from tests.support.wait import wait_for
from xds_server.discovery.types import LISTENER
from xds_server.proxy.bootstrap import bootstrap
from xds_server.translate.readable import plain

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1, server_name: "$version"}}
routes: {ping: {path: /ping, respond: {body: pong}}}
"""


class Stack(Served):
    """`xds run --no-proxy` on a folder, and an Envoy of the fleet that is started when the test wants."""

    def __init__(self, root: Path, *arguments: str) -> None:
        super().__init__(root, YAML, "--no-proxy", *arguments)
        self.write("1")
        config = bootstrap(xds_address=self.xds_address, node_id="fleet")
        self.envoy_of_the_fleet = Envoy(plain(config), root)

    def until(self, version: str) -> None:
        """Wait until the listener of this version answers."""
        wait_for(lambda: self.get("/ping").headers["server"] == version, f"the listener {version}")


@pytest.fixture(params=["prove", "no-prove"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, *(["--no-prove"] if request.param == "no-prove" else []))
    with stack:
        yield stack


@contextmanager
def _rejecting(stack: Stack) -> Iterator[None]:
    """`xds watch listener --delta --nack`, as anybody can start it."""
    command = [sys.executable, "-m", "xds_server", "watch", "listener", "--delta", "--nack"]
    with subprocess.Popen(
        [*command, "--xds", stack.xds_address], stdout=subprocess.DEVNULL, cwd=ROOT
    ) as process:
        try:
            yield
        finally:
            process.kill()


def _nodes_with_rejections(stack: Stack) -> set[str]:
    return {one["node"] for one in stack.status()["envoys"] if one["rejection"]}


def test_a_client_that_rejects_everything_is_reported_and_holds_nothing_back(stack: Stack) -> None:
    with stack.envoy_of_the_fleet:
        stack.until("1")
        with _rejecting(stack):
            wait_for(lambda: "xds-watch" in _nodes_with_rejections(stack), "the rejection")
            stack.write("2")
            stack.until("2")
        stack.write("3")
        stack.until("3")
        assert stack.status()["held"] == []


def test_an_older_envoy_that_comes_first_and_rejects_keeps_a_newer_one_from_nothing(stack: Stack) -> None:
    node = base_pb2.Node(id="old", cluster="gateway", user_agent_name="envoy")
    version = node.user_agent_build_version.version
    version.major_number, version.minor_number, version.patch = 1, 37, 5
    first = discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=LISTENER.url)
    first.resource_names_subscribe.append("*")
    with grpc.insecure_channel(stack.xds_address) as channel:
        requests: SimpleQueue[discovery_pb2.DeltaDiscoveryRequest | None] = SimpleQueue()
        requests.put(first)
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        responses = stub.DeltaAggregatedResources(iter(requests.get, None))
        response = next(responses)
        rejection = discovery_pb2.DeltaDiscoveryRequest(type_url=LISTENER.url, response_nonce=response.nonce)
        rejection.error_detail.message = "Error adding/updating listener(s) http: no such filter"
        requests.put(rejection)
        wait_for(lambda: "old" in _nodes_with_rejections(stack), "the rejection")
        with stack.envoy_of_the_fleet:
            stack.until("1")
            stack.write("2")
            stack.until("2")
        requests.put(None)


def test_an_older_envoy_is_served_what_it_can_take_and_told_of_what_it_is_not(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    more = """
upstreams: {self: {endpoints: ["127.0.0.1:1"]}}
routes: {sized: {path: /sized, upstream: self, policies: {quota: 1MB/day}}}
"""
    write(stack.folder, more=more)
    config = plain(bootstrap(xds_address=stack.xds_address, node_id="oldest"))
    with stack, Envoy(config, tmp_path, binary=OLDEST_BINARY):
        stack.until("1")
        answer = stack.get("/sized")
        assert (answer.status_code, answer.headers["x-gateway-reason"]) == (503, "route_rejected")
        (envoy,) = stack.status()["envoys"]
        assert (envoy["node"], envoy["release"], envoy["rejection"]) == ("oldest", "envoy 1.36", None)
        (held,) = stack.status()["held"]
        assert (held["name"], held["for"], held["rejected_by"]) == ("sized", "envoy 1.36", None)
        assert held["place"].endswith("more.yaml:3:10")
        stack.says("route 'sized' answers 503 for every envoy 1.36, which does not support it")
        stack.write("2")
        stack.until("2")
