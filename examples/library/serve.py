"""Serve your own resources to your own node groups: ``python examples/library/serve.py [ADDRESS]``."""

import asyncio
import sys

from envoy.config.endpoint.v3 import endpoint_pb2

from xds_server.discovery.types import ENDPOINT
from xds_server.serving.cache import Cache
from xds_server.serving.groups import Groups, Rule
from xds_server.serving.server import XdsServer


def endpoints(cluster: str, *ports: int) -> endpoint_pb2.ClusterLoadAssignment:
    """Return the endpoints of one cluster."""
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster)
    for port in ports:
        address = assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
        address.address, address.port_value = "127.0.0.1", port
    return assignment


async def main(address: str) -> None:
    """Serve two groups of nodes, distinguished by their cluster, and change one resource of one group."""
    cache = Cache()
    cache.set({ENDPOINT: [endpoints("users", 9001)]}, group="blue")
    cache.set({ENDPOINT: [endpoints("users", 9002)]}, group="green")
    cache.store.observe(lambda event: print(event, flush=True))
    server = XdsServer(cache.store, group_of=Groups(Rule(group="blue", cluster="blue"), Rule(group="green")))
    print("serving at port", await server.start(address), flush=True)
    cache.update(ENDPOINT, endpoints("users", 9001, 9003), group="blue")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:18000"))
