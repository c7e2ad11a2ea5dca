"""xds redirect: redirect the connections of a pod to its sidecar, as an init container does."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from xds_server.errors import EnvironmentFailed
from xds_server.sidecar.redirect import Redirect

_IPV6 = Path("/proc/sys/net/ipv6")
"""It does not exist on a machine without IPv6."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    add("--uid", type=int, metavar="UID", required=True, help="user of the sidecar, which is not redirected")
    for direction in ("inbound", "outbound"):
        add(
            f"--exclude-{direction}",
            type=int,
            metavar="PORT",
            action="append",
            default=[],
            help=f"port whose {direction} connections are not redirected; may be given several times",
        )
    add("--print", action="store_true", help="print the rules of nftables, and change nothing")


def run(arguments: argparse.Namespace) -> int:
    """Write the rules into the network namespace of this process. Raises EnvironmentFailed."""
    rules = Redirect(
        uid=arguments.uid,
        exclude_inbound=tuple(arguments.exclude_inbound),
        exclude_outbound=tuple(arguments.exclude_outbound),
        ipv6=_IPV6.exists(),
    ).rules()
    if arguments.print:
        print(rules, end="")
        return 0
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],  # noqa: S607 - wherever the image has it
            input=rules,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise EnvironmentFailed(f"nft cannot be started: {error}; install nftables") from None
    if done.returncode:
        raise EnvironmentFailed(
            f"nft rejects the rules: {done.stderr.strip()}; the container needs the capability NET_ADMIN"
        )
    return 0
