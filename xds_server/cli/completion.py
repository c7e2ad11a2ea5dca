"""xds completion: prints what a shell needs to complete the commands, flags and files of `xds`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "tcsh")
_FILES = ("FILE", "PATH", "source")
_FOLDERS = ("FOLDER", "DIR", "GATEWAY", "folder")
"""Names of arguments, as help shows them, that are files or folders."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from xds_server.cli.main import COMMANDS, parser

    whole = parser(*COMMANDS)
    for action in _actions(whole):
        name = action.metavar or action.dest
        if name in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined] # where shtab looks for it
        elif name in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined] # as above
    print(shtab.complete(whole, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way through a parser
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for one in action.choices.values():
                yield from _actions(one)
        else:
            yield action
