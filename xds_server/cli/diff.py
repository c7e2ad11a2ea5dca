"""xds diff: the changes between two gateways, each a folder or a folder of a git revision (``main:gateway``)."""

from __future__ import annotations

import argparse
import dataclasses
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from xds_server.cli import flags, gateways, output
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.errors import UnreadableFolder
from xds_server.gateway_api.objects import Key
from xds_server.translate import diff

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    for name in ("old", "new"):
        parser.add_argument(
            name,
            help=f"{name} gateway: a folder, REVISION:FOLDER in the git repository of this directory, or k8s: or k8s:CONTEXT "
            "for what a cluster has now",
        )
    flags.add_gateway(parser)
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if anything changes")
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the changes. Raises InvalidGateway, UnreadableFolder."""
    old, new = (_compiled(side, arguments.gateway) for side in (arguments.old, arguments.new))
    objects = diff.objects(old.gateway, new.gateway)
    resources = diff.resources(old.snapshot, new.snapshot)
    if arguments.output != "text":
        parts = {"gateway": objects, "resources": resources}
        output.data(
            {key: [dataclasses.asdict(one) for one in found] for key, found in parts.items()},
            arguments.output,
        )
    else:
        _print("gateway", objects)
        _print("Envoy", resources)
    return int(arguments.exit_code and bool(objects or resources))


def _compiled(side: str, gateway: Key | None) -> Compiled:
    revision, colon, folder = side.partition(":")
    if not colon or Path(side).exists() or side.startswith(gateways.CLUSTER):
        return Compiler().compile(gateways.read(side, gateway))
    with tempfile.TemporaryDirectory(prefix="xds-diff-") as temporary:
        _extract(revision, folder, Path(temporary))
        return Compiler().compile(gateways.read(Path(temporary), gateway))


def _extract(revision: str, folder: str, to: Path) -> None:
    tree = "./" if folder in ("", ".", "./") else folder.rstrip("/")
    command = ["git", "archive", "--format=tar", f"{revision}:{tree}"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - names come after a colon
    except OSError as error:
        raise UnreadableFolder(f"{revision}:{folder}: git cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise UnreadableFolder(
            f"{revision}:{folder} is neither a folder nor a folder of a git revision: {reason}"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(to, filter="data")


def _print(title: str, changes: tuple[diff.Change, ...]) -> None:
    print(f"{title}: {output.counted(len(changes), 'change')}")
    for change in changes:
        keys = f"  ({', '.join(change.keys)})" if change.keys else ""
        print(f"  {SIGNS[change.what]} {change.kind} {change.name}{keys}")
