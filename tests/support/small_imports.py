"""Imports of short configurations: the new gateway, which `xds check` accepts, and what was reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import crossplane
import yaml

from tests.support.certificates import Authority
from xds_server.control_plane.compiler import Compiler
from xds_server.imports.draft import CLOSED
from xds_server.imports.kinds import FILE, NGINX, import_files
from xds_server.sources.manifest_folder import ManifestState

_AUTHORITY = Authority()
_CERTIFICATE = _AUTHORITY.issue("shop.example.com")
FILES = {
    "shop.crt": _CERTIFICATE[0],
    "shop.key": _CERTIFICATE[1],
    "ca.crt": _AUTHORITY.pem,
    "users": b"ann:{SHA}dEy5qfs9VYN0TqPs6bTYGdkL3uI=\n",
}
"""Files that a configuration may name."""


class Small(NamedTuple):
    """What an import wrote, and its errors and warnings by the last key of their place."""

    sections: dict[str, Any]
    errors: list[str]
    warnings: list[str]
    files: dict[str, bytes]

    def route(self, name: str) -> dict[str, Any]:
        """Return a route."""
        found: dict[str, Any] = self.sections["routes"][name]
        return found

    def closed(self, name: str) -> bool:
        """Whether nobody may call a route."""
        route = self.route(name)
        level = {**self.sections.get("policies", {}), **route.get("policies", {})}
        return bool(level.get("ip_access") == CLOSED["ip_access"])


def small(kind: str, *texts: str, folder: Path | None = None) -> Small:
    """Import configurations of a kind. The gateway must be one that `xds check` accepts. nginx needs a folder for its files."""
    files = {f"{number}.conf": text.encode() for number, text in enumerate(texts)}
    if kind == NGINX:
        assert folder is not None
        files = dict(_parsed(folder / name, content) for name, content in files.items())
    found = import_files(kind, files)
    sections = yaml.safe_load(found.files[FILE].replace(b"$${", b"${"))
    state = ManifestState(files={FILE: found.files[FILE]}, contents={**FILES, **found.files})
    Compiler().compile(state)
    texts_of = {
        severity: [f"{one.message} {one.remedy}" for one in found.problems if one.severity == severity]
        for severity in ("error", "warning")
    }
    return Small(sections, texts_of["error"], texts_of["warning"], dict(found.files))


def _parsed(file: Path, content: bytes) -> tuple[str, bytes]:
    file.write_bytes(content)
    return file.name, json.dumps(crossplane.parse(str(file), combine=True, comments=False)).encode()
