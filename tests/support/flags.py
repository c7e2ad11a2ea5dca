"""The flags of the command, as its help shows them."""

from __future__ import annotations

import argparse

from xds_server.cli.main import parser


def shown(command: str) -> dict[str, argparse.Action]:
    """The flags that the help shows."""
    commands = next(one for one in parser(command)._actions if isinstance(one.choices, dict))
    assert isinstance(commands.choices, dict)
    actions = commands.choices[command]._actions
    return {name: one for one in actions if one.help != argparse.SUPPRESS for name in one.option_strings}
