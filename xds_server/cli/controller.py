"""xds controller: the control plane of a Kubernetes cluster."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from xds_server.cli import flags, logs

IMAGE = "envoyproxy/envoy:distroless-v1.40.0"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    add("--xds", metavar="ADDRESS", default="[::]:18000", help="address at which Envoys are served")
    add("--admin", metavar="ADDRESS", default="[::]:18001", help="address of probes and metrics")
    add(
        "--xds-service",
        metavar="HOST:PORT",
        default="xds-gateway.xds-system.svc.cluster.local:18000",
        help="address at which Envoys of the cluster reach --xds, whose certificate has its host",
    )
    add(
        "--kubeconfig",
        metavar="FILE",
        help="how to reach the API server; default: KUBECONFIG, then the service account of the pod",
    )
    add(
        "--namespace",
        metavar="NAME",
        default="xds-system",
        help="namespace of the controller: of its lease and its certificate authority",
    )
    add(
        "--controller-name",
        metavar="NAME",
        default="xds-gateway.dev/controller",
        help="serve the Gateways of the classes that name this controller",
    )
    add("--envoy-image", metavar="IMAGE", default=IMAGE, help="image of the Envoys of a Gateway")
    add(
        "--policy-server-image",
        metavar="IMAGE",
        default="xds-gateway:latest",
        help="image of the policy server beside each Envoy of a Gateway whose policies need one",
    )
    add(
        "--counters",
        metavar="STORE",
        default="memory",
        help="where these policy servers count limits: memory, so that each Envoy has limits of its own, or a Redis as for "
        "xds policy-server --counters",
    )
    add("--envoy-replicas", type=flags.positive, metavar="N", default=2, help="Envoys of each Gateway")
    logs.add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Raises EnvironmentFailed, InvalidKubeconfig."""
    from xds_server.controller.app import ControllerOptions, serve
    from xds_server.controller.envoy_identity import AUDIENCE
    from xds_server.controller.infrastructure import EnvoySettings

    logs.start(arguments.log_format)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    given = arguments.kubeconfig or os.environ.get("KUBECONFIG", "")
    options = ControllerOptions(
        xds=arguments.xds,
        admin=arguments.admin,
        kubeconfig=tuple(Path(one) for one in given.split(os.pathsep) if one),
        namespace=arguments.namespace,
        controller=arguments.controller_name,
        envoys=EnvoySettings(
            xds_address=arguments.xds_service,
            audience=AUDIENCE,
            image=arguments.envoy_image,
            replicas=arguments.envoy_replicas,
            policy_server_image=arguments.policy_server_image,
            counters=arguments.counters,
        ),
    )
    asyncio.run(serve(options))
    return 0
