"""xds import: a gateway that was written for something else, as a folder of the gateway language."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from filters.language import Problem
from xds_server.cli import flags, gateways, new_folder, output
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import EnvironmentFailed, InvalidGateway, UnreadableFolder, WrongUsage
from xds_server.gateway_api.objects import Key
from xds_server.imports.coverage import table
from xds_server.imports.kinds import FILE, KINDS, NGINX, import_files
from xds_server.sources.folder import Folder, read_folder
from xds_server.sources.gateway_folder import FolderReader, read_gateway
from xds_server.sources.git_address import is_git
from xds_server.sources.manifest_folder import ManifestState
from xds_server.sources.source import SourceState

_KUBERNETES = "kubernetes"
_WIDTH = 110
_SECRET = 0o600


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    kinds = {_KUBERNETES: "objects of Kubernetes", **{name: what for name, (what, _) in KINDS.items()}}
    parser.add_argument(
        "kind",
        choices=tuple(kinds),
        help="what is imported: " + "; ".join(f"{name}: {what}" for name, what in kinds.items()),
    )
    parser.add_argument(
        "source",
        nargs="+",
        help="files, read as one. kubernetes: files or a folder of manifests, an address in git, or k8s: or k8s:CONTEXT for what a cluster has",
    )
    flags.add_gateway(parser)
    parser.add_argument(
        "--coverage",
        action="store_true",
        help="print how many values of each section of the source were imported; not for kubernetes, which xds why explains",
    )
    new_folder.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, and print what has no equal.

    Returns 1 if something of Kubernetes has none, if a rule of security of anything else has none, or if the new gateway has errors.
    Raises InvalidGateway, UnreadableFolder, WrongUsage.
    """
    folder = new_folder.checked(arguments)
    if arguments.kind == _KUBERNETES:
        return _kubernetes(arguments, folder)
    read = _parsed if arguments.kind == NGINX else _content
    imported = import_files(arguments.kind, dict(map(read, arguments.source)))
    if not imported.files:
        raise InvalidGateway(imported.problems)
    try:
        for name, content in imported.files.items():
            _put(folder / name, content, None if name == FILE else _SECRET)
    except OSError as error:
        raise UnreadableFolder(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    problems = (*imported.problems, *{str(one): one for one in _checked(folder)}.values())
    if problems:
        output.problems(problems)
    if arguments.coverage:
        print(table(imported.coverage))
    print(f"wrote {output.counted(len(imported.files), 'file')} to {folder}", file=sys.stderr)
    return int(any(one.severity == "error" for one in problems))


def _content(name: str) -> tuple[str, bytes]:
    try:
        return name, Path(name).read_bytes()
    except OSError as error:
        raise UnreadableFolder(f"{name} cannot be read: {error.strerror}") from None


def _parsed(name: str) -> tuple[str, bytes]:
    """Return a configuration of nginx as crossplane parses it, as JSON."""
    _content(name)
    try:
        import crossplane
    except ImportError:
        raise EnvironmentFailed("import nginx needs crossplane: pip install 'xds-gateway[nginx]'") from None
    try:
        payload = crossplane.parse(name, combine=True, comments=False)
    except RecursionError:
        raise UnreadableFolder(
            f"{name} includes itself, or its blocks are too deep; correct it, see nginx -t"
        ) from None
    return name, json.dumps(payload).encode()


def _checked(folder: Path) -> tuple[Problem, ...]:
    """Return the problems of the new gateway."""
    try:
        return Compiler().compile(read_gateway(folder)).warnings
    except InvalidGateway as error:
        return error.problems


def _kubernetes(arguments: argparse.Namespace, folder: Path) -> int:
    state = _manifests(arguments.source, arguments.gateway)
    if not isinstance(state, ManifestState):
        if state.problems:
            raise UnreadableFolder("; ".join(state.problems))
        raise UnreadableFolder(f"{', '.join(arguments.source)} has no objects of Kubernetes")
    compiled = Compiler().compile(state)
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


def _manifests(sources: Sequence[str], gateway: Key | None) -> SourceState:
    """Return the gateway of a folder, of files, or of a cluster. Whoever imports files has those of another controller."""
    reader = FolderReader(gateway, every_class=True)
    if all(Path(one).is_file() for one in sources):
        return reader.state(Folder(root=Path(), files=dict(map(_content, sources))))
    if len(sources) > 1:
        raise WrongUsage("kubernetes: name files, or one folder, which has all manifests")
    if sources[0].startswith(gateways.CLUSTER) or is_git(sources[0]):
        return gateways.read(sources[0], gateway)
    return reader.state(read_folder(sources[0]))


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
