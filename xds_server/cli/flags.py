"""Flags that several commands share. A flag has one meaning in all commands, and its former spelling still works."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

FORMS = ("text", "json", "yaml")
"""Forms of --output: one for people, and two with the same data for programs."""
XDS, ADMIN = "127.0.0.1:18000", "127.0.0.1:19000"
"""Default addresses of a control plane: of its xDS server, and of its admin server."""


class Help(argparse.HelpFormatter):
    """The help of a command, with the default of each argument that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        value = default(action)
        return f"{action.help} (default: {value})" if value and action.help else action.help


def default(action: argparse.Action) -> str:
    """Return the default of an argument as a user would write it.

    It is "" if the help text contains the default, or if there is nothing to print.
    """
    if isinstance(action, argparse.BooleanOptionalAction):
        value = action.default
        return "" if value is None else action.option_strings[0 if value else 1]
    if (
        action.default in (None, argparse.SUPPRESS, "")
        or action.nargs == 0
        or isinstance(action.default, list)
    ):
        return ""
    return f"{action.default:g}" if isinstance(action.default, float) else str(action.default)


def add_renamed(parser: argparse.ArgumentParser, flag: str, former: str, **options: Any) -> None:
    """Add a flag, and its former spelling, which no help shows."""
    action = parser.add_argument(flag, **options)
    hidden = {"dest": action.dest, "help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    parser.add_argument(former, **{**options, **hidden})


def add_output(
    parser: argparse.ArgumentParser, *, forms: tuple[str, ...] = FORMS, default: str = "text"
) -> None:
    """Add --output. Every command accepts the words of FORMS; a command that prints only data has no form `text`."""
    parser.add_argument(
        "--output",
        choices=forms,
        default=default,
        help="form of the output; JSON and YAML contain the same data",
    )


def add_node(parser: argparse.ArgumentParser, node: str, what: str) -> None:
    """Add --node-id and --node-cluster, which a client sends to an xDS server."""
    parser.add_argument("--node-id", metavar="NAME", default=node, help=f"name of {what}; each needs its own")
    parser.add_argument(
        "--node-cluster", metavar="NAME", default="gateway", help="group of Envoys that it belongs to"
    )


def add_folder(
    parser: argparse.ArgumentParser, *, live: bool = False, git: bool = False, optional: bool = False
) -> None:
    """Add the folder of a gateway, and --gateway. With `git`, a commit may stand in its place, and with `live` a cluster too."""
    or_cluster = "; k8s: or k8s:CONTEXT for what a cluster has now" if live else ""
    or_git = (
        "; git+https://HOST/REPOSITORY.git//FOLDER?ref=BRANCH (also ssh and file) for a commit"
        if live or git
        else ""
    )
    parser.add_argument(
        "folder",
        nargs="?" if optional else None,
        help=f"folder of the gateway's YAML files, or of Kubernetes manifests{or_git}{or_cluster}",
    )
    add_gateway(parser)


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """Add --gateway, which chooses one of several Gateways of a folder of manifests."""
    parser.add_argument(
        "--gateway",
        type=gateway,
        metavar="NAMESPACE/NAME",
        help="manifests: the Gateway to take (@ingress/CLASS for the Ingresses of a class); needed if there are several",
    )


def gateway(text: str) -> tuple[str, str]:
    """Return the namespace and the name of a Gateway. Raises ArgumentTypeError."""
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAMESPACE/NAME")
    return namespace, name


def positive(text: str) -> int:
    """Return a whole number from 1. Raises ArgumentTypeError."""
    return _whole(text, 1, None)


def port(text: str) -> int:
    """Return a TCP port, or 0. Raises ArgumentTypeError."""
    return _whole(text, 0, 65_535)


def seconds(text: str) -> float:
    """Return a number of seconds, at most a day. Raises ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 86_400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 0 to 86400")
    return number


def _whole(text: str, least: int, most: int | None) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if number < least or (most is not None and number > most):
        to = "" if most is None else f" to {most}"
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least}{to}")
    return number


USAGE_STORE = "sqlite:///xds-usage.db"
"""The default store of usage: a file in the working directory."""


def add_usage_store(parser: argparse.ArgumentParser, store: str, spool: str | None = None) -> None:
    """Add the flags for the URL of the usage store and for the folder of the spool."""
    parser.add_argument(
        store,
        metavar="URL",
        default=USAGE_STORE,
        help="database of the counts: sqlite:///FILE (with four slashes for an absolute path) or "
        "postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    if spool is not None:
        parser.add_argument(
            spool,
            type=Path,
            metavar="FOLDER",
            default=Path("xds-usage.spool"),
            help="folder for entries that are not in the database yet; each usage server needs its own",
        )


def size(text: str) -> int:
    """Return a number of bytes, such as 500MB or 2GiB. Raises ArgumentTypeError."""
    from filters.language import scalars

    try:
        return scalars.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}': {error}") from None
