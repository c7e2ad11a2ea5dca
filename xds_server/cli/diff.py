"""xds diff: the changes between two gateways, each a folder, a git revision, a cluster or what a server serves."""

from __future__ import annotations

import argparse
import atexit
from pathlib import Path

from xds_server.cli import flags, gateways, output
from xds_server.cli.admin_address import page
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import EnvironmentFailed, InvalidGateway, UnreadableFolder, WrongUsage
from xds_server.gateway_api.objects import Key
from xds_server.sources.gateway_folder import FolderReader
from xds_server.sources.git_address import is_git
from xds_server.sources.source import SourceState
from xds_server.translate.readable_gateway import ReadableGateway

SIDE = (
    "a folder; a git revision (main, origin/main, v1, 3f2a91c, HEAD~2), of which --folder is taken; REVISION:FOLDER; an "
    "address of git; or k8s: or k8s:CONTEXT for what a cluster has now"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "gateways",
        nargs="+",
        metavar="GATEWAY",
        help=f"the old one and the new one, with --server only the new one; each {SIDE}",
    )
    parser.add_argument(
        "--folder", default=".", metavar="DIR", help="folder of the gateway, for a revision without a folder"
    )
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="compare with what is served: the admin address of `xds run`, such as http://127.0.0.1:19000",
    )
    parser.add_argument(
        "--resources", action="store_true", help="name the resources of Envoy that change, too"
    )
    flags.add_gateway(parser)
    parser.add_argument(
        "--exit-code",
        action="store_true",
        help="exit with 1 if anything changes, and with 2 or 3 if the comparison fails",
    )
    flags.add_output(parser, forms=(*flags.FORMS, "markdown"))


def run(arguments: argparse.Namespace) -> int:
    """Print the changes. Raises InvalidGateway, UnreadableFolder, EnvironmentFailed, WrongUsage."""
    try:
        return _compare(arguments)
    except (InvalidGateway, UnreadableFolder) as error:
        if arguments.exit_code:
            error.exit_code = WrongUsage.exit_code  # 1 means that something changes
        raise


def _compare(arguments: argparse.Namespace) -> int:
    from xds_server.translate import diff_report

    sides: list[str] = arguments.gateways
    wanted = 1 if arguments.server is not None else 2
    if len(sides) != wanted:
        what = "one gateway beside --server" if wanted == 1 else "two gateways, or one and --server"
        raise WrongUsage(f"xds diff compares {what}")
    found = [readable(side, arguments.folder, arguments.gateway) for side in sides]
    if arguments.server is not None:
        found.insert(0, _served(arguments.server))
    report = diff_report.Report.of(found[0], found[1])
    if arguments.output in ("text", "markdown"):
        form = diff_report.as_text if arguments.output == "text" else diff_report.as_markdown
        for line in form(report, resources=arguments.resources):
            print(line)
    else:
        output.data(diff_report.as_json(report), arguments.output)
    return int(arguments.exit_code and bool(report))


def readable(side: str, folder: str, gateway: Key | None) -> ReadableGateway:
    """Return one side of a comparison. Raises InvalidGateway, UnreadableFolder."""
    compiled = Compiler().compile(_state(side, folder, gateway))
    return ReadableGateway.of(compiled.gateway, compiled.snapshot)


def _state(side: str, folder: str, gateway: Key | None) -> SourceState:
    if side.startswith(gateways.CLUSTER) or is_git(side) or Path(side).is_dir():
        return gateways.read(side, gateway)
    from xds_server.sources.git_revision import RevisionReader

    revision, colon, within = side.partition(":")
    here = within in ("", ".") or within.startswith("./")
    try:
        if not colon:
            reader, found = RevisionReader(Path(folder)), None
        else:  # as in git: a path counts from the top of the repository, unless it begins with a dot
            reader, found = RevisionReader(Path(within if here else ".")), None if here else within
        atexit.register(reader.close)  # files of the commit may be read until the command ends
        return FolderReader(gateway).state(reader.read(revision, found))
    except UnreadableFolder as error:
        raise UnreadableFolder(f"{side} is neither a folder nor a git revision: {error}") from None


def _served(address: str) -> ReadableGateway:
    value = page(address, "/gateway", flag="--server")
    try:
        return ReadableGateway.from_json(value)
    except ValueError:
        reason = value.get("error") if isinstance(value, dict) else None
        raise EnvironmentFailed(
            f"--server: {address}: {reason or 'this is no control plane with /gateway'}"
        ) from None
