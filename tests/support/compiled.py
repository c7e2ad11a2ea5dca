"""A gateway folder in a real Envoy, without a control plane: compiled into one static bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import json_format

from tests.support.envoy import Envoy
from xds_server.app import Compiler
from xds_server.sources.folder import read_folder
from xds_server.translate.static import bootstrap


@contextmanager
def compiled(folder: Path, files: Mapping[str, str | bytes], *arguments: str) -> Iterator[Envoy]:
    """Write `files` into `folder`, compile them, and run Envoy with the result."""
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    snapshot = Compiler({}).compile(read_folder(folder)).snapshot
    static = json_format.MessageToDict(bootstrap(snapshot), preserving_proto_field_name=True)
    with Envoy(static, folder, *arguments) as envoy:
        envoy.ready()
        yield envoy
