"""The command `xds`: one module per command, imported only when it is the one that was called."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence

from xds_server.errors import EnvironmentFailed, InvalidGateway, XdsError

COMMANDS: dict[str, str] = {
    "run": "everything for one machine: control plane and a supervised Envoy, reloaded on change",
    "check": "all errors and warnings of a gateway",
    "compile": "the Envoy resources of a gateway",
    "explain": "which route a request takes, and why",
    "diff": "what changes between two gateways",
    "status": "every connected Envoy, and what it acknowledged or rejected",
    "watch": "a client to any xDS server, that shows what it is sent",
    "policy-server": "the services that decide what Envoy cannot, fed by a control plane",
    "limits": "the counters of limits: what is used and left, and how to reset them",
    "bootstrap": "the bootstrap for an Envoy that someone else runs",
    "schema": "the JSON Schema of the language",
    "version": "the versions of this command and of the bundled Envoy",
}
"""Each is the module of the same name (with underscores) in this package, with `arguments(parser)` and `run(arguments)`."""


def parser(name: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command `name`."""
    result = argparse.ArgumentParser(prog="xds", description="An API gateway as a folder of YAML, on Envoy.")
    commands = result.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        one = commands.add_parser(command, help=summary, description=summary)
        if command == name:
            _module(command).arguments(one)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 fine, 1 the input is wrong, 2 wrong usage, 3 the environment failed."""
    words = sys.argv[1:] if argv is None else list(argv)
    name = next((word for word in words if not word.startswith("-")), None)
    arguments = parser(name).parse_args(words)
    try:
        code = int(_module(arguments.command).run(arguments))
        sys.stdout.flush()
        return code
    except InvalidGateway as error:
        from xds_server.cli import output

        output.problems(error.problems, getattr(arguments, "output", "text"))
        return error.exit_code
    except XdsError as error:
        print(f"xds: {error}", file=sys.stderr)
        return error.exit_code
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


def _module(command: str):  # type: ignore[no-untyped-def] # a module of this package
    return importlib.import_module(f"xds_server.cli.{command.replace('-', '_')}")
