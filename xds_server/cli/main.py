"""The command `xds`, with one module per command, which is imported only for its own command."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence
from keyword import iskeyword

from xds_server.cli.flags import Help
from xds_server.errors import EnvironmentFailed, InvalidGateway, XdsError

COMMANDS: dict[str, str] = {
    "run": "serve a folder on one machine: a control plane and an Envoy, which follow every change",
    "check": "report all errors and warnings of a gateway",
    "test": "run the gateway's own tests through a real Envoy with stub upstreams",
    "ci": "check a gateway in a pipeline: errors, the verdict of a real Envoy, its own tests and what changes, in one report",
    "compile": "print the Envoy resources of a gateway",
    "explain": "show which route handles a request, and why",
    "why": "show what a route of Kubernetes does at its Gateways, and why a part of it has no effect",
    "import": "write a gateway of Kubernetes as a folder of the gateway language",
    "export": "write a gateway as configuration of something else",
    "diff": "show what changes between two gateways",
    "rollout": "show or steer the rollout of a new version",
    "status": "show every connected Envoy, and what it acknowledged or rejected",
    "rollback": "serve the commit that was served before, or another one, until told otherwise",
    "pin": "serve one commit of a gateway in git until told otherwise",
    "watch": "connect to any xDS server as a client, and print its responses",
    "composer": "answer routes with several calls to upstreams; a control plane sends the rules",
    "policy-server": "run the services that decide what Envoy cannot; a control plane sends them their rules",
    "controller": "serve the Gateways of a Kubernetes cluster",
    "redirect": "redirect the connections of a pod to its sidecar, as an init container",
    "cache": "purge stored responses",
    "limits": "show or reset the counters of rate limits, quotas and concurrency limits",
    "usage": "report the requests of consumers, plans and routes by hour or day",
    "portal": "serve the developer portal, or manage its users, products, subscriptions and keys",
    "usage-server": "take an entry for each request from Envoys, and count requests in a database",
    "bootstrap": "print a bootstrap for an Envoy that runs elsewhere",
    "descriptors": "write the descriptor set of a running gRPC server, for `grpc_transcoding`",
    "schema": "print the JSON Schema of the gateway language",
    "completion": "print what a shell needs to complete commands and flags",
    "version": "print the versions of this command, of Envoy and of the main libraries",
}
"""Each command is a module of this package (with underscores), with `arguments(parser)` and `run(arguments)`."""


def parser(*names: str) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of the commands `names`."""
    result = argparse.ArgumentParser(prog="xds", description="An API gateway as a folder of YAML, on Envoy.")
    commands = result.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        subparser = commands.add_parser(command, help=summary, description=summary, formatter_class=Help)
        if command in names:
            _module(command).arguments(subparser)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 fine, 1 the input is wrong, 2 wrong usage, 3 the environment failed."""
    words = sys.argv[1:] if argv is None else list(argv)
    words = ["version"] if words == ["--version"] else words
    name = next((word for word in words if not word.startswith("-")), "")
    arguments = parser(name).parse_args(words)
    try:
        return _run(arguments)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"xds: {error.strerror}", file=sys.stderr)
        return EnvironmentFailed.exit_code
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    try:
        code = int(_module(arguments.command).run(arguments))
    except InvalidGateway as error:
        from xds_server.cli import output

        output.problems(error.problems, getattr(arguments, "output", "text"))
        code = error.exit_code
    except XdsError as error:
        print(f"xds: {error}", file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    return code


def _module(command: str):  # type: ignore[no-untyped-def] # a module of this package
    name = command.replace("-", "_")
    return importlib.import_module(f"xds_server.cli.{f'{name}_' if iskeyword(name) else name}")
