"""Golden files that a person can read: parts that every gateway has stand in files of their own, once.

Where a case has such a part unchanged, its golden file says ``!common FILE/NAME`` instead, or ``!common FILE`` for all
parts of the file in their order. A part that differs in anything stands there in full.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from xds_server.discovery.snapshot import Snapshot
from xds_server.translate.readable import readable

Types = dict[str, dict[str, Any]]
"""Resources as plain values, by the name of their type and by their own."""
SHORT = 4
"""Lines that are not worth a reference."""


class _Reference(str):
    """The name of a common part, which stands for its value."""


class _Dumper(yaml.SafeDumper):
    """Sorted, without anchors, and with texts of several lines as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_Reference, lambda dumper, value: dumper.represent_scalar("!common", str(value)))


def as_types(snapshot: Snapshot) -> Types:
    """A snapshot as plain values; of secrets only the names of their fields."""
    types: Types = {
        type_.name: {key: readable(type_, one) for key, one in snapshot[type_].items()} for type_ in snapshot
    }
    types["secret"] = {key: sorted(value) for key, value in types["secret"].items()}
    types["route"] = _with_methods(types["route"])
    return {name: resources for name, resources in types.items() if resources}


def _with_methods(value: Any) -> Any:
    """The value with the bindings of gRPC methods instead of serialized descriptors, of which nobody reads a change."""
    if isinstance(value, list):
        return [_with_methods(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _methods(one) if key == "proto_descriptor_bin" else _with_methods(one)
        for key, one in value.items()
    }


def _methods(encoded: str) -> list[str]:
    found = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(encoded))
    lines = [file.name for file in found.file]
    for file in found.file:
        for service in file.service:
            for method in service.method:
                rule = " ".join(str(method.options.Extensions[annotations_pb2.http]).split())
                lines.append(f"{file.package}.{service.name}/{method.name} {rule}")
    return lines


def dumped(value: Any, *, sort: bool = True) -> str:
    """YAML for people."""
    return yaml.dump(value, Dumper=_Dumper, width=110, sort_keys=sort, allow_unicode=True)


class Common:
    """The parts of the gateway `types` that other gateways have too."""

    def __init__(self, types: Types) -> None:
        (listener,) = types["listener"].values()
        (routes,) = types["route"].values()
        (cluster,) = types["cluster"].values()
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        mappers = manager["local_reply_config"]["mappers"]
        web = next(one for one in mappers if "and_filter" in one["filter"])
        condition = web["filter"]["and_filter"]["filters"][0]
        self._parts: dict[str, dict[str, Any]] = {
            "grpc_web": {"condition": condition, "body": web["body_format_override"]},
            "extension_configs": types["extension_config"],
            "http_filters": _named((one["name"], one) for one in manager["http_filters"]),
            "local_replies": _named((_reason(one), one) for one in mappers),
            "connection_manager": _long(manager, but=("http_filters", "local_reply_config")),
            "routes": _named((one["name"], one) for one in routes["virtual_hosts"][0]["routes"][:-1]),
            "cluster": _long(cluster),
        }
        self._names: dict[str, str] = {}
        for file, parts in self._parts.items():
            for name, part in parts.items():
                self._names.setdefault(_key(part), f"{file}/{name}")
            self._names.setdefault(_key(list(parts.values())), file)

    def files(self) -> Mapping[str, str]:
        """The contents of the files by their names without an ending. The order of filters and of replies counts."""
        return {
            file: dumped(
                {name: self._shortened(file, _sorted(part)) for name, part in parts.items()}, sort=False
            )
            for file, parts in self._parts.items()
        }

    def _shortened(self, file: str, value: Any) -> Any:
        """The value of a file with references to what every reply to gRPC-Web has."""
        if file == "grpc_web" or not isinstance(value, dict | list):
            return value
        for name, part in self._parts["grpc_web"].items():
            if _key(part) == _key(value):
                return _Reference(f"grpc_web/{name}")
        if isinstance(value, dict):
            return {key: self._shortened(file, one) for key, one in value.items()}
        return [self._shortened(file, one) for one in value]

    def referring(self, value: Any) -> Any:
        """The value, with references to common parts wherever it has them."""
        if not isinstance(value, dict | list) or not value:
            return value
        if name := self._names.get(_key(value)):
            return _Reference(name)
        if isinstance(value, dict):
            return {key: self.referring(one) for key, one in value.items()}
        return [self.referring(one) for one in value]


def _named(parts: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """By name, with a number for each further part of a name."""
    found: dict[str, Any] = {}
    for name, part in parts:
        count = sum(one.partition("#")[0] == name for one in found)
        found[f"{name}#{count + 1}" if count else name] = part
    return found


def _reason(mapper: Any) -> str:
    """What a mapper is for: its reason, or the header that it sets. One that sets none leaves answers of filters alone."""
    if "headers_to_add" not in mapper:
        return "unchanged"
    header = mapper["headers_to_add"][0]["header"]
    return header["value"] if re.fullmatch(r"\w+", header["value"]) else header["key"]


def _long(message: Mapping[str, Any], but: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields that are worth a reference."""
    return {
        name: value
        for name, value in sorted(message.items())
        if name not in but and isinstance(value, dict | list) and dumped(value).count("\n") > SHORT
    }


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _sorted(value: Any) -> Any:
    return json.loads(_key(value))
