"""xds export: a gateway as configuration of something else."""

from __future__ import annotations

import argparse
import sys

from xds_server.cli import gateways, new_folder, output
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import UnreadableFolder

KINDS = ("gateway-api",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    add(
        "kind",
        choices=KINDS,
        help="gateway-api: manifests of Kubernetes for any controller of the Gateway API",
    )
    add("folder", help="folder of the gateway, or its address in git")
    add("--name", metavar="NAME", default="gateway", help="name of the Gateway")
    add("--namespace", metavar="NAME", default="default", help="namespace of all objects")
    add("--class", dest="gateway_class", metavar="NAME", default="gateway", help="the GatewayClass")
    new_folder.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, and print what has no equal. Returns 1 if a rule of security has none.

    Raises InvalidGateway, UnreadableFolder, WrongUsage.
    """
    folder = new_folder.checked(arguments)
    from xds_server.exports.gateway_api import export

    gateway = Compiler().compile(gateways.read(arguments.folder, None)).gateway
    exported = export(
        gateway, name=arguments.name, namespace=arguments.namespace, gateway_class=arguments.gateway_class
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in exported.files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UnreadableFolder(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    if exported.problems:
        output.problems(exported.problems)
    print(f"wrote {output.counted(len(exported.files), 'file')} to {folder}", file=sys.stderr)
    return int(any(one.severity == "error" for one in exported.problems))
