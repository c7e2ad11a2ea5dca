"""xds import: a gateway that was written for something else, as a folder of the gateway language."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from xds_server.cli import flags, gateways, output
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import UnreadableFolder, WrongUsage
from xds_server.sources.gateway_folder import ManifestState

_KINDS = ("kubernetes",)
_WIDTH = 110
_SECRET = 0o600


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("kind", choices=_KINDS, help="what is imported: objects of Kubernetes")
    flags.add_folder(parser, live=True)
    parser.add_argument(
        "-o",
        "--to",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write, which must be new or empty",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, and print what has no equal. Returns 1 if there is such. Raises InvalidGateway, UnreadableFolder, WrongUsage."""
    folder: Path = arguments.to
    state = gateways.read(arguments.folder, arguments.gateway)
    if not isinstance(state, ManifestState):
        raise WrongUsage(f"{arguments.folder} has no objects of Kubernetes")
    compiled = Compiler().compile(state)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WrongUsage(f"--to: {folder} exists and is not empty; name a new folder")
    for name in (*state.files, *state.contents):
        if ".." in name.split("/") or name.startswith("/"):
            raise WrongUsage(f"an object has the name '{name}', which leads out of --to; rename it")
    try:
        _write(folder, state)
    except OSError as error:
        raise UnreadableFolder(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    if compiled.warnings:
        output.problems(compiled.warnings)
    print(f"wrote {output.counted(len(state.files), 'file')} to {folder}", file=sys.stderr)
    return int(bool(compiled.warnings))


def _write(folder: Path, state: ManifestState) -> None:
    for name, content in _files(state.files):
        _put(folder / name, content)
    for name, content in state.contents.items():
        _put(folder / name, content, _SECRET)


def _put(file: Path, content: bytes, mode: int | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if mode is not None:
        file.touch(mode)
    file.write_bytes(content)


def _files(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the files as a person would write them, with names without folders, because some folders are left out."""
    for name, content in files.items():
        try:
            values = json.loads(content)
        except ValueError:  # somebody wrote it in a ConfigMap
            text = content
        else:
            text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=_WIDTH).encode()
        yield name.replace("/", "."), text
