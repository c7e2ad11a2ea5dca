"""Flags that several commands share: one word means the same in each, and its former spelling still works."""

from __future__ import annotations

import argparse
from typing import Any

FORMS = ("text", "json", "yaml")
"""Forms of --output: for people, and the same data twice for programs."""
XDS, ADMIN = "127.0.0.1:18000", "127.0.0.1:19000"
"""Default addresses of a control plane: of its xDS server, and of its admin server."""


class Help(argparse.HelpFormatter):
    """The help of a command, with the default of each argument that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        value = default(action)
        return f"{action.help} (default: {value})" if value and action.help else action.help


def default(action: argparse.Action) -> str:
    """What an argument is if it is left out, as a person writes it; empty where its help says it or nothing is to say."""
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
    """Add --output. Every command takes the words of FORMS; one that prints only data has no form `text`."""
    parser.add_argument(
        "--output",
        choices=forms,
        default=default,
        help="form of the output; JSON and YAML contain the same data",
    )


def add_node(parser: argparse.ArgumentParser, node: str, what: str) -> None:
    """Add --node-id and --node-cluster, with which a client of an xDS server introduces itself."""
    parser.add_argument("--node-id", metavar="NAME", default=node, help=f"name of {what}; each needs its own")
    parser.add_argument(
        "--node-cluster", metavar="NAME", default="gateway", help="group of Envoys that it belongs to"
    )


def positive(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, 1, None)


def port(text: str) -> int:
    """A TCP port, or 0."""
    return _whole(text, 0, 65_535)


def seconds(text: str) -> float:
    """A number of seconds, at most a day."""
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
