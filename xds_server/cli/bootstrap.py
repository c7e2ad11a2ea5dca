"""xds bootstrap: the bootstrap for an Envoy that someone else runs."""

from __future__ import annotations

import argparse
import sys

import yaml

from filters.language import Mistake
from xds_server.cli import flags
from xds_server.errors import WrongUsage
from xds_server.proxy.bootstrap import ChannelTls, bootstrap
from xds_server.translate.readable import plain


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    flags.add_renamed(
        parser,
        "--xds",
        "--xds-address",
        metavar="ADDRESS",
        default=flags.XDS,
        help="address of the control plane: HOST:PORT or unix:/PATH",
    )
    flags.add_node(parser, "envoy", "this Envoy")
    add(
        "--delta",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="receive only what changes (delta xDS), not everything each time (state of the world)",
    )
    add("--sotw", dest="delta", action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add(
        "--ca",
        metavar="FILE",
        help="PEM file of the authorities of the control plane's certificate: connects over TLS",
    )
    add(
        "--server-name",
        metavar="NAME",
        help="name in the control plane's certificate; default: the host of --xds",
    )
    add("--certificate", metavar="FILE", help="PEM file of the certificate that this Envoy shows")
    add("--private-key", metavar="FILE", help="PEM file of the certificate's private key")
    add(
        "--admin-port",
        type=flags.port,
        metavar="PORT",
        default=9901,
        help="Envoy's own admin port, on loopback",
    )
    add(
        "--max-heap",
        type=flags.positive,
        metavar="BYTES",
        default=2 << 30,
        help="memory limit: near it, Envoy rejects requests",
    )
    add(
        "--max-connections",
        type=flags.positive,
        metavar="N",
        default=50_000,
        help="limit of open connections from clients",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the bootstrap as YAML. Raises WrongUsage."""
    try:
        message = bootstrap(
            xds_address=arguments.xds,
            node_id=arguments.node_id,
            cluster=arguments.node_cluster,
            admin_port=arguments.admin_port,
            delta=arguments.delta,
            tls=_tls(arguments),
            max_heap=arguments.max_heap,
            max_connections=arguments.max_connections,
        )
    except Mistake as mistake:
        raise WrongUsage(f"--xds: {mistake.message}; {mistake.remedy}") from None
    yaml.dump(plain(message), sys.stdout, Dumper=yaml.CSafeDumper, sort_keys=False)
    return 0


def _tls(arguments: argparse.Namespace) -> ChannelTls | None:
    if (arguments.certificate is None) != (arguments.private_key is None):
        raise WrongUsage("--certificate and --private-key need each other")
    if arguments.ca is None:
        if arguments.certificate is not None:
            raise WrongUsage("--certificate needs --ca")
        return None
    return ChannelTls(
        ca=arguments.ca,
        server_name=arguments.server_name or arguments.xds.rpartition(":")[0],
        certificate=arguments.certificate,
        private_key=arguments.private_key,
    )
