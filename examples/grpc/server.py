"""The service of this example: gRPC health checks. Run ``python server.py 9003``."""

from __future__ import annotations

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def server(port: int) -> grpc.Server:
    """Return a gRPC server that reports itself healthy. It is not started yet."""
    result = grpc.server(futures.ThreadPoolExecutor(4))
    servicer = health.HealthServicer()
    servicer.set("inventory", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, result)
    result.add_insecure_port(f"127.0.0.1:{port}")
    return result


if __name__ == "__main__":
    running = server(int(sys.argv[1]))
    running.start()
    running.wait_for_termination()
