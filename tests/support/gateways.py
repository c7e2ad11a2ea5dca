"""Gateways from YAML in a test, compiled into snapshots."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from xds_server.app import Compiler
from xds_server.discovery.snapshot import Snapshot
from xds_server.sources.folder import Folder


def snapshot(text: str, root: Path = Path()) -> Snapshot:
    """The Envoy resources of a gateway that is written in one file."""
    folder = Folder(root, MappingProxyType({"gateway.yaml": text.encode()}))
    return Compiler({}).compile(folder).snapshot
