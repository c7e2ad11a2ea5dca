"""The folder that a command writes: new or empty, so that nothing is overwritten."""

from __future__ import annotations

import argparse
from pathlib import Path

from xds_server.errors import WrongUsage


def add(parser: argparse.ArgumentParser) -> None:
    """Add the argument --to."""
    parser.add_argument(
        "-o",
        "--to",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write, which must be new or empty",
    )


def checked(arguments: argparse.Namespace) -> Path:
    """Return the folder. Raises WrongUsage if something is in it."""
    folder: Path = arguments.to
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WrongUsage(f"--to: {folder} exists and is not empty; name a new folder")
    return folder
