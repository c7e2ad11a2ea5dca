"""protoc, from grpcio-tools, in a process of its own: .proto files to a descriptor set."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf import descriptor_pb2

from filters.grpc_transcoding.descriptors import well_known
from filters.grpc_transcoding.sources import ProtoErrors, ProtoFault

LONGEST = 60.0
"""Seconds after which a compilation is given up."""
_KEPT = 64
"""The number of results that are kept."""
_FAULT = re.compile(r"(?P<file>[^:\n]+\.proto)(?::(?P<line>\d+):(?P<column>\d+))?: (?P<message>.*)")
_WARNING = re.compile(r"(?:warning|note): ", re.IGNORECASE)


class ProtoCompiler:
    """Compiles .proto files. The same content is compiled once, and the result of an error is kept too."""

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[str, bytes], ...], bytes | ProtoErrors] = {}

    def __call__(self, files: Mapping[str, bytes]) -> bytes:
        """Return the serialized descriptor set of the first file and its imports. Raises ProtoErrors.

        `files` are contents by the name with which other files import them.
        """
        key = tuple(files.items())
        result = self._kept.pop(key, None)
        if result is None:
            result = _compile(files)
        self._kept[key] = result
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        if isinstance(result, ProtoErrors):
            raise result
        return result


def _compile(files: Mapping[str, bytes]) -> bytes | ProtoErrors:
    first = next(iter(files))
    if first.startswith(("..", "/")):
        return ProtoErrors((ProtoFault(first, 1, 1, "the file is not in the folder of its imports"),))
    with TemporaryDirectory(prefix="xds-protos-") as folder:
        root, known, result = Path(folder, "files"), Path(folder, "known.pb"), Path(folder, "result.pb")
        for name, content in files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        known.write_bytes(_known())
        arguments = [
            f"--descriptor_set_in={known}",
            f"--proto_path={root}",
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={result}",
            str(root / first),
        ]
        command = [sys.executable, "-P", "-m", "grpc_tools.protoc", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return ProtoErrors((ProtoFault(first, 1, 1, f"not compiled within {LONGEST:.0f} seconds"),))
        if done.returncode == 0:
            return result.read_bytes()
    return ProtoErrors(_faults(done.stderr.replace(f"{folder}/files/", ""), files))


@cache
def _known() -> bytes:
    return descriptor_pb2.FileDescriptorSet(file=well_known().values()).SerializeToString()


def _faults(text: str, files: Mapping[str, bytes]) -> tuple[ProtoFault, ...]:
    """Return the errors in the output of protoc; its last line if it has another form.

    It reports a file that does not exist twice: once for itself, and once where it is imported.
    """
    found: list[ProtoFault] = []
    for line in text.splitlines():
        match = _FAULT.fullmatch(line)
        if match and match["file"] in files and not _WARNING.match(match["message"]):
            fault = ProtoFault(
                match["file"], int(match["line"] or 1), int(match["column"] or 1), match["message"]
            )
            if fault not in found:
                found.append(fault)
    if not found:
        message = (text.strip().splitlines() or ["protoc failed without a message"])[-1]
        found.append(ProtoFault(next(iter(files)), 1, 1, message))
    return tuple(found)
