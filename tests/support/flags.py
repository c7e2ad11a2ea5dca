"""The flags of the command, as its help shows them."""

from __future__ import annotations

import argparse

from xds_server.cli.main import parser


def shown(command: str) -> dict[str, argparse.Action]:
    """The flags that the help shows."""
    commands = next(one for one in parser(command)._actions if isinstance(one.choices, dict))
    assert isinstance(commands.choices, dict)
    return _flags(commands.choices[command])


def _flags(of: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The flags of a command and of those that it has."""
    shown = [one for one in of._actions if one.help != argparse.SUPPRESS]
    found = {name: one for one in shown for name in one.option_strings}
    for one in shown:
        if isinstance(one, argparse._SubParsersAction):
            for nested in one.choices.values():
                found |= _flags(nested)
    return found
