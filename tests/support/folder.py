"""Gateways as folders: their YAML written from text with places to fill, and compiled."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import MappingProxyType

from tests.support.trees import shape
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.snapshot import Snapshot
from xds_server.sources.folder import Folder, read_folder
from xds_server.translate.clusters import INTERNAL_SERVICES

Files = Mapping[str, str | bytes]
"""Contents of more files of a folder, by their path in it."""


def filled(text: str, **values: object) -> str:
    """YAML in which ``$name`` or ``${name}`` stands for the value of that name, and ``$$`` for a dollar sign.

    Unlike an f-string it leaves braces, which are everywhere in YAML, as they are. Raises KeyError if a value is
    missing.
    """
    return Template(text).substitute(values)


def write(folder: Path, files: Files | None = None, **yaml: str) -> Path:
    """Write YAML files, named without their ending, and other files into `folder`. Returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files or {}).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    for name, text in yaml.items():
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    return folder


NO_SERVICES: Mapping[str, str] = MappingProxyType({})


def compiled(folder: Path, services: Mapping[str, str] = NO_SERVICES) -> Compiled:
    """The gateway of a folder. `services` are addresses of our own services by name. Raises InvalidGateway."""
    addresses = {**INTERNAL_SERVICES, **services}
    return Compiler(internal_services=addresses, shape=shape()).compile(read_folder(folder))


def snapshot(text: str, root: Path = Path()) -> Snapshot:
    """The Envoy resources of a gateway in one file; it refers to files below `root`. Raises InvalidGateway."""
    return (
        Compiler({}, shape=shape())
        .compile(Folder(root, MappingProxyType({"gateway.yaml": text.encode()})))
        .snapshot
    )
