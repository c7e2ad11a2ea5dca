"""xds policy-server: the services that decide what Envoy cannot, fed by a control plane, until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from xds_server.cli.run import address


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    add = parser.add_argument
    add("--xds", default="127.0.0.1:18000", help="the control plane, HOST:PORT or unix:/PATH")
    add(
        "--listen",
        default="127.0.0.1:18001",
        help="where Envoys ask, HOST:PORT (several processes may share it) or unix:/PATH",
    )
    add("--admin-address", help="probes, status and metrics, HOST:PORT; port 0: any; default: none")
    add("--node-id", default="", help="what `xds status` calls it; default: policy-server@HOSTNAME")
    add(
        "--grpc",
        choices=("native", "grpcio"),
        default="native",
        help="what carries the services: our own server, or grpcio for comparison",
    )
    add("--drain", type=float, default=5.0, help="seconds that requests under way get at the end")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes. Raises EnvironmentFailed."""
    import uvloop
    from prometheus_client import CollectorRegistry

    from xds_server.policy_server.run import Options, serve
    from xds_server.policy_server.services import SERVICES

    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    options = Options(
        xds=arguments.xds,
        listen=arguments.listen,
        admin=address("--admin-address", arguments.admin_address) if arguments.admin_address else None,
        node_id=arguments.node_id,
        drain=arguments.drain,
        grpc=arguments.grpc,
    )
    registry = CollectorRegistry()
    uvloop.run(serve(options, tuple(make(registry) for make in SERVICES), registry))
    sys.stderr.flush()
    # A function of a user that never returns would hold the interpreter back for ever.
    os._exit(0)
