"""The files of grpc_transcoding: .proto files with their imports, and descriptor sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from posixpath import dirname, normpath, relpath
from posixpath import join as joined
from typing import ClassVar

from filters.language import DataSource, Mistake, Shorthand, option

_COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/|(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')", re.DOTALL)
_IMPORT = re.compile(rb"\bimport\s+(?:public\s+|weak\s+)?[\"']([^\"'\n]+)[\"']\s*;")
_PACKAGE = re.compile(rb"\bpackage\s+([A-Za-z_][\w.]*)\s*;")


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorFile(DataSource):
    """A descriptor set, as ``protoc --include_imports --descriptor_set_out`` writes it."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand((str,), "a file")

    @classmethod
    def short(cls, value: str) -> DescriptorFile:
        """The descriptor set of a file."""
        return cls(file=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtoFile(DataSource):
    """A .proto file in the gateway's folder."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str,), "FILE.proto", {"type": "string", "pattern": r"^.+\.proto$"}
    )
    import_path: str | None = option(
        "The folder that imports are relative to. Default: the folder above those that the package names "
        "(protos for package shop.v1 in protos/shop/v1/shop.proto), else the file's own folder.",
        default=None,
    )

    @classmethod
    def short(cls, value: str) -> ProtoFile:
        """The file of this name. Raises Mistake."""
        result = cls(file=value)
        for mistake in result.check():
            raise mistake
        return result

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake unless a .proto file is named."""
        if self.file is None or self.env is not None or self.inline is not None:
            yield Mistake("a .proto file must be in the gateway's folder", "write protos: [shop.proto]")
        elif not self.file.endswith(".proto"):
            remedy = "write protos: [shop.proto], or descriptors: FILE for a descriptor set"
            yield Mistake("not a .proto file", remedy, value=self.file)

    def referenced(self, content: bytes) -> Iterable[ProtoFile]:
        """The files that it imports, in each folder in which they may be."""
        folders = self._folders(content)
        for name in _imports(content):
            for folder in folders:
                yield ProtoFile(file=normpath(joined(folder, name)), import_path=folder)

    def _folders(self, content: bytes) -> tuple[str, ...]:
        """The folders in which to look for imports: that of the imports, then the gateway's."""
        return tuple(dict.fromkeys((self.folder(content), ".")))

    def folder(self, content: bytes) -> str:
        """The folder that the name of this file, as others import it, is relative to."""
        if self.import_path is not None:
            return normpath(self.import_path)
        own = dirname(normpath(self.file or "")) or "."
        found = _PACKAGE.search(_plain(content))
        parts = found[1].decode().split(".") if found else []
        folders = own.split("/")
        if parts and folders[-len(parts) :] == parts:
            return "/".join(folders[: -len(parts)]) or "."
        return own

    @property
    def compiled(self) -> DataSource:
        """The source of the descriptor set that is compiled from this file."""
        return CompiledProto(file=self.file, import_path=self.import_path)

    def sources(self, contents: Mapping[DataSource, bytes]) -> dict[str, tuple[str, bytes]]:
        """The file and all that it imports: their place in the gateway's folder and their content.

        The key is the name by which the compiler knows the file. The first is this file.
        """
        found: dict[str, tuple[str, bytes]] = {}
        waiting = [(relpath(self.file or "", self.folder(contents[self])), self)]
        for name, source in waiting:
            if name in found:
                continue
            content = contents[source]
            found[name] = (source.file or "", content)
            imports = (one for one in source.referenced(content) if one in contents)
            names = ((relpath(one.file or "", one.import_path or "."), one) for one in imports)
            waiting += ((name, one) for name, one in names if not name.startswith(".."))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledProto(DataSource):
    """The descriptor set that is compiled from a .proto file."""

    import_path: str | None = None


def _plain(content: bytes) -> bytes:
    """A .proto file without comments."""
    return _COMMENT.sub(lambda found: found[1] or b" ", content)


def _imports(content: bytes) -> list[str]:
    return [name.decode("utf-8", "replace") for name in _IMPORT.findall(_plain(content))]


@dataclass(frozen=True, slots=True)
class ProtoFault:
    """An error of the compiler: file (as the compiler knows it), line, column (from 1; 0 if unknown), message."""

    file: str
    line: int
    column: int
    message: str


class ProtoErrors(Exception):  # noqa: N818 - carries the user's mistakes, as data
    """The errors of .proto files."""

    def __init__(self, faults: tuple[ProtoFault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
