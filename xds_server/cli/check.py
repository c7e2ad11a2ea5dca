"""xds check: all errors and warnings of a gateway; with --envoy the real Envoy checks the result too."""

from __future__ import annotations

import argparse

from xds_server.cli import output
from xds_server.compiler import Compiler
from xds_server.errors import EnvironmentFailed
from xds_server.sources.folder import read_folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("folder", help="the gateway's folder")
    parser.add_argument("--envoy", action="store_true", help="have the bundled Envoy validate the result")
    output.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit with 0 when the gateway can be served. Raises InvalidGateway, UnreadableFolder, EnvironmentFailed."""
    compiled = Compiler().compile(read_folder(arguments.folder))
    complaint = _validate(compiled.snapshot) if arguments.envoy else None
    if arguments.output == "json":
        found = [output.problem_fields(one) for one in compiled.warnings]
        output.as_json({"problems": found, "envoy": complaint})
    else:
        if compiled.warnings:
            output.problems(compiled.warnings)
        if complaint is not None:
            print(f"Envoy refuses the result:\n{complaint}")
        else:
            routes = output.counted(len(compiled.gateway.sections.routes), "route")
            upstreams = output.counted(len(compiled.gateway.sections.upstreams), "upstream")
            print(f"{arguments.folder}: fine ({routes}, {upstreams})")
    return 0 if complaint is None else 1


def _validate(snapshot: object) -> str | None:
    from xds_server.proxy.validate import NoEnvoy, complaint
    from xds_server.translate.static import bootstrap

    try:
        return complaint(bootstrap(snapshot))  # type: ignore[arg-type] # imported late for the quick path
    except NoEnvoy as error:
        raise EnvironmentFailed(str(error)) from None
