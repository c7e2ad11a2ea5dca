"""xds bootstrap: the bootstrap for an Envoy that someone else runs."""

from __future__ import annotations

import argparse
import sys

import yaml

from filters.language import Mistake
from xds_server.errors import WrongUsage
from xds_server.proxy.bootstrap import ChannelTls, bootstrap
from xds_server.translate.readable import plain


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    add = parser.add_argument
    add("--xds-address", default="127.0.0.1:18000", help="the control plane, HOST:PORT or unix:/PATH")
    add("--node-id", default="envoy", help="what this Envoy is called, unique among the fleet")
    add("--node-cluster", default="gateway", help="the fleet that it belongs to")
    add("--admin-port", type=int, default=9901, help="Envoy's own admin port, on loopback")
    add("--sotw", action="store_true", help="ask for the state of the world and not for deltas")
    add("--ca", help="PEM file of the authorities of the control plane's certificate: speaks TLS")
    add("--server-name", help="the name in the control plane's certificate; default: its host")
    add("--certificate", help="PEM file of the certificate that this Envoy shows")
    add("--private-key", help="PEM file of its key")
    add("--max-heap", type=int, default=2 << 30, help="bytes of memory that Envoy keeps within")
    add("--max-connections", type=int, default=50_000, help="connections of clients at the same time")


def run(arguments: argparse.Namespace) -> int:
    """Print the bootstrap as YAML. Raises WrongUsage."""
    try:
        found = bootstrap(
            xds_address=arguments.xds_address,
            node_id=arguments.node_id,
            cluster=arguments.node_cluster,
            admin_port=arguments.admin_port,
            delta=not arguments.sotw,
            tls=_tls(arguments),
            max_heap=arguments.max_heap,
            max_connections=arguments.max_connections,
        )
    except Mistake as mistake:
        raise WrongUsage(f"--xds-address: {mistake.message}; {mistake.remedy}") from None
    yaml.dump(plain(found), sys.stdout, Dumper=yaml.CSafeDumper, sort_keys=False)
    return 0


def _tls(arguments: argparse.Namespace) -> ChannelTls | None:
    if (arguments.certificate is None) != (arguments.private_key is None):
        raise WrongUsage("--certificate and --private-key go together")
    if arguments.ca is None:
        if arguments.certificate is not None:
            raise WrongUsage("--certificate needs --ca")
        return None
    return ChannelTls(
        ca=arguments.ca,
        server_name=arguments.server_name or arguments.xds_address.rpartition(":")[0],
        certificate=arguments.certificate,
        private_key=arguments.private_key,
    )
