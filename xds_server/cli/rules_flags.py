"""Arguments of the servers that get their rules from a control plane: policy servers and composers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.cli import flags
from xds_server.errors import WrongUsage

if TYPE_CHECKING:
    from xds_server.policy_server.delta_client import Tls


def add_life(parser: argparse.ArgumentParser, role: str, shared: str) -> None:
    """Add --node-id, --workers, --state and --drain. `role` is what the server is, and `shared` what its workers share."""
    add = parser.add_argument
    add("--node-id", metavar="NAME", default="", help=f"name in `xds status`; default: {role}@HOSTNAME")
    add(
        "--workers",
        type=flags.positive,
        metavar="N",
        help=f"processes that share {shared}; default: one for each CPU",
    )
    add(
        "--state",
        type=Path,
        metavar="FILE",
        help="file that keeps the last good rules: used after a start while the control plane is unreachable",
    )
    add(
        "--drain",
        type=flags.seconds,
        metavar="SECONDS",
        default=5.0,
        help="time that open requests get to finish when the command ends",
    )


def tls(arguments: argparse.Namespace, token: Path | None = None) -> Tls | None:
    """Return how the control plane is reached over TLS, None for without. Raises WrongUsage."""
    from xds_server.policy_server.delta_client import Tls

    ca, certificate, key = arguments.ca, arguments.certificate, arguments.private_key
    if (certificate is None) != (key is None) or (certificate is not None and ca is None):
        raise WrongUsage("--certificate needs --private-key and --ca")
    if token is not None and ca is None:
        raise WrongUsage("--token needs --ca: a token is sent over TLS only")
    return None if ca is None else Tls(ca=ca, certificate=certificate, private_key=key, token=token)
