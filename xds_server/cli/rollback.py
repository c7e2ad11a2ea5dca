"""xds rollback: has a running control plane serve the commit of before, or another one, until told otherwise."""

from __future__ import annotations

import argparse

from xds_server.cli import admin_address, flags, pin


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "commit",
        nargs="?",
        help="the commit to serve, as for `xds pin`; default: the one that was served before",
    )
    parser.add_argument("--admin", default=flags.ADMIN, metavar="ADDRESS", help=admin_address.HELP)
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pin an earlier commit, and wait until it is served. Raises EnvironmentFailed, WrongUsage, NotServed."""
    from xds_server.git_pages import ROLLBACK

    return pin.change(arguments, ROLLBACK, arguments.commit or "")
