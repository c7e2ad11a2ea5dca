"""gRPC's own xDS client, which is no Envoy, served by the library: it moves without an error, and says what it rejects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from tests.support.resources import ADS, cluster, endpoint, routes
from tests.support.running import ROOT
from tests.support.wait import wait_for
from tests.support.xds import XdsThread
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE
from xds_server.serving.events import Acked, Connected, Nacked, Overdue


@contextmanager
def answering(name: str) -> Iterator[int]:
    """A gRPC server that answers with its name; its port."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    method = grpc.unary_unary_rpc_method_handler(lambda _request, _context: name.encode())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Name": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


def served(name: str, port: int) -> dict[str, Resource]:
    """What leads a client of `service` to the server of that name and port."""
    manager = hcm_pb2.HttpConnectionManager(rds=hcm_pb2.Rds(config_source=ADS, route_config_name="routes"))
    manager.http_filters.add(name="router").typed_config.Pack(router_pb2.Router())
    listener = listener_pb2.Listener(name="service")
    listener.api_listener.api_listener.Pack(manager)
    assigned = endpoint_pb2.ClusterLoadAssignment.FromString(endpoint(name, port).body)
    assigned.endpoints[0].load_balancing_weight.value = 1
    assigned.endpoints[0].locality.region = "here"
    return {
        "listener": Resource.of(listener),
        "routes": routes("routes", {"": name}),
        "cluster": cluster(name),
        "endpoints": Resource.of(assigned),
    }


def snapshot(found: dict[str, Resource]) -> Snapshot:
    return Snapshot.of(
        {
            LISTENER: [found["listener"]],
            ROUTE: [found["routes"]],
            CLUSTER: [found["cluster"]],
            ENDPOINT: [found["endpoints"]],
        }
    )


class Client:
    """The client's process."""

    def __init__(self, xds_port: int) -> None:
        server = {
            "server_uri": f"127.0.0.1:{xds_port}",
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }
        bootstrap = {"xds_servers": [server], "node": {"id": "grpc-client"}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.grpc_client", "xds:///service", "/test.Test/Name"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
        )

    def call(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_client_of_grpc_moves_without_an_error_and_names_what_it_rejects() -> None:
    with ExitStack() as stack:
        ports = {name: stack.enter_context(answering(name)) for name in ("one", "two")}
        xds = stack.enter_context(XdsThread())
        xds.publish(snapshot(served("one", ports["one"])))
        client = Client(xds.port)
        stack.callback(client.stop)
        assert client.call() == "one"
        (connected,) = xds.seen(Connected)
        assert (connected.node.id, connected.protocol) == ("grpc-client", "sotw")

        for name in ("two", "one", "two"):
            xds.publish(snapshot(served(name, ports[name])))
            wait_for(lambda name=name: _answer(client, ports) == name, f"an answer of {name}")
        assert not xds.seen(Nacked)
        assert not xds.seen(Overdue)
        assert {one.type for one in xds.seen(Acked)} == {LISTENER, ROUTE, CLUSTER, ENDPOINT}

        bad = served("two", ports["two"])
        bad["cluster"] = Resource.of(cluster_pb2.Cluster(name="two", type=cluster_pb2.Cluster.EDS))
        xds.publish(snapshot(bad))
        rejection = wait_for(lambda: xds.seen(Nacked), "the rejection")[0]
        assert (rejection.type, set(rejection.blamed)) == (CLUSTER, {"two"})
        assert "errors validating Cluster resource" in rejection.message
        assert client.call() == "two"


def _answer(client: Client, ports: dict[str, int]) -> str:
    """Never an error."""
    answer = client.call()
    assert answer in ports
    return answer
