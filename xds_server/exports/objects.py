"""Objects of Kubernetes as mappings: their names, their metadata and their YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import yaml

GATEWAY_API = "gateway.networking.k8s.io/v1"
_LONGEST = 52
"""Characters of a name, so that suffixes have room in the 63 of a label (RFC 1123)."""
_WIDTH = 110
Manifest = dict[str, Any]


class Names:
    """Names of Kubernetes for names of the gateway, which may have other characters. Different names stay different.

    Names that are `reserved` are given to nothing.
    """

    def __init__(self, *reserved: str) -> None:
        self._known = {f"reserved {one}": one for one in reserved}

    def of(self, name: str) -> str:
        """Return the name of an object, a DNS label (RFC 1123)."""
        if name not in self._known:
            plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST].rstrip("-")
            plain = plain if plain[:1].isalpha() else f"x-{plain}".rstrip("-")
            found, number = plain, 2
            while found in self._known.values():
                found, number = f"{plain}-{number}", number + 1
            self._known[name] = found
        return self._known[name]


def manifest(api: str, kind: str, name: str, namespace: str, **more: Any) -> Manifest:
    """Return an object."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **more}


def duration(value: timedelta) -> str:
    """Return a duration as the Gateway API writes it (GEP-2257): digits with h, m, s and ms."""
    left, parts = value // timedelta(milliseconds=1), []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        while count:  # at most five digits for each unit
            parts.append(f"{min(count, 99_999)}{unit}")
            count -= min(count, 99_999)
    return "".join(parts) or "0s"


def as_yaml(objects: Iterable[Mapping[str, Any]]) -> bytes:
    """Return objects as documents of one file."""
    text = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return text.encode()


class _Plain(yaml.SafeDumper):
    """Writes a value that is used twice as often, without an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
