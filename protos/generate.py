"""Compile our own contracts, and write type stubs for the Envoy messages of xds-protos.

``python -m protos.generate ours`` rewrites ``protos/*_pb2.py`` and their stubs from ``protos/*.proto``;
``python -m protos.generate stubs`` writes ``.stubs/``, where mypy finds the fields of every Envoy message,
so that a misspelt field is a type error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / ".stubs"
PACKAGES = ("envoy/", "xds/", "udpa/", "validate/", "cel/")


def _protoc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], cwd=ROOT, check=True)  # noqa: S603


def ours(out: Path = ROOT) -> None:
    """Compile every contract of protos/ to Python and stubs below `out`."""
    sources = sorted(str(path.relative_to(ROOT)) for path in PROTOS.glob("*.proto"))
    if sources:
        _protoc(f"-I{ROOT}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", *sources)


def _collect(file: FileDescriptor, found: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    if file.name in found:
        return
    for dependency in file.dependencies:
        _collect(dependency, found)
    message = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(message)
    found[file.name] = message


def stubs() -> None:
    """Write a stub for every message module that xds-protos installed."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    wanted: set[str] = set()
    files = importlib.metadata.distribution("xds-protos").files or []
    paths = sorted(str(file) for file in files if str(file).endswith("_pb2.py"))
    for path in (path for path in paths if path.startswith(PACKAGES)):
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        _collect(module.DESCRIPTOR, found)
        wanted.add(module.DESCRIPTOR.name)
    STUBS.mkdir(exist_ok=True)
    descriptors = STUBS / "descriptors.binpb"
    descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=found.values()).SerializeToString())
    _protoc(f"--descriptor_set_in={descriptors}", f"--pyi_out={STUBS}", *sorted(wanted))


if __name__ == "__main__":
    {"ours": ours, "stubs": stubs}[sys.argv[1]]()
