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
    add(
        "--xds-service",
        metavar="HOST:PORT",
        default="xds-gateway.xds-system.svc.cluster.local:18000",
        help="address at which Envoys of the cluster reach --xds",
    )
    add(
        "--kubeconfig",
        metavar="FILE",
        help="how to reach the API server; default: KUBECONFIG, then the service account of the pod",
    )
    add("--namespace", metavar="NAME", default="xds-system", help="namespace of the lease of the leader")
    add(
        "--controller-name",
        metavar="NAME",
        default="xds-gateway.dev/controller",
        help="serve the Gateways of the classes that name this controller",
    )
    add("--envoy-image", metavar="IMAGE", default=IMAGE, help="image of the Envoys of a Gateway")
    add("--envoy-replicas", type=flags.positive, metavar="N", default=2, help="Envoys of each Gateway")
    add(
        "--secrets-anywhere",
        action="store_true",
        help="send private keys in plain text to Envoys on other machines: only where the network is trusted",
    )
    logs.add_format(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Raises EnvironmentFailed, InvalidKubeconfig."""
    from xds_server.controller.app import ControllerOptions, serve
    from xds_server.controller.infrastructure import EnvoySettings

    logs.start(arguments.log_format)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    given = arguments.kubeconfig or os.environ.get("KUBECONFIG", "")
    options = ControllerOptions(
        xds=arguments.xds,
        kubeconfig=tuple(Path(one) for one in given.split(os.pathsep) if one),
        namespace=arguments.namespace,
        controller=arguments.controller_name,
        secrets_anywhere=arguments.secrets_anywhere,
        envoys=EnvoySettings(
            xds_address=arguments.xds_service,
            image=arguments.envoy_image,
            replicas=arguments.envoy_replicas,
        ),
    )
    asyncio.run(serve(options))
    return 0
