"""xds controller: the control plane of a Kubernetes cluster."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from xds_server.cli import flags, logs

_OWN_IMAGE = "xds-gateway:latest"
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
        "--ingress-namespace",
        metavar="NAME",
        default="",
        help="namespace of the Envoys of IngressClasses whose parameters name none; default: that of --namespace",
    )
    add(
        "--controller-name",
        metavar="NAME",
        default="xds-gateway.dev/controller",
        help="serve the GatewayClasses and IngressClasses that name this controller",
    )
    add("--envoy-image", metavar="IMAGE", default=IMAGE, help="image of Envoy")
    add(
        "--counters",
        metavar="STORE",
        default="memory",
        help="where the policy servers of Gateways count limits: memory, so that each Envoy has limits of its own, or a "
        "Redis as for xds policy-server --counters",
    )
    add(
        "--cache",
        metavar="STORE",
        default="memory",
        help="where the policy servers of Gateways share responses of `cache` and purges: memory, so that each Envoy has "
        "responses of its own, or a Redis as for xds policy-server --cache",
    )
    add("--envoy-replicas", type=flags.positive, metavar="N", default=2, help="Envoys of each Gateway")
    add(
        "--webhook",
        metavar="ADDRESS",
        default="",
        help="address of the webhook that gives pods their sidecars",
    )
    add(
        "--webhook-configuration",
        metavar="NAME",
        default="xds-gateway",
        help="the MutatingWebhookConfiguration in which the authority of --webhook is kept current",
    )
    add(
        "--trust-domain",
        metavar="DOMAIN",
        default="cluster.local",
        help="trust domain of the certificates of sidecars: spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT",
    )
    add(
        "--mesh-ca-secret",
        type=_secret,
        metavar="NAMESPACE/NAME",
        help="a Secret of the type kubernetes.io/tls with the authority that signs the certificates of sidecars, such as one of "
        "cert-manager; default: the controller's own authority",
    )
    add(
        "--image",
        metavar="IMAGE",
        default=_OWN_IMAGE,
        help="image with this command, for policy servers beside Envoys and for pods with a sidecar",
    )
    logs.add_format(parser)


def _secret(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME")
    return namespace, name


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Raises EnvironmentFailed, InvalidKubeconfig."""
    from xds_server.controller.app import ControllerOptions, serve
    from xds_server.controller.envoy_identity import AUDIENCE
    from xds_server.controller.pods import EnvoySettings
    from xds_server.kubernetes.resources import Key
    from xds_server.sidecar.identity import SidecarSettings

    logs.start(arguments.log_format)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    given = arguments.kubeconfig or os.environ.get("KUBECONFIG", "")
    options = ControllerOptions(
        xds=arguments.xds,
        admin=arguments.admin,
        kubeconfig=tuple(Path(one) for one in given.split(os.pathsep) if one),
        namespace=arguments.namespace,
        ingress_namespace=arguments.ingress_namespace,
        controller=arguments.controller_name,
        webhook=arguments.webhook,
        webhook_configuration=arguments.webhook_configuration,
        mesh_ca=Key(*arguments.mesh_ca_secret) if arguments.mesh_ca_secret is not None else None,
        trust_domain=arguments.trust_domain,
        sidecars=SidecarSettings(
            xds_address=arguments.xds_service,
            audience=AUDIENCE,
            image=arguments.envoy_image,
            redirect_image=arguments.image,
        ),
        envoys=EnvoySettings(
            xds_address=arguments.xds_service,
            audience=AUDIENCE,
            image=arguments.envoy_image,
            replicas=arguments.envoy_replicas,
            own_image=arguments.image,
            counters=arguments.counters,
            cache=arguments.cache,
        ),
    )
    asyncio.run(serve(options))
    return 0
